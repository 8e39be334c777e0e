"""What the answer withstands: few images, uneven classes, early ends, its errors."""

import numpy as np
import pandas as pd
import pytest
from made_curve import FROZEN, LAYERS, images, sweep

from ftjax.analysis.compare import contenders
from ftjax.analysis.recommend import recommend

PEAK = 0.9 - 0.2 * ((LAYERS - 54) / 149) ** 2


def ranked(answers):
    """A table and its images: one row per depth, correctness given."""
    trials = [f"t{i}" for i in range(len(answers))]
    table = pd.DataFrame(
        {
            "trial": trials,
            "depth_layers": 11 * np.arange(len(answers)),
            "val_accuracy": np.mean(answers, axis=1),
        }
    )
    return table, dict(zip(trials, np.asarray(answers, bool), strict=True))


def repeated(table, correct, seeds):
    """The same answers from every seed: runs that do not differ."""
    numbers = range(seeds)
    tables = [table.assign(seed=s, trial=table["trial"] + f"-{s}") for s in numbers]
    right = {f"{t}-{s}": c for t, c in correct.items() for s in numbers}
    return pd.concat(tables, ignore_index=True), right


def discordant(more, less, n=400):
    """Two depths that differ in `more` images one way and `less` the other."""
    first = np.ones(n, bool)
    first[-20:] = False
    second = first.copy()
    second[:more] = False
    second[n - less :] = True
    return np.stack([first, second, np.arange(n) < 200])


