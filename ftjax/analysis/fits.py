"""Least-squares curves of accuracy over depth, with their uncertainty.

Seven shapes of a depth curve y(L), L = number of unfrozen layers:

    constant      y = a
    linear        y = a + b L
    quadratic     y = a + b L + c L^2          (Philip 2025, equations 1 and 3)
    log1p+linear  y = a + b log(1 + L) + c L
    sqrt+linear   y = a + b sqrt(L) + c L
    plateau       y = a + b min(L, h)          (one hinge h)
    unimodal      rises to one peak, then falls (no equation)

All are compared by AICc and by leave-one-out error beside the constant, which is the
baseline every claim of an optimum has to beat.
"""

import math
from dataclasses import dataclass

import numpy as np

from ftjax.stats.distributions import student_t_quantile, student_t_two_sided
from ftjax.stats.fieller import FiellerInterval, vertex_fieller
from ftjax.stats.hinge import solve_hinge
from ftjax.stats.isotonic import fit_unimodal
from ftjax.stats.least_squares import check_points, corrected_aic, least_squares

# Functions of depth of each shape that is linear in its coefficients.
BASES = {
    "constant": (np.ones_like,),
    "linear": (np.ones_like, np.positive),
    "quadratic": (np.ones_like, np.positive, np.square),
    "log1p+linear": (np.ones_like, np.log1p, np.positive),
    "sqrt+linear": (np.ones_like, np.sqrt, np.positive),
}
SHAPES = (*BASES, "plateau", "unimodal")


@dataclass(frozen=True)
class Fit:
    """One fitted shape of a depth curve.

    Attributes:
        shape: a name in `SHAPES`.
        coef: coefficients in the order of the equations above (plateau: a, b, h;
            unimodal: the fitted level at each of `knots`).
        stderr: standard errors of `coef`; nan for unimodal.
        r_squared: 1 - SSE / SST, nan where all values are equal.
        aicc: with k = p + 1 (sigma counts), nan when n - k - 1 <= 0.
        loo_rmse: leave-one-out root mean square error, nan where leaving a point out
            leaves the shape undetermined.
        rmse: sqrt(SSE / n).
        num_params: mean parameters p, a hinge or a level counts as one.
        num_points: n.
        optimum: depth of the largest fitted value on the integers 0..N, the smallest
            one on ties.
        optimum_value: the fitted value there.
        knots: depths between which the unimodal curve is interpolated.
    """

    shape: str
    coef: np.ndarray
    stderr: np.ndarray
    r_squared: float
    aicc: float
    loo_rmse: float
    rmse: float
    num_params: int
    num_points: int
    optimum: int
    optimum_value: float
    knots: np.ndarray


@dataclass(frozen=True)
class QuadraticFit(Fit):
    """The parabola a + b L + c L^2 with its vertex -b / (2c).

    Attributes:
        vertex: -b / (2c).
        vertex_interval: (low, high) by the delta method with Student's t; it is
            symmetric and too optimistic when c is poorly known.
        vertex_fieller: Fieller's set, exact for normal errors.
        curvature_p: two-sided p value of c = 0.
        is_maximum: c < 0.
    """

    vertex: float
    vertex_interval: tuple[float, float]
    vertex_fieller: FiellerInterval
    curvature_p: float
    is_maximum: bool


def evaluate(shape: str, coef: np.ndarray, knots: np.ndarray, depth) -> np.ndarray:
    """Value of a shape at each depth; see the equations at the top of the file."""
    x = np.asarray(depth, dtype=float)
    if shape == "plateau":
        return coef[0] + coef[1] * np.minimum(x, coef[2])
    if shape == "unimodal":
        return np.interp(x, knots, coef)
    return sum(c * basis(x) for c, basis in zip(coef, BASES[shape], strict=True))


def predict(fit: Fit, depth) -> np.ndarray:
    """Fitted accuracy at each depth (any shape of array)."""
    return evaluate(fit.shape, fit.coef, fit.knots, depth)


