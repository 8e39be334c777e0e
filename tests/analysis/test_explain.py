"""Why a curve falls: every cause is named where the trials bear it out, else not."""

import numpy as np
import pandas as pd
import pytest
from made_curve import FOLLOW, FROZEN, LAYERS, sweep

from ftjax.analysis import explain
from ftjax.analysis.recommend import recommend


def lagging(**columns):
    """The follow curve as measured: perfect in training mode at every depth."""
    return sweep(FOLLOW, seeds=1, **columns).assign(train_mode_accuracy=0.99)


def test_batch_norm_artefact_is_named():
    results = pd.concat([lagging(), sweep(FROZEN, bn="frozen", seeds=1)])
    text = recommend(results).explanation[0]
    assert text == (
        "With BatchNorm following the unfreezing the curve peaks at 4 of 18 blocks and "
        "falls by 41 points at full depth; on the very same training images the "
        "network scores 99.0 % in training mode and 55.2 % in evaluation mode, so the "
        "fall is lag of the running statistics, not overfitting; holding BatchNorm in "
        "inference mode removes it (98.0 %)."
    )


def test_fall_is_split_exactly_by_recalibrated_trials():
    again = sweep(FOLLOW[8:] + 0.38, bn="recalibrate", layers=LAYERS[8:], seeds=1)
    again = again.assign(accuracy=0.955)
    found = explain.explain(pd.concat([lagging(), again]))
    split = found.decomposition
    assert (split.best_depth, split.depth) == (30, 149)
    assert split.fall == pytest.approx(0.408)
    assert split.statistics == pytest.approx(0.38)
    assert split.optimization == pytest.approx(0.96 - 0.955)
    parts = split.statistics + split.overfitting + split.optimization
    assert parts == pytest.approx(split.fall)
    assert any("lag of the running statistics is 38.0" in s for s in found.sentences)


FALLING = np.array([0.8, 0.85, 0.9, 0.88, 0.86, 0.84, 0.8, 0.75, 0.7])


def falling(frozen, *, training):
    """A follow curve that falls, with a frozen one; training accuracy in both modes."""
    curve = sweep(FALLING, seeds=1).assign(accuracy=training)
    curve["train_mode_accuracy"] = curve["accuracy"]
    matched = sweep(np.full(9, frozen), bn="frozen", seeds=1)
    return pd.concat([curve, matched])


def test_overfitting_is_claimed_with_all_its_evidence():
    text = explain.explain(falling(0.7, training=0.97)).sentences[0]
    assert "grows from 7.0 to 27.0 points: overfitting" in text
    assert "running statistics" not in text
    # Without BatchNorm there is no policy to match.
    alone = falling(0.7, training=0.97).query("bn == 'follow'")
    assert "overfitting" in explain.explain(alone, batch_norm=False).sentences[0]


def test_an_undertrained_fall_is_no_overfitting():
    """As seen after one epoch: the gap grows, and a fifth of the images is wrong."""
    for training in (0.8, np.linspace(0.9, 0.8, 9)):
        text = explain.explain(falling(0.7, training=training)).sentences[0]
        assert ": overfitting" not in text
        if np.ndim(training) == 0:
            assert "only 80.0 % of the training images are fitted" in text


def test_a_fall_that_the_frozen_run_does_not_have_is_no_overfitting():
    assert (
        "overfitting" not in explain.explain(falling(0.9, training=0.97)).sentences[0]
    )
    unmatched = falling(0.7, training=0.97).query("bn == 'follow'")
    assert "overfitting" not in explain.explain(unmatched).sentences[0]


def test_failed_optimization_is_told_from_lag():
    failed = explain.explain(sweep(FALLING, seeds=1)).sentences[0]
    assert "training-mode accuracy itself falls from 91.0 % to 71.0 %" in failed
    assert "overfitting" not in failed and "statistics" not in failed


def test_lag_is_claimed_as_far_as_matched_trials_go():
    (alone,) = explain.explain(lagging()).sentences
    assert "which points to lag" in alone and "--explain" in alone
    for frozen, words in (
        (0.97, "so the fall is lag"),
        (0.7, "is a part of the fall"),
        (0.55, "does not explain the fall"),
    ):
        both = [lagging(), sweep(np.full(9, frozen), bn="frozen", seeds=1)]
        assert words in explain.explain(pd.concat(both)).sentences[0]


def test_policies_are_compared_at_the_depths_of_both():
    few = sweep(FROZEN, bn="frozen", seeds=1)
    few = few[few["depth_layers"].isin([0, 149])]
    sentences = explain.explain(pd.concat([lagging(), few])).sentences
    assert "from 91.7 % to 98.0 %" in sentences[-1]


def test_split_says_overfitting_only_of_what_was_fitted():
    end = sweep(FOLLOW[8:] + 0.2, bn="recalibrate", layers=LAYERS[8:], seeds=1)
    frozen = sweep(FOLLOW[8:] + 0.2, bn="frozen", layers=LAYERS[8:], seeds=1)
    table = pd.concat([lagging(), end.assign(accuracy=0.97), frozen])
    text = " ".join(explain.explain(table).sentences)
    assert ", overfitting " in text
    weak = pd.concat([lagging(), end.assign(accuracy=0.8), frozen])
    text = " ".join(explain.explain(weak).sentences)
    assert ", overfitting " not in text
    assert "growth of the gap between training and validation" in text


def test_lag_without_a_fall_is_mentioned():
    level = np.full(9, 0.63)
    results = sweep(level, seeds=1).assign(train_mode_accuracy=0.9)
    (text,) = explain.explain(results).sentences
    assert "the running statistics lag" in text


def test_nothing_is_said_without_evidence():
    rising = sweep(np.linspace(0.6, 0.9, 9))
    assert explain.explain(rising).sentences == ()
    bare = lagging()[["depth_layers", "val_accuracy", "bn"]]
    (text,) = explain.explain(bare).sentences
    assert text == (
        "With BatchNorm following the unfreezing the curve peaks at 30 unfrozen layers "
        "and falls by 41 points at 149 unfrozen layers."
    )
    assert explain.explain(bare, min_fall=0.5).sentences == ()
    silent = explain.explain(lagging(), batch_norm=False).sentences
    assert all("BatchNorm" not in s and "statistics" not in s for s in silent)
