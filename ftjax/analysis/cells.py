"""All curves of a table as one set of cells, compared together.

A cell is a depth under a policy and a setting. Policies that are equal at a depth (the
head alone has no BatchNorm to hold) are one trial, and one cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftjax.analysis.curves import DepthCurve
from ftjax.analysis.evidence import Evidence, weigh_evidence
from ftjax.batch_norm import POLICIES


class Cells(NamedTuple):
    """m cells, and where those of each curve are.

    Attributes:
        places: one (d,) array of indices for each curve.
        values: (m, s) by seed.
        rank: (m,) of the depth among all depths, 0 to 1.
        scores: (m, n), or None.
        flips: (m,) as of `DepthCurve`.
        eligible: (m,) whether the cell is on a curve that can be recommended from.
        groups: (m,) whether BatchNorms use batch statistics, under every policy that
            has the cell.
    """

    places: tuple[np.ndarray, ...]
    values: np.ndarray
    rank: np.ndarray
    scores: np.ndarray | None
    flips: np.ndarray
    eligible: np.ndarray
    groups: np.ndarray


def depth_ranks(depths: np.ndarray) -> np.ndarray:
    """Rank of each depth among the distinct ones, 0 (shallowest) to 1 (deepest)."""
    different, rank = np.unique(depths, return_inverse=True)
    return rank / max(len(different) - 1, 1)


def is_curve(curves: Sequence[DepthCurve], stopped: Sequence[int]) -> np.ndarray:
    """Which curves were tried at half as many depths as the fullest, or more.

    The others are probes that explain; they cannot be recommended from.

    Args:
        curves: one per policy and setting.
        stopped: further depths of each that a search stopped early.
    """
    counts = [len(c.depths) + more for c, more in zip(curves, stopped, strict=True)]
    return 2 * np.array(counts) >= max(counts)


def gather_cells(curves: Sequence[DepthCurve], eligible: Sequence[bool]) -> Cells:
    """Collect the cells of the curves.

    Args:
        curves: one per policy and setting.
        eligible: of `is_curve`, one for each curve.
    """
    seeds = sorted({seed for curve in curves for seed in curve.seeds})
    column = {seed: number for number, seed in enumerate(seeds)}
    known: dict[object, int] = {}
    rows, depths, scores, flips, allowed, places = [], [], [], [], [], []
    batch: list[bool] = []
    for number, curve in enumerate(curves):
        where = []
        columns = [column[seed] for seed in curve.seeds]
        for i, depth in enumerate(curve.depths):
            key = (int(depth), curve.trials[i])
            if key not in known:
                known[key] = len(rows)
                row = np.full(len(seeds), np.nan)
                row[columns] = curve.values[i]
                rows.append(row)
                depths.append(depth)
                flips.append(curve.flips[i])
                scores.append(None if curve.scores is None else curve.scores[i])
                allowed.append(False)
                batch.append(True)
            batch[known[key]] &= POLICIES[curve.bn].trains_on_batch_statistics
            allowed[known[key]] |= bool(eligible[number])
            where.append(known[key])
        places.append(np.array(where))
    whole = all(one is not None for one in scores)
    return Cells(
        tuple(places),
        np.stack(rows),
        depth_ranks(np.array(depths)),
        np.stack(scores) if whole else None,
        np.array(flips) if whole else np.zeros(len(rows)),
        np.array(allowed),
        np.array(batch),
    )


def cells_evidence(
    cells: Cells, *, val_size: float | None = None, draws: int = 2000, seed: int = 0
) -> Evidence:
    """What is known about the cells; see `weigh_evidence`."""
    return weigh_evidence(
        cells.values,
        cells.rank,
        scores=cells.scores,
        flips=cells.flips,
        groups=cells.groups,
        val_size=val_size,
        draws=draws,
        seed=seed,
    )
