"""Recommendations on made sweeps: intervals, costs, causes, and tables with gaps."""

import json

import numpy as np
import pandas as pd
import pytest
from made_curve import FOLLOW, FROZEN, LAYERS, sweep

from ftjax.analysis import bootstrap
from ftjax.analysis.recommend import recommend

PEAK = 0.9 - 0.2 * ((LAYERS - 54) / 149) ** 2


def images(results, *, count=600, spread=0.5, key=0):
    """Correctness of every trial: one difficulty per image, own noise per trial."""
    rng = np.random.default_rng(key)
    difficulty, found = rng.standard_normal(count), {}
    for trial, value in zip(results["trial"], results["val_accuracy"], strict=True):
        hardness = difficulty + spread * rng.standard_normal(count)
        right = np.zeros(count, bool)
        right[np.argsort(hardness)[: round(value * count)]] = True
        found[trial] = right
    return found


def test_interior_optimum_and_every_part_of_the_sentence():
    best = recommend(sweep(PEAK, noise=0.002))
    assert best.depth_layers == 54 and best.interior_optimum
    low, high = best.interval_layers
    assert 0 < low <= 54 <= high < 149 and best.interval_source == "seeds"
    assert best.depth_units == 7 and best.total_units == 18
    start = (
        "Unfreeze the top 54 of 149 layers (7 of 18 blocks, 36 %) with BatchNorm "
        f"following the unfreezing; 95 % interval {low}-{high}; "
    )
    assert best.sentence.startswith(start)
    assert "full fine-tuning: -8." in best.sentence
    assert "points at 2.5x the time" in best.sentence
    assert "no interior optimum" not in best.sentence and "\n" not in best.sentence


def test_costs_not_worse_and_one_standard_error():
    results = sweep(np.array([0.5, 0.8, 0.896, 0.9, 0.899, 0.85, 0.8, 0.7, 0.6]))
    best = recommend(results, epsilon=0.005)
    assert best.not_worse == (12, 30, 54)
    assert best.pareto == (0, 3, 12, 30)
    assert best.smallest_within_one_se == 30  # no noise: nothing is within an error
    assert recommend(results, epsilon=0.0).not_worse == (30,)
    wide = recommend(sweep(results["val_accuracy"][:9].to_numpy(), noise=0.02, key=1))
    assert wide.depth_layers == 54 and wide.smallest_within_one_se == 12
    results["flops"] = results["flops"].max() - results["flops"]
    assert 149 in recommend(results).pareto  # the cheapest is not dominated


def test_paired_standard_error_ignores_what_seeds_share():
    rng = np.random.default_rng(0)
    shared = 0.05 * rng.standard_normal((1, 5))
    values = PEAK[:, None] + 0.002 * rng.standard_normal((9, 5)) + shared
    curve = bootstrap.bootstrap_curve(values)
    error = bootstrap.difference_stderr(curve, 4, 8)
    assert error == pytest.approx(0.002 * np.sqrt(2 / 5), rel=0.5)


@pytest.mark.parametrize("gap", [np.s_[:0], np.s_[2:, 1]])
def test_standard_error_is_that_of_the_planted_noise(gap):
    """Two seeds at three depths, or at two and one at a third: two and one degrees of
    freedom, where the draws' own variance has no bound. Squared, it is unbiased."""
    rng = np.random.default_rng(0)
    differences, squared = [], []
    for _ in range(400):
        values = 0.9 + 0.005 * rng.standard_normal((3, 2))
        values[gap] = np.nan
        curve = bootstrap.bootstrap_curve(values, draws=100)
        differences.append(curve.means[0] - curve.means[2])
        squared.append(bootstrap.difference_stderr(curve, 0, 2) ** 2)
    assert np.mean(squared) == pytest.approx(np.var(differences), rel=0.2)


def test_seed_noise_has_the_size_of_the_planted_noise():
    rng = np.random.default_rng(0)
    values = 0.9 + 0.005 * rng.standard_normal((40, 4))
    noise = bootstrap.bootstrap_curve(values, draws=4000).noise
    assert np.std(noise) == pytest.approx(0.005 / 2, rel=0.15)


