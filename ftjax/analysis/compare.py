"""Compare all cells of a clean table: which is named, which may be the best as well."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.best_set import CONFIDENCE, best_set
from ftjax.analysis.cells import cells_evidence, gather_cells, is_curve
from ftjax.analysis.curves import (
    VALUE,
    DepthCurve,
    clean_results,
    depth_curve,
    split_settings,
)
from ftjax.analysis.evidence import Evidence
from ftjax.analysis.optimism import Corrected, corrected_accuracy
from ftjax.analysis.selection import choose_cell, curve_name
from ftjax.analysis.tuning import tuned_columns, tuned_rows
from ftjax.batch_norm import POLICIES


class Comparison(NamedTuple):
    """What the cells of a table say about each other.

    Attributes:
        curves: one per policy and setting.
        places: (d,) cells of each curve.
        evidence: of all cells.
        chosen: index of the named curve.
        best: index of the named depth in it.
        inside: (m,) cells that are not shown to be worse than the best.
        corrected: of the named cell, None after a search.
        rows: of the named setting.
        notes: sentences.
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
    def losses(self) -> dict[int, tuple[float, float]]:
        """By depth of the named curve, what it lacks to the best, and its error."""
        means, stderr = self.evidence.means, self.evidence.stderr
        return {
            int(depth): (
                float(means[self.cell] - means[place]),
                float(stderr[self.cell][place]),
            )
            for depth, place in zip(
                self.curve.depths, self.places[self.chosen], strict=True
            )
        }

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

    Where nuisances vary (`tuning.NUISANCES`), all their settings are cells, and a depth
    is its best one: it stays in the set as long as any of its settings may be the best.

    Args:
        table: of `clean_results`.
        scores: trial -> (n,) as for `depth_curve`.
        stopped: policy -> depths that a search stopped early.
        searched: depth and policy that a search names.
        margin: of `best_set`.
        confidence: of `best_set`; None: its default.
        val_size: validation images.
        draws: of the noise.
        seed: of the draws.
    """
    notes: list[str] = []
    curves, tables = [], []
    for setting, rows in split_settings(table):
        for bn in (p for p in POLICIES if p in set(rows["bn"])):
            curve, more = depth_curve(rows, bn, scores, setting)
            notes.extend(note for note in more if note not in notes)
            curves.append(curve)
            tables.append(rows)
    columns = tuned_columns(table)
    tuned = merge_tuned(curves, table, scores, columns)
    early = [len((stopped or {}).get(curve.bn, ())) for curve, *_ in tuned]
    able = is_curve([curve for curve, *_ in tuned], early)
    eligible = np.array(
        [
            any(fine and n in own for fine, (*_, own) in zip(able, tuned, strict=True))
            for n in range(len(curves))
        ]
    )
    cells = gather_cells(curves, eligible)
    evidence = cells_evidence(cells, val_size=val_size, draws=draws, seed=seed)
    every, places = curves, cells.places
    if columns:
        places = tuple(
            tuned_places(curve, own, every, cells.places) for curve, _, own in tuned
        )
        tables = [rows for _, rows, _ in tuned]
        curves = [curve for curve, *_ in tuned]
    chosen, best, more = choose_cell(curves, evidence, places, able, searched)
    notes.extend(more)
    inside = np.zeros(len(evidence.means), dtype=bool)
    options = {} if confidence is None else {"confidence": confidence}
    inside[cells.eligible] = best_set(
        evidence.part(cells.eligible), margin=margin, **options
    )
    cell = int(places[chosen][best])
    inside[cell] = True
    if columns:
        for (curve, _, own), where in zip(tuned, places, strict=True):
            for depth, place in zip(curve.depths, where, strict=True):
                same = cells_at(depth, own, every, cells.places)
                inside[place] |= bool(inside[same].any())
    corrected = None
    if searched is None:
        corrected = corrected_accuracy(
            evidence, cell, cells.scores, eligible=cells.eligible, seed=seed
        )
    return Comparison(
        curves,
        places,
        evidence,
        chosen,
        best,
        inside,
        corrected,
        tables[chosen],
        tuple(notes),
    )


def merge_tuned(
    curves: Sequence[DepthCurve],
    table: pd.DataFrame,
    scores: Mapping[str, np.ndarray] | None,
    columns: Sequence[str],
) -> list[tuple[DepthCurve, pd.DataFrame, list[int]]]:
    """Curves of which each depth has its best setting of the tuned columns.

    Args:
        curves: one per policy and setting.
        table: of `clean_results`.
        scores: as of `compare_cells`.
        columns: that are tuned; the curves are returned as they are without any.

    Returns:
        Curve, its rows, and the numbers of the curves that it is made of.
    """
    if not columns:
        return [(curve, table, [number]) for number, curve in enumerate(curves)]
    merged: dict[tuple, list[int]] = {}
    for number, curve in enumerate(curves):
        rest = {k: v for k, v in curve.setting.items() if k not in columns}
        merged.setdefault((curve.bn, tuple(rest.items())), []).append(number)
    found = []
    for (bn, rest), own in merged.items():
        rows = table[table["bn"] == bn]
        for column, value in rest:
            rows = rows[rows[column] == value]
        rows = tuned_rows(rows, VALUE if VALUE in rows else "val_accuracy")
        curve, _ = depth_curve(rows, bn, scores, dict(rest))
        whole = table[table["trial"].isin(rows["trial"])] if "trial" in table else rows
        found.append((curve, whole, own))
    return found


def tuned_places(
    curve: DepthCurve,
    own: Sequence[int],
    curves: Sequence[DepthCurve],
    places: Sequence[np.ndarray],
) -> np.ndarray:
    """(d,) cells of a merged curve: of each depth, the one that has its trials."""
    found = []
    for depth, trials in zip(curve.depths, curve.trials, strict=True):
        for number in own:
            at = np.flatnonzero(curves[number].depths == depth)
            if len(at) and curves[number].trials[at[0]] == trials:
                found.append(places[number][at[0]])
                break
    return np.array(found)


def cells_at(
    depth: int,
    own: Sequence[int],
    curves: Sequence[DepthCurve],
    places: Sequence[np.ndarray],
) -> np.ndarray:
    """The cells of a depth on some curves."""
    return np.concatenate([places[n][curves[n].depths == depth] for n in own])


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
        results: rows of results.csv.
        correct: trial -> (n_val,) bool.
        confidence: of the set of contenders.
        seed: of the draws.

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
