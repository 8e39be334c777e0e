"""Bootstrap of a fitted parabola's optimum."""

import numpy as np

from ftjax.stats.least_squares import check_points, least_squares


def bootstrap_quadratic_optimum(
    depth, accuracy, *, total_layers: int, draws: int = 20000, seed: int = 0
) -> np.ndarray:
    """Bootstrap the optimum of a fitted parabola over the integers 0..N.

    Residuals of the fit are resampled with replacement, scaled by sqrt(n / (n - 3))
    to make up for the three fitted coefficients (Efron and Tibshirani 1993, section
    9.4), and the parabola is fitted again.

    Args:
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: N.
        draws: number of draws.
        seed: of the draws.

    Returns:
        (draws,) optimum of each draw.
    """
    x, y = check_points(depth, accuracy, least=3)
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    ols = least_squares(design, y)
    if ols.dof < 1:
        raise ValueError("a residual bootstrap of a parabola needs at least 4 points")
    residuals = ols.residuals * np.sqrt(len(x) / ols.dof)
    rng = np.random.default_rng(seed)
    drawn = design @ ols.coef + rng.choice(residuals, size=(draws, len(x)))
    scale = np.linalg.norm(design, axis=0)
    coefs = drawn @ (np.linalg.pinv(design / scale) / scale[:, None]).T
    grid = np.arange(total_layers + 1, dtype=float)
    powers = np.stack([np.ones_like(grid), grid, grid * grid])
    return np.concatenate(
        [np.argmax(part @ powers, axis=1) for part in np.array_split(coefs, 20)]
    )
