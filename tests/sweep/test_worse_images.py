"""Uneven classes and wrong labels as axes: what is trained, and what they share."""

from dataclasses import replace

import pandas as pd
import pytest
from tiny_sweep import tiny_sweep

from ftjax.analysis.recommend import recommend
from ftjax.config import Config
from ftjax.data.images import Arrays
from ftjax.defaults import complete
from ftjax.frozen import cache
from ftjax.sweep.run import run

pytestmark = pytest.mark.usefixtures("undrawn")
GRID = {"depths": ("0", "7"), "bn": ("follow",), "lr": 1e-2, "train_size": 96}
UNTOLD = ["seconds", "compile_seconds", "trial", "data_hash"]
UNTOLD += ["train_size", "imbalance", "label_noise"]


def results_of(sweep, out):
    outcome = run(sweep, out)
    assert not outcome.failed
    return outcome.results


@pytest.mark.parametrize("head_start", ["auto", "probe"])
def test_a_trial_is_that_of_the_worse_set_by_itself(tmp_path, head_start):
    options = GRID | {"head_start": head_start}
    sweep = tiny_sweep(tmp_path, imbalance=5.0, label_noise=0.25, **options)
    own = sweep.data.chosen(96, 5.0, 0.25)
    images, labels = (array[own.rows] for array in own.train)
    alone = replace(sweep.data, train=Arrays(images, labels), smaller={})
    points = [
        point._replace(
            hyper=replace(point.hyper, train_size=None, imbalance=1.0, label_noise=0.0)
        )
        for point in sweep.points
    ]
    found = results_of(sweep, tmp_path / "a")
    assert len(images) < 60 and (found["train_size"] == 96).all()
    plain = sweep._replace(data=alone, points=tuple(points))
    expected = results_of(plain, tmp_path / "b")
    # Batches of another size may round otherwise, and the probe is fitted to them.
    rounded = ["loss", "val_loss", "train_mode_loss"]
    rounded = [name for name in rounded if name in found]
    pd.testing.assert_frame_equal(found[rounded], expected[rounded], rtol=1e-4)
    untold = [*UNTOLD, *rounded]
    pd.testing.assert_frame_equal(
        found.drop(columns=untold), expected.drop(columns=untold), check_exact=True
    )


def test_values_share_the_passes_and_are_curves_of_their_own(tmp_path, monkeypatch):
    passes, advance = [], cache.advance
    monkeypatch.setattr(
        cache, "advance", lambda *args, **how: passes.append(1) or advance(*args, **how)
    )
    results_of(tiny_sweep(tmp_path / "a", **GRID), tmp_path / "a")
    single = len(passes)
    sweep = tiny_sweep(tmp_path / "b", imbalance=(1, 4), label_noise=(0, 0.5), **GRID)
    results = results_of(sweep, tmp_path / "b")
    assert len(passes) == 2 * single
    assert results["trial"].nunique() == len(results) == 8
    assert results["data_hash"].nunique() == 4
    assert results["val_loss"].nunique() == 8
    best = recommend(results, bootstrap=100)
    assert set(best.setting) == {"imbalance", "label_noise"}


def test_sentence_and_class_weights_know_the_classes(tmp_path):
    sweep = tiny_sweep(tmp_path, imbalance=5.0, class_weights="balanced", **GRID)
    results = results_of(sweep, tmp_path)
    best = recommend(results, bootstrap=100)
    words = "class imbalance 5, 1 epoch, balanced class weights"
    assert words in best.sentence and "96 images of digits before imbalance" in (
        best.sentence
    )


def test_bad_values_are_told(tmp_path):
    tiny = {"model": "tiny", "weights": "random"}
    for options, message in (
        ({"imbalance": 0.5}, "--imbalance 0.5 must be 1 or more"),
        ({"label_noise": 1.0}, r"--label-noise 1.0 must be in \[0, 1\)"),
        ({"imbalance": 2.0, "augment": "mixup"}, "mixup takes in any training image"),
    ):
        with pytest.raises(ValueError, match=message):
            complete(Config(**tiny, lr=1e-4, **options))
    message = "training set of 42 images that --imbalance 10 leaves"
    with pytest.raises(ValueError, match=message):
        tiny_sweep(tmp_path, imbalance=10.0, batch_size=64, **GRID)
