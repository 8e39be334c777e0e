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

from ftjax.backbones.backbone import Unit, variables
from ftjax.backbones.stochastic_depth import drop_rates, residual_scales
from ftjax.frozen.forward import infer_unit
from ftjax.frozen.placement import activation_struct
from ftjax.machine import clock
from ftjax.machine.mesh import shard_batch
from ftjax.machine.threads import usable_cores
from ftjax.machine.workers import stop_point
from ftjax.sweep.plan import Trial
from ftjax.sweep.setup import Setup, run_time_numbers, stored_at, with_fresh_head
from ftjax.training.evaluate import score
from ftjax.training.optimizer import Hyper
from ftjax.training.programs import (
    backward_unit,
    finish_unit,
    forward_unit,
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


class Start(NamedTuple):
    """What a training starts from.

    Attributes:
        params: of all units, with a head.
        batch_stats: likewise.
        hyper: run-time numbers of the optimizer.
        optimizer: a key of `OPTIMIZERS`.
        parts: in which a batch passes through the network.
    """

    params: Tree
    batch_stats: Tree
    hyper: Hyper
    optimizer: str
    parts: int


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
    setup: Setup, trials: Sequence[Trial], threads: int
) -> Iterator[Callable[[], None]]:
    """Compiles what the trials and the passes between their cuts will call.

    Within it, the pass up to the first cut can begin; the rest is compiled meanwhile.
    What is left compiles in no time (sums over the parts of a batch) or is for one
    policy (`recalibrate`). Does nothing for one thread, and where trials are stacked,
    fused or on a mesh, whose programs are others.

    Args:
        setup: what is trained.
        trials: that are missing, from the earliest cut on.
        threads: that compile a program each.

    Yields:
        Waits until all is compiled.
    """
    config = setup.config
    others = config.fused or config.seeds_at_once > 1 or setup.mesh is not None
    if not trials or threads == 1 or others:
        yield lambda: None
        return
    start = Start(
        *with_fresh_head(setup, 0),
        run_time_numbers(setup),
        config.optimizer,
        config.batch_size // config.micro_batch,
    )
    inference = list(inference_tasks(setup, start))
    boundary = min(setup.boundaries[trial.id] for trial in trials)
    first, rest = inference[:boundary], inference[boundary:]
    later = [
        *begun_tasks(setup, trials, start),
        *training_tasks(setup, trials, start),
        *rest,
        batch_task(setup),
    ]
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


def wait_for(futures: Sequence[Future[None]]) -> None:
    """Waits until all have ended, or this worker is to stop."""
    while wait(futures, timeout=PATIENCE).not_done:
        stop_point()


def training_tasks(
    setup: Setup, trials: Iterable[Trial], start: Start
) -> Iterator[Task]:
    """Forward pass, backward pass and update of each unit of each suffix.

    Yields:
        What the programs depend on, and a call that has them compiled.
    """
    config = setup.config
    for trial in trials:
        _, begin = stored_at(setup, trial)
        suffix = make_suffix(setup.network, trial.cut, trial.policy, begin)
        for index, part in enumerate(suffix):
            within = begin if index == 0 else ""
            x = unit_input(setup, trial.cut.unit + index, within)
            wanted = gives_input_gradient(index, part.unit)
            scaled = config.drop_connect > 0 and part.unit.drop_share > 0
            scale = np.zeros(len(x), np.float32) if scaled else None
            unit, *keys = part
            kind = (unit.module, *keys, x.shape, x.dtype, wanted, scaled)
            kind = *kind, config.optimizer, start.parts
            yield kind, partial(train_unit, part, wanted, start, x, scale)


def inference_tasks(setup: Setup, start: Start) -> Iterator[Task]:
    """As `training_tasks`, of the units in inference mode."""
    for index, unit in enumerate(setup.network.units):
        yield inference_task(unit, unit_input(setup, index), start)


def begun_tasks(setup: Setup, trials: Iterable[Trial], start: Start) -> Iterator[Task]:
    """As `inference_tasks`, of the parts of units that cuts divide."""
    for boundary, begin in dict.fromkeys(stored_at(setup, trial) for trial in trials):
        if begin:
            unit = setup.network.units[boundary]
            whole, rest = (unit_input(setup, boundary, at) for at in ("", begin))
            yield inference_task(unit.before(begin), whole, start)
            yield inference_task(unit.onward(begin), rest, start)


def inference_task(unit: Unit, x: np.ndarray, start: Start) -> Task:
    """As `inference_tasks`, of a single unit."""
    own = variables(start.params, start.batch_stats, unit.name)

    def run() -> None:
        y = infer_unit(unit.module, own, shard_batch(x, None), None)
        jax.block_until_ready(y)

    return (unit.module, x.shape, x.dtype), run


def unit_input(setup: Setup, index: int, begin: str = "") -> np.ndarray:
    """Zeros in the place of a batch that comes to a unit; they take no memory."""
    config = setup.config
    struct = activation_struct(
        setup.network, config.image_size, index, config.micro_batch, begin
    )
    return np.broadcast_to(np.zeros((), struct.dtype), struct.shape)


def train_unit(
    part: SuffixUnit,
    input_gradient: bool,
    start: Start,
    x: np.ndarray,
    scale: np.ndarray | None,
) -> None:
    """A step of a single unit, by the programs of `train.accumulated_step`."""
    unit, trainable, batch_norm, head = part
    params, batch_stats, opt_state = init_state(
        [part], start.params, start.batch_stats, optimizer=start.optimizer
    )
    y, _, pullback = forward_unit(
        unit.module,
        trainable,
        batch_norm,
        params[unit.name],
        batch_stats[unit.name],
        shard_batch(x, None),
        scale,
        variants=None,
    )
    total = None
    if start.parts > 1:
        total, _ = backward_unit(input_gradient, pullback, y, variants=None)
    updated = finish_unit(
        input_gradient,
        pullback,
        y,
        total,
        params[unit.name],
        opt_state[unit.name],
        start.hyper,
        name=start.optimizer,
        trainable=trainable,
        head=head,
        variants=None,
    )
    jax.block_until_ready(updated)


def batch_task(setup: Setup) -> Task:
    """What belongs to no unit: drop-connect, loss and score."""
    config, images = setup.config, len(setup.dataset.train.labels)
    size, classes = config.micro_batch, len(setup.dataset.class_names)
    rates = drop_rates(setup.network, config.drop_connect)

    def run() -> None:
        if any(rates):
            steps = images // config.batch_size
            residual_scales(jax.random.key(0), 1, rates, steps, config.batch_size)
        logits = np.zeros((size, classes), np.float32)
        labels = np.zeros_like(setup.dataset.train.labels[:size])
        batch = shard_batch(logits, None), shard_batch(labels, None)
        gradient = loss_gradient(*batch, config.batch_size // size, None)
        jax.block_until_ready((gradient, score(*batch)))

    return (images, config.batch_size, size, classes, rates), run
