"""`--gradual`: each depth goes on from the one before, below it all stays frozen."""

import numpy as np
import pandas as pd
import pytest
from tiny_sweep import tiny_sweep

from ftjax.frozen.forward import Activations
from ftjax.sweep import trials
from ftjax.sweep.log import read_trained
from ftjax.sweep.run import run
from ftjax.trees import flatten

pytestmark = pytest.mark.usefixtures("undrawn")
GRID = {"depths": ("0", "3", "18"), "bn": ("frozen",), "lr": 1e-3}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("gradual")
    sweep = tiny_sweep(out, gradual=True, **GRID)
    outcome = run(sweep, out)
    assert not outcome.failed
    return sweep, out, outcome


def test_each_depth_goes_on_from_the_one_before(swept):
    _, out, outcome = swept
    table = pd.read_csv(out / "sets.csv")
    assert list(table["blocks"]) == ["gradual to 3 layers", "gradual to 18 layers"]
    assert (table["status"] == "done").all() and table["frozen_intact"].all()
    begins = {
        trial.cut.depth_layers: trial.hyper.begin
        for trial in outcome.plan.trials
        if trial.hyper.begin
    }
    alone = outcome.results.set_index("depth_layers")["trial"]
    assert begins == {3: alone[0], 18: table["trial"][0]}
    assert not set(table["trial"]) & set(alone)


def test_it_begins_with_what_the_one_before_ended_with(swept, monkeypatch):
    sweep, out, outcome = swept
    last = max(outcome.plan.trials, key=lambda t: (bool(t.hyper.begin), -t.cut.unit))
    assert last.cut.depth_layers == 18
    params, stats = read_trained(out, last.hyper.begin)
    begun = []

    def first(out, trial, state, listen):
        begun.append(state)
        raise StopIteration

    monkeypatch.setattr(trials, "read_log", first)
    images = sweep.data.train.images, sweep.data.val.images
    work = trials.Work((last,), Activations(0, *images), 1)
    group = trials.make_group(work, sweep.start, sweep.data, None)
    with pytest.raises(StopIteration):
        trials.restore(group, out, print)
    (state,) = begun
    assert set(params) == {"top", "predictions"} and set(stats) == {"top"}
    own = flatten(state.params)
    expected = flatten({**sweep.start.params, **params})
    assert own.keys() < expected.keys() and "mb_block2/project_conv/kernel" in own
    for name, leaf in own.items():
        np.testing.assert_array_equal(leaf, expected[name])


def test_a_chain_begins_at_the_head_alone_whatever_the_depths(tmp_path):
    options = GRID | {"depths": ("3",), "sets": ("plain_conv",)}  # no depth of a set
    sweep = tiny_sweep(tmp_path, gradual=True, **options)
    outcome = run(sweep, tmp_path)
    table = pd.read_csv(tmp_path / "sets.csv")
    assert set(table["blocks"]) == {"plain_conv", "gradual to 3 layers"}
    assert set(outcome.results["depth_layers"]) == {0, 3}
