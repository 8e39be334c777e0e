"""Recommendations on made sweeps: intervals, costs, causes, and tables with gaps."""

import json

import numpy as np
import pandas as pd
import pytest
from made_curve import FOLLOW, FROZEN, LAYERS, images, sweep
from made_sweep import made_results

from ftjax.analysis.recommend import recommend

PEAK = 0.9 - 0.2 * ((LAYERS - 54) / 149) ** 2


def test_interior_optimum_and_every_part_of_the_sentence():
    conditions = dict(lr=1e-4, epochs=5, image_size=32, train_size=1400, data="digits")
    best = recommend(sweep(PEAK, noise=0.002, val_size=4000, **conditions))
    assert best.depth_layers == 54 and best.interior_optimum
    low, high = best.interval_layers
    assert 0 < low <= 54 <= high < 149
    assert best.interval_source == "binomial and seeds" and best.confidence == 0.95
    assert best.depth_units == 7 and best.total_units == 18
    start = (
        "At rate 1e-4, 5 epochs, 32 pixels, 1,400 images of digits: unfreeze the top "
        "54 of 149 layers (7 of 18 blocks), BatchNorm following the unfreezing: "
    )
    assert best.sentence.startswith(start)
    assert "expected (89.9 % as measured, corrected for having chosen it)" in (
        best.sentence
    )
    assert "95 % set over unpaired images and 3 seeds" in best.sentence
    assert "Full fine-tuning: -8." in best.sentence
    assert "points at 2.5x the time" in best.sentence
    assert "+- is one standard error" in best.sentence
    assert "No interior optimum" not in best.sentence and "\n" not in best.sentence
    assert best.conditions["lr"] == 1e-4 and best.conditions["data"] == "digits"
    assert " ".join(best.parts) == best.sentence


def test_sentence_interval_and_smallest_are_of_one_set():
    best = recommend(sweep(PEAK, noise=0.02, key=1))
    assert best.interval_layers == (best.not_worse[0], best.not_worse[-1])
    assert best.smallest == best.not_worse[0]
    assert best.depth_layers in best.not_worse and len(best.not_worse) > 2
    least = "the head alone" if best.smallest == 0 else best.smallest
    assert f"the smallest of them is {least}" in best.sentence
    assert "within 0.5 points" not in best.sentence


def test_costs_and_an_epsilon_that_can_be_told():
    results = sweep(np.array([0.5, 0.8, 0.896, 0.9, 0.899, 0.85, 0.8, 0.7, 0.6]))
    best = recommend(results)
    assert best.not_worse == (30,)  # the seeds repeat exactly
    assert recommend(results, epsilon=0.005).not_worse == (12, 30, 54)
    assert best.pareto == (0, 3, 12, 30)
    results["flops"] = results["flops"].max() - results["flops"]
    assert 149 in recommend(results).pareto  # the cheapest is not dominated


@pytest.mark.parametrize(
    ("columns", "noise", "words"),
    [
        (dict(val_size=100), 0.0, "less than one of 100 validation images"),
        (dict(), 0.02, "less than one standard error"),
    ],
)
def test_an_epsilon_that_nobody_can_tell_is_refused(columns, noise, words):
    results = sweep(PEAK, noise=noise, **columns)
    with pytest.raises(ValueError, match=words):
        recommend(results, epsilon=0.003)


def test_a_seed_that_few_depths_have_does_not_favor_them():
    both = sweep(PEAK, seeds=2, noise=0.001)
    both.loc[both["seed"] == 1, "val_accuracy"] += 0.03  # a lucky seed
    few = both[(both["seed"] == 0) | both["depth_layers"].isin([90, 110])]
    assert recommend(few).depth_layers == 54


def test_one_seed_names_no_confidence_and_says_what_is_not_known():
    """On the code before: '95 % interval ... over images alone'."""
    results = sweep(PEAK, seeds=1)
    best = recommend(results, images(results))
    assert best.interval_source == "images" and best.confidence is None
    assert best.interval_layers[0] <= 54 <= best.interval_layers[1]
    assert any("run-to-run noise is assumed" in w for w in best.warnings)
    assert "how far two runs differ was not measured" in best.sentence
    assert "95 %" not in best.sentence and "no confidence interval" in best.sentence
    assert not best.interior_optimum
    both = sweep(PEAK, seeds=3, noise=0.003)
    assert recommend(both, images(both)).interval_source == "images and seeds"


def test_more_images_do_not_make_one_run_a_certainty():
    """The run-to-run noise does not shrink with the validation set."""
    curve = np.where(LAYERS == 110, 0.91, 0.90)
    for count in (400, 40_000):
        results = sweep(curve, seeds=1)
        best = recommend(results, images(results, count=count, spread=0.02))
        assert {110, 149, 90} <= set(best.not_worse)


def test_images_pair_the_depths():
    """Trials that err on the same images are told apart; unpaired they are not."""
    results = sweep(PEAK, seeds=3, noise=0.0005, val_size=600)
    paired = recommend(results, images(results, spread=0.05))
    unpaired = recommend(results)
    assert unpaired.interval_source == "binomial and seeds"
    assert "unpaired images" in unpaired.sentence
    assert len(paired.not_worse) < len(unpaired.not_worse)


