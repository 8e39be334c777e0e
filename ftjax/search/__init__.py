"""Searches over depths."""
