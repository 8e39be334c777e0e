"""Cuts within a unit: its frozen part is passed once, not in every step."""

import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, rounding
from tiny_setup import tiny_setup

from ftjax.backbones.backbone import Unit, boundary_shapes
from ftjax.frozen.cache import RollingCache
from ftjax.sweep import run as sweep
from ftjax.sweep.cost import forward_flops
from ftjax.sweep.results import write_results
from ftjax.sweep.setup import flops_of, held_activations, needed_memory, stored_at

# A sum over the pixels of a batch in each layer; Adam moves freely only what the loss
# does not depend on.
BOUND = rounding(TINY_LAYERS * 16 * 32 * 32)
NUMBERS = ["loss", "val_loss", "train_mode_loss"]
# By depth, of the cuts of `make_setup`.
STEPS = {7: "project_conv", 9: "se_reduce", 18: "", 30: "dwconv", 39: "2_conv"}


def make_setup(tmp_path, **options):
    """Cuts within two MBConv blocks and a Bottleneck, and one between units."""
    usual = {"depths": ("7", "9", "18", "30", "39"), "batch_size": 16, "lr": 1e-3}
    return tiny_setup(tmp_path, **(usual | options))


def begins(setup):
    """By depth, the step whose inputs a trial trains on."""
    trials = setup.plan.trials
    return {trial.cut.depth_layers: stored_at(setup, trial)[1] for trial in trials}


def epochs_of(setup, out):
    events = list(sweep.run(setup, out))
    assert not [event.message for event in events if event.status == "failed"]
    results, epochs = write_results(setup, out)
    assert results.frozen_intact.all()
    return pd.DataFrame(epochs)


@pytest.mark.numeric
@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_are_those_of_whole_units(threads, tmp_path, monkeypatch):
    setup = make_setup(
        tmp_path,
        bn=("frozen", "recalibrate"),  # which trains as follow does
        drop_connect=0.2,
        trials_at_once=threads,
    )
    assert begins(setup) == STEPS
    first = epochs_of(setup, tmp_path / "begun")
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    assert set(begins(setup).values()) == {""}
    second = epochs_of(setup, tmp_path / "whole")
    assert len(first) == len(second) == len(setup.plan.trials)
    np.testing.assert_allclose(first[NUMBERS], second[NUMBERS], rtol=BOUND)


def test_trials_of_one_cut_share_what_is_stored(tmp_path):
    cache = RollingCache(make_setup(tmp_path))
    first = cache.at(6, "project_conv")
    assert cache.at(6, "project_conv") is first
    assert first.begin == "project_conv"
    assert cache.at(6).train.shape[-1] < first.train.shape[-1]
    assert cache.at(7).begin == ""


def test_they_count_as_memory_and_are_left_out_without_it(tmp_path, monkeypatch):
    setup = make_setup(tmp_path)
    largest = max(held_activations(setup))
    small = make_setup(tmp_path / "small", cache_gb=1.1 * largest / 1e9)
    assert set(begins(small).values()) == {""}
    held = needed_memory(setup).stored
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    assert held > needed_memory(setup).stored


def test_steps_that_are_passed_once_are_no_flops_of_an_epoch(tmp_path, monkeypatch):
    setup = make_setup(tmp_path, depths=("9", "18"), bn=("follow",))
    begun, whole = setup.plan.trials
    if begun.cut.depth_layers == 18:
        begun, whole = whole, begun
    unit = setup.network.units[begun.cut.unit]
    shape = boundary_shapes(setup.network.units, 32)[begun.cut.unit]
    first = forward_flops(unit.before("se_reduce").module, shape)
    assert 0 < first < forward_flops(unit.module, shape)
    counted = flops_of(setup, begun), flops_of(setup, whole)
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    plain = flops_of(setup, begun), flops_of(setup, whole)
    assert counted[1] == plain[1]
    # 64 images are trained on; 32 and, after the last epoch, 64 are evaluated.
    assert plain[0].train - counted[0].train == pytest.approx(2 * 64 * first)
    assert plain[0].inference - counted[0].inference == pytest.approx(96 * first)
