"""Runs a plan: one pass over the frozen part, trials from the earliest cut on."""

import itertools
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ftjax.mesh import (
    DATA,
    VARIANT,
    axis_size,
    fetch,
    from_first_process,
    make_mesh,
    replicate,
)
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
from ftjax.train import State, SuffixUnit, check_policy, init_state, make_suffix
from ftjax.variants import stack, unstack
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
            devices=axis_size(mesh, DATA),
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
    return count


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
        batch_size=config.micro_batch // axis_size(setup.mesh, DATA),
        optimizer=config.optimizer,
    )
    if jax.default_backend() == "cpu":
        room = measure_room(setup)
        held = (at for at in setup.boundaries.values() if at and not room.on_disk(at))
        memory = memory._replace(stored=max((room.sizes[at] for at in held), default=0))
    per_device = config.seeds_at_once // axis_size(setup.mesh, VARIANT)
    memory = memory._replace(
        optimizer=memory.optimizer * per_device, residuals=memory.residuals * per_device
    )
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
    numbers = {trial.id: number for number, trial in enumerate(trials, start=1)}
    missing = []
    for trial in trials:
        record = from_first_process(partial(records.read_trial, out, trial.id)) or {}
        done = len(record.get("epochs", []))
        if record.get("status") == "done" and done >= goals[trial.id]:
            yield Progress(trial, numbers[trial.id], "kept")
        else:
            missing.append((trial, done, goals[trial.id]))
    for group, last in group_trials(setup, missing):
        for trial in group:
            yield Progress(trial, numbers[trial.id], "started")
        failed = {}
        try:
            activations = move(setup, activations, setup.boundaries[group[0].id])
            for trial, ended in run_trials(setup, out, group, activations, last):
                if isinstance(ended, Epoch):
                    yield Progress(trial, numbers[trial.id], "epoch", ended)
                else:
                    failed[trial.id] = ended
        except Exception as error:  # a failure must not lose the other trials
            if jax.process_count() > 1:
                raise  # the other processes may not have failed, and would wait
            failed = {trial.id: error for trial in group} | failed
        for trial in group:
            if trial.id in failed:
                message = record_failure(out, trial, failed[trial.id])
                yield Progress(trial, numbers[trial.id], "failed", message=message)
            else:
                yield Progress(trial, numbers[trial.id], "done")


def group_trials(
    setup: Setup, missing: Iterable[tuple[Trial, int, int]]
) -> Iterator[tuple[tuple[Trial, ...], int]]:
    """Neighbors that can be trained at once: seeds of one cut, policy and epoch.

    Args:
        setup: what to train, and how many at once.
        missing: trials in order, with their finished epochs and the last one to train.

    Yields:
        The trials of a group, a multiple of the mesh's axis `variant` or a single one,
        and their last epoch.
    """

    def kind(entry: tuple[Trial, int, int]) -> tuple:
        trial, done, last = entry
        return trial.cut, trial.policy, done, last

    axis = axis_size(setup.mesh, VARIANT)
    for (*_, last), entries in itertools.groupby(missing, key=kind):
        trials = [trial for trial, *_ in entries]
        while trials:
            count = min(len(trials), setup.config.seeds_at_once)
            count = count - count % axis or 1
            yield tuple(trials[:count]), last
            trials = trials[count:]


def record_failure(out: Path, trial: Trial, error: Exception) -> str:
    """Records a failed trial with the epochs that it had; returns why it failed."""
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    path = records.trial_folder(out, trial.id) / "error.txt"
    text = "".join(traceback.format_exception(error))
    records.write_atomically(path, text.encode())
    record = records.read_trial(out, trial.id) or {}
    records.write_trial(
        out,
        trial.id,
        canonical=trial.canonical,
        status="failed",
        epochs=record.get("epochs", []),
        message=message,
    )
    return message


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


class Log(NamedTuple):
    """What is kept of a trial.

    Attributes:
        trial: which one.
        checkpoints: its store.
        rows: one mapping per finished epoch.
        correct: per epoch, (n_val,) whether the answers were right.
    """

    trial: Trial
    checkpoints: Checkpoints
    rows: list[dict[str, Any]]
    correct: list[np.ndarray]


