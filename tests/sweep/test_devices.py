"""A trial for each device: which, in which order, with one device's numbers."""

import threading
from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest
from made_plan import at, make_trials
from tiny_sweep import tiny_sweep

from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.cli.plan_table import device_lines
from ftjax.machine.devices import own_device
from ftjax.sweep import run as module
from ftjax.sweep.devices import choose_spread, last_end, longest_first
from ftjax.sweep.events import Event
from ftjax.sweep.run import run

DEPTHS = ("0", "3", "7", "9", "12", "18", "19", "21")
ALONE = {"fits": True, "cpu": False}


def small_sweep(out, **options):
    usual = {"image_size": 16, "train_size": 32, "val_size": 16, "batch_size": 16}
    usual |= {"depths": DEPTHS, "bn": ("frozen",), "optimizer": "sgd"}
    return tiny_sweep(out, **(usual | options))


def stub(work, start, data, *, device_of, meet, listen, **_):
    """Takes one trial a device, side by side, and trains nothing."""
    (leaf, *_) = jax.tree.leaves(start.params)
    for trial in work.trials:
        device_of[trial.cut.depth_layers] = own_device(), *leaf.devices()
        listen(Event(trial, "done"))
    meet.wait(timeout=60)


@pytest.mark.usefixtures("all_devices")
def test_eight_depths_go_to_eight_devices_without_a_flag(tmp_path, monkeypatch):
    found, count = {}, jax.device_count()
    train = partial(stub, device_of=found, meet=threading.Barrier(count))
    monkeypatch.setattr(module, "train_trials", train)
    sweep = small_sweep(tmp_path, cache_gb=1e-9)  # nothing is passed before
    assert sweep.budget.mesh is None
    run(sweep, tmp_path)
    assert len(found) == len({device for device, _ in found.values()}) == count == 8
    assert all(device == own for device, own in found.values())  # the network is there


def read(outcome):
    times = ["seconds", "compile_seconds"]
    own = outcome.results, outcome.epochs
    return [table.drop(columns=times, errors="ignore") for table in own]


def test_eight_devices_give_the_numbers_of_one_bit_by_bit(
    tmp_path, all_devices, monkeypatch
):
    """They run the same programs, the pass through the frozen part included."""
    with monkeypatch.context() as patch:
        patch.setattr("ftjax.machine.devices.local_devices", lambda: jax.devices()[:1])
        alone = run(small_sweep(tmp_path / "one"), tmp_path / "one")
    sweep = small_sweep(tmp_path / "eight")
    assert len(sweep.budget.devices) == 8
    outcome = run(sweep, tmp_path / "eight")
    assert not outcome.failed and outcome.results.frozen_intact.all()
    for mine, other in zip(read(outcome), read(alone), strict=True):
        pd.testing.assert_frame_equal(mine, other, check_exact=True)


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize(
    "points",
    [
        [at(depth, "follow") for depth in range(0, 60, 3)],
        [
            at(depth, policy, seed)
            for depth in (0, 7, 18, 33, 59)
            for policy in ("follow", "frozen", "recalibrate")
            for seed in (0, 1)
        ],
    ],
    ids=("depths", "policies"),
)
def test_devices_end_nearly_together(points, workers):
    """Trials take as long as their FLOPs say; the bound sorts all of them by these."""
    network = with_head(make_backbone("tiny"), 3)
    trials = make_trials(network, *points)
    # One that has trained four of its five epochs comes last of its cut.
    epochs = {trial.id: 5 - 4 * (trial.seed == 1) for trial in trials}

    def costs(order):
        return [trial.flops.total(epochs[trial.id]) for trial in order]

    ours = costs(longest_first(trials, epochs))
    assert sorted(ours) == sorted(costs(trials))
    bound = last_end(sorted(ours, reverse=True), workers)
    assert last_end(ours, workers) <= 1.15 * bound
    assert bound >= max(max(ours), sum(ours) / workers) * (1 - 1e-9)


def test_trials_of_one_cut_are_sorted_by_what_is_left():
    network = with_head(make_backbone("tiny"), 3)
    trials = make_trials(network, *(at(18, "follow", seed) for seed in range(3)))
    epochs = dict(zip([trial.id for trial in trials], (1, 5, 3), strict=True))
    order = [epochs[trial.id] for trial in longest_first(trials, epochs)]
    assert order == [5, 3, 1]


@pytest.mark.parametrize(
    ("devices", "trials", "images", "how", "sharing"),
    [
        (8, 8, 32, ALONE, 1),
        (8, 3, 32, ALONE, 1),  # four images each would not pay
        (8, 3, 256, ALONE, 8),
        (8, None, 256, ALONE, 1),  # a search will find more
        (8, 100, 32, {"fits": False, "cpu": False}, 8),
        (8, 100, 20, {"fits": False, "cpu": False}, 5),
        (8, 3, 256, {"fits": False, "cpu": True}, 1),  # they share one memory
        (2, 1, 33, ALONE, 1),
    ],
)
def test_when_devices_share_a_batch(devices, trials, images, how, sharing):
    chosen = choose_spread(devices=devices, trials=trials, images=images, **how)
    assert chosen.sharing == sharing and chosen.why


def test_fewer_trials_than_devices_share_large_batches(
    tmp_path, all_devices, monkeypatch
):
    monkeypatch.setattr("ftjax.sweep.devices.FEWEST_IMAGES", 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    sweep = small_sweep(tmp_path, depths=("0", "3"), dtype="float32", cache_gb=1.0)
    assert sweep.budget.mesh.size == 8 and not sweep.budget.devices
    assert "2 images for each" in next(device_lines(sweep.budget, 1, [1.0]))
    assert {len(x.devices()) for x in jax.tree.leaves(sweep.start.params)} == {8}


def test_the_plan_says_what_the_devices_do_and_why(tmp_path, all_devices):
    (line,) = device_lines(small_sweep(tmp_path).budget, 8, [60.0] * 16)
    assert line.startswith("8 devices: 8 trials side by side")
    assert "2 min" in line and "16 min" in line and "exchange nothing" in line


@pytest.mark.parametrize("options", [{"mesh": "data=1"}, {"mesh": "data=2"}])
def test_a_mesh_that_is_named_is_an_override(tmp_path, all_devices, options):
    assert not small_sweep(tmp_path, **options).budget.devices


def test_several_threads_a_device_take_turns(tmp_path, all_devices):
    sweep = small_sweep(tmp_path, trials_at_once=10)
    seats = module.make_seats(sweep.start, sweep.budget.devices, 10)
    assert [seat.device.id for seat in seats] == [*range(8), 0, 1]
    np.testing.assert_array_equal(
        *(s.start.params["stem"]["conv"]["kernel"] for s in seats[7:9])
    )
