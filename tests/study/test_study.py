"""The second study: its settings, the rule of its verdicts, and one run of it."""

import math

import numpy as np
import pandas as pd
import pytest
from html_page import Page
from made_study import CLASSES, made_study, planted

from experiments import alexnet_study as command
from ftjax.study.advice import recommended
from ftjax.study.points import FULL, QUICK, WHOLE, Arm, Design
from ftjax.study.spans import axis_spans
from ftjax.study.verdicts import (
    CONTRADICTED,
    OPEN,
    SUPPORTED,
    UNTESTED,
    claims_table,
    judge,
    judge_all,
    judge_movement,
    judge_stops,
    say_region,
)

RATES = {1e-1: 1e-1, 1e-2: 0.3, 1e-3: 0.84, 1e-4: 0.8, 1e-5: 0.5}


def accuracy(arm):
    """Best at a rate of 1e-3; worse with 75 hidden units, and more so with 500."""
    changes = dict(arm.changes)
    value = RATES[changes.get("lr", 1e-4)]
    head = changes.get("head", "linear")
    return {"linear": value, "75": value - 0.1, "500d0.5,75": 0.4}[head]


@pytest.fixture(scope="module")
def measured():
    return planted(accuracy, diverged=(QUICK.arm(lr=0.1),))


def test_the_settings_are_the_papers():
    base = dict(FULL.base)
    assert base["optimizer"] == "sgd" and base["momentum"] == 0.9
    assert (base["lr"], base["batch_size"], base["epochs"]) == (1e-4, 128, 20)
    assert (base["l2"], base["train_size"]) == (1e-4, 2000)
    factors = "head_lr_factor", "head_bias_lr_factor", "head_lr_layers", "head_init"
    assert [base[name] for name in factors] == [10, 20, "last", "0.01"]
    assert FULL.updates == 300
    # Figures 7 and 9 name these; of figure 8 0.0005 and factors of 5 and 10 from it.
    assert {1e-1, 1e-2, 1e-3, 1e-4, 1e-5} <= set(FULL.rates)
    assert FULL.batches == (8, 16, 32, 64, 128)
    assert FULL.l2 == (0, 5e-5, 1e-4, 5e-4, 2.5e-3, 5e-3)
    assert FULL.factors[0] == (1, 1) and (10, 20) in FULL.factors
    sweeps = FULL.sweeps
    heads = [arm.changes for arm in sweeps["heads"].arms]
    assert heads == [(), (("head", "75"),), (("head", "500d0.5,75"),)]
    ones = dict(sweeps["heads_one"].arms[1].changes)
    assert ones == {"head": "75", "head_lr_factor": 1, "head_bias_lr_factor": 1}
    assert [dict(arm.changes).get("batch_size") for arm in sweeps["l2_small"].arms] == (
        [32] * 6
    )


@pytest.mark.parametrize("design", [FULL, QUICK])
def test_every_point_is_one_setting_of_both_modes(design: Design):
    points = list(design.points(["features", "all"], 2, 18))
    assert len(points) == len(set(points)) == 4 * len(design.arms)
    assert {point.depth_layers for point in points} == {0, 18}
    hypers = {design.hyper(arm) for arm in design.arms}
    assert len(hypers) == len(design.arms)
    first = {name: values[0] for name, values in design.axis_values().items()}
    assert first == design.base  # where `Config` varies one at a time from
    small = design.with_size(200)
    assert small.sizes[-1] == 200 == small.base["train_size"]


def test_a_verdict_needs_the_whole_interval():
    above = (0.0, math.inf)
    assert judge(0.03, 0.01, above) == SUPPORTED
    assert judge(-0.03, 0.01, above) == CONTRADICTED
    assert judge(0.019, 0.01, above) == judge(-0.019, 0.01, above) == OPEN
    assert judge(0.0, 0.005, (-0.02, 0.02)) == SUPPORTED
    assert judge(0.0, 0.02, (-0.02, 0.02)) == OPEN
    assert judge(0.05, 0.01, (-0.02, 0.02)) == CONTRADICTED
    assert judge(0.01, 0.001, (0.0, 0.02)) == SUPPORTED
    assert judge(math.nan, 0.01, above) == UNTESTED
    assert say_region((0.0, 0.02)) == "0 to 2 points"


