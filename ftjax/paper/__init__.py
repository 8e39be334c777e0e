"""The depth paper's numbers, and their audit."""
