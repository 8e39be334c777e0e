"""`--plan`: what a sweep will take, printed before anything is trained."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from ftjax.config import HALVING
from ftjax.frozen.forward import infer
from ftjax.machine.mesh import shard_batch
from ftjax.machine.stacking import Variants, share, stack
from ftjax.sweep.cost import trainable_params, trial_flops
from ftjax.sweep.memory import available_bytes, count_programs
from ftjax.sweep.plan import Trial
from ftjax.sweep.setup import (
    Setup,
    begun_bytes,
    flops_of,
    largest_trials,
    measure_room,
    needed_memory,
    run_time_numbers,
    stored_at,
    trials_at_once,
    with_fresh_head,
)
from ftjax.training.step import Batch, accumulated_step, init_state
from ftjax.training.steps import Source, Step, fused_steps
from ftjax.training.suffix import make_suffix

CALIBRATION_STEPS = 3


def print_forecast(setup: Setup, console: Console) -> None:
    """FLOPs, memory and seconds of every trial, after a calibration on one batch."""
    trials = setup.plan.trials
    if not trials:
        console.print("--depths auto decides after the first trials what to train")
        return
    rates = measure_rates(setup)
    images = setup.images
    sizes = measure_room(setup).sizes
    table = Table("Layers", "Blocks", "BN", "Seed", "Parameters", "Stored before", "In")
    for name in ("GB", "TFLOP", "Seconds"):
        table.add_column(name, justify="right")
    last = max(setup.boundaries[trial.id] for trial in trials)
    passed = images * sum(setup.cost.forward[:last])
    total, seconds = passed, passed / rates.inference
    for trial in trials:
        boundary, begin = stored_at(setup, trial)
        size = begun_bytes(setup, boundary, begin) if begin else sizes[boundary]
        flops = flops_of(setup, trial)
        took = flops.train / rates.train + flops.inference / rates.inference
        total += flops.total
        seconds += took
        table.add_row(
            str(trial.cut.depth_layers),
            str(trial.cut.depth_units),
            trial.policy,
            str(trial.seed),
            f"{trainable_params(setup.network, trial.cut, setup.cost):,}",
            f"{setup.network.units[boundary].name} {begin}".strip(),
            placement(setup, trial),
            f"{size / 1e9:.2f}",
            f"{flops.total / 1e12:.2f}",
            f"{took:.0f}",
        )
    console.print(table)
    halved = setup.config.search == HALVING
    begun = [(trial, stored_at(setup, trial)[1]) for trial in trials]
    programs = count_programs(setup.network, begun, setup.config.image_size)
    count = trials_at_once(setup)
    memory, available = needed_memory(setup, count), available_bytes()
    limit = f" of {available / 1e9:.1f}" if available else ""
    most = "at most, as halving stops some: " if halved else ""
    lines = (
        f"{most}{total / 1e12:.1f} TFLOP in all, {passed / 1e12:.1f} of them once for "
        "the frozen part",
        f"about {duration(seconds)} and the time to compile {programs} programs of "
        f"single units (measured on one batch: training {rates.train / 1e9:.1f}, "
        f"inference {rates.inference / 1e9:.1f} GFLOP/s; the first one compiled in "
        f"{rates.compile_seconds:.0f} s)",
        f"memory: at least {sum(memory) / 1e9:.2f}{limit} GB: parameters "
        f"{memory.params / 1e9:.2f}, optimizer {memory.optimizer / 1e9:.2f}, "
        f"for the backward pass {memory.residuals / 1e9:.2f}, stored activations "
        f"{memory.stored / 1e9:.2f}",
    )
    for line in lines:
        console.print(line, highlight=False)
    if count > 1:
        console.print(
            f"{count} trials side by side (--trials-at-once); the seconds are those "
            "of one after the other",
            highlight=False,
        )
    at_once = setup.config.seeds_at_once
    if at_once > 1:
        gain = measure_rates(setup, at_once).train / rates.train
        console.print(
            f"{at_once} seeds at once: {gain:.2f} times the speed of one by one",
            highlight=False,
        )
    if setup.config.fused:
        fused = measure_rates(setup, fused=True)
        console.print(
            f"fused: {fused.train / rates.train:.2f} times the speed of single units; "
            f"the largest program compiled in {fused.compile_seconds:.0f} s, and each "
            "depth and policy has its own",
            highlight=False,
        )


def placement(setup: Setup, trial: Trial) -> str:
    """Where a trial's activations are, and how many units are run again from there."""
    boundary = setup.boundaries[trial.id]
    room = measure_room(setup)
    place = "disk" if room.on_disk(boundary) else "memory"
    if room.on_device(boundary):
        place = "device"
    again = trial.cut.unit - boundary
    if not again:
        return place
    recomputed = f"{again} unit{'s' * (again > 1)} recomputed"
    return f"{place}, {recomputed}" if boundary else recomputed