def test_nothing_known_about_the_noise():
    best = recommend(sweep(PEAK, seeds=1))
    assert best.confidence is None and best.interval_source == "none"
    assert "number of images unknown" in best.sentence
    assert any("two or more seeds" in w for w in best.warnings)
    assert not best.interior_optimum  # one run of each depth cannot show one


@pytest.mark.parametrize(
    ("curve", "depth", "shape", "words"),
    [
        (np.linspace(0.6, 0.9, 9), 149, "deepest", "deepest tested depth is the best"),
        (np.linspace(0.9, 0.6, 9), 0, "shallowest", "shallowest tested depth"),
        (0.8 + 0.0001 * np.arange(9) % 3, None, "flat", "can be told from the others"),
        (np.minimum(0.6 + 0.1 * np.arange(9), 0.9), None, None, "No interior optimum"),
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
        assert best.sentence.startswith("Unfreeze all 149 layers (18 of 18 blocks)")


def test_one_depth_only():
    best = recommend(sweep(PEAK[:1], layers=LAYERS[:1]))
    assert best.depth_layers == 0 and best.interval_layers is None
    assert any("Only one depth" in w for w in best.warnings)
    assert best.quadratic == {"follow": None} and not best.interior_optimum


def test_policies_are_separate_curves_and_their_difference_has_an_error():
    results = pd.concat([sweep(FOLLOW, noise=0.003), sweep(FROZEN, bn="frozen")])
    best = recommend(results)
    assert best.bn == "frozen" and best.depth_layers == 90
    other = best.policies["follow"]
    assert other["difference"] == pytest.approx(-0.035, abs=0.006)
    assert 0 < other["stderr"] < 0.02
    assert "The best of 2 BatchNorm policies (follow 9" in best.sentence
    assert set(best.quadratic) == {"follow", "frozen"}
    assert best.quadratic["follow"].is_maximum


def test_depths_of_another_policy_may_be_as_good():
    results = pd.concat([sweep(PEAK, noise=0.004), sweep(PEAK - 0.001, bn="frozen")])
    best = recommend(results)
    (name,) = best.elsewhere
    assert 54 in best.elsewhere[name]
    assert f"so are BatchNorm {name} at" in best.sentence


def test_each_depth_has_its_own_best_rate():
    """On the code before: averaged over lr, as if they were seeds."""
    low = sweep(PEAK, lr=1e-5, noise=0.002)
    high = sweep(PEAK[::-1] + 0.02, lr=1e-3, noise=0.002, key=1)
    high["trial"] += "-high"
    best = recommend(pd.concat([low, high], ignore_index=True))
    assert best.setting == {} and best.depth_layers == LAYERS[4]
    assert best.conditions["tuned"] == {"lr": [1e-3, 1e-5, 1e-3]}
    said = "(tuned for each depth among 1e-5 0.001; the highest of them"
    assert f"At rate 0.001 {said}" in best.sentence
    assert best.seeds == (3, 3) and best.policies == {}


def test_settings_that_are_no_nuisance_are_curves_of_their_own():
    small = sweep(PEAK, noise=0.002).assign(train_size=500)
    large = sweep(PEAK[::-1] + 0.02, noise=0.002, key=1).assign(train_size=2000)
    large["trial"] += "-large"
    best = recommend(pd.concat([small, large], ignore_index=True))
    assert best.setting == {"train_size": 2000} and best.depth_layers == LAYERS[4]
    assert "follow, train_size 500" in best.policies


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
    steep = 0.9 - 4 * (0.9 - PEAK)
    assert recommend(halved(steep, [0, 54, 149])).shape != "stopped"


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
    assert "nothing beats always answering the majority class" in chance.sentence
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
    assert twice.interval_source == "seeds" and twice.confidence == 0.95


def test_json_holds_plain_values_only():
    results = pd.concat([sweep(FOLLOW, seeds=1), sweep(FROZEN, bn="frozen", seeds=1)])
    best = recommend(results)
    loaded = json.loads(json.dumps(best.to_json(), allow_nan=False))
    assert loaded["depth_layers"] == 90 and loaded["confidence"] is None
    assert loaded["interval_layers"] == [loaded["smallest"], loaded["not_worse"][-1]]
    assert loaded["conditions"] == {} and loaded["metric"] == "accuracy"
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
    with pytest.raises(ValueError, match="unknown metric 'speed'; choose from"):
        recommend(results, metric="speed")
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


def test_of_policies_that_share_the_best_the_higher_curve_is_named():
    results = made_results(seeds=2)
    head = results["depth_layers"] == 0
    results.loc[head, "val_accuracy"] = 0.99
    best = recommend(results, bootstrap=100)
    assert (best.depth_layers, best.bn) == (0, "frozen")
    assert best.policies["follow"]["difference"] == 0
    assert "The best of" not in best.sentence
    full = results[~head].groupby(["bn", "depth_layers"])["val_accuracy"].mean()
    assert best.full["difference"] == pytest.approx(full["frozen", 149] - 0.99)
