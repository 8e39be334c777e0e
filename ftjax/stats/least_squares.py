"""Ordinary least squares with everything a claim about a curve needs beside it.

Standard errors, leverage, leave-one-out error and the corrected Akaike criterion, all
from one singular value decomposition.
"""

import math
from typing import NamedTuple

import numpy as np


class LeastSquares(NamedTuple):
    """Ordinary least squares of y on the columns of a design matrix.

    Attributes:
        coef: (p,) coefficients.
        stderr: (p,) standard errors of `coef`.
        cov: (p, p) covariance of the coefficients.
        residuals: (n,).
        leverage: (n,) diagonal h_i of the hat matrix.
        sse: sum of squared residuals.
        dof: n - rank.
        rank: of the design.
        loo_rmse: root mean square of the leave-one-out residuals e_i / (1 - h_i).
    """

    coef: np.ndarray
    stderr: np.ndarray
    cov: np.ndarray
    residuals: np.ndarray
    leverage: np.ndarray
    sse: float
    dof: int
    rank: int
    loo_rmse: float


def check_points(depth, accuracy, *, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both columns as float arrays (n,), sorted by depth.

    Raises:
        ValueError: lengths differ, a value is not finite, a depth is negative, or
            there are fewer than `least` distinct depths.
    """
    x = np.asarray(depth, dtype=float)
    y = np.asarray(accuracy, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"depth and accuracy must be 1-d of equal length, got {x.shape}, {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("depth and accuracy must be finite: drop rows with gaps first")
    if len(x) and x.min() < 0:
        raise ValueError(f"depth must be >= 0 (unfrozen layers), got {x.min():g}")
    distinct = len(np.unique(x))
    if distinct < least:
        raise ValueError(
            f"needs at least {least} different depths, got {distinct}: add depths"
        )
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def corrected_aic(sse: float, num_points: int, num_params: int) -> float:
    """AICc = n log(SSE / n) + 2k + 2k(k + 1) / (n - k - 1), k = num_params + 1.

    Source: Hurvich and Tsai 1989; the error variance counts as a parameter. nan when
    n - k - 1 <= 0, where the correction is undefined; -inf for a perfect fit.
    """
    k = num_params + 1
    if num_points - k - 1 <= 0:
        return math.nan
    if sse <= 0:
        return -math.inf
    correction = 2 * k * (k + 1) / (num_points - k - 1)
    return num_points * math.log(sse / num_points) + 2 * k + correction


def least_squares(design: np.ndarray, y: np.ndarray) -> LeastSquares:
    """Ordinary least squares: coef = (X'X)^-1 X'y, cov = s^2 (X'X)^-1, s^2 = SSE/dof.

    Columns are scaled to length one before a singular value decomposition, so depths
    of 0..514 and their squares do not spoil the rank. A rank-deficient design gives
    the minimum-norm coefficients with standard errors nan.

    Args:
        design: (n, p) columns.
        y: (n,).
    """
    design, y = np.asarray(design, float), np.asarray(y, float)
    n, p = design.shape
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    u, s, vt = np.linalg.svd(design / scale, full_matrices=False)
    rank = int(np.sum(s > s[0] * max(n, p) * np.finfo(float).eps * 8)) if p else 0
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    coef = (vt.T @ ((u.T @ y) / s)) / scale
    residuals = y - design @ coef
    sse = float(residuals @ residuals)
    if sse < (1e-14 * max(float(np.abs(y).max()), 1e-300)) ** 2 * n:
        sse = 0.0  # rounding of an exact fit
    leverage = np.sum(u**2, axis=1)
    dof = n - rank
    cov = np.full((p, p), np.nan)
    if rank == p and dof > 0:
        cov = (vt.T / s**2) @ vt * (sse / dof) / np.outer(scale, scale)
    loo_rmse = math.nan
    if rank == p and np.all(1 - leverage > 1e-9):
        loo_rmse = float(np.sqrt(np.mean((residuals / (1 - leverage)) ** 2)))
    return LeastSquares(
        coef, np.sqrt(np.diag(cov)), cov, residuals, leverage, sse, dof, rank, loo_rmse
    )
