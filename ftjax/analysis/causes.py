"""What one fall of a depth curve may be blamed on, as clauses of a sentence.

No cause is named that the trials of the same depth do not bear out.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ftjax.analysis.wording import percent, points
from ftjax.batch_norm import FOLLOW, FROZEN

MIN_FALL = 0.02  # accuracy; a smaller fall from the best depth is not explained
MIN_GAP = 0.05  # accuracy; a smaller gap between two modes is not evidence
FITTED = 0.9  # training accuracy in evaluation mode; below it nothing is overfitted
MOST = 0.75  # share of a fall from which a cause is called the cause


def claims_overfitting(
    start: Mapping[str, float],
    end: Mapping[str, float],
    frozen: float | None,
    needed: float,
) -> bool:
    """Whether a fall from `start` to `end` may be called overfitting.

    The training images, in evaluation mode, are fitted at the deeper depth and no
    worse than at the better one; the gap to the validation images grew; and the
    same depth with BatchNorm frozen is no better, so statistics are not the reason. A
    network that has not fitted its training images has not overfitted them.

    Args:
        start: row of `diagnose_depths` at the best depth.
        end: row at the deeper one.
        frozen: validation accuracy of the matched frozen trial; None without one.
        needed: growth of the gap (0..1) that counts.
    """
    grown = end["generalization_gap"] - start["generalization_gap"]
    return bool(
        grown >= needed
        and end["accuracy"] >= max(FITTED, start["accuracy"] - MIN_FALL)
        and frozen is not None
        and frozen < end["val_accuracy"] + MIN_FALL
    )


def _lag_clause(
    start: Mapping[str, float],
    end: Mapping[str, float],
    matched: Mapping[str, float],
    gap: float,
) -> str | None:
    """What the two modes say, as strongly as matched trials bear it out.

    Args:
        start: row of `diagnose_depths` of the follow curve where the fall begins.
        end: row where it ends.
        matched: policy -> validation accuracy at the depth of `end`.
        gap: growth of the distance between the modes (0..1) that counts.
    """
    before = start["bn_gap"] if np.isfinite(start["bn_gap"]) else 0.0
    lag = end["bn_gap"] - max(before, 0.0)
    if not lag >= gap:
        return None
    fall = start["val_accuracy"] - end["val_accuracy"]
    regained = max(matched.values(), default=np.nan) - end["val_accuracy"]
    if not matched:
        verdict = (
            "which points to lag of the running statistics; the matched trials of "
            "--explain would tell"
        )
    elif min(lag, regained) >= MOST * fall:
        verdict = "so the fall is lag of the running statistics, not overfitting"
    elif regained >= MIN_FALL:
        verdict = "so lag of the running statistics is a part of the fall"
    else:
        verdict = (
            "but the same depth with other statistics is no better, so lag of the "
            "running statistics does not explain the fall"
        )
    return (
        "on the very same training images the network scores "
        f"{percent(end['train_mode_accuracy'])} in training mode and "
        f"{percent(end['accuracy'])} in evaluation mode, {verdict}"
    )


def describe_causes(
    start: Mapping[str, float],
    end: Mapping[str, float],
    matched: Mapping[str, float],
    statistics: bool,
    gap: float,
) -> str:
    """What the modes and the training set say about one fall, as clauses.

    Args:
        start: row of `diagnose_depths` where the fall begins.
        end: row where it ends.
        matched: policy -> validation accuracy of the other policies at the depth of
            `end`; the curve's own for frozen, and for a network without BatchNorm.
        statistics: whether lag of running statistics is possible at all.
        gap: accuracy (0..1); less is no evidence.
    """
    clauses = []
    lag = _lag_clause(start, end, matched, gap) if statistics else None
    if lag is not None:
        clauses.append(lag)
    if start["train_mode_accuracy"] - end["train_mode_accuracy"] >= gap:
        clauses.append(
            "training-mode accuracy itself falls from "
            f"{percent(start['train_mode_accuracy'])} to "
            f"{percent(end['train_mode_accuracy'])}: in these epochs the deeper "
            "network fits its training images less well"
        )
    fall = start["val_accuracy"] - end["val_accuracy"]
    needed = max(gap, (1 - MOST) * fall)
    if end["generalization_gap"] - start["generalization_gap"] >= needed:
        grows = (
            "the gap between training and validation grows from "
            f"{points(start['generalization_gap'])} to "
            f"{points(end['generalization_gap'])} points"
        )
        if claims_overfitting(start, end, matched.get(FROZEN.name), needed):
            grows += ": overfitting"
        elif end["accuracy"] < FITTED:
            grows += (
                f", but only {percent(end['accuracy'])} of the training images are "
                "fitted: too little to call it overfitting"
            )
        clauses.append(grows)
    return "".join(f"; {clause}" for clause in clauses)


def describe_remedy(
    depths: pd.DataFrame, deep: int, best: float, min_fall: float
) -> str:
    """What the frozen policy reaches at the depth where the follow curve fell."""
    if (FROZEN.name, deep) not in depths.index:
        return ""
    value = float(depths.loc[(FROZEN.name, deep), "val_accuracy"])
    fallen = float(depths.loc[(FOLLOW.name, deep), "val_accuracy"])
    effect = "does not help"
    if value >= best - min_fall:
        effect = "removes it"
    elif value >= fallen + min_fall:
        effect = "reduces it"
    return f"; holding BatchNorm in inference mode {effect} ({percent(value)})"
