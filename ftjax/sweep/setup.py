"""All that a sweep needs, loaded and checked; nothing is trained."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import (
    Backbone,
    boundary_shapes,
    variable_shapes,
    with_dtype,
)
from ftjax.backbones.heads import draw_head
from ftjax.backbones.heads import with_head as add_head
from ftjax.batch_norm import POLICIES, find_policy
from ftjax.config import Config
from ftjax.data import Dataset, load
from ftjax.depth import AUTO, parse_depths
from ftjax.frozen.placement import (
    ACCELERATOR_FLOPS_PER_BYTE,
    FLOPS_PER_BYTE,
    Room,
    activation_struct,
    boundary_bytes,
    choose_boundary,
)
from ftjax.frozen.proof import Digests, digests
from ftjax.machine.mesh import DATA, VARIANT, axis_size, make_mesh, replicate
from ftjax.machine.threads import usable_cores
from ftjax.sweep.cost import Cost, Flops, forward_flops, measure_cost, trial_flops
from ftjax.sweep.memory import Memory, available_bytes, check_memory, estimate_memory
from ftjax.sweep.plan import Plan, Point, Trial, make_plan
from ftjax.training.optimizer import OPTIMIZERS, Hyper
from ftjax.trees import Tree, total_bytes
from ftjax.weights.pretrained import load_pretrained

MOST_AT_ONCE = 4  # trials side by side, unless more are asked for


class Setup(NamedTuple):
    """All that a sweep needs, loaded and checked.

    Attributes:
        config: completed.
        mesh: devices that share batches and trials; None is the default device.
        network: backbone with head.
        params: pretrained parameters, by unit, on the devices; without the head.
        batch_stats: likewise.
        weights: where they are from.
        start: digests of them.
        dataset: images at the network's size.
        plan: rows and trials.
        cost: of the network's units.
        boundaries: per trial id, where its stored activations are.
    """

    config: Config
    mesh: Mesh | None
    network: Backbone
    params: Tree
    batch_stats: Tree
    weights: str
    start: Digests
    dataset: Dataset
    plan: Plan
    cost: Cost
    boundaries: dict[str, int]

    @property
    def images(self) -> int:
        """How many there are, of both splits."""
        return len(self.dataset.train.labels) + len(self.dataset.val.labels)


def prepare(config: Config) -> Setup:
    """Loads weights and images and makes the plan; nothing is trained.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"unknown optimizer {config.optimizer!r}; --optimizer takes "
            f"{', '.join(OPTIMIZERS)}"
        )
    mesh = make_mesh(config.mesh, config.micro_batch)
    if mesh is not None and (config.trials_at_once or 1) > 1:
        raise ValueError(
            f"--trials-at-once {config.trials_at_once} takes a single device; leave it "
            "out, or choose --mesh data=1"
        )
    config = replace(config, seeds_at_once=seeds_at_once(config, mesh))
    backbone = make_backbone(config.model)
    depths = () if config.depths == AUTO else parse_depths(backbone, config.depths)
    pretrained = load_pretrained(
        backbone, config.weights, size=config.image_size, offline=config.offline
    )
    dataset = load(
        config.data,
        data_dir=config.data_dir,
        image_size=config.image_size,
        train_size=config.train_size,
        val_size=config.val_size,
        offline=config.offline,
    )
    if len(dataset.train.labels) < config.batch_size:
        raise ValueError(
            f"--batch-size {config.batch_size} is larger than the training set of "
            f"{len(dataset.train.labels)} images"
        )
    for policy in config.bn:
        find_policy(policy)
    network = with_dtype(add_head(backbone, len(dataset.class_names)), config.dtype)
    if not any(unit.batch_norm_keys for unit in network.units):
        config = replace(config, bn=config.bn[:1])  # the policies would be one curve
    setup = Setup(
        config=config,
        mesh=mesh,
        network=network,
        params=replicate(pretrained.params, mesh),
        batch_stats=replicate(pretrained.batch_stats, mesh),
        weights=pretrained.source,
        start=digests(pretrained.params, pretrained.batch_stats),
        dataset=dataset,
        plan=Plan((), ()),
        cost=measure_cost(network, config.image_size),
        boundaries={},
    )
    points = itertools.product(depths, config.bn, range(config.seeds))
    setup = with_grid(setup, itertools.starmap(Point, points))
    if setup.plan.trials:
        at_once = config.trials_at_once or 1
        check_memory(
            needed_memory(setup, at_once),
            available_bytes(),
            batch_size=config.batch_size,
            micro_batch=config.micro_batch,
            devices=axis_size(mesh, DATA),
            at_once=at_once,
        )
    return setup


