"""Least squares, distributions, probes; pure NumPy."""