def _summary(shape, x, y, coef, stderr, loo, sse, total_layers, knots=()) -> dict:
    """The fields that every shape shares."""
    knots = np.asarray(knots, dtype=float)
    total = int(round(x.max() if total_layers is None else total_layers))
    if total < x.max():
        raise ValueError(
            f"total_layers = {total} is below the deepest depth {x.max():g}: "
            "give the number of layers of the whole network"
        )
    grid = np.arange(total + 1)
    values = evaluate(shape, coef, knots, grid)
    best = int(np.flatnonzero(values >= values.max() - 1e-12)[0])
    sst = float(np.sum((y - y.mean()) ** 2))
    num_params = len(np.unique(coef)) if shape == "unimodal" else len(coef)
    return dict(
        shape=shape,
        coef=np.asarray(coef),
        stderr=np.asarray(stderr),
        r_squared=1 - sse / sst if sst > 0 else math.nan,
        aicc=corrected_aic(sse, len(y), num_params),
        loo_rmse=loo,
        rmse=math.sqrt(sse / len(y)),
        num_params=num_params,
        num_points=len(y),
        optimum=best,
        optimum_value=float(values[best]),
        knots=knots,
    )


def _design(shape: str, x: np.ndarray) -> np.ndarray:
    return np.stack([basis(x) for basis in BASES[shape]], axis=1)


def _loo_by_refit(x, y, refit) -> float:
    """Leave-one-out error of a shape without a closed form, by fitting n times."""
    errors = []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        if len(np.unique(x[keep])) < 2:
            return math.nan
        errors.append(y[i] - refit(x[keep], y[keep])(x[i]))
    return float(np.sqrt(np.mean(np.square(errors))))


def fit_quadratic(
    depth, accuracy, *, total_layers: int | None = None, confidence: float = 0.95
) -> QuadraticFit:
    """Fit y = a + b L + c L^2 and locate its vertex -b / (2c).

    Source: Philip 2025, equation (1). The delta method uses Var(v) = g' Cov(b, c) g
    with g = (-1 / (2c), b / (2c^2)); Fieller's set is beside it.

    Args:
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: N of the grid 0..N searched for the optimum; the deepest depth
            when not given.
        confidence: of both vertex intervals.

    Raises:
        ValueError: fewer than three different depths, gaps, or negative depths.
    """
    x, y = check_points(depth, accuracy, least=3)
    ols = least_squares(_design("quadratic", x), y)
    _, b, c = (float(v) for v in ols.coef)
    t = student_t_quantile(0.5 + confidence / 2, ols.dof)
    vertex = -b / (2 * c) if c != 0 else math.nan
    half = math.nan
    if c != 0:
        gradient = np.array([-1 / (2 * c), b / (2 * c * c)])
        half = t * math.sqrt(max(gradient @ ols.cov[1:, 1:] @ gradient, 0.0))
    t_curvature = c / ols.stderr[2] if ols.stderr[2] > 0 else math.nan
    return QuadraticFit(
        **_summary(
            "quadratic", x, y, ols.coef, ols.stderr, ols.loo_rmse, ols.sse, total_layers
        ),
        vertex=vertex,
        vertex_interval=(vertex - half, vertex + half),
        vertex_fieller=vertex_fieller(b, c, ols.cov[1:, 1:], t),
        curvature_p=student_t_two_sided(t_curvature, ols.dof),
        is_maximum=c < 0,
    )


