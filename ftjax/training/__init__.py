"""Training the suffix above a cut."""