def test_image_noise_is_paired_and_has_the_binomial_size():
    rng = np.random.default_rng(0)
    right = np.stack([rng.random(500) < 0.8, rng.random(500) < 0.8]).astype(float)
    noise = bootstrap.image_noise(right, 4000, rng)
    size = np.sqrt(right[0].mean() * (1 - right[0].mean()) / 500)
    assert np.std(noise[:, 0]) == pytest.approx(size, rel=0.1)
    covariance = bootstrap.image_covariance(right)
    np.testing.assert_allclose(np.cov(noise.T), covariance, atol=0.1 * size**2)
    same = bootstrap.image_noise(np.stack([right[0], right[0]]), 100, rng)
    assert same[:, 0] == pytest.approx(same[:, 1])


def test_missing_seed_does_not_favor_a_depth():
    values = np.array([[0.80, 0.90], [0.81, 0.91], [0.795, np.nan]])
    effects = bootstrap.depth_effects(values)
    assert effects.means == pytest.approx([0.85, 0.86, 0.845])
    lucky = np.array([[0.80, 0.90], [0.81, 0.91], [np.nan, 0.895]])
    assert bootstrap.depth_effects(lucky).means.argmax() == 1
    apart = np.array([[0.8, np.nan], [np.nan, 0.9]])
    assert bootstrap.depth_effects(apart).means == pytest.approx([0.8, 0.9])


def test_one_seed_uses_images_and_says_so():
    results = sweep(PEAK, seeds=1)
    best = recommend(results, images(results))
    assert best.interval_source == "images"
    assert best.interval_layers[0] <= 54 <= best.interval_layers[1]
    assert any("paired over validation images" in w for w in best.warnings)
    low, high = best.interval_layers
    assert f"95 % interval {low}-{high} over images alone;" in best.sentence
    both = sweep(PEAK, seeds=3, noise=0.003)
    assert recommend(both, images(both)).interval_source == "seeds and images"


def test_images_pair_the_depths():
    """Trials that err on the same images are told apart; unpaired they are not."""
    results = sweep(PEAK, seeds=1, val_size=600)
    paired = recommend(results, images(results, spread=0.05))
    unpaired = recommend(results)
    assert unpaired.interval_source == "binomial"
    assert "over images alone" in unpaired.sentence
    assert np.ptp(paired.interval_layers) < np.ptp(unpaired.interval_layers)
    assert any("run-to-run" in w for w in unpaired.warnings)


def test_nothing_known_about_the_noise():
    best = recommend(sweep(PEAK, seeds=1))
    assert best.interval_layers is None and best.interval_source == "none"
    assert "no interval" in best.sentence
    assert any("two or more seeds" in w for w in best.warnings)
    assert best.interior_optimum  # both ends lose by more than epsilon


@pytest.mark.parametrize(
    ("curve", "depth", "shape", "words"),
    [
        (np.linspace(0.6, 0.9, 9), 149, "deepest", "deepest tested depth is the best"),
        (np.linspace(0.9, 0.6, 9), 0, "shallowest", "shallowest tested depth"),
        (0.8 + 0.0001 * np.arange(9) % 3, None, "flat", "the curve is flat"),
        (np.minimum(0.6 + 0.1 * np.arange(9), 0.9), None, None, "no interior optimum"),
    ],
)
def test_no_interior_optimum(curve, depth, shape, words):
    best = recommend(sweep(curve, noise=0.0005))
    assert not best.interior_optimum and words in best.sentence
    assert depth is None or best.depth_layers == depth
    assert shape is None or best.shape == shape
    if depth == 0:
        assert best.sentence.startswith("Train the head alone (0 of 149 layers")
    if depth == 149:
        assert best.sentence.startswith("Unfreeze all 149 layers (18 of 18 blocks")


def test_one_depth_only():
    best = recommend(sweep(PEAK[:1], layers=LAYERS[:1]))
    assert best.depth_layers == 0 and best.interval_layers is None
    assert any("Only one depth" in w for w in best.warnings)
    assert best.quadratic == {"follow": None} and not best.interior_optimum


def test_policies_are_separate_curves_and_the_best_is_named():
    results = pd.concat([sweep(FOLLOW), sweep(FROZEN, bn="frozen")])
    best = recommend(results)
    assert best.bn == "frozen" and best.depth_layers == 90
    assert "the best of 2 BatchNorm policies (98.5 % against follow 95.0 %)" in (
        best.sentence
    )
    assert set(best.quadratic) == {"follow", "frozen"}
    assert best.quadratic["follow"].is_maximum


