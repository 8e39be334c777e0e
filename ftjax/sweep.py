"""Runs a plan: one pass over the frozen part, trials from the earliest cut on."""

import itertools
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax import environment, records
from ftjax.activation_store import Recipe, Store, content_name, load_or_make
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import (
    Backbone,
    Tree,
    draw_variables,
    variable_shapes,
    with_dtype,
)
from ftjax.backbones.backbone import with_head as add_head
from ftjax.checkpoint import Checkpoints, unflatten
from ftjax.compile_clock import compile_seconds
from ftjax.config import Config
from ftjax.data import Dataset, load
from ftjax.depth import AUTO, parse_depths
from ftjax.epochs import Epoch, Problem, run_epochs
from ftjax.forecast import (
    Memory,
    available_bytes,
    check_memory,
    estimate_memory,
)
from ftjax.freeze_proof import Digests, changed_leaves, digests
from ftjax.mesh import fetch, from_first_process, make_mesh, replicate
from ftjax.optim import OPTIMIZERS, Hyper
from ftjax.plan import Cost, Plan, Point, Trial, make_plan, measure_cost
from ftjax.prefix import (
    ACCELERATOR_FLOPS_PER_BYTE,
    FLOPS_PER_BYTE,
    Activations,
    Room,
    activation_struct,
    advance,
    boundary_bytes,
    choose_boundary,
    outputs,
)
from ftjax.train import State, check_policy, init_state, make_suffix
from ftjax.weights.pretrained import load_pretrained


class Setup(NamedTuple):
    """All that a sweep needs, loaded and checked.

    Attributes:
        config: completed.
        mesh: devices that share a batch; None is the default device.
        network: backbone with head.
        params: pretrained parameters, by unit, on the devices; without the head.
        batch_stats: likewise.
        weights: where they are from.
        start: digests of them.
        dataset: pictures at the network's size.
        plan: rows and trainings.
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


class Progress(NamedTuple):
    """Something that happened.

    Attributes:
        trial: which one.
        number: of the trial, counted from 1.
        status: `started`, `epoch`, `done`, `failed` or `kept`.
        epoch: its numbers, where an epoch has ended.
        message: why it failed.
    """

    trial: Trial
    number: int
    status: str
    epoch: Epoch | None = None
    message: str = ""


def prepare(config: Config) -> Setup:
    """Loads weights and pictures and makes the plan; nothing is trained.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"unknown optimizer {config.optimizer!r}; --optimizer takes "
            f"{', '.join(OPTIMIZERS)}"
        )
    mesh = make_mesh(config.mesh, config.micro_batch)
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
            f"{len(dataset.train.labels)} pictures"
        )
    for policy in config.bn:
        check_policy(policy)
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
        check_memory(
            *needed_memory(setup),
            batch_size=config.batch_size,
            micro_batch=config.micro_batch,
            devices=mesh.size if mesh else 1,
        )
    return setup


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


def measure_room(setup: Setup) -> Room:
    """What the stored activations take at every boundary, and the room for them."""
    config = setup.config
    pictures = len(setup.dataset.train.labels) + len(setup.dataset.val.labels)
    sizes = boundary_bytes(setup.network, config.image_size)
    return Room(
        sizes=tuple(size * pictures for size in sizes),
        flops=tuple(flops * pictures for flops in setup.cost.forward),
        memory=int(config.cache_gb * 1e9),
        disk=int(config.disk_gb * 1e9),
        flops_per_byte=FLOPS_PER_BYTE.get(
            jax.default_backend(), ACCELERATOR_FLOPS_PER_BYTE
        ),
    )


def largest_trial(setup: Setup) -> Trial:
    """The one that trains most and uses batch statistics, if any does."""

    def smallness(trial: Trial) -> tuple[int, bool]:
        return trial.cut.unit, trial.policy == "frozen"

    return min(setup.plan.trials, key=smallness)


def needed_memory(setup: Setup) -> tuple[Memory, int | None]:
    """Least memory of the largest trial on one device, and what there is, in bytes."""
    config, trial = setup.config, largest_trial(setup)
    memory = estimate_memory(
        setup.network,
        trial.cut,
        trial.policy,
        size=config.image_size,
        batch_size=config.micro_batch // (setup.mesh.size if setup.mesh else 1),
        optimizer=config.optimizer,
    )
    if jax.default_backend() == "cpu":
        room = measure_room(setup)
        held = (at for at in setup.boundaries.values() if at and not room.on_disk(at))
        memory = memory._replace(stored=max((room.sizes[at] for at in held), default=0))
    return memory, available_bytes()


