"""The search: where it looks, when it stops, and what that costs on planted curves."""

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.decision import Placement
from ftjax.analysis.explain import decompose_fall, diagnose_depths, explain_trials
from ftjax.analysis.recommend import recommend
from ftjax.search import simulate
from ftjax.search.belief import (
    collapsed,
    level_falls,
    noise_before,
    open_ends,
    run_spread,
    shortest_interval,
)
from ftjax.search.depths import GAIN, first_depths, next_depths
from ftjax.search.gaussian_process import (
    correlations,
    draw_curves,
    fit_curve,
    knowledge_gradient,
    matern,
)

UNITS = tuple(8 * k for k in range(19))


def rows(placements, value, status="done"):
    """Rows of a table for trials; `value(depth, bn, seed)` is their accuracy."""
    table = pd.DataFrame([place._asdict() for place in placements])
    table["val_accuracy"] = [value(*place[:3]) for place in placements]
    table["trial"] = [f"{d}-{b if d else ''}-{s}" for d, b, s, _ in placements]
    return table.assign(status=status)


def play(value, **options):
    """The search to its end; its last decision and its table."""
    table = None
    for _ in range(200):
        decision = next_depths(table, UNITS, **options)
        if decision.done:
            return decision, table
        new = rows(decision.trials, value)
        table = new if table is None else pd.concat([table, new], ignore_index=True)
    raise AssertionError("the search does not end")


def peaked(depth, bn="follow", seed=0, *, place=64, noise=0.003):
    rng = np.random.default_rng([depth, len(bn), seed])
    return 0.95 - 1.2e-5 * (depth - place) ** 2 + noise * rng.normal()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 8, 14, 19, 52, 131, 311])
def test_first_depths(size):
    depths = tuple(range(0, 3 * size, 3))
    first = first_depths(depths)
    assert set(first) <= set(depths)
    assert first == tuple(sorted(set(first)))
    assert {first[0], first[-1]} == {depths[0], depths[-1]}
    assert len(first) == min(6, size)
    if size > 10:
        gaps = np.diff(first)
        assert gaps[0] < gaps[-1]


def test_the_posterior_is_the_textbook_one():
    """Against the joint Gaussian of one length scale and amplitude, by its inverse."""
    rng = np.random.default_rng(0)
    index, values = np.array([0, 3, 3, 9]), rng.normal(0.9, 0.01, 4)
    posterior = fit_curve(
        index, values, np.zeros(4), size=10, noise=0.005, noise_dof=1e9
    )
    weights, means = [], []
    grid = np.linspace(0, 1, 10)
    for length in (0.1, 0.2, 0.4, 0.8, 1.6):
        for smoothness in (0.5, 1.5):
            for size in (0.5, 1.5, 5.0, 15.0, 50.0):
                distance = np.subtract.outer(grid, grid) / length
                prior = size**2 * matern(distance, np.array(smoothness)) + 100.0**2
                k = prior[np.ix_(index, index)] + np.eye(4) + 1.0
                k *= 0.005**2
                residual = values - values.mean()
                solved = np.linalg.solve(k, residual)
                means.append(values.mean() + 0.005**2 * prior[:, index] @ solved)
                log_det = np.linalg.slogdet(k)[1]
                weights.append(-0.5 * log_det - 0.5 * residual @ solved)
    weights = np.exp(np.array(weights) - max(weights))
    weights *= weights >= 0.02
    expected = weights @ np.array(means) / weights.sum()
    np.testing.assert_allclose(posterior.mean, expected, atol=2e-6)
    np.testing.assert_allclose(posterior.noise, 0.005**2, rtol=1e-6)


def test_correlations_are_valid_kernels():
    tables = correlations(12).reshape(-1, 12, 12)
    assert np.linalg.eigvalsh(tables).min() > -1e-9
    np.testing.assert_allclose(np.diagonal(tables, axis1=1, axis2=2), 1)


def test_draws_have_the_moments_of_the_posterior():
    index = np.array([0, 4, 8])
    values = np.array([0.9, 0.93, 0.91])
    posterior = fit_curve(
        index, values, np.zeros(3), size=9, noise=0.004, noise_dof=20.0
    )
    draws = draw_curves(posterior, 40_000, np.random.default_rng(0))
    draws = draws - draws[:, :1]
    mean = posterior.mean - posterior.mean[0]
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=3e-4)


def test_knowledge_gradient_against_simulated_trials():
    index, values = np.array([0, 4, 8]), np.array([0.90, 0.93, 0.92])
    posterior = fit_curve(
        index, values, np.zeros(3), size=9, noise=0.004, noise_dof=50.0
    )
    gains = knowledge_gradient(posterior)
    rng = np.random.default_rng(0)
    for place in (2, 6):
        rises = []
        for weight, cov, noise in zip(
            posterior.weights, posterior.covariances, posterior.noise, strict=True
        ):
            spread = np.sqrt(cov[place, place] + 1)
            z = rng.standard_normal((20_000, 1))
            means = posterior.mean + z * np.sqrt(noise) * cov[:, place] / spread
            rises.append(weight * (means.max(axis=1).mean() - posterior.mean.max()))
        np.testing.assert_allclose(gains[place], sum(rises), rtol=0.08, atol=2e-5)
    assert (knowledge_gradient(posterior, other_best=2.0) < 1e-9).all()


