"""A sweep that is prepared in a second: random weights, digits."""

from pathlib import Path

from ftjax.config import Config
from ftjax.defaults import complete
from ftjax.sweep.prepare import Sweep, prepare


def tiny_sweep(out: Path, **options) -> Sweep:
    """One epoch of `tiny`, unless the options say otherwise."""
    usual = {"image_size": 32, "train_size": 64, "val_size": 32, "epochs": 1}
    usual |= {"lr": 1e-4, "replicate": False}
    config = Config(
        model="tiny", weights="random", data="digits", out=out, **(usual | options)
    )
    return prepare(complete(config))
