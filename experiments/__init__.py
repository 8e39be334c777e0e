"""Commands; one file per question."""
