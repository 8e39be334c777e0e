"""What a strategy yields, round by round.

A strategy is a generator: it yields a round, and is sent what has been found when the
round has been trained.
"""

from collections.abc import Collection, Generator, Mapping
from typing import NamedTuple

import pandas as pd

from ftjax.sweep.plan import Plan


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


def trials_at(plan: Plan, depths: Collection[int]) -> frozenset[str]:
    """The trials of some depths."""
    return frozenset(r.trial for r in plan.requests if r.cut.depth_layers in depths)


def depths_of(plan: Plan, goals: Collection[str]) -> str:
    """E.g. 'depths 0 54 149'."""
    depths = {trial.cut.depth_layers for trial in plan.trials if trial.id in goals}
    return f"depths {' '.join(map(str, sorted(depths)))}"