def seeds_at_once(config: Config, mesh: Mesh | None) -> int:
    """How many seeds are trained at once.

    Raises:
        ValueError: the devices cannot share them equally.
    """
    axis = axis_size(mesh, VARIANT)
    count = axis if config.seeds_at_once is None else config.seeds_at_once
    if count % axis:
        raise ValueError(
            f"--seeds-at-once {count}: the {axis} devices of --mesh {config.mesh} "
            f"cannot share them equally; use a multiple of {axis}"
        )
    if axis > config.seeds:
        raise ValueError(
            f"--mesh {config.mesh} spreads seeds over {axis} devices, but there are "
            f"{config.seeds}; use --seeds {axis} or more"
        )
    return min(count, config.seeds - config.seeds % axis)


def with_grid(setup: Setup, grid: Iterable[Point]) -> Setup:
    """The setup with the plan for these depths, policies and seeds."""
    plan = make_plan(
        setup.config,
        setup.network,
        grid,
        weights=setup.weights,
        data_hash=setup.dataset.content_hash,
    )
    room, boundary, boundaries = measure_room(setup), 0, {}
    for trial in plan.trials:
        boundary = choose_boundary(room, trial.cut.unit, boundary)
        boundaries[trial.id] = boundary
    return setup._replace(plan=plan, boundaries=boundaries)


def stored_at(setup: Setup, trial: Trial) -> tuple[int, str]:
    """Unit whose inputs a trial trains on, and the step of it; empty: the unit itself.

    A cut within a block leaves its first steps frozen. On a CPU passing those once, and
    not with every batch, saves 4 to 10 % of a shallow trial of EfficientNetB0. What
    is stored is several times as large as the block's input, so elsewhere, where
    reading costs as much as computing, and without the memory, it is not done.
    """
    boundary, cut, room = setup.boundaries[trial.id], trial.cut, measure_room(setup)
    begin = setup.network.units[cut.unit].step_of(cut.trainable[0][0])
    in_memory = not room.on_disk(boundary) and not room.on_device(boundary)
    divided = begin and boundary == cut.unit and in_memory
    if jax.default_backend() != "cpu" or not divided:
        return boundary, ""
    fits = begun_bytes(setup, boundary, begin) <= room.memory / (2 * MOST_AT_ONCE)
    return boundary, begin if fits else ""


def begun_bytes(setup: Setup, boundary: int, begin: str) -> int:
    """What the inputs of a step of a unit take for the whole data set."""
    size, images = setup.config.image_size, setup.images
    struct = activation_struct(setup.network, size, boundary, images, begin)
    return total_bytes(struct)


def measure_room(setup: Setup) -> Room:
    """What the stored activations take at every boundary, and the room for them."""
    config = setup.config
    sizes = boundary_bytes(setup.network, config.image_size)
    return Room(
        sizes=tuple(size * setup.images for size in sizes),
        flops=tuple(flops * setup.images for flops in setup.cost.forward),
        memory=int(config.cache_gb * 1e9),
        disk=int(config.disk_gb * 1e9),
        flops_per_byte=FLOPS_PER_BYTE.get(
            jax.default_backend(), ACCELERATOR_FLOPS_PER_BYTE
        ),
        device=int(config.device_gb * 1e9) if setup.mesh is None else 0,
    )


def largest_trials(setup: Setup) -> list[Trial]:
    """Those that train most come first, those on batch statistics before others."""

    def smallness(trial: Trial) -> tuple[int, bool]:
        on_batch = POLICIES[trial.policy].trains_on_batch_statistics
        return trial.cut.unit, not on_batch

    return sorted(setup.plan.trials, key=smallness)


