"""`--depths auto` and `--search halving`: what is trained, resuming, the answer."""

import json

import pandas as pd
import pytest
from tiny_run import interrupt_after, run, table

from experiments import fit
from ftjax.backbones import make_backbone
from ftjax.depth import block_depths
from ftjax.machine.files import read_json
from ftjax.search.depths import next_depths
from ftjax.search.halving import Rung
from ftjax.sweep.results import read_correct

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.usefixtures("undrawn")
def test_a_search_names_the_depth_that_it_believes_and_resumes(
    images, tmp_path, capsys
):
    words = "--depths auto --bn frozen --epochs 4 --lr 0.003 --seeds 2".split()
    assert run(images, tmp_path, *words) == 0
    results = table(tmp_path)
    answer = read_json(tmp_path / "recommendation.json")
    decision = next_depths(
        results,
        block_depths(make_backbone("tiny")),
        seeds=2,
        bn=("frozen",),
        correct=read_correct(tmp_path, results),
    )
    assert decision.done and len(results) > 6
    assert (answer["depth_layers"], answer["bn"]) == decision.best
    assert tuple(answer["interval_layers"]) == decision.interval
    assert fit.main([str(tmp_path / "results.csv")]) == 0
    assert answer["sentence"] in capsys.readouterr().out
    before = (tmp_path / "results.csv").read_bytes()
    assert run(images, tmp_path, *words) == 0
    assert (tmp_path / "results.csv").read_bytes() == before
    assert read_json(tmp_path / "recommendation.json") == answer


@pytest.mark.usefixtures("undrawn")
def test_a_search_takes_several_rates(images, tmp_path, capsys):
    words = "--depths auto --bn frozen --epochs 1 --lr 1e-3 1e-4".split()
    assert run(images, tmp_path, *words) == 0
    results = table(tmp_path)
    assert (results.status == "done").all() and set(results.lr) == {1e-4, 1e-3}
    first = results[results.lr == 1e-4].depth_layers
    assert {0, 59} <= set(first) and len(results) < 2 * 9
    answer = read_json(tmp_path / "recommendation.json")
    assert set(answer["conditions"]["tuned"]["lr"]) == {1e-4, 1e-3}
    capsys.readouterr()
    assert run(images, tmp_path, *words) == 0
    assert "trial 1/" not in capsys.readouterr().out


def test_halving_stops_cuts_and_resumes(images, tmp_path, monkeypatch, undraw):
    monkeypatch.setattr("ftjax.sweep.strategies.halving", keep_the_two_shallowest)
    arguments = "--depths 0 7 12 19 --bn frozen --epochs 4 --search halving".split()
    assert run(images, tmp_path, *arguments) == 0
    results, epochs = table(tmp_path), table(tmp_path, "epochs.csv")
    assert list(results.status) == ["done", "done", "stopped", "stopped"]
    stopped, done = (results[results.status == s] for s in ("stopped", "done"))
    assert (stopped.epochs == 2).all() and (done.epochs == 4).all()
    assert stopped[["accuracy", "val_accuracy", "loss"]].isna().all().all()
    counts = epochs.groupby("trial").epoch.max()
    assert (counts[stopped.trial] == 2).all() and (counts[done.trial] == 4).all()
    found = json.loads((tmp_path / "recommendation.json").read_text())
    assert found["stopped"] == list(stopped.depth_layers)
    assert set(found["not_worse"]) <= set(done.depth_layers)
    assert "Stopped early by --search halving" in (tmp_path / "report.html").read_text()
    undraw(monkeypatch)
    # What went on has the numbers of a trial that was never stopped in between.
    alone = "--depths 7 --bn frozen --epochs 4".split()
    assert run(images, tmp_path / "alone", *alone) == 0
    columns = ["trial", "epoch", "val_loss", "train_mode_loss"]
    pd.testing.assert_frame_equal(
        epochs[epochs.depth_layers == 7][columns].reset_index(drop=True),
        table(tmp_path / "alone", "epochs.csv")[columns],
    )
    # The same command trains nothing; a killed one goes the same way.
    before = (tmp_path / "results.csv").read_bytes()
    assert run(images, tmp_path, *arguments) == 0
    assert (tmp_path / "results.csv").read_bytes() == before
    other = tmp_path / "killed"
    with monkeypatch.context() as interrupted:
        interrupt_after(9, interrupted)  # in the second rung
        assert run(images, other, *arguments) == 130
    assert run(images, other, *arguments) == 0
    pd.testing.assert_frame_equal(table(other), results)
    # Without the search everything is trained to the end.
    assert run(images, tmp_path, *arguments[:-2]) == 0
    assert (table(tmp_path).status == "done").all()


def keep_the_two_shallowest(epochs, *, num_epochs, **_):
    """A rung in the manner of `halving`, whatever the accuracies are."""
    race = epochs[epochs.depth_layers <= 7]
    reached = race.groupby("trial").epoch.max()
    cuts = ((0, "frozen"), (7, "frozen"))
    return Rung(cuts, num_epochs, bool((reached == num_epochs).all()), (), "two left")