def test_a_policy_tried_at_one_depth_is_no_curve():
    probe = sweep(FROZEN[8:] + 0.015, bn="recalibrate", layers=LAYERS[8:])
    best = recommend(pd.concat([sweep(FROZEN, bn="frozen"), probe]))
    assert best.bn == "frozen"
    assert any("recalibrate reaches 99.5 % but was tried" in w for w in best.warnings)


def test_rows_that_cannot_count_are_dropped_and_counted():
    results = sweep(PEAK)
    results.loc[[0, 1], "status"] = ["failed", "pending"]
    results.loc[2, "val_accuracy"] = np.nan
    results["frozen_intact"] = [*[True] * 26, False]
    results["epochs"] = [*[5] * 25, 2, 5]
    best = recommend(results)
    text = " ".join(best.warnings)
    assert "2 of 27 rows dropped: not done (1 failed, 1 pending)" in text
    assert "1 of 25 rows dropped: no depth or no validation accuracy" in text
    assert "1 of 24 rows dropped: frozen weights changed" in text
    assert "1 of 23 rows dropped: stopped before 5 epochs" in text
    assert "5 of 27 depth-seed pairs are missing" in text
    assert best.depth_layers == 54


def halved(curve, kept, **columns):
    """A sweep of which halving trained these depths to the end."""
    results = sweep(curve, seeds=1, val_size=1000, **columns)
    early = ~results["depth_layers"].isin(kept)
    results.loc[early, ["val_accuracy", "accuracy"]] = np.nan
    results.loc[early, "status"] = "stopped"
    return results


def test_stopped_depths_are_no_evidence_of_a_shape():
    best = recommend(halved(PEAK, [30, 54, 90]))
    assert best.depth_layers == 54
    assert best.stopped == (0, 3, 12, 110, 140, 149)
    assert best.shape == "stopped" and not best.interior_optimum
    assert "stopped early are not compared" in best.sentence
    assert "trained to the end" in best.sentence
    (text,) = (w for w in best.warnings if "dropped" in w)
    assert "6 of 9 rows dropped: stopped early by the search" in text
    one = recommend(halved(PEAK, [54]))
    assert one.shape == "stopped" and one.interval_layers is None
    assert any("one depth was trained to the end" in w for w in one.warnings)
    # Between ends that were trained to the end the usual words stand.
    assert recommend(halved(PEAK, [0, 54, 149])).shape != "stopped"


def test_a_policy_with_few_survivors_was_tried_all_the_same():
    few = halved(PEAK + 0.05, [54])
    many = halved(PEAK, [0, 3, 12, 30, 54, 90, 149], bn="frozen")
    best = recommend(pd.concat([few, many]))
    assert (best.bn, best.depth_layers) == ("follow", 54)


def test_random_weights_and_chance_level_are_warned_of():
    best = recommend(sweep(PEAK, weights="random"))
    assert any("nothing about transfer" in w for w in best.warnings)
    flat = np.full(9, 0.1) + 0.002 * np.arange(9)
    chance = recommend(sweep(flat, noise=0.005, val_size=500), num_classes=10)
    assert chance.sentence.startswith("No depth can be recommended: every tested depth")
    assert any("chance level" in w for w in chance.warnings)
    assert chance.named is None and chance.explanation == ()
    assert best.named is best
    some = recommend(sweep(np.append(PEAK[:8], 0.1)), num_classes=10)
    assert any("1 of 9 depths are at chance level" in w for w in some.warnings)


def test_a_small_foreign_table_is_enough():
    table = pd.DataFrame({"depth_layers": [0, 5, 10], "val_accuracy": [0.5, 0.7, 0.6]})
    best = recommend(table)
    assert best.depth_layers == 5 and best.depth_units is None
    assert best.total_layers == 10 and "BatchNorm" not in best.sentence
    twice = recommend(pd.concat([table, table.assign(val_accuracy=[0.51, 0.69, 0.62])]))
    assert twice.interval_source == "seeds" and twice.interior_optimum


