"""Tail areas and quantiles against SciPy."""

import math

import pytest
from scipy import special, stats

from ftjax.stats import distributions


def test_tail_areas_equal_scipy():
    for dof in (1, 2, 3.5, 7, 40, 500):
        for t in (0.0, 0.3, 1.96, 12.0):
            expected = 2 * stats.t.sf(t, dof)
            assert distributions.student_t_two_sided(t, dof) == pytest.approx(expected)
        for p in (0.6, 0.95, 0.975, 0.9999):
            got = distributions.student_t_quantile(p, dof)
            assert got == pytest.approx(stats.t.ppf(p, dof), rel=1e-9)
    for f in (0.1, 1.0, 5.5, 60.0):
        got = distributions.f_survival(f, 2, 17)
        assert got == pytest.approx(stats.f.sf(f, 2, 17), rel=1e-10)
    assert distributions.incomplete_beta(2.5, 0.5, 0.999) == pytest.approx(
        special.betainc(2.5, 0.5, 0.999)
    )
    assert math.isnan(distributions.student_t_quantile(0.975, 0))
