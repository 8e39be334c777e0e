"""Compiles the programs of a sweep before it trains, several at a time.

Trials side by side need nearly the same programs: each would compile them again, or
wait while another one does. A program is compiled where it is first called, so here
every distinct unit is called once on zeros, by as many threads as will train. Those of
the frozen part come first: the pass over the data set runs while the others are
compiled, which leaves a fifth of two cores idle, because tracing holds Python's lock.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ftjax.backbones.backbone import Backbone, Unit, variables
from ftjax.backbones.stochastic_depth import drop_rates, residual_scales
from ftjax.data import Dataset
from ftjax.data.augment import Mixing
from ftjax.frozen.forward import infer_unit
from ftjax.frozen.placement import Placement, activation_struct
from ftjax.frozen.start import Start, with_fresh_head
from ftjax.machine import clock
from ftjax.machine.mesh import replicate, shard_batch
from ftjax.machine.threads import usable_cores
from ftjax.machine.workers import stop_point
from ftjax.sweep.resources import Budget
from ftjax.sweep.trial import Hyperparameters, Trial, trial_start
from ftjax.training.evaluate import cross_entropies
from ftjax.training.optimizer import for_unit, update_unit
from ftjax.training.programs import (
    add_squares,
    backward_unit,
    finish_unit,
    forward_program,
    gives_input_gradient,
    loss_gradient,
)
from ftjax.training.step import init_state
from ftjax.training.suffix import SuffixUnit, make_suffix
from ftjax.trees import Tree

MOST_THREADS = 8  # beside an accelerator
PATIENCE = 0.1  # seconds between two looks whether the sweep is to stop
Task = tuple[Hashable, Callable[[], None]]  # what programs depend on; compiles them

_compiled: set[Hashable] = set()  # in this process; rounds of a search come here again


class Programs(NamedTuple):
    """What the programs of a sweep are called with.

    Attributes:
        start: the pretrained network.
        params: of all units, with a head.
        batch_stats: likewise.
    """

    start: Start
    params: Tree
    batch_stats: Tree


def compile_threads(trials: int) -> int:
    """How many threads compile: those of the trials on a CPU, whose cores they use.

    Beside an accelerator the host's cores have little else to do.

    Args:
        trials: that run side by side.
    """
    if jax.default_backend() == "cpu":
        return trials
    return min(usable_cores(), MOST_THREADS)


@contextmanager
def compile_ahead(
    start: Start, data: Dataset, budget: Budget, trials: Sequence[Trial], threads: int
) -> Iterator[Callable[[], None]]:
    """Compiles what the trials and the passes between their cuts will call.

    Within it, the pass up to the first cut can begin; the rest is compiled meanwhile.
    What is left compiles in no time (sums over the parts of a batch) or is for one
    policy (`recalibrate`). Does nothing for one thread, and where trials are stacked or
    on a mesh, whose programs are others. Where an epoch is a program, the frozen part's
    are compiled alone. Of several devices each has programs
    of its own; those of a GPU are read from the compilation cache by the others.

    Args:
        start: the pretrained network.
        data: that it is trained on.
        budget: of the machine.
        trials: that are missing, from the earliest cut on.
        threads: that compile a program each.

    Yields:
        Waits until all is compiled.
    """
    others = budget.seeds_at_once > 1 or budget.mesh is not None
    others |= bool(budget.devices) and jax.default_backend() != "gpu"
    if not trials or threads == 1 or others:
        yield lambda: None
        return
    boundary = min(trial.placement.boundary for trial in trials)
    first, later = [], []
    for own in by_head(trials):
        programs = make_programs(start, own[0].hyper)
        inference = list(inference_tasks(programs, trials[0].hyper.micro_batch))
        first += inference[:boundary]
        if budget.fused:
            latest = max(trial.placement.boundary for trial in own)
            later += inference[boundary:latest]
            continue
        later += begun_tasks(programs, own)
        later += training_tasks(programs, [t for t in own if not t.is_probe])
        later += inference[boundary:]
    if not budget.fused:
        later += batch_tasks(start.network, data, trials)
    pool = ThreadPoolExecutor(threads)

    def call(kind: Hashable, task: Callable[[], None]) -> None:
        with clock.at_work(), suppress(Exception):  # the trial meets it, and says so
            task()
            _compiled.add(kind)

    def submit(tasks: Iterable[Task]) -> list[Future[None]]:
        missing = {kind: task for kind, task in tasks if kind not in _compiled}
        return [pool.submit(call, *each) for each in missing.items()]

    try:
        wait_for(submit(first))
        coming = submit(later)
        yield lambda: wait_for(coming)
    finally:
        pool.shutdown(cancel_futures=True)


def by_head(trials: Iterable[Trial]) -> Iterable[list[Trial]]:
    """The trials of each head."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.hyper.head, []).append(trial)
    return found.values()


def make_programs(start: Start, hyper: Hyperparameters) -> Programs:
    """What the programs of trials are called with that have the head of `hyper`."""
    own = trial_start(start, hyper)
    return Programs(own, *with_fresh_head(own, 0))


def wait_for(futures: Sequence[Future[None]]) -> None:
    """Waits until all have ended, or this worker is to stop."""
    while wait(futures, timeout=PATIENCE).not_done:
        stop_point()