@pytest.mark.parametrize(("more", "less"), [(0, 0), (1, 0), (5, 0), (6, 1)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_few_images_do_not_decide(more, less, seeds):
    """Exact sign tests: p = 1, 1, 0.06, 0.12. On the code before: '115-115'."""
    table, correct = ranked(discordant(more, less))
    best = recommend(*repeated(table, correct, seeds))
    assert best.depth_layers == 0 and best.not_worse[:2] == (0, 11)
    if seeds == 3:
        assert best.not_worse == (0, 11) and best.confidence == 0.95


def test_many_discordant_images_do_decide():
    table, correct = ranked(discordant(40, 0))
    assert recommend(*repeated(table, correct, 3)).not_worse == (0,)


def test_five_depths_at_100_percent_are_equal():
    """On the code before: '95 % interval 0-0'."""
    table, correct = ranked(np.ones((5, 100), bool))
    best = recommend(table, correct)
    assert best.not_worse == (0, 11, 22, 33, 44) and best.shape == "flat"
    assert contenders(table, correct) == [(11 * i, "follow") for i in range(5)]


def test_contenders_are_those_that_may_be_best_and_no_more():
    curve = np.array([0.6, 0.7, 0.8, 0.88, 0.9, 0.9, 0.89, 0.8, 0.5])
    worse = sweep(FROZEN - 0.2, bn="frozen", seeds=1)
    results = pd.concat([sweep(curve, seeds=1), worse])
    found = contenders(results, images(results, count=2000, spread=0.05))
    assert {(54, "follow"), (90, "follow"), (110, "follow")} <= set(found)
    assert not {(0, "follow"), (149, "follow")} & set(found)
    assert all(bn == "follow" for _, bn in found)
    assert contenders(sweep(PEAK[:1], layers=LAYERS[:1])) == []


def test_a_trial_that_two_policies_share_is_one_contender():
    results = pd.concat([sweep(PEAK, seeds=1), sweep(PEAK, bn="frozen", seeds=1)])
    results.loc[results["depth_layers"] == 0, "trial"] = "head"
    found = [cell for cell in contenders(results) if cell[0] == 0]
    assert len(found) == 1


def test_uneven_classes_are_compared_by_balanced_accuracy():
    """A majority guess, 90 %, must not beat a network that knows both classes."""
    labels = np.repeat([0, 1], [180, 20])
    guess = labels == 0
    rng = np.random.default_rng(0)
    knows = rng.random((3, 200)) < 0.82
    tables, right = [], {}
    for seed in range(3):
        for depth, answer in ((0, guess), (11, knows[seed]), (22, guess)):
            name = f"{depth}-{seed}"
            right[name] = answer
            tables.append((name, depth, seed, answer.mean()))
    columns = ["trial", "depth_layers", "seed", "val_accuracy"]
    table = pd.DataFrame(tables, columns=columns)
    assert recommend(table, right).depth_layers != 11  # by accuracy
    best = recommend(table, right, labels=labels)
    assert best.depth_layers == 11 and best.metric == "balanced_accuracy"
    assert best.baseline == 0.5
    assert "balanced accuracy expected" in best.sentence
    assert any("classes are uneven" in w for w in best.warnings)


def test_nothing_to_learn_with_a_majority_of_95_percent():
    """On the code before: 'Train the head alone', 95 %."""
    labels = np.repeat([0, 1], [190, 10])
    guess = labels == 0
    table, correct = ranked(np.stack([guess, guess, guess]))
    best = recommend(table, correct, labels=labels)
    assert best.shape == "chance" and best.named is None
    assert best.sentence.startswith("No depth can be recommended")
    by_accuracy = recommend(table, correct, labels=labels, metric="accuracy")
    assert by_accuracy.baseline == pytest.approx(0.95)
    assert by_accuracy.shape == "chance"


def made_epochs(results, last_gain, previous=None):
    """Two epochs; every trial ends at its accuracy, having gained `last_gain`."""
    first = results.assign(epoch=1, val_accuracy=results["val_accuracy"] - last_gain)
    if previous is not None:
        first["val_accuracy"] = previous
    return pd.concat([first, results.assign(epoch=2)], ignore_index=True)


def test_the_sentence_begins_with_what_was_not_trained_to_the_end():
    results = sweep(PEAK, seeds=1, val_size=500)
    rising = recommend(results, epochs=made_epochs(results, 0.05))
    assert rising.sentence.startswith("Not trained to the end: ")
    assert "still gained in epoch 2, the last one" in rising.sentence
    assert rising.to_json()["caveats"]
    done = recommend(results, epochs=made_epochs(results, 0.0))
    assert done.caveats == () and done.sentence.startswith("Unfreeze")


def test_the_sentence_begins_with_a_winner_that_changed():
    results = sweep(PEAK, seeds=1, val_size=500)
    before = np.where(LAYERS == 110, 0.95, results["val_accuracy"])
    best = recommend(results, epochs=made_epochs(results, 0.0, before))
    assert best.sentence.startswith(
        "The best depth changed in the last epoch (110 layers after epoch 1, 54 layers "
        "after epoch 2)."
    )


def test_the_sentence_begins_with_learning_nothing_and_with_overfitting():
    little = sweep(0.2 + PEAK / 20, seeds=1).assign(accuracy=0.24, val_size=1000)
    best = recommend(little, num_classes=10)
    assert best.sentence.startswith("Hardly anything was learned: 24.0 % of the")
    over = sweep(PEAK - 0.15, seeds=1).assign(accuracy=1.0)
    assert recommend(over, num_classes=10).sentence.startswith("Overfitting: 100.0 %")


def test_expected_is_below_measured_and_has_an_interval():
    results = sweep(np.full(9, 0.9), noise=0.01, val_size=200)
    best = recommend(results)
    low, high = best.expected_interval
    assert low < best.expected < best.val_accuracy and high < 1
    assert f"{100 * best.expected:.1f} % expected" in best.sentence
    one = recommend(sweep(PEAK[:1], layers=LAYERS[:1]))
    assert one.expected == one.val_accuracy


def test_the_printed_error_is_the_spread_that_is_seen():
    """Five commands with other seeds: the difference to full depth, its error."""
    seen, printed = [], []
    growing = 0.005 * 3 ** np.linspace(0, 1, 9)  # the reference of `run_noise`
    for key in range(40):
        results = sweep(PEAK, noise=growing, key=key)
        best = recommend(results, bootstrap=100)
        seen.append(results.groupby("depth_layers")["val_accuracy"].mean()[149])
        seen[-1] -= results.groupby("depth_layers")["val_accuracy"].mean()[54]
        if best.depth_layers == 54:
            printed.append(best.full["stderr"])
    assert np.mean(printed) == pytest.approx(np.std(seen), rel=0.35)
