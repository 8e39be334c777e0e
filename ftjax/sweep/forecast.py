"""What a plan will take, by timing a few steps on one batch; nothing is trained."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ftjax.data import Dataset
from ftjax.data.augment import ViewSet
from ftjax.frozen.forward import infer
from ftjax.frozen.placement import Room, choose_boundary
from ftjax.frozen.start import Start, with_fresh_head
from ftjax.machine.mesh import replicate, shard_batch
from ftjax.machine.stacking import Variants, share, stack
from ftjax.sweep.cost import measure_cost
from ftjax.sweep.resources import Budget, largest_trials
from ftjax.sweep.trial import Trial, trial_start
from ftjax.training.batches import Source, Step
from ftjax.training.epoch_program import Draws, copies, epoch_program
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

CALIBRATION_STEPS = 3


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

    def seconds(self, trial: Trial, epochs: int | None = None) -> float:
        """Of so many epochs of a trial, all by default, compilation aside."""
        flops = trial.flops
        epochs = trial.hyper.epochs if epochs is None else epochs
        forward = epochs * flops.inference + flops.last
        return epochs * flops.train / self.train + forward / self.inference


def passed_flops(room: Room, trials: Sequence[Trial]) -> float:
    """FLOPs of one pass through the frozen part, up to the latest boundary.

    Where trials train on several sets of stored views, of one pass for each of them.

    Args:
        room: with the FLOPs of each unit.
        trials: that are planned.
    """
    last: dict[ViewSet | None, int] = {}
    for trial in trials:
        key = trial.hyper.view_set
        last[key] = max(last.get(key, 0), trial.placement.boundary)
    return sum(
        room.with_views(views[1] if views else 0).copies * sum(room.flops[:boundary])
        for views, boundary in last.items()
    )


class ViewsCost(NamedTuple):
    """What views of the training images cost in the frozen part.

    Attributes:
        stored: bytes of the largest activations, beside those of the images.
        passed: FLOPs, once.
        again: FLOPs in the training steps.
    """

    stored: int
    passed: float
    again: float


def views_cost(room: Room, trials: Sequence[Trial], views: int) -> ViewsCost:
    """The cost of a number of stored views, or of fresh ones.

    Args:
        room: for the activations of the images alone.
        trials: that train on the views.
        views: of each training image; 0: fresh ones.
    """
    own, boundary, stored, again = room.with_views(views), 0, 0, 0.0
    for trial in sorted(trials, key=lambda trial: trial.cut.unit):
        cut = trial.cut.unit
        if views:
            boundary = choose_boundary(own, cut, boundary)
        stored = max(stored, own.stored(boundary) - room.stored(boundary))
        again += trial.hyper.epochs * room.train_share * sum(room.flops[boundary:cut])
    passed = views * room.train_share * sum(room.flops[:boundary])
    return ViewsCost(stored, passed, again)


def measure_rates(
    start: Start,
    data: Dataset,
    budget: Budget,
    trials: Sequence[Trial],
    seeds: int = 1,
    fused: bool = False,
) -> Rates:
    """Times a few steps on one batch: the largest trial's steps, and inference.

    Args:
        start: the pretrained network.
        data: whose first images are taken.
        budget: of the machine.
        trials: that are planned.
        seeds: that are trained at once.
        fused: whether a few steps of one seed are one program.
    """
    began = time.perf_counter()
    mesh, trial = budget.mesh, largest_trials(trials)[0]
    start = trial_start(start, trial.hyper)
    network = start.network
    hyper, count = trial.hyper, trial.hyper.micro_batch
    variants = Variants(seeds, mesh) if seeds > 1 else None
    params, batch_stats = with_fresh_head(start, trial.seed, mesh)
    numbers = stack([replicate(hyper.numbers, mesh)] * seeds, variants)
    images = shard_batch(data.train.images[:count], mesh)
    labels = share(shard_batch(data.train.labels[:count], mesh), variants)
    suffix = make_suffix(network, trial.cut, trial.policy)
    state = init_state(
        suffix, params, batch_stats, optimizer=hyper.optimizer, hyper=hyper.numbers
    )
    state = stack([state] * seeds, variants)
    x = share(infer(network[: trial.cut.unit], params, batch_stats, images), variants)
    ones = np.ones((seeds, count) if variants else count, np.float32)
    scales = {  # no block is dropped, by the programs that can drop one
        part.unit.name: ones
        for part in suffix
        if not part.frozen
        and (part.unit.dropout or (hyper.drop_connect and part.unit.drop_share))
    }

    if fused:  # it writes over the state, whose arrays are the pretrained ones
        (state,) = copies(state)

    def step():
        nonlocal state
        if fused:
            kind = Step(suffix, (), hyper.optimizer, 1, None, mesh)
            several = jax.tree.map(
                lambda array: np.stack([array] * CALIBRATION_STEPS),
                (np.arange(count), scales),
            )
            source = Source(x, labels, {}, {}, numbers)
            state, metrics = epoch_program(kind, source, state, Draws(*several))
        else:
            state, metrics = train_step(
                suffix,
                state,
                [Batch(x, labels, scales)],
                numbers,
                optimizer=hyper.optimizer,
                variants=variants,
            )
        jax.block_until_ready((state, metrics))

    def look():
        jax.block_until_ready(infer(network.units, params, batch_stats, images))

    step()
    look()
    compile_seconds = time.perf_counter() - began
    first, *others = measure_cost(network, start.image_size).forward[trial.cut.unit :]
    steps = CALIBRATION_STEPS if fused else 1
    trained = seeds * steps * count * (2 * first + 3 * sum(others))
    whole = count * sum(measure_cost(network, start.image_size).forward)
    return Rates(trained / median(step), whole / median(look), compile_seconds)


def measure_inference(start: Start, data: Dataset, budget: Budget, count: int) -> Rates:
    """Times forward passes of one batch, whose programs every sweep needs.

    Training is taken to be as fast by its FLOPs, until it has been seen.

    Args:
        start: the pretrained network.
        data: whose first images are taken.
        budget: of the machine.
        count: images that pass through the network at a time.
    """
    began = time.perf_counter()
    params, batch_stats = with_fresh_head(start, 0, budget.mesh)
    images = shard_batch(data.train.images[:count], budget.mesh)

    def look():
        jax.block_until_ready(infer(start.network.units, params, batch_stats, images))

    look()
    compile_seconds = time.perf_counter() - began
    flops = count * sum(measure_cost(start.network, start.image_size).forward)
    rate = flops / median(look)
    return Rates(rate, rate, compile_seconds)


def median(call: Callable[[], None]) -> float:
    """Median time of a few calls, in seconds."""
    times = []
    for _ in range(CALIBRATION_STEPS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
