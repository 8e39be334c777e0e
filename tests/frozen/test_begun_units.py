"""Cuts within a unit: its frozen part is passed once, not in every step."""

import numpy as np
import pytest
from rounding import TINY_LAYERS, rounding
from tiny_sweep import tiny_sweep

from ftjax.backbones.backbone import Unit, boundary_shapes
from ftjax.frozen.cache import ActivationCache
from ftjax.frozen.placement import Placement
from ftjax.sweep.cost import forward_flops
from ftjax.sweep.resources import held_activations, needed_memory
from ftjax.sweep.run import run

# A sum over the pixels of a batch in each layer; Adam moves freely only what the loss
# does not depend on.
BOUND = rounding(TINY_LAYERS * 16 * 32 * 32)
NUMBERS = ["loss", "val_loss", "train_mode_loss"]
# By depth, of the cuts of `make_sweep`.
STEPS = {7: "project_conv", 9: "se_reduce", 18: "", 30: "dwconv", 39: "2_conv"}


def make_sweep(tmp_path, **options):
    """Cuts within two MBConv blocks and a Bottleneck, and one between units."""
    usual = {"depths": ("7", "9", "18", "30", "39"), "batch_size": 16, "lr": 1e-3}
    return tiny_sweep(tmp_path, **(usual | options))


def begins(sweep):
    """By depth, the step whose inputs a trial trains on."""
    trials = sweep.plan().trials
    return {trial.cut.depth_layers: trial.placement.begin for trial in trials}


def epochs_of(sweep, out):
    outcome = run(sweep, out)
    assert not outcome.failed
    assert outcome.results.frozen_intact.all()
    return outcome.epochs


@pytest.mark.numeric
@pytest.mark.parametrize(
    "threads",
    [pytest.param(1, marks=pytest.mark.slow), 2],  # two share what is stored as well
)
def test_numbers_are_those_of_whole_units(threads, tmp_path, monkeypatch):
    sweep = make_sweep(
        tmp_path,
        bn=("frozen", "recalibrate"),  # which trains as follow does
        drop_connect=0.2,
        trials_at_once=threads,
    )
    assert begins(sweep) == STEPS
    first = epochs_of(sweep, tmp_path / "begun")
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    assert set(begins(sweep).values()) == {""}
    second = epochs_of(sweep, tmp_path / "whole")
    assert len(first) == len(second) == len(sweep.plan().trials)
    first, second = (table[NUMBERS].astype(float) for table in (first, second))
    np.testing.assert_allclose(first, second, rtol=BOUND)


def test_trials_of_one_cut_share_what_is_stored(tmp_path):
    sweep = make_sweep(tmp_path)
    cache = ActivationCache(sweep.start, sweep.data, sweep.budget.room, batch_size=16)
    first = cache.at(Placement(6, "project_conv"))
    assert cache.at(Placement(6, "project_conv")) is first
    assert first.begin == "project_conv"
    assert cache.at(Placement(6)).train.shape[-1] < first.train.shape[-1]
    assert cache.at(Placement(7)).begin == ""


def stored_bytes(sweep):
    trials = sweep.plan().trials
    return needed_memory(sweep.start, sweep.budget, trials, sweep.num_images).stored


def test_they_count_as_memory_and_are_left_out_without_it(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path)
    largest = max(held_activations(sweep.budget.room, sweep.plan().trials))
    small = make_sweep(tmp_path / "small", cache_gb=1.1 * largest / 1e9)
    assert set(begins(small).values()) == {""}
    held = stored_bytes(sweep)
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    assert held > stored_bytes(sweep)


def test_steps_that_are_passed_once_are_no_flops_of_an_epoch(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path, depths=("9", "18"), bn=("follow",))

    def flops():
        trials = sweep.plan().trials
        return {trial.cut.depth_layers: trial.flops for trial in trials}

    network, unit = sweep.start.network, sweep.plan().requests[0].cut.unit
    shape = boundary_shapes(network.units, 32)[unit]
    first = forward_flops(network.units[unit].before("se_reduce").module, shape)
    assert 0 < first < forward_flops(network.units[unit].module, shape)
    counted = flops()
    monkeypatch.setattr(Unit, "step_of", lambda *_: "")
    plain = flops()
    assert counted[18] == plain[18]
    # 64 images are trained on; 32 and, after the last epoch, 64 are evaluated.
    assert plain[9].train - counted[9].train == pytest.approx(2 * 64 * first)
    assert plain[9].inference - counted[9].inference == pytest.approx(32 * first)
    assert plain[9].last - counted[9].last == pytest.approx(64 * first)
