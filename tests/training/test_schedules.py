"""Factors on the learning rate, against their formulas."""

import numpy as np
import pytest

from ftjax.training.schedules import rate_factors


def test_constant():
    np.testing.assert_array_equal(rate_factors("constant", steps=3, epochs=2), 1)


def test_cosine_falls_from_one_towards_zero():
    factors = rate_factors("cosine", steps=10, epochs=4)
    assert factors[0] == 1 and factors[20] == pytest.approx(0.5)
    assert (np.diff(factors) < 0).all() and 0 < factors[-1] < 0.01


def test_one_over_t_counts_epochs():
    factors = rate_factors("one-over-t:2", steps=5, epochs=5)
    assert factors[10] == pytest.approx(1 / 2) and factors[20] == pytest.approx(1 / 3)


def test_warmup_rises_linearly():
    factors = rate_factors("constant", steps=4, epochs=2, warmup=1.0)
    np.testing.assert_allclose(factors, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