def fit_plateau(depth, accuracy, *, total_layers: int | None = None) -> Fit:
    """Fit y = a + b min(L, h): a ramp up to the hinge h, flat after it.

    Standard errors come from the Jacobian (1, min(L, h), b [L > h]) at the solution;
    nan when no depth lies beyond the hinge. The leave-one-out error refits the hinge.

    Args:
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: as for `fit_quadratic`.

    Raises:
        ValueError: fewer than two different depths, gaps, or negative depths.
    """
    x, y = check_points(depth, accuracy, least=2)
    coef, sse = solve_hinge(x, y)
    jacobian = np.stack(
        [np.ones_like(x), np.minimum(x, coef[2]), coef[1] * (x > coef[2])], axis=1
    )
    spread = least_squares(jacobian, y - evaluate("plateau", coef, x, x))
    stderr = np.full(3, np.nan)
    if spread.rank == 3 and spread.dof > 0:
        # `spread` refits the residuals, so its sigma may be smaller than that of the
        # curve when the hinge sits on a depth.
        own_sse = max(spread.sse, 1e-300)
        stderr = spread.stderr * math.sqrt(sse / own_sse)

    def refit(xs, ys):
        solved = solve_hinge(xs, ys)[0]
        return lambda at: evaluate("plateau", solved, xs, at)

    loo = _loo_by_refit(x, y, refit)
    return Fit(**_summary("plateau", x, y, coef, stderr, loo, sse, total_layers))


def fit_unimodal_curve(depth, accuracy, *, total_layers: int | None = None) -> Fit:
    """Fit the best curve that rises to one peak and then falls.

    Replicates of a depth are averaged with their number as weight; between depths the
    curve is a straight line, beyond them it is constant. The number of parameters is
    the number of distinct levels.

    Args:
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: as for `fit_quadratic`.

    Raises:
        ValueError: no points, gaps, or negative depths.
    """
    x, y = check_points(depth, accuracy, least=1)

    def solve(xs, ys):
        knots, which, counts = np.unique(xs, return_inverse=True, return_counts=True)
        means = np.bincount(which, weights=ys) / counts
        return knots, fit_unimodal(means, counts).values

    def refit(xs, ys):
        knots, levels = solve(xs, ys)
        return lambda at: np.interp(at, knots, levels)

    knots, levels = solve(x, y)
    sse = float(np.sum((y - np.interp(x, knots, levels)) ** 2))
    loo = _loo_by_refit(x, y, refit)
    nothing = np.full(len(levels), np.nan)
    return Fit(
        **_summary("unimodal", x, y, levels, nothing, loo, sse, total_layers, knots)
    )


def fit_shape(
    shape: str, depth, accuracy, *, total_layers: int | None = None
) -> Fit | QuadraticFit:
    """Fit one of `SHAPES`; equations at the top of the file.

    Args:
        shape: a name in `SHAPES`.
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: as for `fit_quadratic`.

    Raises:
        ValueError: unknown shape, or too few different depths for it.
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
    if shape == "quadratic":
        return fit_quadratic(depth, accuracy, total_layers=total_layers)
    if shape == "plateau":
        return fit_plateau(depth, accuracy, total_layers=total_layers)
    if shape == "unimodal":
        return fit_unimodal_curve(depth, accuracy, total_layers=total_layers)
    x, y = check_points(depth, accuracy, least=len(BASES[shape]))
    ols = least_squares(_design(shape, x), y)
    return Fit(
        **_summary(
            shape, x, y, ols.coef, ols.stderr, ols.loo_rmse, ols.sse, total_layers
        )
    )


def fit_all(depth, accuracy, *, total_layers: int | None = None) -> dict[str, Fit]:
    """Fit every shape that the number of different depths allows, in `SHAPES` order.

    Args:
        depth: (n,) unfrozen layers.
        accuracy: (n,) values, replicates allowed.
        total_layers: as for `fit_quadratic`.
    """
    x, y = check_points(depth, accuracy, least=1)
    needed = {name: len(basis) for name, basis in BASES.items()} | {"plateau": 2}
    distinct = len(np.unique(x))
    return {
        shape: fit_shape(shape, x, y, total_layers=total_layers)
        for shape in SHAPES
        if distinct >= needed.get(shape, 1)
    }
