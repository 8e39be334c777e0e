"""Which trials to train next: grid, halving, auto, explain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.decision import Decision
from ftjax.backbones import Backbone
from ftjax.depth import block_depths
from ftjax.search.depths import next_depths


def decide(
    config: Mapping[str, Any],
    backbone: Backbone,
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray],
) -> Decision:
    """What `--depths auto` has found so far, and which depths to train next.

    Args:
        config: as config.json holds it.
        results: of what was trained.
        correct: as for `recommend`.
    """
    return next_depths(
        results,
        block_depths(backbone),
        seeds=config["seeds"],
        bn=config["bn"],
        correct=correct,
    )