def run_trials(
    setup: Setup,
    out: Path,
    trials: Sequence[Trial],
    activations: Activations,
    last: int,
) -> Iterator[tuple[Trial, Epoch | FloatingPointError]]:
    """Trains trials of one cut and policy at once, from their last checkpoints on.

    Args:
        setup: what to train.
        out: the run's folder.
        trials: seeds of one cut and policy.
        activations: at or before the cut.
        last: epoch to end with, counted from 1.

    Yields:
        Every finished epoch of a trial; once, the error of one whose loss is no number.
    """
    config, first = setup.config, trials[0]
    suffix = make_suffix(setup.network, first.cut, first.policy)
    problem = make_problem(setup, trials, activations)
    logs, states = [], []
    try:
        for trial in trials:
            log, state = restore(setup, out, trial)
            logs.append(log)
            states.append(state)
        done = {len(log.rows) for log in logs}
        if len(done) > 1:  # killed between the checkpoints of one epoch
            for trial in trials:
                yield from run_trials(setup, out, [trial], activations, last)
            return
        state = stack(states, problem.variants)
        del states
        compiled = compile_seconds()
        broken = set()
        for ended in run_epochs(problem, state, done.pop() + 1, last):
            state, epochs, right = ended
            seconds = compile_seconds() - compiled
            compiled += seconds
            own_states = unstack(whole(state), problem.variants)
            for log, own, epoch, answers in zip(
                logs, own_states, epochs, right, strict=True
            ):
                if log.trial.id in broken:
                    continue
                if not np.isfinite(epoch.train_mode_loss):
                    broken.add(log.trial.id)
                    yield (
                        log.trial,
                        FloatingPointError(
                            f"the loss is {epoch.train_mode_loss} in epoch "
                            f"{epoch.epoch}; try a smaller --lr than {config.lr}"
                        ),
                    )
                    continue
                log.rows.append(
                    {**epoch._asdict(), "compile_seconds": seconds / len(trials)}
                )
                log.correct.append(answers)
                keep(out, log, own)
                yield log.trial, epoch
            if len(broken) == len(trials):
                return
    finally:
        for log in logs:
            log.checkpoints.close()
    own_states = unstack(whole(state), problem.variants)
    for log, own in zip(logs, own_states, strict=True):
        if log.trial.id not in broken:
            finish(setup, out, log, suffix, own)


def make_problem(
    setup: Setup, trials: Sequence[Trial], activations: Activations
) -> Problem:
    """What trials of one cut and policy train on."""
    config, first = setup.config, trials[0]
    problem = Problem(
        network=setup.network,
        cut=first.cut,
        policy=first.policy,
        params=setup.params,
        batch_stats=setup.batch_stats,
        activations=activations,
        train_labels=setup.dataset.train.labels,
        val_labels=setup.dataset.val.labels,
        hyper=run_time_numbers(setup),
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        drop_connect=config.drop_connect,
        seeds=tuple(trial.seed for trial in trials),
        mesh=setup.mesh,
    )
    hyper = stack([problem.hyper] * len(trials), problem.variants)
    return problem._replace(hyper=hyper)


def restore(setup: Setup, out: Path, trial: Trial) -> tuple[Log, State]:
    """A trial as its checkpoint left it, or at its start."""
    suffix = make_suffix(setup.network, trial.cut, trial.policy)
    params, batch_stats = with_fresh_head(setup, trial.seed)
    optimizer = setup.config.optimizer
    state = init_state(suffix, params, batch_stats, optimizer=optimizer)
    store = Checkpoints(records.trial_folder(out, trial.id) / "checkpoint")
    saved = from_first_process(store.restore)
    if saved is None:
        return Log(trial, store, [], []), state
    leaves = dict(saved.leaves)
    correct = leaves.pop("val_correct").astype(bool)
    own = {name.removeprefix("state/"): leaf for name, leaf in leaves.items()}
    state = replicate(unflatten(state, own), setup.mesh)
    return Log(trial, store, saved.meta["epochs"], list(correct)), state


def whole(state: State) -> State:
    """A state that the first process can write."""
    return jax.tree.map(fetch, state) if jax.process_count() > 1 else state


def keep(out: Path, log: Log, state: State) -> None:
    """Writes what a trial has reached."""
    log.checkpoints.save(
        len(log.rows),
        {"state": state, "val_correct": np.array(log.correct, np.uint8)},
        {"epochs": log.rows},
    )
    records.write_trial(
        out,
        log.trial.id,
        canonical=log.trial.canonical,
        status="pending",
        epochs=log.rows,
    )


def finish(
    setup: Setup, out: Path, log: Log, suffix: Sequence[SuffixUnit], state: State
) -> None:
    """Proves the freeze and records the trial as done."""
    changed = changed_leaves(
        setup.start,
        {**setup.params, **state.params},
        {**setup.batch_stats, **state.batch_stats},
        trainable={part.unit.name: part.trainable for part in suffix},
        batch_norm={part.unit.name: part.batch_norm for part in suffix},
    )
    records.write_correct(out, log.trial.id, np.array(log.correct, bool))
    records.write_trial(
        out,
        log.trial.id,
        canonical=log.trial.canonical,
        status="done",
        epochs=log.rows,
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
