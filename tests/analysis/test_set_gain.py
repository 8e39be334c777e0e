"""Sets of blocks against cuts: when one is said to beat them all."""

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.set_gain import compare_sets, set_sentence

N = 2000
CUTS = {0: 0.70, 30: 0.80, 149: 0.82}


def made(sets, cuts=CUTS, lr=None):
    """Tables and right answers: the first images are right, so differences pair."""
    correct, tables = {}, []
    for kind, values in (("depth", cuts), ("blocks", sets)):
        rows = []
        for name, share in values.items():
            trial = f"{kind}-{name}"
            correct[trial] = np.arange(N) < round(share * N)
            rows.append(
                {
                    "trial": trial,
                    "depth_layers": name if kind == "depth" else 10,
                    "bn": "frozen",
                    "seed": 0,
                    "lr": (lr or {}).get(name, 1e-3),
                    "val_accuracy": correct[trial].mean(),
                    "val_size": N,
                    "total_layers": 149,
                    "status": "done",
                }
                | ({"blocks": name} if kind == "blocks" else {})
            )
        tables.append(pd.DataFrame(rows))
    return *tables, correct


def test_a_set_far_above_beats_every_cut():
    gain = compare_sets(*made({"a": 0.60, "b+c": 0.95}))
    assert gain.beats and gain.best.name == "b+c" and gain.cut.depth == 149
    assert gain.best.gain == pytest.approx(0.13)
    assert [row.name for row in gain.sets] == ["a", "b+c"]
    assert [row.inside for row in gain.sets] == [False, True]
    text = set_sentence(gain)
    assert text.startswith("A set of blocks beats every cut: b+c (BatchNorm frozen)")
    assert "+13.0 +- " in text and "best cut (149 layers" in text
    assert "best of 2 sets and all depths; the noise between runs is assumed" in text


@pytest.mark.parametrize("best", [0.825, 0.70])
def test_a_set_near_or_below_does_not(best):
    gain = compare_sets(*made({"a": 0.6, "b": best}))
    assert not gain.beats
    text = set_sentence(gain)
    assert text.startswith("No set of blocks is shown to beat every cut: the best of 2")
    assert f"{100 * (best - 0.82):+.1f} +- " in text


def test_a_set_that_is_a_cut_does_not_beat_it():
    results, sets, correct = made({"top": 0.95}, {0: 0.7, 3: 0.95})
    sets["trial"] = "depth-3"
    gain = compare_sets(results, sets, correct)
    assert not gain.beats and gain.best.gain == 0 and gain.cut.depth == 3


def test_each_set_is_judged_by_its_best_rate_and_the_named_setting():
    results, sets, correct = made({"a": 0.9, "b": 0.5})
    other = sets.assign(lr=1e-5, val_accuracy=0.3, trial=["x", "y"])
    correct |= {name: np.arange(N) < 0.3 * N for name in ("x", "y")}
    both = pd.concat([sets, other]).assign(train_size=50)
    worse = both.assign(train_size=20, val_accuracy=1.0)
    gain = compare_sets(
        results.assign(train_size=50),
        pd.concat([both, worse]),
        correct,
        setting={"train_size": 50},
    )
    assert [row.accuracy for row in gain.sets] == [0.9, 0.5]


def test_missing_settings_are_equal_in_memory_and_in_a_file():
    results, sets, correct = made({"a": 0.9})
    results = results.assign(l2=None, head_bias_lr_factor=None)
    sets = sets.assign(l2=np.nan, head_bias_lr_factor=np.nan)
    assert compare_sets(results, sets, correct).beats
    lr = {0: 1e-4}
    several, *_ = made({"a": 0.9}, lr=lr)
    several = several.assign(head_bias_lr_factor=None)
    assert compare_sets(several, sets, correct).beats


def test_nothing_is_said_before_both_are_done():
    results, sets, correct = made({"a": 0.9})
    assert compare_sets(results, sets.assign(status="pending"), correct) is None
    assert compare_sets(results.assign(status="failed"), sets, correct) is None