def run_time_numbers(setup: Setup) -> Hyper:
    """The optimizer's numbers as arrays."""
    config = setup.config
    numbers = config.lr, config.head_lr_factor, config.weight_decay
    return replicate(Hyper(*map(np.float32, numbers)), setup.mesh)


def run(
    setup: Setup, out: Path, goals: Mapping[str, int] | None = None
) -> Iterator[Progress]:
    """Trains what is missing in `out`, yielding after every epoch.

    Finished trials are kept, interrupted ones go on from their last epoch. A trial
    that fails is recorded and the others go on.

    Args:
        setup: what to train.
        out: the run's folder.
        goals: trial -> number of epochs it is trained to; trials that are not named
            wait. Default: all of them, to the last epoch.
    """
    goals = all_goals(setup) if goals is None else goals
    activations = Activations(0, setup.dataset.train.images, setup.dataset.val.images)
    trials = [trial for trial in setup.plan.trials if trial.id in goals]
    for number, trial in enumerate(trials, start=1):
        record = from_first_process(partial(records.read_trial, out, trial.id))
        if record and record["status"] == "done":
            if len(record["epochs"]) >= goals[trial.id]:
                yield Progress(trial, number, "kept")
                continue
        yield Progress(trial, number, "started")
        try:
            activations = move(setup, activations, setup.boundaries[trial.id])
            for epoch in run_trial(setup, out, trial, activations, goals[trial.id]):
                yield Progress(trial, number, "epoch", epoch)
        except Exception as error:  # one trial's failure must not lose the others
            if jax.process_count() > 1 and not isinstance(error, FloatingPointError):
                raise  # the other processes may not have failed, and would wait
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            path = records.trial_folder(out, trial.id) / "error.txt"
            records.write_atomically(path, traceback.format_exc().encode())
            rows = record["epochs"] if record else []
            records.write_trial(
                out,
                trial.id,
                canonical=trial.canonical,
                status="failed",
                epochs=rows,
                message=message,
            )
            yield Progress(trial, number, "failed", message=message)
        else:
            yield Progress(trial, number, "done")


def all_goals(setup: Setup) -> dict[str, int]:
    """Every trial to the last epoch."""
    return {trial.id: setup.config.epochs for trial in setup.plan.trials}


def move(setup: Setup, activations: Activations, boundary: int) -> Activations:
    """Carries the stored activations on to a later boundary.

    Where the disk takes no more, they stay at an earlier one that the memory holds, and
    the units in between are run again in every step.
    """
    if boundary == activations.boundary:
        return activations
    room = measure_room(setup)
    if room.on_disk(boundary):
        try:
            return move_on_disk(setup, activations, boundary)
        except OSError as error:
            warn_once(
                f"activations are not kept on disk ({error.strerror or error}); units "
                "are run again in every step instead"
            )
        in_memory = room._replace(disk=0)
        boundary = choose_boundary(in_memory, boundary, activations.boundary)
    units = setup.network[activations.boundary : boundary]
    train, val = (
        advance(
            units,
            setup.params,
            setup.batch_stats,
            split,
            batch_size=setup.config.micro_batch,
            mesh=setup.mesh,
        )
        for split in (activations.train, activations.val)
    )
    return Activations(boundary, train, val)


def move_on_disk(setup: Setup, activations: Activations, boundary: int) -> Activations:
    """Maps activations from disk; computes what is not there yet.

    Raises:
        OSError: there is no room, or the cache folder cannot be written.
    """
    config = setup.config
    name_at = partial(
        content_name,
        setup.network,
        start=setup.start,
        data_hash=setup.dataset.content_hash,
        image_size=config.image_size,
        batch_size=config.micro_batch,
        devices=setup.mesh.size if setup.mesh else 1,
    )
    compute = partial(
        outputs,
        setup.network[activations.boundary : boundary],
        setup.params,
        setup.batch_stats,
        batch_size=config.micro_batch,
        mesh=setup.mesh,
    )
    struct_of = partial(activation_struct, setup.network, config.image_size, boundary)
    train, val = load_or_make(
        Store(environment.cache_folder() / "activations", measure_room(setup).disk),
        name_at(boundary),
        [
            Recipe(split, struct_of(len(x)), partial(compute, x))
            for split, x in (("train", activations.train), ("val", activations.val))
        ],
        in_use=name_at(activations.boundary),
    )
    return Activations(boundary, train, val)


