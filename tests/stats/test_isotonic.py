"""Increasing and unimodal fits against SciPy and all peaks."""

import numpy as np
import pytest
from scipy import optimize

from ftjax.stats.isotonic import fit_increasing, fit_unimodal


def test_isotonic_equals_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, w = rng.standard_normal(12), rng.uniform(0.5, 3, 12)
        expected = optimize.isotonic_regression(y, weights=w).x
        assert fit_increasing(y, w) == pytest.approx(expected)


def test_unimodal_is_the_best_of_all_peaks():
    rng = np.random.default_rng(1)
    for _ in range(20):
        y = rng.standard_normal(9)
        fit = fit_unimodal(y)
        assert np.all(np.diff(fit.values[: fit.mode + 1]) >= -1e-12)
        assert np.all(np.diff(fit.values[fit.mode :]) <= 1e-12)
        every = []
        for cut in range(10):
            left, right = y[:cut], y[cut:]
            parts = [
                optimize.isotonic_regression(part, increasing=up).x
                for part, up in ((left, True), (right, False))
                if len(part)
            ]
            every.append(np.sum((y - np.concatenate(parts)) ** 2))
        assert fit.sse == pytest.approx(min(every))
