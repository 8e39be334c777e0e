"""Noise of runs and images, the set of depths that may be best, and its optimism."""

import numpy as np
import pytest

from ftjax.analysis.best_set import best_set
from ftjax.analysis.effects import depth_effects
from ftjax.analysis.evidence import (
    binomial_covariance,
    image_covariance,
    weigh_evidence,
)
from ftjax.analysis.optimism import corrected_accuracy
from ftjax.analysis.run_noise import estimate_run_noise, reference_spread
from ftjax.search.planted import planted_sweep

RANK = np.linspace(0, 1, 6)


def noisy(spread, seeds, key=0, level=0.9):
    rng = np.random.default_rng(key)
    spread = np.broadcast_to(spread, 6)[:, None]
    return level + spread * rng.standard_normal((6, seeds))


def measured(values):
    effects = depth_effects(values)
    return estimate_run_noise(RANK, effects.squares, effects.own_dof)


@pytest.mark.parametrize(
    "spread", [0.001, 0.01, 0.005 * 6**RANK, 0.02 * 0.3**RANK], ids=str
)
def test_many_seeds_overrule_the_reference(spread):
    found = measured(noisy(spread, 40))
    np.testing.assert_allclose(found.spread, np.broadcast_to(spread, 6), rtol=0.35)
    assert 5 * 39 <= found.measured <= 6 * 39


def test_three_seeds_borrow_from_the_other_depths():
    """A depth whose three runs happen to agree is not taken as free of noise."""
    values = noisy(0.01, 3)
    values[2] = values[2].mean()
    found = measured(values)
    assert found.spread[2] > 0.3 * found.spread[3]


def test_without_replicates_the_reference_is_assumed_and_grows_with_depth():
    found = estimate_run_noise(RANK, np.zeros(6), np.zeros(6))
    assert found.measured == 0
    np.testing.assert_allclose(found.spread, reference_spread(RANK), rtol=0.2)
    assert found.spread[-1] > 2 * found.spread[0]
    near_one = reference_spread(RANK, 0.999)
    assert (near_one < 0.4 * reference_spread(RANK, 0.9)).all()


def test_replicates_at_two_depths_tell_of_all_of_them():
    values = noisy(0.04, 3, key=3)
    values[:4, 1:] = np.nan
    loud = measured(values).spread
    values[4:] = values[4:].mean(axis=1, keepdims=True) + 0.001 * np.arange(3)
    quiet = measured(values).spread
    assert (loud > 2 * quiet).all()


def test_what_single_images_do_is_not_counted_twice():
    """Runs that differ by independent images alone have no noise of their own."""
    rng = np.random.default_rng(0)
    correct = rng.random((6, 5, 400)) < 0.8
    flips = correct.var(axis=1, ddof=1).mean(axis=1) / 400
    values, scores = correct.mean(axis=2), correct.mean(axis=1)
    twice = weigh_evidence(values, RANK, scores=scores)
    once = weigh_evidence(values, RANK, scores=scores, flips=flips)
    assert once.stderr[0, 5] < 0.85 * twice.stderr[0, 5]
    true = np.sqrt(2 * 0.16 / 400 / 5)
    assert once.stderr[0, 5] == pytest.approx(true, rel=0.35)


def test_seed_effects_leave_the_differences():
    shared = 0.05 * np.random.default_rng(1).standard_normal(5)
    evidence = weigh_evidence(noisy(0.002, 5) + shared, RANK)
    assert evidence.stderr[1, 4] == pytest.approx(0.002 * np.sqrt(2 / 5), rel=0.6)


def test_missing_seeds_are_compared_by_the_model():
    values = np.array([[0.80, 0.90], [0.81, 0.91], [0.795, np.nan]])
    assert depth_effects(values).means == pytest.approx([0.85, 0.86, 0.845])
    lucky = np.array([[0.80, 0.90], [0.81, 0.91], [np.nan, 0.895]])
    assert depth_effects(lucky).means.argmax() == 1
    apart = np.array([[0.8, np.nan], [np.nan, 0.9]])
    assert depth_effects(apart).means == pytest.approx([0.8, 0.9])
    # No seed effect to be seen: one run of a depth is not corrected by it.
    same = np.array([[0.80, 0.82], [0.82, 0.80], [0.79, np.nan]])
    assert depth_effects(same).means == pytest.approx([0.81, 0.81, 0.79])


def test_images_are_paired_and_every_cell_has_a_doubt_of_one_image():
    rng = np.random.default_rng(0)
    right = (rng.random((2, 500)) < 0.8).astype(float)
    size = right[0].mean() * (1 - right[0].mean()) / 500
    assert image_covariance(right)[0, 0] == pytest.approx(size, rel=0.05)
    same = image_covariance(np.stack([right[0], right[0]]))
    apart = same[0, 0] + same[1, 1] - 2 * same[0, 1]
    assert 0 < apart <= 2 / 500**2
    perfect = image_covariance(np.ones((2, 100)))
    assert perfect[0, 0] == pytest.approx(1 / 100**2)
    assert (np.diag(binomial_covariance(np.array([1.0, 0.5]), 100)) > 0).all()


def test_draws_have_the_covariance_that_is_stated():
    evidence = weigh_evidence(noisy(0.01, 20), RANK, val_size=500, draws=20_000)
    drawn = np.cov(evidence.noise.T)
    np.testing.assert_allclose(np.diag(drawn), np.diag(evidence.covariance), rtol=0.15)


def test_the_set_holds_all_that_are_equal_and_drops_what_is_clearly_worse():
    held = 0
    for key in range(60):
        values = noisy(0.01, 3, key=key)
        values[4:] -= 0.2
        inside = best_set(weigh_evidence(values, RANK, draws=500, seed=key))
        assert not inside[4:].any()
        held += inside[:4].all()
    assert held >= 54  # 95 % of 60 is 57, less two standard errors


def test_a_margin_keeps_what_is_worse_by_less():
    values = np.tile(np.array([0.9, 0.89, 0.85, 0.8, 0.7, 0.6])[:, None], 3)
    evidence = weigh_evidence(values, RANK)
    assert best_set(evidence).sum() == 1
    assert best_set(evidence, margin=0.02).sum() == 2
    assert best_set(evidence, confidence=0.5).sum() == 1


def test_the_optimism_of_a_choice_is_taken_off():
    """Six equal depths on 200 images: the highest is too high by 1.3 errors."""
    raw, corrected, held = [], [], 0
    for key in range(60):
        rng = np.random.default_rng(key)
        made = planted_sweep(
            "plateau", size=6, deepest=0.01, seeds=3, images=200, rng=rng
        )
        values, scores = made.correct.mean(axis=2), made.correct.mean(axis=1)
        flips = made.correct.var(axis=1, ddof=1).mean(axis=1) / 200
        evidence = weigh_evidence(values, RANK, scores=scores, flips=flips, draws=500)
        named = int(np.argmax(evidence.means))
        found = corrected_accuracy(evidence, named, scores, seed=key)
        raw.append(evidence.means[named] - made.truth[named])
        corrected.append(found.value - made.truth[named])
        held += found.low <= made.truth[named] <= found.high
        assert found.low <= found.value <= found.high
    assert np.mean(raw) > 0.007
    assert abs(np.mean(corrected)) < 0.5 * np.mean(raw)
    assert held >= 52


def test_one_cell_was_not_chosen():
    evidence = weigh_evidence(np.array([[0.9, 0.92]]), np.zeros(1), val_size=100)
    assert corrected_accuracy(evidence, 0).value == pytest.approx(0.91)