@cache
def warn_once(message: str) -> None:
    """A line on stderr, the first time that it is said."""
    logging.getLogger(__name__).warning(message)


def run_trial(
    setup: Setup, out: Path, trial: Trial, activations: Activations, last: int
) -> Iterator[Epoch]:
    """Trains one trial from its last checkpoint to epoch `last`, counted from 1."""
    config = setup.config
    params, batch_stats = with_fresh_head(setup, trial.seed)
    problem = Problem(
        network=setup.network,
        cut=trial.cut,
        policy=trial.policy,
        params=params,
        batch_stats=batch_stats,
        activations=activations,
        train_labels=setup.dataset.train.labels,
        val_labels=setup.dataset.val.labels,
        hyper=run_time_numbers(setup),
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        drop_connect=config.drop_connect,
        seed=trial.seed,
        mesh=setup.mesh,
    )
    suffix = make_suffix(setup.network, trial.cut, trial.policy)
    state = init_state(suffix, params, batch_stats, optimizer=config.optimizer)
    rows: list[dict[str, Any]] = []
    correct = np.zeros((0, len(problem.val_labels)), bool)
    checkpoints = Checkpoints(records.trial_folder(out, trial.id) / "checkpoint")
    try:
        saved = from_first_process(checkpoints.restore)
        if saved is not None:
            state, correct = restore_state(state, saved.leaves, setup.mesh)
            rows = saved.meta["epochs"]
        compiled = compile_seconds()
        epochs = run_epochs(problem, state, len(rows) + 1, last)
        for ended in epochs:
            state, epoch, right = ended
            seconds = compile_seconds() - compiled
            compiled += seconds
            rows.append({**epoch._asdict(), "compile_seconds": seconds})
            correct = np.vstack([correct, right])
            if not np.isfinite(epoch.train_mode_loss):
                raise FloatingPointError(
                    f"the loss is {epoch.train_mode_loss} in epoch {epoch.epoch}; "
                    f"try a smaller --lr than {config.lr}"
                )
            whole = jax.tree.map(fetch, state) if jax.process_count() > 1 else state
            checkpoints.save(
                epoch.epoch,
                {"state": whole, "val_correct": correct.astype(np.uint8)},
                {"epochs": rows},
            )
            records.write_trial(
                out,
                trial.id,
                canonical=trial.canonical,
                status="pending",
                epochs=rows,
            )
            yield epoch
    finally:
        checkpoints.close()
    changed = changed_leaves(
        setup.start,
        {**setup.params, **state.params},
        {**setup.batch_stats, **state.batch_stats},
        trainable={part.unit.name: part.trainable for part in suffix},
        batch_norm={part.unit.name: part.batch_norm for part in suffix},
    )
    records.write_correct(out, trial.id, correct)
    records.write_trial(
        out,
        trial.id,
        canonical=trial.canonical,
        status="done",
        epochs=rows,
        frozen_intact=not changed,
        message=f"frozen leaves changed: {', '.join(changed[:5])}" if changed else "",
    )


def with_fresh_head(setup: Setup, seed: int) -> tuple[Tree, Tree]:
    """The pretrained network with the classifier a seed starts from, at every depth."""
    network = setup.network
    params = {unit.name: setup.params.get(unit.name, {}) for unit in network.units}
    stats = {unit.name: setup.batch_stats.get(unit.name, {}) for unit in network.units}
    head = network.units[-1].name
    shapes = variable_shapes(network.units, setup.config.image_size)[-1]
    params[head] = replicate(draw_variables(shapes["params"], seed), setup.mesh)
    return params, stats


def restore_state(
    template: State, leaves, mesh: Mesh | None
) -> tuple[State, np.ndarray]:
    """A checkpoint's state and its record of right answers."""
    leaves = dict(leaves)
    correct = leaves.pop("val_correct").astype(bool)
    own = {name.removeprefix("state/"): leaf for name, leaf in leaves.items()}
    return replicate(unflatten(template, own), mesh), correct
