"""The frozen part: passed once, kept, proven unchanged."""