def test_noise_comes_from_images_then_from_the_validation_set():
    rng = np.random.default_rng(0)
    table = rows([Placement(8 * k, "follow", 0) for k in range(6)], lambda *_: 0.8)
    hard = rng.random(4000) < 0.8
    correct = {
        trial: np.where(rng.random(4000) < 0.1, rng.random(4000) < 0.5, hard)
        for trial in table["trial"]
    }
    paired, _ = noise_before(table, correct)
    spread = np.std([array.mean() for array in correct.values()], ddof=1)
    assert 0.4 * spread < paired < 2.5 * spread
    binomial, _ = noise_before(table.assign(val_size=4000), None)
    assert paired < binomial
    share = table["val_accuracy"].max()
    np.testing.assert_allclose(binomial, np.sqrt(share * (1 - share) / 4000))
    assert noise_before(table, None) == (0.005, 6.0)
    assert noise_before(table, {"other": np.ones(9, bool)}) == (0.005, 6.0)


def test_falls_are_compressed_in_order():
    values = np.array([0.95, 0.948, 0.9, 0.5, 0.1])
    levelled, variances = level_falls(values, 0.003)
    assert (np.diff(levelled) < 0).all()
    assert levelled[0] == 0.95
    np.testing.assert_allclose(levelled[1], 0.948, atol=2e-4)
    assert levelled[-1] > 0.8
    assert (np.diff(variances) <= 0).all()


@pytest.mark.parametrize("inside", [0, 4, 9])
def test_shortest_interval(inside):
    winners = np.repeat([3, 4, 5, 9], [20, 60, 16, 4])
    assert shortest_interval(winners, 10, 4, 0.95) == (3, 5)
    low, high = shortest_interval(winners, 10, inside, 0.95)
    assert low <= inside <= high
    assert shortest_interval(np.full(50, 7), 10, 7, 0.95) == (7, 7)


def test_the_search_finds_a_peak_with_few_trials_and_says_why_it_stops():
    decision, table = play(peaked)
    assert abs(decision.best[0] - 64) <= 24
    assert decision.interval[0] <= 64 <= decision.interval[1]
    assert decision.best[0] in set(table["depth_layers"])
    assert len(table) <= 12
    assert (
        decision.gain < GAIN * decision.noise
        or decision.interval[0] == (decision.interval[1])
    )
    assert "noise" in decision.reason or "narrower" in decision.reason


def test_the_same_table_gives_the_same_decision_in_any_order():
    _, table = play(peaked)
    for count in (6, 7, len(table)):
        part = table.iloc[:count]
        mixed = part.sample(frac=1, random_state=1).reset_index(drop=True)
        one, other = next_depths(part, UNITS), next_depths(mixed, UNITS)
        assert one.trials == other.trials
        assert one.best == other.best
        assert one.interval == other.interval


def test_a_resumed_search_takes_the_same_way():
    _, table = play(peaked)
    known = table.set_index(["depth_layers", "bn", "seed"])["val_accuracy"]
    seen = []

    def stored(*place):
        seen.append(place)
        return known[place]

    play(stored)
    assert seen == list(known.index)


def test_interrupted_trials_are_asked_for_again_and_failed_ones_are_not():
    start = next_depths(None, UNITS).trials
    table = rows(start, peaked)
    table.loc[2, ["status", "val_accuracy"]] = "pending", np.nan
    assert next_depths(table, UNITS).trials == (start[2],)
    table.loc[2, "status"] = "failed"
    decision = next_depths(table, UNITS)
    assert start[2] not in decision.trials
    assert decision.best is not None
    table["status"] = "failed"
    decision = next_depths(table, UNITS)
    assert decision.done
    assert decision.trials == ()
    assert "failed" in decision.reason


def test_missing_first_depths_are_asked_for():
    start = next_depths(None, UNITS).trials
    assert start == next_depths(pd.DataFrame(), UNITS).trials
    assert next_depths(rows(start[:4], peaked), UNITS).trials == start[4:]


def test_the_lower_policy_gets_its_first_depths_only():
    def value(depth, bn, seed):
        return peaked(depth, bn, seed) - 0.05 * (bn == "follow" and depth > 0)

    decision, table = play(value, bn=("follow", "frozen"))
    counts = table["bn"].value_counts()
    assert counts["follow"] == 6
    assert counts["frozen"] > 6
    assert decision.best[1] == "frozen"


def test_other_seeds_go_to_the_depths_that_may_be_best():
    decision, table = play(peaked, seeds=3)
    counts = table["depth_layers"].value_counts()
    assert counts[decision.best[0]] == 3
    assert set(counts) == {1, 3}
    assert (counts == 3).sum() <= 6
    assert len(table) < 0.5 * 3 * len(UNITS)


def test_max_trials_ends_the_search():
    decision, table = play(peaked, max_trials=7)
    assert decision.done
    assert len(table) == 7
    assert "7 trials" in decision.reason