def training_tasks(programs: Programs, trials: Iterable[Trial]) -> Iterator[Task]:
    """Forward pass, backward pass and update of each unit of each suffix.

    Yields:
        What the programs depend on, and a call that has them compiled.
    """
    network = programs.start.network
    for trial in trials:
        begin, hyper = trial.placement.begin, trial.hyper
        suffix = make_suffix(
            network, trial.cut, trial.policy, begin, last_only=hyper.last_only
        )
        for index, part in enumerate(suffix):
            at = Placement(trial.cut.unit + index, begin if index == 0 else "")
            x = unit_input(programs.start, at, hyper.micro_batch)
            wanted = gives_input_gradient(index, part.unit)
            drops = hyper.drop_connect > 0 and part.unit.drop_share > 0
            scaled = (drops or part.unit.dropout > 0) and not part.frozen
            scale = np.zeros(len(x), np.float32) if scaled else None
            unit, *keys = part
            kind = (unit.module, *keys, x.shape, x.dtype, wanted, scaled)
            kind = *kind, hyper.optimizer, hyper.parts, hyper.clip > 0
            yield kind, partial(train_unit, part, wanted, programs, hyper, x, scale)


def inference_tasks(programs: Programs, micro_batch: int) -> Iterator[Task]:
    """As `training_tasks`, of the units in inference mode."""
    for index, unit in enumerate(programs.start.network.units):
        x = unit_input(programs.start, Placement(index), micro_batch)
        yield inference_task(unit, x, programs)


def begun_tasks(programs: Programs, trials: Iterable[Trial]) -> Iterator[Task]:
    """As `inference_tasks`, of the parts of units that cuts divide."""
    start = programs.start
    for at, size in {(t.placement, t.hyper.micro_batch): None for t in trials}:
        if at.begin:
            unit = start.network.units[at.boundary]
            whole = unit_input(start, Placement(at.boundary), size)
            yield inference_task(unit.before(at.begin), whole, programs)
            rest = unit_input(start, at, size)
            yield inference_task(unit.onward(at.begin), rest, programs)


def inference_task(unit: Unit, x: np.ndarray, programs: Programs) -> Task:
    """As `inference_tasks`, of a single unit."""
    own = variables(programs.params, programs.batch_stats, unit.name)

    def run() -> None:
        y = infer_unit(unit.module, own, shard_batch(x, None), None)
        jax.block_until_ready(y)

    return (unit.module, x.shape, x.dtype), run


def unit_input(start: Start, at: Placement, micro_batch: int) -> np.ndarray:
    """Zeros in the place of a batch that comes to a unit; they take no memory."""
    struct = activation_struct(
        start.network, start.image_size, at.boundary, micro_batch, at.begin
    )
    return np.broadcast_to(np.zeros((), struct.dtype), struct.shape)


def train_unit(
    part: SuffixUnit,
    input_gradient: bool,
    programs: Programs,
    hyper: Hyperparameters,
    x: np.ndarray,
    scale: np.ndarray | None,
) -> None:
    """A step of a single unit, by the programs of `training.step.train_step`."""
    unit, trainable, batch_norm, head = part
    params, batch_stats, opt_state = init_state(
        [part],
        programs.params,
        programs.batch_stats,
        optimizer=hyper.optimizer,
        hyper=hyper.numbers,
    )
    inputs = params[unit.name], batch_stats[unit.name], shard_batch(x, None), scale
    y, _, residuals = forward_program(unit.module, trainable, batch_norm, inputs, None)
    pullback = residuals.complete((inputs, y))
    total = None
    if part.frozen:
        jax.block_until_ready(backward_unit(input_gradient, pullback, y, variants=None))
        return
    if hyper.parts > 1 or hyper.clip:
        total, _ = backward_unit(input_gradient, pullback, y, variants=None)
    numbers = replicate(hyper.numbers, None)
    own, kept = params[unit.name], opt_state[unit.name]
    how = {
        "name": hyper.optimizer,
        "trainable": trainable,
        "head": head,
        "variants": None,
    }
    if hyper.clip:
        add_squares(total, None)
        numbers = numbers._replace(gradient_scale=numbers.clip)
        updated = update_unit(own, total, kept, for_unit(numbers, 0), **how)
    else:
        at = input_gradient, pullback, y, total
        updated = finish_unit(*at, own, kept, for_unit(numbers, 0), **how)
    jax.block_until_ready(updated)


def batch_tasks(
    network: Backbone, data: Dataset, trials: Iterable[Trial]
) -> Iterator[Task]:
    """What belongs to no unit: drop-connect, and the loss with its gradient."""
    classes = len(data.class_names)
    for hyper in {trial.hyper: None for trial in trials}:
        images = len(data.chosen(*hyper.images).rows)
        rates = drop_rates(network, hyper.drop_connect)
        run = partial(call_batch, images, classes, hyper, rates)
        yield (images, classes, hyper.program, rates), run


def call_batch(
    images: int, classes: int, hyper: Hyperparameters, rates: tuple[float, ...]
) -> None:
    """Has the programs of `batch_tasks` compiled."""
    if any(rates):
        steps = images // hyper.batch_size
        residual_scales(jax.random.key(0), 1, rates, steps, hyper.batch_size)
    logits = np.zeros((hyper.micro_batch, classes), np.float32)
    labels = np.zeros(hyper.micro_batch, np.int32)
    batch = shard_batch(logits, None), shard_batch(labels, None)
    weights = None if hyper.class_weights == "none" else np.ones(classes, np.float32)
    smoothing = replicate(hyper.numbers, None).label_smoothing
    mixing = None
    if "mixup" in hyper.words:
        mixing = Mixing(batch[1], shard_batch(np.ones(len(labels), np.float32), None))
    gradient = loss_gradient(*batch, hyper.parts, None, weights, smoothing, mixing)
    jax.block_until_ready((gradient, cross_entropies(*batch)))
