"""Compare all cells of a clean table: which is named, which may be the best as well."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.best_set import CONFIDENCE, best_set
from ftjax.analysis.cells import cells_evidence, gather_cells, is_curve
from ftjax.analysis.curves import (
    DepthCurve,
    clean_results,
    depth_curve,
    split_settings,
)
from ftjax.analysis.evidence import Evidence
from ftjax.analysis.optimism import Corrected, corrected_accuracy
from ftjax.analysis.selection import choose_cell, curve_name
from ftjax.batch_norm import BN_POLICIES


class Comparison(NamedTuple):
    """What the cells of a table say about each other.

    curves: one per policy and setting; places: (d,) cells of each. evidence: of all
    cells. chosen, best: index of the named curve, and of the named depth in it.
    inside: (m,) cells that are not shown to be worse than the best. corrected: of the
    named cell, None after a search. rows: of the named setting. notes: sentences.
    """

    curves: list[DepthCurve]
    places: tuple[np.ndarray, ...]
    evidence: Evidence
    chosen: int
    best: int
    inside: np.ndarray
    corrected: Corrected | None
    rows: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def curve(self) -> DepthCurve:
        """The named curve."""
        return self.curves[self.chosen]

    @property
    def cell(self) -> int:
        """The named cell."""
        return int(self.places[self.chosen][self.best])

    @property
    def elsewhere(self) -> dict[str, tuple[int, ...]]:
        """By name, the depths of the other curves that may be the best as well.

        Those that are the same trial as a depth of the named curve are left out.
        """
        own = set(self.places[self.chosen].tolist())
        found = {}
        for number, (curve, where) in enumerate(
            zip(self.curves, self.places, strict=True)
        ):
            if number == self.chosen:
                continue
            depths = tuple(
                int(depth)
                for depth, cell in zip(curve.depths, where, strict=True)
                if self.inside[cell] and int(cell) not in own
            )
            if depths:
                found[curve_name(curve)] = depths
        return found


def compare_cells(
    table: pd.DataFrame,
    scores: Mapping[str, np.ndarray] | None = None,
    *,
    stopped: Mapping[str, Collection[int]] | None = None,
    searched: tuple[int, str] | None = None,
    margin: float = 0.0,
    confidence: float | None = None,
    val_size: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare every depth under every policy and setting with all others.

    Args:
        table: of `clean_results`. scores: trial -> (n,) as for `depth_curve`.
        stopped: policy -> depths that a search stopped early.
        searched: depth and policy that a search names.
        margin, confidence: of `best_set`.
        val_size: validation images. draws, seed: of the noise.
    """
    notes: list[str] = []
    curves, tables = [], []
    for setting, rows in split_settings(table):
        for bn in (p for p in BN_POLICIES if p in set(rows["bn"])):
            curve, more = depth_curve(rows, bn, scores, setting)
            notes.extend(note for note in more if note not in notes)
            curves.append(curve)
            tables.append(rows)
    early = [len((stopped or {}).get(curve.bn, ())) for curve in curves]
    able = is_curve(curves, early)
    cells = gather_cells(curves, able)
    evidence = cells_evidence(cells, val_size=val_size, draws=draws, seed=seed)
    chosen, best, more = choose_cell(curves, evidence, cells.places, able, searched)
    notes.extend(more)
    inside = np.zeros(len(evidence.means), dtype=bool)
    options = {} if confidence is None else {"confidence": confidence}
    inside[cells.eligible] = best_set(
        evidence.part(cells.eligible), margin=margin, **options
    )
    cell = int(cells.places[chosen][best])
    inside[cell] = True
    corrected = None
    if searched is None:
        corrected = corrected_accuracy(
            evidence, cell, cells.scores, eligible=cells.eligible, seed=seed
        )
    return Comparison(
        curves,
        cells.places,
        evidence,
        chosen,
        best,
        inside,
        corrected,
        tables[chosen],
        tuple(notes),
    )


def contenders(
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray] | None = None,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[tuple[int, str]]:
    """The cells that could be the best: to be trained again with further seeds.

    All that cannot be told from the best with the run-to-run noise that is assumed (or
    measured, where the table holds replicates already). Two more seeds of these turn
    the assumption into a measurement where it matters.

    Args:
        results: rows of results.csv. correct: trial -> (n_val,) bool.
        confidence: of the set of contenders. seed: of the draws.

    Returns:
        (depth_layers, bn), by depth; a cell that several policies share is named once.
        Empty with a single depth.
    """
    table, _ = clean_results(results)
    stopped = {}
    size = None
    if "val_size" in table and table["val_size"].notna().any():
        size = float(table["val_size"].max())
    found = compare_cells(
        table, correct, stopped=stopped, confidence=confidence, val_size=size, seed=seed
    )
    if len(found.evidence.means) == 1:
        return []
    order = [found.chosen, *(i for i in range(len(found.curves)) if i != found.chosen)]
    named: dict[int, tuple[int, str]] = {}
    for number in order:
        curve, where = found.curves[number], found.places[number]
        for depth, cell in zip(curve.depths, where, strict=True):
            if found.inside[cell]:
                named.setdefault(int(cell), (int(depth), curve.bn))
    return sorted(set(named.values()))
