"""What a table of depth trials says: fits, recommendation, explanation, report."""
