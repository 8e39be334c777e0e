"""Trials that end early: by accuracy in training, or by patience."""

import numpy as np
import pandas as pd
import pytest
from made_plan import HYPER
from tiny_run import interrupt_after, run, table

from ftjax.analysis.curves import hold_ended
from ftjax.machine.files import read_json
from ftjax.sweep.log import stopped_by
from ftjax.sweep.results import read_correct

WORDS = "--depths 0 7 --bn frozen --seeds 2 --epochs 5 --lr 0.003".split()
pytestmark = pytest.mark.usefixtures("cache", "undrawn")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory, undraw):
    """The same trials to their last epoch."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        undraw(monkeypatch)
        monkeypatch.setenv("FTJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert run(images, out, *WORDS) == 0
    return table(out, "epochs.csv").set_index(["depth_layers", "seed", "epoch"])


def test_a_trial_ends_at_its_training_accuracy(images, tmp_path, whole):
    reached = whole.train_mode_accuracy
    limit = reached.groupby(level="epoch").mean()[3]
    first = reached[reached >= limit].reset_index("epoch").groupby(level=[0, 1]).epoch
    first = first.min().reindex(reached.groupby(level=[0, 1]).size().index)
    assert first.nunique(dropna=False) > 1  # seeds of one program end apart
    words = [*WORDS, "--stop-accuracy", limit, "--seeds-at-once", 2]
    assert run(images, tmp_path, *words) == 0
    results = table(tmp_path).set_index(["depth_layers", "seed"])
    pd.testing.assert_series_equal(
        results.stopped_epoch.astype(float), first.astype(float), check_names=False
    )
    assert (results.status == "done").all() and (results.epochs == 5).all()
    assert set(results.stopped_by.dropna()) == {"stop_accuracy"}
    assert results[["accuracy", "loss", "frozen_intact"]].notna().all().all()
    for (depth, seed), row in results.iterrows():
        last = 5 if np.isnan(row.stopped_epoch) else int(row.stopped_epoch)
        same = whole.loc[depth, seed, last]
        assert (row.val_loss, row.train_mode_accuracy) == pytest.approx(
            (same.val_loss, same.train_mode_accuracy), rel=1e-4
        )
        correct = read_correct(tmp_path, results.reset_index())[row.trial]
        assert correct.mean() == pytest.approx(row.val_accuracy)
    answer = read_json(tmp_path / "recommendation.json")
    assert answer["conditions"]["stop_accuracy"] == limit
    assert " in training)" in answer["sentence"]


def test_a_stopped_trial_stays_finished(images, tmp_path, monkeypatch, capsys):
    words = [*WORDS, "--stop-accuracy", "0.01", "--seeds-at-once", "2"]
    with monkeypatch.context() as interrupted:
        interrupt_after(1, interrupted)  # of the two seeds one is recorded
        assert run(images, tmp_path, *words) == 130
    assert run(images, tmp_path, *words) == 0
    results = table(tmp_path)
    assert (results.stopped_epoch == 1).all()
    assert len(table(tmp_path, "epochs.csv")) == 4
    capsys.readouterr()
    more = [*words, "--epochs", "9"]
    assert run(images, tmp_path, *more) == 0
    assert "kept 4 of 4" in capsys.readouterr().out
    assert (table(tmp_path).stopped_epoch == 1).all()


def test_patience_counts_epochs_without_a_better_metric():
    labels = np.array([0, 1, 1, 1])
    right = [0, 2, 1, 2]  # of four images
    logits = [np.eye(2)[np.where(np.arange(4) < n, labels, 1 - labels)] for n in right]

    def rule(count, **own):
        hyper = HYPER.__class__(**{**HYPER.__dict__, **own})
        return stopped_by(hyper, 0.9, logits[:count], labels)

    assert [rule(n, patience=2) for n in (1, 2, 3, 4)] == ["", "", "", "patience"]
    assert rule(3, patience=1) == "patience"
    assert rule(4) == "" == rule(4, stop_accuracy=0.95)
    assert rule(1, stop_accuracy=0.9) == "stop_accuracy"
    # By balanced accuracy one image of class 0 is as good as three of class 1.
    logits[3] = np.eye(2)[1 - labels * 0]
    assert rule(4, patience=2) == ""
    assert rule(4, patience=2, patience_metric="balanced_accuracy") == "patience"


def test_epochs_of_trials_that_ended_are_held():
    results = pd.DataFrame(
        {
            "trial": ["a", "b"],
            "depth_layers": [0, 7],
            "bn": "frozen",
            "epochs": 3,
            "stopped_epoch": [1, np.nan],
        }
    )
    epochs = pd.DataFrame(
        {
            "trial": ["a", "b", "b", "b"],
            "depth_layers": [0, 7, 7, 7],
            "bn": "frozen",
            "epoch": [1, 1, 2, 3],
            "val_accuracy": [0.5, 0.6, 0.7, 0.8],
        }
    )
    held = hold_ended(epochs, results).set_index(["trial", "epoch"]).val_accuracy
    assert held["a"].tolist() == [0.5] * 3 and held["b"].tolist() == [0.6, 0.7, 0.8]
    assert hold_ended(epochs, results.assign(stopped_epoch=None)) is epochs


def test_rules_are_part_of_a_trial_only_where_they_are_set():
    assert not {"patience", "stop_accuracy", "patience_metric"} & HYPER.extras.keys()
