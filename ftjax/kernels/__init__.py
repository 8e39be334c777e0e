"""Layers in the forms that are fast on a CPU."""
