"""Fits against closed forms and SciPy; bootstraps and pooled fits on made data."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from ftjax.analysis import bootstrap, fits
from ftjax.stats.least_squares import least_squares


def noisy(shape, depth, *coef, noise=0.01, seed=0):
    x = np.asarray(depth, float)
    clean = fits.evaluate(shape, np.asarray(coef), np.array([]), x)
    return clean + noise * np.random.default_rng(seed).standard_normal(x.shape)


DEPTH = np.array([0, 5, 10, 20, 40, 60, 80, 100, 120, 149], float)


def test_linear_fit_equals_scipy():
    y = noisy("linear", DEPTH, 0.6, 0.001)
    fit = fits.fit_shape("linear", DEPTH, y)
    expected = stats.linregress(DEPTH, y)
    assert fit.coef == pytest.approx([expected.intercept, expected.slope])
    assert fit.stderr == pytest.approx([expected.intercept_stderr, expected.stderr])
    assert fit.r_squared == pytest.approx(expected.rvalue**2)


def test_quadratic_equals_curve_fit_and_polyfit():
    y = noisy("quadratic", DEPTH, 0.5, 0.004, -2e-5)
    fit = fits.fit_quadratic(DEPTH, y, total_layers=149)

    def parabola(x, a, b, c):
        return a + b * x + c * x * x

    coef, cov = optimize.curve_fit(parabola, DEPTH, y, p0=(0.5, 0.004, -2e-5))
    assert fit.coef == pytest.approx(coef, rel=1e-5)
    assert fit.stderr == pytest.approx(np.sqrt(np.diag(cov)), rel=1e-4)
    assert fit.coef == pytest.approx(np.polyfit(DEPTH, y, 2)[::-1])
    half = np.diff(fit.vertex_interval)[0] / 2
    gradient = np.array([0, -1 / (2 * coef[2]), coef[1] / (2 * coef[2] ** 2)])
    assert half == pytest.approx(
        stats.t.ppf(0.975, 7) * math.sqrt(gradient @ cov @ gradient), rel=1e-3
    )
    assert fit.is_maximum and fit.optimum == round(fit.vertex)


def test_exact_parabola_is_recovered():
    y = 0.4 + 0.006 * DEPTH - 3e-5 * DEPTH**2
    fit = fits.fit_quadratic(DEPTH, y, total_layers=149)
    assert fit.vertex == pytest.approx(100)
    assert fit.optimum == 100 and fit.optimum_value == pytest.approx(0.7)
    assert fit.r_squared == pytest.approx(1) and fit.aicc < -600
    assert fit.loo_rmse == pytest.approx(0, abs=1e-12)


def test_optimum_is_an_end_where_the_vertex_is_outside():
    rising = 0.4 + 0.006 * DEPTH - 1e-5 * DEPTH**2
    assert fits.fit_quadratic(DEPTH, rising).optimum == 149
    cup = 0.5 - 0.003 * DEPTH + 1e-5 * DEPTH**2
    fit = fits.fit_quadratic(DEPTH, cup, total_layers=149)
    assert not fit.is_maximum and fit.optimum == 0


def test_fieller_set_is_where_the_slope_is_not_rejected():
    y = noisy("quadratic", DEPTH, 0.5, 0.002, -1e-5, noise=0.02, seed=3)
    fit = fits.fit_quadratic(DEPTH, y)
    design = np.stack([np.ones_like(DEPTH), DEPTH, DEPTH**2], axis=1)
    cov = least_squares(design, y).cov
    t = stats.t.ppf(0.975, len(y) - 3)

    def rejected(v):
        slope = np.array([0, 1, 2 * v])
        return abs(slope @ fit.coef) > t * math.sqrt(slope @ cov @ slope)

    low, high = fit.vertex_fieller.low, fit.vertex_fieller.high
    inside = fit.vertex_fieller.kind == "interval"
    assert rejected(0.5 * (low + high)) != inside
    assert rejected(low - 1) == inside and rejected(high + 1) == inside


@pytest.mark.parametrize(
    ("slope", "curvature", "kind"),
    [(0.004, -2e-5, "interval"), (0.002, -1e-9, "complement"), (0, 0, "everything")],
)
def test_fieller_kinds(slope, curvature, kind):
    y = noisy("quadratic", DEPTH, 0.5, slope, curvature, seed=1)
    assert fits.fit_quadratic(DEPTH, y).vertex_fieller.kind == kind


def test_fieller_covers_the_vertex():
    hits = 0
    for seed in range(200):
        y = noisy("quadratic", DEPTH, 0.5, 0.004, -2.5e-5, noise=0.02, seed=seed)
        kind, low, high = fits.fit_quadratic(DEPTH, y).vertex_fieller
        inside = low <= 80 <= high
        hits += {"interval": inside, "complement": not inside, "everything": True}[kind]
    assert 180 <= hits <= 200  # 95 % of 200, 99.8 % binomial limits


@pytest.mark.parametrize("shape", ["constant", "linear", "quadratic", "sqrt+linear"])
def test_leave_one_out_equals_refitting(shape):
    y = noisy("quadratic", DEPTH, 0.5, 0.004, -2e-5)
    errors = []
    for i in range(len(y)):
        keep = np.arange(len(y)) != i
        fit = fits.fit_shape(shape, DEPTH[keep], y[keep], total_layers=149)
        errors.append(y[i] - fits.predict(fit, DEPTH[i]))
    expected = np.sqrt(np.mean(np.square(errors)))
    assert fits.fit_shape(shape, DEPTH, y).loo_rmse == pytest.approx(expected)


def test_leave_one_out_is_nan_where_a_point_pins_a_coefficient():
    assert math.isnan(fits.fit_quadratic([0, 1, 2], [0.5, 0.6, 0.55]).loo_rmse)


@pytest.mark.parametrize("hinge", [20.0, 31.7, 75.0])
def test_plateau_is_recovered_and_beats_a_grid(hinge):
    y = noisy("plateau", DEPTH, 0.5, 0.004, hinge, noise=0)
    fit = fits.fit_plateau(DEPTH, y, total_layers=149)
    assert fit.coef == pytest.approx([0.5, 0.004, hinge])
    assert fit.optimum == math.ceil(hinge)
    y = noisy("plateau", DEPTH, 0.5, 0.004, hinge, noise=0.02)
    best = fits.fit_plateau(DEPTH, y).rmse ** 2 * len(y)
    for at in np.linspace(1, 149, 500):
        design = np.stack([np.ones_like(DEPTH), np.minimum(DEPTH, at)], axis=1)
        assert best <= least_squares(design, y).sse + 1e-12


def test_plateau_standard_errors_equal_curve_fit():
    depth = np.repeat(DEPTH, 3)
    y = noisy("plateau", depth, 0.5, 0.004, 47.0)
    fit = fits.fit_plateau(depth, y)

    def ramp(x, a, b, h):
        return a + b * np.minimum(x, h)

    coef, cov = optimize.curve_fit(ramp, depth, y, p0=fit.coef)
    assert fit.coef == pytest.approx(coef, rel=1e-4)
    assert fit.stderr == pytest.approx(np.sqrt(np.diag(cov)), rel=1e-2)


def test_unimodal_data_are_fitted_exactly():
    y = [0.5, 0.6, 0.8, 0.7, 0.4]
    fit = fits.fit_shape("unimodal", [0, 10, 20, 30, 40], y)
    assert fit.rmse == 0 and fit.optimum == 20 and fit.num_params == 5


def test_replicates_enter_as_points():
    y = np.array([0.5, 0.6, 0.7, 0.8, 0.65, 0.55])
    fit = fits.fit_shape("unimodal", [0, 0, 10, 10, 20, 20], y)
    assert fit.coef == pytest.approx([0.55, 0.75, 0.6])
    assert fit.num_points == 6


def test_order_of_rows_does_not_matter():
    y = noisy("quadratic", DEPTH, 0.5, 0.004, -2e-5)
    order = np.random.default_rng(0).permutation(len(y))
    straight, mixed = fits.fit_all(DEPTH, y), fits.fit_all(DEPTH[order], y[order])
    for shape in fits.SHAPES:
        assert mixed[shape].coef == pytest.approx(straight[shape].coef)
        assert mixed[shape].optimum == straight[shape].optimum


def test_the_true_shape_has_the_lowest_aicc():
    depth = np.repeat(DEPTH, 3)
    truth = {
        "linear": (0.5, 0.002),
        "quadratic": (0.5, 0.004, -2e-5),
        "log1p+linear": (0.5, 0.08, -0.002),
        "plateau": (0.5, 0.006, 45.0),
    }
    for shape, coef in truth.items():
        fitted = fits.fit_all(depth, noisy(shape, depth, *coef, noise=0.004))
        assert min(fitted, key=lambda name: fitted[name].aicc) == shape


def test_fit_all_leaves_out_what_two_depths_cannot_tell():
    fitted = fits.fit_all([0, 10, 0, 10], [0.5, 0.6, 0.52, 0.61])
    assert set(fitted) == {"constant", "linear", "plateau", "unimodal"}
    assert set(fits.fit_all([7], [0.5])) == {"constant", "unimodal"}


def test_flat_data_have_no_r_squared():
    fit = fits.fit_quadratic(DEPTH, np.full(len(DEPTH), 0.7))
    assert math.isnan(fit.r_squared) and fit.optimum == 0


@pytest.mark.parametrize(
    ("depth", "accuracy", "message"),
    [
        ([0, 1], [0.5, 0.6], "at least 3 different depths, got 2"),
        ([0, 1, 2], [0.5, 0.6], "equal length"),
        ([0, 1, 2], [0.5, math.nan, 0.6], "must be finite"),
        ([-1, 1, 2], [0.5, 0.5, 0.6], "depth must be >= 0"),
    ],
)
def test_bad_points_are_named(depth, accuracy, message):
    with pytest.raises(ValueError, match=message):
        fits.fit_quadratic(depth, accuracy)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="total_layers = 10 is below the deepest"):
        fits.fit_quadratic(DEPTH, DEPTH / 200, total_layers=10)
    with pytest.raises(ValueError, match="unknown shape 'cubic': choose one of"):
        fits.fit_shape("cubic", DEPTH, DEPTH)


def test_quadratic_bootstrap_agrees_with_the_delta_method():
    depth = np.repeat(DEPTH, 4)
    y = noisy("quadratic", depth, 0.5, 0.004, -2.5e-5, noise=0.005)
    fit = fits.fit_quadratic(depth, y, total_layers=149)
    optima = bootstrap.bootstrap_quadratic_optimum(
        depth, y, total_layers=149, draws=4000
    )
    low, high = np.quantile(optima, [0.025, 0.975])
    assert [low, high] == pytest.approx(fit.vertex_interval, abs=1.0)
