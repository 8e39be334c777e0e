"""Planted curves of known shape, searched: does the search find their optimum?

NumPy alone: curves, noise and the search. What a trial costs comes from outside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.decision import Decision
from ftjax.search.depths import next_depths

SHAPES = ("plateau", "unimodal", "monotone", "steps")
NOISES = (0.003, 0.005, 0.007)  # accuracy of one trial, standard deviation
NARROWEST = 0.12  # share of the depth axis that a planted step takes at least


class Sweep(NamedTuple):
    """One simulated search beside the full grid on the same planted curve.

    covered: whether the interval holds a planted optimum. regret, grid_regret:
    accuracy below the planted optimum of the depth named by the search and by the
    highest measurement of the full grid. trials: of the search. cost: of the search
    over the grid's. width: of the interval as a share of the depth axis.
    """

    covered: bool
    regret: float
    grid_regret: float
    trials: int
    cost: float
    width: float


def planted_curve(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """True accuracies (size,) of a shape, of random height and place.

    Heights are 3 to 8 points; the plateau begins, and the peak lies, between 15 and 85
    percent of the axis; monotone curves saturate, upwards or downwards; steps are four,
    of random order, the highest never first.

    Raises:
        ValueError: unknown shape.
    """
    x = np.linspace(0, 1, size)
    height, place = rng.uniform(0.03, 0.08), rng.uniform(0.15, 0.85)
    if shape == "plateau":
        return 0.85 + height * np.minimum(x / place, 1)
    if shape == "unimodal":
        sides = np.where(x < place, place, 1 - place)
        steep = np.where(x < place, 1, rng.uniform(0.3, 1))
        return 0.85 + height * (1 - steep * ((x - place) / sides) ** 2)
    if shape == "monotone":
        rise = 0.85 + height * (1 - np.exp(-3 * x))
        return rise if rng.random() < 0.5 else rise[::-1]
    if shape == "steps":
        spare = np.sort(rng.uniform(0, 1 - 4 * NARROWEST, 3))
        edges = spare + NARROWEST * np.arange(1, 4)
        levels = np.concatenate([[0], rng.permutation([0.35, 0.6, 1])])
        return 0.85 + height * levels[np.searchsorted(edges, x)]
    raise ValueError(f"unknown shape {shape!r}: choose from {', '.join(SHAPES)}")


def search_curve(
    truth: np.ndarray, noise: np.ndarray, *, max_trials: int | None = None
) -> tuple[Decision, pd.DataFrame]:
    """Run the search on a planted curve to its end.

    Args:
        truth: (m,) true accuracy by depth. noise: (m, s) of each depth and seed.

    Returns:
        The last decision and the table of trials.
    """
    depths = range(len(truth))
    table = pd.DataFrame(columns=["depth_layers", "bn", "seed", "val_accuracy"])
    while True:
        decision = next_depths(
            table, depths, seeds=noise.shape[1], max_trials=max_trials
        )
        if decision.done:
            return decision, table
        rows = [
            {**trial._asdict(), "val_accuracy": truth[depth] + noise[depth, trial.seed]}
            for trial in decision.trials
            for depth in [trial.depth_layers]
        ]
        new = pd.DataFrame(rows)
        table = new if table.empty else pd.concat([table, new], ignore_index=True)


def simulate(
    shape: str, sigma: float, costs: Sequence[float], *, seeds: int, number: int
) -> Sweep:
    """One sweep; `number` seeds its curve and its noise.

    Args:
        costs: (m,) of one trial at each candidate depth.
    """
    size = len(costs)
    rng = np.random.default_rng([number, round(1e5 * sigma), SHAPES.index(shape)])
    truth = planted_curve(shape, size, rng)
    # A seed moves all depths together as well, by as much as its own noise.
    noise = rng.normal(0, sigma, (size, seeds)) + rng.normal(0, sigma, seeds)
    decision, table = search_curve(truth, noise)
    assert decision.best is not None and decision.interval is not None
    optima = np.flatnonzero(truth >= truth.max() - 1e-12)
    low, high = decision.interval
    named = int(np.argmax(truth + noise.mean(axis=1)))
    return Sweep(
        covered=bool(np.any((optima >= low) & (optima <= high))),
        regret=float(truth.max() - truth[decision.best[0]]),
        grid_regret=float(truth.max() - truth[named]),
        trials=len(table),
        cost=float(np.asarray(costs)[table["depth_layers"].astype(int)].sum())
        / float(np.sum(costs) * seeds),
        width=(high - low) / (size - 1),
    )
