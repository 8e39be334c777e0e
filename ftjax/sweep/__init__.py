"""Plans, runs and their records."""
