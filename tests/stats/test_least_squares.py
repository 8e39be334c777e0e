"""The corrected information criterion."""

import math

import pytest

from ftjax.stats.least_squares import corrected_aic


def test_corrected_aic_closed_form_and_limits():
    sse, n, p = 0.02, 9, 3
    k = p + 1
    expected = n * math.log(sse / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert corrected_aic(sse, n, p) == pytest.approx(expected)
    assert math.isnan(corrected_aic(sse, 5, 3))
    assert corrected_aic(0.0, 9, 3) == -math.inf
