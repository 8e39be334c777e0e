"""Fieller's confidence set of a ratio, here of the vertex of a parabola."""

import math
from typing import NamedTuple

import numpy as np


class FiellerInterval(NamedTuple):
    """Fieller's confidence set of a ratio.

    Attributes:
        kind: 'interval' ([low, high]), 'complement' (everything outside (low, high):
            the curvature is not distinguishable from zero) or 'everything'.
        low: nan for 'everything'.
        high: nan for 'everything'.
    """

    kind: str
    low: float
    high: float


def vertex_fieller(b: float, c: float, cov: np.ndarray, t: float) -> FiellerInterval:
    """Confidence set of the vertex v = -b / (2c) by Fieller's theorem.

    The set of v with (b + 2cv)^2 <= t^2 (V_bb + 4v V_bc + 4v^2 V_cc). Source: Fieller
    1954, "Some problems in interval estimation", JRSS B 16.

    Args:
        b: slope.
        c: curvature.
        cov: (2, 2) covariance of (b, c).
        t: Student quantile at the wanted confidence.
    """
    if not np.isfinite([t, *np.ravel(cov)]).all():
        return FiellerInterval("everything", math.nan, math.nan)
    quad = 4 * (c * c - t * t * cov[1, 1])
    half = 2 * (b * c - t * t * cov[0, 1])
    rest = b * b - t * t * cov[0, 0]
    discriminant = half * half - quad * rest
    if quad == 0 or discriminant < 0:
        return FiellerInterval("everything", math.nan, math.nan)
    root = math.sqrt(discriminant)
    ends = ((-half - root) / quad, (-half + root) / quad)
    low, high = float(min(ends)), float(max(ends))
    return FiellerInterval("interval" if quad > 0 else "complement", low, high)
