"""Programs, memory and refusals, from shapes alone."""

from dataclasses import replace

import numpy as np
import pytest
from made_plan import at, make_trials

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.depth import make_cut
from ftjax.frozen.placement import Placement, make_room
from ftjax.frozen.start import make_start
from ftjax.sweep.forecast import passed_flops, views_cost
from ftjax.sweep.memory import (
    Memory,
    available_bytes,
    check_memory,
    count_programs,
    estimate_memory,
)

NETWORK = with_head(make_backbone("tiny"), 3)
START = make_start(NETWORK, 16, {}, {}, weights="random")


def memory(depth, batch_size, network=NETWORK):
    return estimate_memory(
        network,
        make_cut(network, depth),
        "follow",
        size=16,
        batch_size=batch_size,
        optimizer="adam",
    )


def test_memory_of_the_parts():
    params, _ = init(NETWORK.units, 0, 16)
    all_of_them = memory(59, 4)
    count = sum(
        leaf.size
        for layers in params.values()
        for leaves in layers.values()
        for leaf in leaves.values()
    )
    moments = 2 * 4 * count
    assert all_of_them.optimizer == moments + 4 * len(NETWORK.units)  # and counters
    head = memory(0, 4)
    assert 0 <= head.optimizer - 2 * 4 * (16 * 3 + 3) <= 8
    assert head.params < all_of_them.params
    assert head.residuals < all_of_them.residuals


def test_the_backward_pass_needs_memory_by_image():
    four, eight = memory(59, 4), memory(59, 8)
    np.testing.assert_allclose(eight.residuals / four.residuals, 2, rtol=0.1)
    assert eight.optimizer == four.optimizer
    half = memory(59, 8, with_dtype(NETWORK, "bfloat16"))
    assert half.residuals < 0.75 * eight.residuals
    assert half.params == eight.params


def test_trials_share_programs():
    trial = make_trials(NETWORK, at(48, "follow", 0))[0]

    def programs(*points, begin=""):
        trials = make_trials(NETWORK, *points)
        placed = [
            replace(each, placement=Placement(each.cut.unit, begin)) for each in trials
        ]
        return count_programs(START, placed)

    one = programs(at(48, "follow", 0))
    assert count_programs(START, [trial]) == one
    assert programs(at(48, "follow", 0), at(48, "follow", 1)) == one
    assert one < programs(at(48, "follow", 0), at(48, "frozen", 0))
    within = at(9, "follow", 0)  # of the cut's unit two parts in inference mode
    assert programs(within, begin="se_reduce") == programs(within) + 2


def test_what_fits_is_not_refused():
    made = Memory(params=10, optimizer=20, residuals=64)
    check_memory(made, 94, batch_size=32, micro_batch=32)
    check_memory(made, None, batch_size=32, micro_batch=32)
    assert available_bytes() > 1e8


@pytest.mark.parametrize(
    "available, devices, advice",
    [
        (93, 1, "--micro-batch 16 is the largest that fits"),
        (40, 1, "--micro-batch 4 is the largest that fits"),
        (40, 8, "no --micro-batch fits"),
        (29, 1, "no --micro-batch fits"),
    ],
)
def test_what_cannot_fit_is_refused(available, devices, advice):
    with pytest.raises(ValueError, match=advice):
        check_memory(
            Memory(params=10, optimizer=20, residuals=64),
            available,
            batch_size=32,
            micro_batch=32,
            devices=devices,
        )


def test_training_fewer_side_by_side_is_advised():
    made = Memory(params=10, optimizer=20, residuals=64)
    with pytest.raises(ValueError, match="or train fewer than 3 side by side"):
        check_memory(made, 40, batch_size=32, micro_batch=32, at_once=3)


def test_stored_views_are_passed_once_and_fresh_ones_in_every_step():
    trials = make_trials(NETWORK, at(0, "frozen"), at(48, "frozen"))
    forward = tuple(float(number) for number in range(1, len(NETWORK.units) + 1))
    room = make_room(NETWORK, 16, 10, forward, memory=1e9, train_share=0.5)
    cuts = [trial.cut.unit for trial in trials]
    passes = [sum(forward[:cut]) for cut in cuts]
    epochs = trials[0].hyper.epochs
    fresh = views_cost(room, trials, 0)
    assert fresh == (0, 0, 5 * epochs * sum(passes))
    stored = views_cost(room, trials, 4)
    most = max(room.sizes[cut] for cut in cuts)
    assert stored == (2 * most, 4 * 5 * max(passes), 0)
    full = room._replace(memory=1)  # made again from the images
    assert views_cost(full, trials, 4) == fresh
    assert passed_flops(room, trials) == 10 * max(passes)
