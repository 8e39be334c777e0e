"""Monotone and unimodal least squares: curves with a shape but no equation."""

from typing import NamedTuple

import numpy as np


class UnimodalFit(NamedTuple):
    """Least-squares unimodal curve through weighted points.

    Attributes:
        values: (n,) fitted value at each point, rising up to `mode`, falling after it.
        mode: index of the peak.
        sse: weighted sum of squared residuals.
    """

    values: np.ndarray
    mode: int
    sse: float


def fit_increasing(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Least-squares non-decreasing sequence, by pooling adjacent violators.

    Source: Barlow, Bartholomew, Bremner and Brunk 1972, section 1.2.

    Args:
        values: (n,) observations in order of depth.
        weights: (n,) positive weights, for instance the number of replicates.

    Returns:
        (n,) fitted values.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of points
    for value, weight in zip(values, weights, strict=True):
        block = (float(value), float(weight), 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, total, count = blocks.pop()
            joined = total + block[1]
            block = (
                (mean * total + block[0] * block[1]) / joined,
                joined,
                count + block[2],
            )
        blocks.append(block)
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def fit_unimodal(values: np.ndarray, weights: np.ndarray | None = None) -> UnimodalFit:
    """Least-squares curve that rises to one peak and then falls.

    Every point is tried as the peak: an increasing fit up to it, a decreasing fit
    after it; the smallest sum of squares wins, the earliest peak on ties. Source:
    Stout 2008, "Unimodal regression via prefix isotonic regression"; here the plain
    search, because a depth curve has at most a few hundred points.

    Args:
        values: (n,) observations in order of depth.
        weights: (n,) positive weights.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"unimodal fit needs a 1-d array with points, got {values.shape}"
        )
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)
    best: UnimodalFit | None = None
    for split in range(1, len(values) + 1):
        rising = fit_increasing(values[:split], weights[:split])
        falling = fit_increasing(values[split:][::-1], weights[split:][::-1])[::-1]
        # A join that rises from `split - 1` to `split` is unimodal too: the peak is
        # then the first point of the falling part.
        fitted = np.concatenate([rising, falling])
        sse = float(np.sum(weights * (values - fitted) ** 2))
        if best is None or sse < best.sse * (1 - 1e-12) - 1e-30:
            best = UnimodalFit(fitted, int(np.argmax(fitted)), sse)
    assert best is not None
    return best
