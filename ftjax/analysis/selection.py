"""Which depths of a curve to name: the best, the cheap ones, the ends."""

import math
from collections.abc import Sequence

import numpy as np

from ftjax.analysis.curves import COSTS, DepthCurve
from ftjax.analysis.evidence import Evidence
from ftjax.analysis.wording import percent


def pareto_depths(curve: DepthCurve, means: np.ndarray) -> tuple[int, ...]:
    """Depths that no other depth beats in accuracy and in every known cost.

    A depth is left out if another is at least as good in accuracy, seconds, FLOPs and
    trainable parameters (those the table has) and better in one of them.

    Args:
        curve: its `table` holds the costs.
        means: (d,) accuracy by depth.
    """
    columns = [
        curve.table[c].to_numpy(float)
        for c in COSTS
        if c in curve.table and np.isfinite(curve.table[c]).all()
    ]
    points = np.stack([-means, *columns], axis=1)
    if not columns:
        points = np.stack([-means, curve.depths.astype(float)], axis=1)
    front = []
    for depth, point in zip(curve.depths, points, strict=True):
        others = np.all(points <= point, axis=1) & np.any(points < point, axis=1)
        if not others.any():
            front.append(int(depth))
    return tuple(front)


def curve_shape(
    depths: np.ndarray,
    best: int,
    inside: np.ndarray,
    replicated: bool,
    stopped: Sequence[int] = (),
) -> str:
    """Name what the curve does: where its best lies and whether that is shown.

    Args:
        depths: (d,) trained to the end.
        best: index of the named one.
        inside: (d,) which of them are in the set of those that may be the best.
        replicated: whether run-to-run noise was measured.
        stopped: depths that a search stopped early.

    Returns:
        'stopped' (early, so that an end or all but one depth is not known), 'single'
        (one depth), 'flat' (all may be the best), 'deepest' or 'shallowest' (the best
        is an end), 'unproven' (an end may be the best, or nothing was replicated),
        'interior'.
    """
    if stopped and (
        inside.all() or min(stopped) < depths[0] or max(stopped) > depths[-1]
    ):
        return "stopped"
    if len(depths) == 1:
        return "single"
    if inside.all():
        return "flat"
    if best == len(depths) - 1:
        return "deepest"
    if best == 0:
        return "shallowest"
    return "interior" if replicated and not inside[[0, -1]].any() else "unproven"


def full_difference(
    curve: DepthCurve, evidence: Evidence, places: np.ndarray, best: int
) -> dict[str, float]:
    """Deepest tested depth against the best: accuracy, paired SE, ratio of seconds.

    Args:
        curve: the named one.
        evidence: of all cells.
        places: (d,) cells of the curve.
        best: index of the named depth in it.
    """
    last, here = places[-1], places[best]
    ratio = math.nan
    if "seconds" in curve.table:
        seconds = curve.table["seconds"].to_numpy(float)
        ratio = float(seconds[-1] / seconds[best]) if seconds[best] > 0 else math.nan
    return {
        "depth_layers": int(curve.depths[-1]),
        "difference": float(evidence.means[last] - evidence.means[here]),
        "stderr": float(evidence.stderr[last, here]),
        "time_ratio": ratio,
    }


def curve_name(curve: DepthCurve) -> str:
    """A curve's policy and the settings that tell it from the others."""
    setting = ", ".join(f"{name} {value}" for name, value in curve.setting.items())
    return f"{curve.bn}, {setting}" if setting else curve.bn


def other_curves(
    curves: Sequence[DepthCurve],
    evidence: Evidence,
    places: Sequence[np.ndarray],
    chosen: int,
    here: int,
) -> dict[str, dict[str, float]]:
    """The best of every other policy and setting against the named cell.

    Args:
        curves: one per policy and setting.
        evidence: of all cells.
        places: (d,) cells of each curve.
        chosen: index of the named curve.
        here: the named cell.

    Returns:
        name -> depth_layers, value, difference (to the named one), stderr.
    """
    found = {}
    for number, (curve, where) in enumerate(zip(curves, places, strict=True)):
        if number == chosen:
            continue
        top = int(np.argmax(evidence.means[where]))
        cell = where[top]
        found[curve_name(curve)] = {
            "depth_layers": int(curve.depths[top]),
            "value": float(evidence.means[cell]),
            "difference": float(evidence.means[cell] - evidence.means[here]),
            "stderr": float(evidence.stderr[cell, here]),
        }
    return found


def choose_cell(
    curves: Sequence[DepthCurve],
    evidence: Evidence,
    places: Sequence[np.ndarray],
    able: np.ndarray,
    searched: tuple[int, str] | None,
) -> tuple[int, int, list[str]]:
    """The curve and the depth in it to name, and what is said of mere probes.

    The highest mean of the curves that are curves at all (`cells.is_curve`), or what a
    search believes: it measures most depths once, and the highest of those measurements
    is high by luck more often than not. Where curves share their highest depth, as the
    head alone is one trial for all policies, the curve that is higher elsewhere says
    what further depths are worth.

    Args:
        curves: one per policy and setting.
        evidence: of all cells.
        places: (d,) cells of each curve.
        able: which curves can be recommended from.
        searched: depth and policy that a search names.

    Returns:
        Index of the curve, index of the depth in it, sentences.
    """
    if searched is not None:
        depth, bn = searched
        chosen = [curve.bn for curve in curves].index(bn)
        return chosen, int(np.searchsorted(curves[chosen].depths, depth)), []
    tops = np.array([evidence.means[where].max() for where in places])
    elsewhere = np.array([evidence.means[where].mean() for where in places])
    highest = able & (tops >= tops[able].max())
    chosen = int(np.argmax(np.where(highest, elsewhere, -np.inf)))
    best = int(np.argmax(evidence.means[places[chosen]]))
    fullest = max(len(curve.depths) for curve in curves)
    notes = [
        f"bn {curve_name(curve)} reaches {percent(top)} but was tried at "
        f"{len(curve.depths)} of {fullest} depths only: run its other depths before "
        "using it."
        for curve, top, fine in zip(curves, tops, able, strict=True)
        if not fine and top > tops[chosen]
    ]
    return chosen, best, notes