def test_planted_claims_are_told_apart(measured):
    table = claims_table(judge_all(QUICK, measured))
    table = table[table["mode"] == "all layers"].set_index("contrast")
    verdict = table["verdict"]
    assert verdict["accuracy at rate 0.1, less chance"] == SUPPORTED  # it diverged
    assert verdict["accuracy at rate 0.01, less chance"] == CONTRADICTED
    assert verdict["accuracy at rate 1e-4, less that at 1e-3"] == CONTRADICTED
    assert verdict["accuracy at rate 1e-4, less that at 1e-5"] == SUPPORTED
    row = table.loc["accuracy at rate 1e-4, less that at 1e-3"]
    assert row["difference"] == pytest.approx(-0.04, abs=4 * row["stderr"])
    paired = np.sqrt(0.04 * 0.96 / 4000 + 2 * 0.003**2 / 3)  # images that flip, runs
    assert row["stderr"] == pytest.approx(paired, rel=0.5)
    heads = table[table["statement"] == "deeper heads have worse accuracy"]
    assert len(heads) == 8 and set(heads["verdict"]) == {SUPPORTED}
    # A quick run has 16 updates: levels are not those of the paper.
    assert verdict["accuracy after 4 epochs, less 83 %"] == UNTESTED
    grows = table[table["figure"] == "11"]["verdict"]
    assert SUPPORTED not in set(grows)  # all factors alike


def test_the_axis_that_matters_most_is_named(measured):
    spans = axis_spans(QUICK, measured, WHOLE)
    assert spans[0].name == "rate" and spans[1].name == "heads"
    assert sum(span.share for span in spans) == pytest.approx(1)
    rates = np.array([1 / CLASSES, 0.3, 0.84, 0.8, 0.5]).var()
    heads = np.array([0.8, 0.7, 0.4]).var()
    share = rates / (rates + heads)
    assert spans[0].share == pytest.approx(share, abs=0.03)
    sentence = recommended(QUICK, measured)
    assert "with learning rate 0.001 (+" in sentence and sentence.count(". ") == 0
    assert f"what matters most is learning rate: {100 * spans[0].share:.0f} %" in (
        sentence
    )


def test_stops_and_movement(measured):
    study = made_study(measured)
    epochs = study.epochs.assign(train_mode_accuracy=0.9)
    (_, whole) = judge_stops(QUICK, measured, epochs)
    assert (whole.difference, whole.verdict) == (0, CONTRADICTED)
    small = {row["trial"] for row in measured.rows.values() if row["batch_size"] == 8}
    own = epochs["trial"].isin(small)
    epochs.loc[own, "train_mode_accuracy"] = 0.996
    (_, whole) = judge_stops(QUICK, measured, epochs)
    assert (whole.difference, whole.verdict) == (1, SUPPORTED)
    moved = judge_movement(study.moved)
    assert moved.difference == pytest.approx(0.016 + 0.0004)  # the last block's
    assert moved.verdict == SUPPORTED
    assert judge_movement(study.moved.iloc[:0]).verdict == UNTESTED
    assert str(Arm()) == "base"


@pytest.mark.slow
def test_a_run_writes_all_of_it(cache, tmp_path, capsys):
    words = "--model tiny --weights random --data digits --image-size 16 --quick"
    words = [*words.split(), "--seeds", "1", "--train-size", "160", "--val-size", "60"]
    words += ["--out", str(tmp_path)]
    assert command.main(words) == 0
    said = capsys.readouterr().out
    assert "Train " in said and "matters" in said and "claims: " in said
    for name in (*(f"figure{number:02}" for number in range(6, 13)), "movement"):
        for suffix in (".png", ".svg"):
            assert (tmp_path / (name + suffix)).stat().st_size > 5000
    page = Page((tmp_path / "study.html").read_text(encoding="utf-8"))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    table = pd.read_csv(tmp_path / "claims.csv")
    tested = table[table["verdict"] != UNTESTED]
    assert np.isfinite(tested[["difference", "stderr"]]).all(axis=None)
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results) == 2 * len(QUICK.with_size(160).arms)
    assert set(results["status"]) <= {"done", "diverged"}
    assert command.main(words) == 0  # nothing is left to train
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "-1"], "--seeds -1 is too small: 1 or more"),
        (["--train-size", "40"], "--batch-size 128 is larger than the "),
    ],
)
def test_bad_numbers_are_one_line(words, message, images, cache, tmp_path, capsys):
    plain = ["--model", "tiny", "--weights", "random", "--image-size", "16"]
    plain += ["--val-size", "20", "--data", str(images), "--out", str(tmp_path)]
    assert command.main([*plain, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