def needed_memory(setup: Setup, count: int = 1) -> Memory:
    """Least memory of the `count` largest trials on one device, in bytes.

    The pretrained parameters are there once, and the activations of one cut: the
    largest trials may share it.
    """
    config = setup.config
    memories = [
        estimate_memory(
            setup.network,
            trial.cut,
            trial.policy,
            size=config.image_size,
            batch_size=config.micro_batch // axis_size(setup.mesh, DATA),
            optimizer=config.optimizer,
        )
        for trial in largest_trials(setup)[:count]
    ]
    memory = Memory(*map(sum, zip(*memories, strict=True)))
    shared = total_bytes(variable_shapes(setup.network.units, config.image_size))
    per_device = config.seeds_at_once // axis_size(setup.mesh, VARIANT)
    places = {stored_at(setup, trial) for trial in setup.plan.trials}
    begun = [begun_bytes(setup, *place) for place in places if place[1]]
    return memory._replace(
        params=memory.params - (len(memories) - 1) * shared,
        optimizer=memory.optimizer * per_device,
        residuals=memory.residuals * per_device,
        stored=max(held_activations(setup), default=0) + max(begun, default=0),
    )


def held_activations(setup: Setup) -> list[int]:
    """Bytes of the stored activations that share memory with trials, largest first.

    One entry per boundary: trials of one cut share them.
    """
    room, on_cpu = measure_room(setup), jax.default_backend() == "cpu"
    held = (
        room.sizes[at]
        for at in set(setup.boundaries.values())
        if room.on_device(at) or (on_cpu and at and not room.on_disk(at))
    )
    return sorted(held, reverse=True)


def trials_at_once(setup: Setup) -> int:
    """How many trials are trained side by side, each by a thread of its own.

    Unless `--trials-at-once` says so: one on an accelerator, where a single trial
    fills the device; on a CPU half as many as cores, but two at least, if there are
    two cores, and `MOST_AT_ONCE` at most. Fewer, unless twice their least memory is
    known to be there and --cache-gb holds the activations of as many cuts.
    """
    asked = setup.config.trials_at_once
    if asked is not None:
        return asked
    if jax.default_backend() != "cpu" or jax.process_count() > 1 or setup.mesh:
        return 1
    cores = usable_cores()
    most = min(cores, max(2, min(cores // 2, MOST_AT_ONCE)), len(setup.plan.trials))
    available = available_bytes() or 0
    budget, held = measure_room(setup).memory, held_activations(setup)
    for count in range(most, 1, -1):
        enough = 2 * sum(needed_memory(setup, count)) <= available
        if enough and sum(held[:count]) <= budget:
            return count
    return 1


def flops_of(setup: Setup, trial: Trial) -> Flops:
    """FLOPs of a trial as this sweep runs it."""
    config = setup.config
    train, val = len(setup.dataset.train.labels), len(setup.dataset.val.labels)
    boundary, begin = stored_at(setup, trial)
    passed = 0.0
    if begin:
        units, size = setup.network.units, config.image_size
        module = units[boundary].before(begin).module
        passed = forward_flops(module, boundary_shapes(units, size)[boundary])
    return trial_flops(
        trial.cut,
        setup.cost,
        boundary=boundary,
        epochs=config.epochs,
        steps=train // config.batch_size,
        batch_size=config.batch_size,
        evaluated=val,
        evaluated_last=train,
        recalibrated=train if POLICIES[trial.policy].recalibrates else 0,
        passed=passed,
    )


def run_time_numbers(setup: Setup) -> Hyper:
    """The optimizer's numbers as arrays."""
    config = setup.config
    numbers = config.lr, config.head_lr_factor, config.weight_decay
    return replicate(Hyper(*map(np.float32, numbers)), setup.mesh)


def with_fresh_head(setup: Setup, seed: int) -> tuple[Tree, Tree]:
    """The pretrained network with the classifier a seed starts from, at every depth."""
    network = setup.network
    params = {unit.name: setup.params.get(unit.name, {}) for unit in network.body}
    stats = {unit.name: setup.batch_stats.get(unit.name, {}) for unit in network.body}
    head = draw_head(network, seed, setup.config.image_size)
    head_params, head_stats = replicate(head, setup.mesh)
    return {**params, **head_params}, {**stats, **head_stats}
