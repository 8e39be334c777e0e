"""Runs a plan: one pass over the frozen part, trials from the earliest cut on."""

import itertools
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from ftjax.frozen.cache import RollingCache
from ftjax.frozen.forward import Activations
from ftjax.machine import clock
from ftjax.machine.files import write_atomically
from ftjax.machine.mesh import VARIANT, axis_size, from_first_process
from ftjax.machine.workers import side_by_side
from ftjax.sweep import records
from ftjax.sweep.compile_ahead import compile_ahead, compile_threads
from ftjax.sweep.plan import Trial
from ftjax.sweep.setup import Setup, stored_at, trials_at_once
from ftjax.sweep.trials import run_trials
from ftjax.training.epochs import Epoch


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


def run(
    setup: Setup, out: Path, goals: Mapping[str, int] | None = None
) -> Iterator[Progress]:
    """Trains what is missing in `out`, yielding after every epoch.

    Finished trials are kept, interrupted ones go on from their last epoch. A trial
    that fails is recorded and the others go on. Where several are trained side by side
    (`trials_at_once`), the events of one come between those of another.

    Args:
        setup: what to train.
        out: the run's folder.
        goals: trial -> number of epochs it is trained to; trials that are not named
            wait. Default: all of them, to the last epoch.
    """
    goals = all_goals(setup) if goals is None else goals
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
    groups = group_trials(setup, missing)
    most = trials_at_once(setup)
    count = most if len(missing) > 1 else 1
    cache = RollingCache(setup, threads=most)
    ahead = [trial for trial, *_ in missing]
    with compile_ahead(setup, ahead, compile_threads(count)) as ready:
        line = Line(setup, out, numbers, groups, cache, ready, threading.Lock())
        yield from side_by_side([work(line) for _ in range(count)])


class Line(NamedTuple):
    """What is to be trained, for those who train it.

    Attributes:
        setup: what belongs to all.
        out: the run's folder.
        numbers: of the trials, counted from 1.
        groups: that nobody trains yet, from the earliest cut on, and the last epoch of
            each.
        cache: the activations that they train on.
        ready: waits until what they call is compiled.
        turn: held by whoever takes a group and the activations for it.
    """

    setup: Setup
    out: Path
    numbers: Mapping[str, int]
    groups: Iterator[tuple[tuple[Trial, ...], int]]
    cache: RollingCache
    ready: Callable[[], None]
    turn: threading.Lock


def work(line: Line) -> Generator[Progress, None, None]:
    """Trains one group after the other until none is left."""
    while True:
        failed: dict[str, Exception] = {}
        with line.turn:
            group, last = next(line.groups, ((), 0))
            if not group:
                return
            for trial in group:
                yield Progress(trial, line.numbers[trial.id], "started")
            try:
                with clock.at_work():
                    activations = line.cache.at(*stored_at(line.setup, group[0]))
            except Exception as error:
                failed = fail(group, error)
            line.ready()  # before the next one's turn, who calls the same programs
        if not failed:
            with clock.at_work():
                failed = yield from train(line, group, activations, last)
        activations = None  # another worker may be moving on to the next
        for trial in group:
            number = line.numbers[trial.id]
            if trial.id in failed:
                message = record_failure(line.out, trial, failed[trial.id])
                yield Progress(trial, number, "failed", message=message)
            else:
                yield Progress(trial, number, "done")


def train(
    line: Line, group: tuple[Trial, ...], activations: Activations, last: int
) -> Generator[Progress, None, dict[str, Exception]]:
    """Trains one group, yielding after every epoch.

    Returns:
        Trial -> why it failed.
    """
    failed: dict[str, Exception] = {}
    try:
        for trial, ended in run_trials(line.setup, line.out, group, activations, last):
            if isinstance(ended, Epoch):
                yield Progress(trial, line.numbers[trial.id], "epoch", ended)
            else:
                failed[trial.id] = ended
    except Exception as error:
        failed = fail(group, error) | failed
    return failed


def fail(group: tuple[Trial, ...], error: Exception) -> dict[str, Exception]:
    """The error for all of a group: it must not lose the other trials."""
    if jax.process_count() > 1:
        raise error  # the other processes may not have failed, and would wait
    return {trial.id: error for trial in group}


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
    write_atomically(path, text.encode())
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
