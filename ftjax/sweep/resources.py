"""What a sweep may use of the machine, and how many trials fit side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from ftjax.backbones.backbone import variable_shapes
from ftjax.batch_norm import POLICIES
from ftjax.frozen.placement import Room, begun_bytes
from ftjax.frozen.start import Start
from ftjax.machine.devices import Device
from ftjax.machine.mesh import DATA, VARIANT, axis_size
from ftjax.machine.threads import usable_cores
from ftjax.sweep.memory import Memory, available_bytes, estimate_memory
from ftjax.sweep.trial import Trial, trial_network
from ftjax.trees import total_bytes

MOST_AT_ONCE = 4  # trials side by side, unless more are asked for


class Budget(NamedTuple):
    """What a sweep may use of the machine.

    Attributes:
        room: for the activations of the frozen part.
        mesh: devices that share batches and trials; None is the default device.
        seeds_at_once: trials of one cut and policy trained by one program.
        trials_at_once: of any depths, trained side by side; None: as many as fit.
        fused: whether an epoch is one program where the activations are on the device.
        devices: that train a trial each; none: the default one trains all, or the mesh.
        why: they do so, or share every batch; '' of a single device.
    """

    room: Room
    mesh: Mesh | None = None
    seeds_at_once: int = 1
    trials_at_once: int | None = None
    fused: bool = False
    devices: tuple[Device, ...] = ()
    why: str = ""


def largest_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Those that train most come first, those on batch statistics before others."""

    def smallness(trial: Trial) -> tuple[int, bool]:
        on_batch = POLICIES[trial.policy].trains_on_batch_statistics
        return trial.cut.unit, not on_batch

    return sorted(trials, key=smallness)


def needed_memory(
    start: Start,
    budget: Budget,
    trials: Sequence[Trial],
    num_images: int,
    count: int = 1,
) -> Memory:
    """Least memory of the `count` largest trials on one device, in bytes.

    The pretrained parameters are there once, and the activations of one cut: the
    largest trials may share it.

    Args:
        start: the pretrained network.
        budget: of the machine.
        trials: that are planned, one at least.
        num_images: of both splits.
        count: trials side by side.
    """
    network, size, mesh = start.network, start.image_size, budget.mesh
    memories = [
        estimate_memory(
            trial_network(network, trial.hyper.head),
            trial.cut,
            trial.policy,
            size=size,
            batch_size=trial.hyper.micro_batch // axis_size(mesh, DATA),
            optimizer=trial.hyper.optimizer,
        )
        for trial in largest_trials(trials)[:count]
    ]
    memory = Memory(*map(sum, zip(*memories, strict=True)))
    shared = total_bytes(variable_shapes(network.units, size))
    per_device = budget.seeds_at_once // axis_size(mesh, VARIANT)
    places = {
        (round(num_images * budget.room.with_views(views).copies), *trial.placement[:2])
        for trial in trials
        for views in [trial.hyper.stored_views]
        if trial.placement.begin
    }
    begun = [begun_bytes(network, size, *place) for place in places]
    stored = held_activations(budget.room, trials)
    return memory._replace(
        params=memory.params - (len(memories) - 1) * shared,
        optimizer=memory.optimizer * per_device,
        residuals=memory.residuals * per_device,
        stored=max(stored, default=0) + max(begun, default=0),
    )


def held_activations(room: Room, trials: Sequence[Trial]) -> list[int]:
    """Bytes of the stored activations that share memory with trials, largest first.

    One entry per boundary: trials of one cut share them.
    """
    on_cpu = jax.default_backend() == "cpu"
    places = {
        (t.hyper.view_set, t.hyper.stored_views, t.placement.boundary) for t in trials
    }
    held = (
        own.stored(at)
        for own, at in ((room.with_views(views), at) for _, views, at in places)
        if own.on_device(at) or (on_cpu and at and not own.on_disk(at))
    )
    return sorted(held, reverse=True)


def trials_at_once(
    start: Start, budget: Budget, trials: Sequence[Trial], num_images: int
) -> int:
    """How many trials are trained side by side, each by a thread of its own.

    Unless `--trials-at-once` says so: one on each accelerator, as a single trial fills
    it; on a CPU half as many as cores, but two at least, if there are two cores, and
    `MOST_AT_ONCE` at most, or one on each of several devices. Fewer, unless twice their
    least memory is known to be there and --cache-gb holds the activations of as many
    cuts. Arguments as of `needed_memory`.
    """
    if budget.trials_at_once is not None:
        return budget.trials_at_once
    each = max(1, min(len(budget.devices), len(trials)))
    if jax.default_backend() != "cpu" or jax.process_count() > 1 or budget.mesh:
        return each
    cores = usable_cores()
    most = min(cores, max(2, min(cores // 2, MOST_AT_ONCE)), len(trials))
    most = each if budget.devices else most
    available = available_bytes() or 0
    held = held_activations(budget.room, trials)
    for count in range(most, 1, -1):
        needed = sum(needed_memory(start, budget, trials, num_images, count))
        if 2 * needed <= available and sum(held[:count]) <= budget.room.memory:
            return count
    return 1
