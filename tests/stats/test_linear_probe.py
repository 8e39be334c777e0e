"""Ridge and log evidence against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import RidgeClassifierCV

from ftjax.stats.linear_probe import STRENGTHS, decompose, fit_ridge, log_evidence


def features(n, c, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centers = rng.normal(size=(classes, c))
    return centers[labels] + 2 * rng.normal(size=(n, c)) + 3, labels


@pytest.mark.parametrize("n, c", [(60, 8), (30, 50), (200, 20)])
def test_ridge_is_that_of_scikit_learn(n, c):
    x, y = features(n, c, 4)
    probe = fit_ridge(x, y, 4)
    theirs = RidgeClassifierCV(alphas=STRENGTHS, store_cv_results=True).fit(x, y)
    expected = theirs.cv_results_.mean(axis=(0, 1))
    # Weak penalties leave nearly nothing over where channels outnumber images, and
    # two ways to divide it by nearly nothing differ.
    sane = np.array(STRENGTHS) >= 1e-2
    np.testing.assert_allclose(probe.loo_error[sane], expected[sane], rtol=1e-6)
    assert probe.strength == theirs.alpha_
    np.testing.assert_allclose(probe.kernel.T, theirs.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(probe.bias, theirs.intercept_, rtol=1e-6, atol=1e-9)


def test_leave_one_out_is_leaving_one_out():
    x, y = features(15, 4, 3)
    found = fit_ridge(x, y, 3, strengths=(0.7,)).loo_error[0]
    errors = []
    for left_out in range(15):
        rest = np.arange(15) != left_out
        part = fit_ridge(x[rest], y[rest], 3, strengths=(0.7,))
        target = 2.0 * (np.arange(3) == y[left_out]) - 1
        errors.append(target - x[left_out] @ part.kernel - part.bias)
    np.testing.assert_allclose(found, np.mean(np.square(errors)), rtol=1e-9)


@pytest.mark.parametrize("n, c", [(40, 6), (25, 40)])
def test_log_evidence_is_the_largest_of_the_gaussian(n, c):
    """N(0, I / beta + F F' / alpha), its precisions found by SciPy."""
    x, y = features(n, c, 3)
    expected = []
    for label in range(3):
        target = (y == label).astype(float)

        def loss(logs, target=target):
            alpha, beta = np.exp(logs)
            cov = np.eye(n) / beta + x @ x.T / alpha
            return -stats.multivariate_normal.logpdf(target, np.zeros(n), cov)

        best = min(
            optimize.minimize(loss, start, method="Nelder-Mead").fun
            for start in ([0.0, 0.0], [4.0, 3.0])
        )
        expected.append(-best / n)
    found = log_evidence(x, y, 3)
    np.testing.assert_allclose(found, np.mean(expected), atol=2e-4)


def test_log_evidence_prefers_features_that_tell_the_classes():
    x, y = features(300, 10, 3)
    noise = np.random.default_rng(1).normal(size=x.shape)
    assert log_evidence(x, y, 3) > log_evidence(noise, y, 3) + 0.1
    with_absent = log_evidence(x, y, 4)
    np.testing.assert_allclose(with_absent, log_evidence(x, y, 3))


def test_both_decompositions_are_one_and_drop_what_is_noise():
    x, _ = features(50, 6, 3)
    x = np.hstack([x, x[:, :1]])  # two equal channels
    left, values, right = decompose(x)
    assert values.shape == (6,)
    np.testing.assert_allclose((left * values) @ right, x, atol=1e-8)
    np.testing.assert_allclose(values, np.linalg.svd(x)[1][:6], rtol=1e-9)
    np.testing.assert_allclose(left.T @ left, np.eye(6), atol=1e-7)
    assert decompose(np.zeros((20, 3)))[1].size == 0


def test_features_without_information_are_no_error():
    x, y = np.ones((20, 3)), np.arange(20) % 2
    probe = fit_ridge(x, y, 2)
    np.testing.assert_array_equal(probe.kernel, 0)
    assert np.isfinite(log_evidence(np.zeros((20, 3)), y, 2))


def test_ridge_needs_images_and_strengths():
    with pytest.raises(ValueError, match="two images and strengths above zero"):
        fit_ridge(np.ones((1, 2)), np.zeros(1, int), 2)
    with pytest.raises(ValueError, match="above zero"):
        fit_ridge(np.ones((4, 2)), np.zeros(4, int), 2, strengths=(0.0,))
