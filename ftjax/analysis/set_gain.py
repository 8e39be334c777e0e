"""Does a set of blocks beat every cut? Sets and depths, compared as one family."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.compare import compare_cells
from ftjax.analysis.curves import clean_results
from ftjax.analysis.wording import number, percent, points

BEYOND = 10_000_000  # numbers of sets in the place of depths begin here


class SetRow(NamedTuple):
    """One set under one BatchNorm policy, or one depth.

    Attributes:
        name: the blocks, joined by +; '' of a depth.
        depth: number of layers of a depth; 0 of a set.
        bn: policy.
        accuracy: on the validation images, mean over the seeds.
        gain: over the best depth.
        stderr: of the gain; paired over the images, with the noise of the runs.
        inside: whether it may be the best of all sets and depths.
    """

    name: str
    depth: int
    bn: str
    accuracy: float
    gain: float
    stderr: float
    inside: bool


class SetGain(NamedTuple):
    """Sets of blocks against depths.

    Attributes:
        sets: in the order of the table.
        cut: the best depth.
        best: the best set.
        beats: whether a set may be the best of all and no depth may.
        measured: whether the noise of the runs was measured, not assumed.
    """

    sets: tuple[SetRow, ...]
    cut: SetRow
    best: SetRow
    beats: bool
    measured: bool


def compare_sets(
    results: pd.DataFrame,
    sets: pd.DataFrame,
    correct: Mapping[str, np.ndarray] | None = None,
    *,
    setting: Mapping[str, Any] | None = None,
) -> SetGain | None:
    """Compare sets of blocks with the depths of the same run.

    Each is judged by its best setting, and all of them are compared at once, so that
    the best of many sets is not taken for better by chance.

    Args:
        results: rows of results.csv.
        sets: rows of sets.csv, which have a column `blocks` as well.
        correct: trial -> (n_val,) whether each answer was right.
        setting: value of each setting of which one is meant.

    Returns:
        None as long as no set or no depth is done.
    """
    names = list(dict.fromkeys(sets["blocks"]))
    place = {name: BEYOND + index for index, name in enumerate(names)}
    own = sets.assign(depth_layers=sets["blocks"].map(place)).drop(columns="blocks")
    for column, value in (setting or {}).items():
        results, own = (part[part[column] == value] for part in (results, own))
    done = [part[part["status"] == "done"] for part in (results, own)]
    if any(part.empty for part in done):
        return None
    both = pd.concat(done, ignore_index=True).astype(object)
    # What is missing is None in memory and nan from a file: two values of a setting.
    table, _ = clean_results(both.where(both.notna(), np.nan).infer_objects())
    size = table["val_size"].max() if "val_size" in table else None
    found = compare_cells(table, correct, val_size=size)
    cells: dict[tuple[int, str], int] = {}
    for curve, where in zip(found.curves, found.places, strict=True):
        for depth, cell in zip(curve.depths, where, strict=True):
            cells[int(depth), curve.bn] = int(cell)
    means, stderr = found.evidence.means, found.evidence.stderr
    first = max(
        (cell for (depth, _), cell in cells.items() if depth < BEYOND),
        key=lambda cell: means[cell],
    )
    rows = [
        SetRow(
            names[depth - BEYOND] if depth >= BEYOND else "",
            0 if depth >= BEYOND else depth,
            bn,
            float(means[cell]),
            float(means[cell] - means[first]),
            float(stderr[cell, first]),
            bool(found.inside[cell]),
        )
        for (depth, bn), cell in sorted(cells.items())
    ]
    own_rows = tuple(row for row in rows if row.name)
    cuts = [row for row in rows if not row.name]
    return SetGain(
        own_rows,
        next(row for row in cuts if cells[row.depth, row.bn] == first),
        max(own_rows, key=lambda row: row.accuracy),
        any(row.inside for row in own_rows) and not any(row.inside for row in cuts),
        found.evidence.replicated,
    )


def set_sentence(gain: SetGain) -> str:
    """Whether a set of blocks beats every cut."""
    best, cut = gain.best, gain.cut
    depth = f"{cut.depth} layers" if cut.depth else "the head alone"
    difference = (
        f"{100 * best.gain:+.1f} +- {points(best.stderr)} points against the best cut "
        f"({depth}, BatchNorm {cut.bn}: {percent(cut.accuracy)})"
    )
    reached = f"{best.name} (BatchNorm {best.bn}) reaches {percent(best.accuracy)}"
    count = len({row.name for row in gain.sets})
    among = f"the best of {number(count)} sets" if count > 1 else "the set"
    noise = "" if gain.measured else "; the noise between runs is assumed"
    if gain.beats:
        return (
            f"A set of blocks beats every cut: {reached}, {difference}, and no cut can "
            f"be as good (95 % set over {among[4:]} and all depths{noise})."
        )
    return (
        f"No set of blocks is shown to beat every cut: {among}, {reached}, "
        f"{difference}{noise}."
    )
