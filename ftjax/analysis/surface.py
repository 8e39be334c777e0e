"""How the best depth moves along one hyperparameter.

At every value of an axis the depths are compared by themselves, with their set; then
one question over all values: what does the best single depth cost at each of them?
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.compare import compare_cells
from ftjax.analysis.curves import clean_results
from ftjax.analysis.rows import IMAGES
from ftjax.analysis.tuning import tuned_columns
from ftjax.analysis.wording import depth_list, number, points

LEAST_DEPTHS = 2  # of a value that is compared
ASKED_AXES = (*IMAGES, "epochs")  # that are no nuisances
NAMES = {"lr": "rate", "train_size": "number of training images"}
ReadCorrect = Callable[[pd.DataFrame], Mapping[str, np.ndarray]]


class Slice(NamedTuple):
    """One value of an axis.

    Attributes:
        value: of the axis.
        bn: policy of the best depth.
        best: its number of layers.
        accuracy: of it.
        inside: depths of that policy that are not shown to be worse.
    """

    value: Any
    bn: str
    best: int
    accuracy: float
    inside: tuple[int, ...]


class Surface(NamedTuple):
    """The best depth along an axis.

    Attributes:
        axis: its column.
        slices: one per value, increasing.
        moves: whether no depth is in the sets of all values.
        common: the depth that loses least at the value where it loses most.
        loss: what it loses there, in accuracy.
        loss_stderr: of that difference.
    """

    axis: str
    slices: tuple[Slice, ...]
    moves: bool
    common: int
    loss: float
    loss_stderr: float

    def sentence(self) -> str:
        """In plain words."""
        values = [number(s.value) for s in self.slices]
        each = "; ".join(
            f"{value}: {depth_list([s.best])} ({span(s.inside)})"
            for value, s in zip(values, self.slices, strict=True)
        )
        name = NAMES.get(self.axis, self.axis.replace("_", " "))
        common = depth_list([self.common])
        be, cost = ("are", "cost") if self.common else ("is", "costs")
        moved = (
            "no depth is as good as can be told at all of them"
            if self.moves
            else f"{common} {be} as good as can be told at all of them"
        )
        return (
            f"Best depth by {name}, with what is as good as can be told: {each}. Of "
            f"these values {moved}; {common} everywhere {cost} at most "
            f"{points(self.loss)} +- {points(self.loss_stderr)} points."
        )


def span(depths: tuple[int, ...]) -> str:
    """E.g. 41 to 115, or 41."""
    low, high = min(depths), max(depths)
    return str(low) if low == high else f"{low} to {high}"


def surface(
    results: pd.DataFrame,
    axis: str,
    read_correct: ReadCorrect = lambda rows: {},
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Surface | None:
    """The best depth at every value of an axis, all other settings tuned.

    Args:
        results: as in results.csv.
        axis: column of numbers.
        read_correct: gives, for the rows of one value, trial -> (n_val,) bool.
        draws: of the noise.
        seed: of the draws.

    Returns:
        None where fewer than two values have two finished depths.
    """
    done = results[results["status"] == "done"] if "status" in results else results
    slices, tables = [], []
    for value, rows in done.groupby(axis, sort=True):
        if rows["depth_layers"].nunique() < LEAST_DEPTHS:
            continue
        table, _ = clean_results(rows)
        found = compare_cells(table, read_correct(table), draws=draws, seed=seed)
        inside = found.inside[found.places[found.chosen]]
        curve, best = found.curve, found.best
        slices.append(
            Slice(
                value,
                curve.bn,
                int(curve.depths[best]),
                float(found.evidence.means[found.cell]),
                tuple(int(depth) for depth in curve.depths[inside]),
            )
        )
        tables.append((found, table))
    if len(slices) < 2:
        return None
    shared = set.intersection(*(set(s.inside) for s in slices))
    losses = [found.losses for found, _ in tables]
    depths = set.intersection(*(set(loss) for loss in losses))
    worst = {depth: max(loss[depth] for loss in losses) for depth in depths}
    pool = shared & depths or depths
    common = min(pool, key=lambda depth: (worst[depth][0], depth))
    return Surface(axis, tuple(slices), not shared, common, *worst[common])


def surface_axes(results: pd.DataFrame) -> tuple[str, ...]:
    """The axes of numbers that have several values, each trained at several depths."""
    done = results[results["status"] == "done"] if "status" in results else results
    asked = (c for c in ASKED_AXES if c in done and done[c].nunique() > 1)
    return tuple(
        column
        for column in (*tuned_columns(done), *asked)
        if pd.api.types.is_numeric_dtype(done[column])
        and (done.groupby(column)["depth_layers"].nunique() >= LEAST_DEPTHS).sum() > 1
    )


def surface_sentences(
    results: pd.DataFrame, read_correct: ReadCorrect = lambda rows: {}
) -> tuple[str, ...]:
    """A sentence for each axis of which all depths, at each policy, were trained."""
    found = []
    for axis in surface_axes(results):
        ended = results
        if "status" in results:  # what diverged was tried, and is not the best
            ended = results[results["status"].isin(["done", "diverged"])]
        keys = [key for key in ("depth_layers", "bn") if key in ended]
        counts = ended.drop_duplicates([axis, *keys])[axis].value_counts()
        if counts.min() < counts.max():
            continue  # a search over this axis left gaps: nothing to compare
        made = surface(results, axis, read_correct)
        if made is not None:
            found.append(made.sentence())
    return tuple(found)
