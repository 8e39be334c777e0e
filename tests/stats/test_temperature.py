"""The temperature of calibrated probabilities."""

import numpy as np
import pytest

from ftjax.stats.temperature import LIMITS, fit_temperature


def test_it_finds_the_temperature_that_labels_were_drawn_by():
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (4000, 5))
    odds = np.exp(honest)
    chances = odds / odds.sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    found = fit_temperature(3 * honest, labels)
    # The standard error of 1 / T over 4,000 labels is about 2 %.
    assert found == pytest.approx(3, rel=0.08)
    assert fit_temperature(honest, labels) == pytest.approx(found / 3, rel=1e-9)


def test_two_images_that_are_right_are_not_certain():
    logits = np.array([[2.0, 0], [0, 2.0]], np.float16)
    found = fit_temperature(logits, np.array([0, 1]))
    assert 1 / (1 + np.exp(-2 / found)) == pytest.approx(3 / 4)  # (n + 1) / (n + 2)
    wrong = fit_temperature(logits, np.array([1, 0]))
    assert wrong == pytest.approx(LIMITS[1])
