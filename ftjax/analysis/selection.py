"""Which depths of a curve to name: the best, the cheapest good ones, the ends."""

import math
from collections.abc import Sequence

import numpy as np

from ftjax.analysis.bootstrap import CurveBootstrap, difference_stderr
from ftjax.analysis.curves import COSTS, DepthCurve
from ftjax.analysis.wording import percent


def pareto_depths(curve: DepthCurve, means: np.ndarray) -> tuple[int, ...]:
    """Depths that no other depth beats in accuracy and in every known cost.

    A depth is left out if another is at least as good in accuracy, seconds, FLOPs and
    trainable parameters (those the table has) and better in one of them.

    Args:
        curve: its `table` holds the costs. means: (d,) accuracy by depth.
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


def smallest_within_one_stderr(curve: DepthCurve, draws: CurveBootstrap) -> int:
    """Smallest depth whose paired difference to the best is at most one SE of it.

    Source: Breiman, Friedman, Olshen and Stone 1984, section 3.4.3, with the standard
    error of the paired difference instead of that of the best alone. The best depth
    itself when nothing is known about the noise.
    """
    best = draws.best
    for index, depth in enumerate(curve.depths):
        gap = draws.means[best] - draws.means[index]
        stderr = difference_stderr(draws, best, index)
        if gap <= 0 or gap <= stderr:
            return int(depth)
    return int(curve.depths[best])


def curve_shape(
    curve: DepthCurve,
    draws: CurveBootstrap,
    interval: tuple[int, int] | None,
    epsilon: float,
    stopped: Sequence[int] = (),
) -> str:
    """Name what the curve does: where its best lies and whether that is shown.

    Args:
        curve: of the depths trained to the end. draws: its means, best and noise.
        interval: of the best depth. epsilon: accuracy that does not matter.
        stopped: depths that a search stopped early.

    Returns:
        'stopped' (early, so that an end or all but one depth is not known), 'single'
        (one depth), 'flat' (all within epsilon), 'deepest' or 'shallowest'
        (the best is an end), 'unproven' (an end is in the interval or within epsilon
        of the best), 'interior'.
    """
    means, best = draws.means, draws.best
    if stopped and (
        np.ptp(means) <= epsilon
        or min(stopped) < curve.depths[0]
        or max(stopped) > curve.depths[-1]
    ):
        return "stopped"
    if len(means) == 1:
        return "single"
    if np.ptp(means) <= epsilon:
        return "flat"
    if best == len(means) - 1:
        return "deepest"
    if best == 0:
        return "shallowest"
    beaten = means[best] - max(means[0], means[-1]) > epsilon
    if interval is not None:
        beaten &= interval[0] > curve.depths[0] and interval[1] < curve.depths[-1]
    return "interior" if beaten else "unproven"


def full_difference(curve: DepthCurve, draws: CurveBootstrap) -> dict[str, float]:
    """Deepest tested depth against the best: accuracy, paired SE, ratio of seconds."""
    best, last = draws.best, len(draws.means) - 1
    ratio = math.nan
    if "seconds" in curve.table:
        seconds = curve.table["seconds"].to_numpy(float)
        ratio = float(seconds[last] / seconds[best]) if seconds[best] > 0 else math.nan
    return {
        "depth_layers": int(curve.depths[last]),
        "difference": float(draws.means[last] - draws.means[best]),
        "stderr": difference_stderr(draws, last, best),
        "time_ratio": ratio,
    }


def choose_searched(curves: list[DepthCurve], best: tuple[int, str]) -> tuple[int, int]:
    """Index of the curve, and in it of the depth, that a search found.

    A search measures most depths once. The highest of those measurements is high by
    luck more often than not; the search believes a depth by its neighbors as well.

    Args:
        curves: one per policy. best: depth in layers, and policy.
    """
    depth, bn = best
    chosen = [curve.bn for curve in curves].index(bn)
    return chosen, int(np.searchsorted(curves[chosen].depths, depth))


def choose_curve(
    curves: list[DepthCurve], draws: list[CurveBootstrap], stopped: Sequence[int]
) -> tuple[int, list[str]]:
    """Index of the curve with the highest mean among those that are curves at all.

    A policy tried at fewer than half as many depths as the fullest one is a probe that
    explains, not a curve that can be recommended from.

    Args:
        curves, draws: one of each per policy.
        stopped: number of further depths per policy that a search stopped early; they
            were tried as well.
    """
    counts = [len(c.depths) + more for c, more in zip(curves, stopped, strict=True)]
    tops = [
        d.means.max() if 2 * n >= max(counts) else -1.0
        for d, n in zip(draws, counts, strict=True)
    ]
    chosen = int(np.argmax(tops))
    notes = [
        f"bn {c.bn} reaches {percent(d.means.max())} but was tried at {n} of "
        f"{max(counts)} depths only: run its other depths before using it."
        for c, d, n in zip(curves, draws, counts, strict=True)
        if 2 * n < max(counts) and d.means.max() > tops[chosen]
    ]
    return chosen, notes