def test_json_holds_plain_values_only():
    results = pd.concat([sweep(FOLLOW, seeds=1), sweep(FROZEN, bn="frozen", seeds=1)])
    best = recommend(results)
    loaded = json.loads(json.dumps(best.to_json(), allow_nan=False))
    assert loaded["depth_layers"] == 90 and loaded["interval_layers"] is None
    assert len(loaded["quadratic"]["follow"]["coef"]) == 3
    assert loaded["sentence"] == best.sentence


def test_same_seed_same_answer():
    results = sweep(PEAK, noise=0.005)
    shuffled = results.sample(frac=1, random_state=0)
    assert recommend(results).to_json() == recommend(shuffled).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="val_accuracy"), "lack the column val_accuracy"),
        (lambda t: t.assign(status="failed"), "no finished trial"),
        (lambda t: t.assign(val_accuracy=88.0), "divide percentages by 100"),
        (lambda t: t.assign(model=["a", "b"] * 4 + ["a"]), "mixes 2 values of model"),
        (lambda t: t.assign(bn="thaw"), "unknown bn thaw: choose from follow"),
        (lambda t: t.assign(depth_layers=0.5), "whole numbers of layers"),
    ],
)
def test_bad_tables_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        recommend(change(sweep(PEAK, seeds=1)))


def test_bad_options_and_images_are_named():
    results = sweep(PEAK, seeds=1)
    with pytest.raises(ValueError, match="epsilon must be an accuracy"):
        recommend(results, epsilon=5)
    with pytest.raises(ValueError, match="at least 100 draws, got 3"):
        recommend(results, bootstrap=3)
    uneven = images(results)
    uneven["follow-0-0"] = uneven["follow-0-0"][:10]
    with pytest.raises(ValueError, match="equally long in all trials"):
        recommend(results, uneven)


def test_images_that_do_not_fit_are_not_used():
    results = sweep(PEAK, seeds=1)
    some = images(results)
    del some["follow-54-0"]
    best = recommend(results, some)
    assert best.interval_source == "none"
    assert any("missing at 1 depths" in w for w in best.warnings)
    wrong = {trial: ~right for trial, right in images(results).items()}
    best = recommend(results, wrong)
    assert any("contradict val_accuracy" in w for w in best.warnings)


def planted(kind, rng):
    """True accuracies on nine depths and the indices of the best of them."""
    x = np.linspace(0, 1, 9)
    curve = {
        "unimodal": 0.9 - rng.uniform(0.03, 0.3) * (x - rng.uniform(0.1, 0.9)) ** 2,
        "plateau": 0.8 + 0.1 * np.minimum(x / rng.uniform(0.2, 0.8), 1),
        "monotone": 0.9 - 0.1 * np.exp(-rng.uniform(1, 6) * x),
        "steps": np.repeat(0.8 + 0.01 * rng.permutation(3), 3),
    }[kind]
    return curve, np.flatnonzero(curve >= curve.max() - 1e-9)


def covered(interval, optimal):
    return any(interval[0] <= LAYERS[i] <= interval[1] for i in optimal)


KINDS = ("unimodal", "plateau", "monotone", "steps")


@pytest.mark.parametrize("kind", KINDS)
def test_interval_covers_the_planted_optimum(kind):
    hits = 0
    for key in range(40):
        rng = np.random.default_rng(key)
        truth, optimal = planted(kind, rng)
        noise = rng.uniform(0.003, 0.007) * rng.standard_normal((9, 3))
        curve = bootstrap.bootstrap_curve(truth[:, None] + noise, draws=500)
        hits += covered(bootstrap.best_depth_interval(LAYERS, curve), optimal)
    assert hits >= 36


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_interval_covers_the_planted_optimum_in_200_sweeps(kind, seeds):
    """The whole way from a table; one seed has its validation images instead."""
    hits, width = 0, 0.0
    for key in range(200):
        rng = np.random.default_rng([key, seeds])
        truth, optimal = planted(kind, rng)
        noise = rng.uniform(0.003, 0.007)
        results, found = sweep(truth, seeds=seeds, noise=noise, key=key), None
        if seeds == 1:
            found = images(results, count=2000, key=key)
            results["val_accuracy"] = [found[t].mean() for t in results["trial"]]
        low, high = recommend(results, found, bootstrap=500).interval_layers
        hits += covered((low, high), optimal)
        width += (high - low) / 149 / 200
    print(f"{kind}, {seeds} seeds: {hits / 200:.3f}, mean width {100 * width:.0f} %")
    assert hits >= 180
