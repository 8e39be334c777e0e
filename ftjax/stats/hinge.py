"""A ramp that ends in a plateau, by exact least squares."""

import numpy as np

from ftjax.stats.least_squares import least_squares


def solve_hinge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients (a, b, h) of least squares and their SSE, exactly.

    With the hinge between two neighbouring depths the best ramp and the best level
    are separate fits, valid if they meet in between; otherwise the hinge sits on a
    depth. Source: Hudson 1966, "Fitting segmented curves whose join points have to be
    estimated", JASA 61.
    """
    knots = np.unique(x)
    hinges = list(knots[1:])
    for left, right in zip(knots[1:-1], knots[2:], strict=True):
        ramp, level = x <= left, x > left
        slope, start = np.polyfit(x[ramp], y[ramp], 1)
        if slope != 0:
            meet = (y[level].mean() - start) / slope
            if left < meet < right:
                hinges.append(meet)
    best = None
    for hinge in hinges:
        ols = least_squares(np.stack([np.ones_like(x), np.minimum(x, hinge)], 1), y)
        if best is None or ols.sse < best[1] * (1 - 1e-12):
            best = (np.array([*ols.coef, hinge]), ols.sse)
    assert best is not None
    return best
