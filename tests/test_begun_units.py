"""Cuts within a unit: its frozen part is passed once, not in every step."""

import numpy as np
import pandas as pd
import pytest
from tiny_setup import tiny_setup

from ftjax import sweep
from ftjax.prefix import Activations
from ftjax.prepare import held_activations, needed_memory
from ftjax.results import write_results
from ftjax.rolling import RollingCache

NUMBERS = ["accuracy", "loss", "val_loss", "train_mode_loss"]


def make_setup(tmp_path, **options):
    """Cuts within two MBConv blocks and a Bottleneck, and one between units."""
    usual = {"depths": ("7", "9", "18", "30", "39"), "batch_size": 16, "lr": 1e-3}
    return tiny_setup(tmp_path, **(usual | options))


def epochs_of(setup, out):
    events = list(sweep.run(setup, out))
    assert not [event.message for event in events if event.status == "failed"]
    results, epochs = write_results(setup, out)
    assert results.frozen_intact.all()
    return pd.DataFrame(epochs)


@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_are_those_of_whole_units(threads, tmp_path):
    setup = make_setup(
        tmp_path,
        bn=("follow", "frozen", "recalibrate"),
        seeds=2,
        drop_connect=0.2,
        trials_at_once=threads,
    )
    begun = {
        trial.cut.depth_layers: setup.begins[trial.id] for trial in setup.plan.trials
    }
    steps = {7: "project_conv", 9: "se_reduce", 18: "", 30: "dwconv", 39: "2_conv"}
    assert begun == steps
    whole = setup._replace(begins=dict.fromkeys(setup.begins, ""))
    first, second = (
        epochs_of(form, tmp_path / name)
        for form, name in ((setup, "begun"), (whole, "whole"))
    )
    assert len(first) == len(second) == len(setup.plan.trials)
    np.testing.assert_allclose(first[NUMBERS], second[NUMBERS], rtol=1e-5)


def test_trials_of_one_cut_share_what_is_stored(tmp_path):
    cache = RollingCache(make_setup(tmp_path))
    first = cache.at(6, "project_conv")
    assert cache.at(6, "project_conv") is first
    assert isinstance(first, Activations) and first.begin == "project_conv"
    assert cache.at(6).train.shape[-1] < first.train.shape[-1]
    assert cache.at(7).begin == ""


def test_they_count_as_memory_and_are_left_out_without_it(tmp_path):
    setup = make_setup(tmp_path)
    plain = setup._replace(begins=dict.fromkeys(setup.begins, ""))
    assert needed_memory(setup).stored > needed_memory(plain).stored
    largest = max(held_activations(setup))
    small = make_setup(tmp_path / "small", cache_gb=1.1 * largest / 1e9)
    assert set(small.begins.values()) == {""}