def test_a_seed_that_moves_all_depths_does_not_move_the_answer():
    # Two of the depths have a second, luckier seed.
    table = rows(next_depths(None, UNITS).trials, peaked)
    more = rows(
        [Placement(depth, "follow", 1) for depth in table["depth_layers"][:2]],
        lambda *place: peaked(*place) + 0.004,
    )
    before = next_depths(table, UNITS).best
    assert next_depths(pd.concat([table, more]), UNITS, seeds=2).best == before


def made(shape, size, key, *, seeds=1, deepest=0.01, images=400):
    rng = np.random.default_rng([key, len(shape)])
    return simulate.planted_sweep(
        shape, size=size, deepest=deepest, seeds=seeds, images=images, rng=rng
    )


def test_the_answer_is_the_depth_that_the_search_believes():
    """Not the highest of its measurements, which is high by luck more often."""
    regret, highest = [], []
    for key in range(30):
        sweep = made("unimodal", 40, key, seeds=2)
        decision, table = simulate.search_curve(sweep)
        best = recommend(table, search=decision)
        assert (best.depth_layers, best.bn) == decision.best
        assert best.interval_layers == decision.interval
        assert best.interval_source == "search" and "search" in best.scope
        assert set(best.not_worse) <= set(range(*decision.interval)) | {
            decision.interval[1]
        }
        regret.append(sweep.truth.max() - sweep.truth[best.depth_layers])
        named = table.groupby("depth_layers")["val_accuracy"].mean().idxmax()
        highest.append(sweep.truth.max() - sweep.truth[named])
    assert np.mean(regret) <= np.mean(highest)


def test_a_collapse_says_nothing_about_the_depth_before_it():
    """A smooth process through the fall would rule the best depth out."""
    held = []
    for key in range(12):
        sweep = made("collapse", 19, key)
        (low, high), best = (
            simulate.search_curve(sweep)[0].interval,
            sweep.truth.argmax(),
        )
        held.append(low <= best <= high)
    assert sum(held) >= 11


def test_what_collapsed_is_ruled_out_and_what_lies_between():
    index, fell = np.array([0, 4, 8, 9, 12]), np.array([0, 1, 1, 0, 1], bool)
    assert list(collapsed(index, fell)) == [4, 5, 6, 7, 8, 12]
    assert list(collapsed(np.array([3, 3]), np.array([True, False]))) == []


def test_the_search_knows_that_deeper_runs_differ_more():
    index = np.array([0, 5, 10, 18])
    spread = run_spread(index, np.full(4, 0.9), np.zeros(4), 19)
    assert (np.diff(spread) > 0).all() and spread[0] > 0.004
    rng = np.random.default_rng(0)
    twice, seeds = np.tile(index, 4), np.repeat(np.arange(4), 4)
    steady = 0.9 + 0.0005 * rng.standard_normal(16)
    assert (run_spread(twice, steady, seeds, 19) < 0.004).all()


def test_depths_next_to_the_best_that_nobody_saw_are_not_excluded():
    seen = np.array([0, 4, 8, 12])
    assert open_ends(seen, 8, 8, 8, 19) == (5, 11)
    assert open_ends(seen, 12, 10, 13, 19) == (9, 18)
    assert open_ends(seen, 0, 0, 6, 19) == (0, 6)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(candidates=()), "candidates must be depths"),
        (dict(candidates=(-1, 3)), "candidates must be depths"),
        (dict(bn=("off",)), "unknown bn.*follow"),
        (dict(seeds=0), "1 or more"),
        (dict(max_trials=0), "1 or more"),
    ],
)
def test_bad_input(options, message):
    candidates = options.pop("candidates", UNITS)
    with pytest.raises(ValueError, match=message):
        next_depths(None, candidates, **options)


def test_explaining_trials_are_those_that_the_explanation_needs():
    start = [Placement(8 * k, "follow", 0) for k in (0, 2, 5, 9, 13, 18)]
    accuracy = dict(
        zip((0, 16, 40, 72, 104, 144), (0.91, 0.95, 0.94, 0.9, 0.8, 0.5), strict=True)
    )
    table = rows(start, lambda depth, bn, seed: accuracy[depth])
    wanted = explain_trials(table)
    policies = ("frozen", "recalibrate")
    assert wanted == tuple((d, bn) for d in (16, 144) for bn in policies)
    more = rows([Placement(d, bn, 0) for d, bn in wanted], lambda *place: 0.94)
    table = pd.concat([table, more], ignore_index=True)
    assert explain_trials(table) == ()
    early = table.assign(
        status=np.where(table["bn"] == "frozen", "stopped", table["status"])
    )
    assert explain_trials(early) == ((16, "frozen"), (144, "frozen"))
    split = decompose_fall(diagnose_depths(table.assign(accuracy=0.96)))
    assert split is not None
    assert (split.best_depth, split.depth) == (16, 144)


def test_a_curve_without_a_fall_needs_no_explanation():
    table = rows([Placement(8 * k, "follow", 0) for k in range(5)], peaked)
    assert explain_trials(table) == ()
    assert explain_trials(table.assign(bn="frozen")) == ()
