"""What a sweep does by default where there is an accelerator, played by the CPU."""

import jax
import numpy as np
import pytest
from rounding import TINY_LAYERS, rounding
from tiny_sweep import tiny_sweep

from ftjax.cli.plan_table import room_line
from ftjax.sweep import prepare, trials
from ftjax.sweep.memory import device_room, host_room
from ftjax.sweep.run import run

COLUMNS = ["depth_layers", "val_loss", "loss"]


@pytest.fixture
def accelerator(monkeypatch):
    """Makes the CPU look like an accelerator with so many bytes."""

    def play(available):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(prepare, "available_bytes", lambda: available)

    return play


def small_sweep(out, **options):
    usual = {"depths": ("0", "7"), "bn": ("frozen",), "optimizer": "sgd"}
    usual |= {"image_size": 16, "batch_size": 16, "train_size": 32, "val_size": 16}
    return tiny_sweep(out, **(usual | options), dtype="float32")


def test_an_epoch_is_a_few_programs_without_a_flag(tmp_path, accelerator, monkeypatch):
    plain = run(small_sweep(tmp_path / "cpu"), tmp_path / "cpu").results
    seen, look = [], trials.look_by_programs
    monkeypatch.setattr(
        trials, "look_by_programs", lambda *args: seen.append(1) or look(*args)
    )
    accelerator(10**9)
    sweep = small_sweep(tmp_path / "gpu")
    assert {t.placement.where for t in sweep.plan().trials} == {"device"}
    outcome = run(sweep, tmp_path / "gpu")
    assert not outcome.failed and len(seen) == 2
    bound = rounding(TINY_LAYERS * 16 * 16 * 16)  # sums over the pixels of a batch
    mine, other = (own[COLUMNS].to_numpy(float) for own in (outcome.results, plain))
    np.testing.assert_allclose(mine, other, rtol=bound)


@pytest.mark.parametrize(
    ("available", "options", "where", "fused"),
    [
        (10**9, {}, "device", True),
        (None, {}, "memory", True),  # nobody knows what there is
        (10**9, {"device_gb": 0.0}, "memory", False),
        (10**9, {"mesh": "data=2"}, "memory", False),
    ],
)
def test_where_activations_are(tmp_path, accelerator, available, options, where, fused):
    accelerator(available)
    sweep = small_sweep(tmp_path, **options)
    assert {trial.placement.where for trial in sweep.plan().trials} == {where}
    assert sweep.budget.fused == fused


def test_what_does_not_fit_the_device_is_on_the_host(tmp_path, accelerator):
    accelerator(None)
    plain = small_sweep(tmp_path)
    accelerator(2 * prepare.needed_bytes(plain, plain.plan().trials))
    where = [trial.placement.where for trial in small_sweep(tmp_path).plan().trials]
    assert where == ["memory", "memory"]


def test_a_search_leaves_room_for_the_deepest_trial(tmp_path, accelerator):
    accelerator(10**9)
    auto = small_sweep(tmp_path, depths=("auto",)).budget.room.device
    assert auto == small_sweep(tmp_path, depths=("59",)).budget.room.device
    assert 0 < auto < small_sweep(tmp_path, depths=("0",)).budget.room.device < 10**9


def test_what_trials_leave_is_for_activations():
    assert device_room(100, 30) == 40
    assert device_room(100, 60) == device_room(None, 1) == 0
    assert host_room(None, cpu=True) == host_room(8e9, cpu=False) == 4e9
    assert (host_room(64e9, cpu=True), host_room(64e9, cpu=False)) == (16e9, 32e9)


def test_the_plan_says_where_activations_may_be(tmp_path, accelerator):
    plain = small_sweep(tmp_path, cache_gb=2.0)
    line = room_line(plain.budget.room, fused=plain.budget.fused)
    assert line == "activations: up to 2.0 GB of the host's memory (--cache-gb)"
    accelerator(10**9)
    own = small_sweep(tmp_path, cache_gb=2.0).budget
    line = room_line(own.room, fused=own.fused)
    assert "up to 1.0 GB of the device, then 2.0 GB of the host" in line
    assert "an epoch is a few programs" in line