def duration(seconds: float) -> str:
    """E.g. 45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Rates(NamedTuple):
    """Measured speed, in FLOP/s as `measure_cost` counts them.

    Attributes:
        train: of forward and backward passes.
        inference: of forward passes alone.
        compile_seconds: from the start until both ran for the first time.
    """

    train: float
    inference: float
    compile_seconds: float


def measure_rates(setup: Setup, seeds: int = 1, fused: bool = False) -> Rates:
    """Times a few steps on one batch: the largest trial's training, and inference.

    Args:
        setup: what is planned.
        seeds: that are trained at once.
        fused: whether a few steps of one seed are one program.
    """
    start = time.perf_counter()
    config, network, dataset = setup.config, setup.network, setup.dataset
    trial = largest_trials(setup)[0]
    variants = Variants(seeds, setup.mesh) if seeds > 1 else None
    params, batch_stats = with_fresh_head(setup, trial.seed)
    hyper = stack([run_time_numbers(setup)] * seeds, variants)
    count = config.micro_batch
    images = shard_batch(dataset.train.images[:count], setup.mesh)
    labels = share(shard_batch(dataset.train.labels[:count], setup.mesh), variants)
    suffix = make_suffix(network, trial.cut, trial.policy)
    state = init_state(suffix, params, batch_stats, optimizer=config.optimizer)
    state = stack([state] * seeds, variants)
    x = share(infer(network[: trial.cut.unit], params, batch_stats, images), variants)
    scales = None
    if config.drop_connect:  # no block is dropped, by the programs that can drop one
        scales = np.ones((len(suffix), count), np.float32)
        scales = np.stack([scales] * seeds) if variants else scales
    batches = [Batch(x, labels, scales)]

    def step():
        nonlocal state
        if fused:
            kind = Step(suffix, (), config.optimizer, 1, None, setup.mesh)
            source = Source(x, labels, {}, {}, hyper)
            several = jax.tree.map(
                lambda array: np.stack([array] * CALIBRATION_STEPS),
                (np.arange(count), scales),
            )
            state, metrics = fused_steps(kind, source, state, *several)
        else:
            state, metrics = accumulated_step(
                suffix,
                state,
                batches,
                1,
                hyper,
                optimizer=config.optimizer,
                variants=variants,
            )
        jax.block_until_ready((state, metrics))

    def look():
        jax.block_until_ready(infer(network.units, params, batch_stats, images))

    step()
    look()
    compile_seconds = time.perf_counter() - start
    flops = trial_flops(
        trial.cut,
        setup.cost,
        boundary=trial.cut.unit,
        epochs=1,
        steps=CALIBRATION_STEPS if fused else 1,
        batch_size=count,
        evaluated=0,
    )
    whole = count * sum(setup.cost.forward)
    train = seeds * flops.train
    return Rates(train / median(step), whole / median(look), compile_seconds)


def median(call: Callable[[], None]) -> float:
    """Median time of a few calls, in seconds."""
    times = []
    for _ in range(CALIBRATION_STEPS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
