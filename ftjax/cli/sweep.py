"""How many top layers should I unfreeze? Trains at many depths and says."""

from experiments.sweep import main

__all__ = ["main"]
