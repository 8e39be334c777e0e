"""What a strategy yields, round by round, and how rates are compared on the way.

A strategy is a generator: it yields a round, and is sent what has been found when the
round has been trained.
"""

from collections.abc import Generator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.sweep.plan import Plan

TUNING_EPOCHS = 2  # after which rates are compared


class Round(NamedTuple):
    """What is trained next.

    Attributes:
        plan: rows and trials.
        goals: trial -> number of epochs it is trained to; others wait.
        stopped: trials that are not trained to the last epoch.
        reason: why, in a sentence; empty for a grid.
    """

    plan: Plan
    goals: Mapping[str, int]
    stopped: frozenset[str] = frozenset()
    reason: str = ""


class Found(NamedTuple):
    """What has been trained so far.

    Attributes:
        results: as in results.csv.
        epochs: as in epochs.csv.
        failed: ids of trials that failed.
        left_out: ids of trials of the round that a budget has no time for.
    """

    results: pd.DataFrame
    epochs: pd.DataFrame
    failed: frozenset[str]
    left_out: frozenset[str] = frozenset()


Strategy = Generator[Round, Found, Round]  # returns the last of its rounds


def exhaust(strategy: Strategy) -> Generator[Round, Found, tuple[Found, Round]]:
    """All rounds of a strategy; what they found, and the last of them."""
    last = next(strategy)
    while True:
        found = yield last
        try:
            last = strategy.send(found)
        except StopIteration as end:
            return found, end.value


def better_rates(
    plan: Plan, epochs: pd.DataFrame, short: int, val_size: int
) -> frozenset[str]:
    """Trials whose rate is the best of their depth and policy, or nearly.

    Args:
        plan: with the trials.
        epochs: as in epochs.csv.
        short: the epoch at which they are compared.
        val_size: number of validation images.
    """
    at = epochs[epochs["epoch"] == short].drop_duplicates("trial")
    accuracy = dict(zip(at["trial"], at["val_accuracy"], strict=True))
    cells: dict[tuple, list[str]] = {}
    for trial in plan.trials:
        if trial.id in accuracy:
            cut = trial.cut
            cell = cut.same_set, cut.blocks, trial.policy, trial.seed
            cells.setdefault(cell, []).append(trial.id)
    going: set[str] = set()
    for ids in cells.values():
        best = max(accuracy[id] for id in ids)
        error = np.sqrt(max(best * (1 - best), 1 / val_size) / val_size)
        going |= {id for id in ids if accuracy[id] >= best - error}
    return frozenset(going)
