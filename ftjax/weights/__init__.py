"""Weight files: where they come from (`fetch`) and what is in them (`readers`)."""
