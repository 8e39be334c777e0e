"""What of a round is to be trained, handed out in turn to the threads that train."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ftjax.frozen.cache import ActivationCache
from ftjax.machine import clock
from ftjax.machine.mesh import VARIANT, axis_size, from_first_process
from ftjax.sweep import records
from ftjax.sweep.checkpoint import newest_step
from ftjax.sweep.compile_ahead import compile_ahead, compile_threads
from ftjax.sweep.events import Event, Listener
from ftjax.sweep.log import recording_failures
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.resources import Budget, trials_at_once
from ftjax.sweep.trial import Trial
from ftjax.sweep.trials import Work

Trials = tuple[Trial, ...]
Take = Callable[[Trials, int], bool]


class WorkQueue:
    """An iterator that several threads share; each item is trained by who takes it.

    Args:
        groups: trials that are trained at once and the last epoch of each, from the
            earliest cut on.
        cache: the activations that they train on.
        ready: waits until what they call is compiled.
        out: the run's folder.
        listen: is told of trials that start, or fail before they do.
        count: threads that are to share it.
        take: whether trials are still to be trained to an epoch; others are passed
            over.
    """

    def __init__(
        self,
        groups: Iterator[tuple[Trials, int]],
        cache: ActivationCache,
        ready: Callable[[], None],
        *,
        out: Path,
        listen: Listener,
        count: int,
        take: Take,
    ):
        self.count, self._take = count, take
        self._groups, self._cache, self._ready = groups, cache, ready
        self._out, self._listen = out, listen
        self._turn = threading.Lock()

    def __iter__(self) -> Iterator[Work]:
        return self

    def __next__(self) -> Work:
        with self._turn:
            while True:
                trials, last = next(self._groups)
                if not self._take(trials, last):
                    continue
                for trial in trials:
                    self._listen(Event(trial, "started"))
                with (
                    recording_failures(trials, self._out, self._listen) as failed,
                    clock.at_work(),
                ):
                    first = trials[0]
                    activations = self._cache.at(first.placement, first.hyper.view_set)
                self._ready()  # before the next one, who calls the same programs
                if not failed:
                    return Work(trials, activations, last)


@contextmanager
def open_queue(
    sweep: Sweep,
    plan: Plan,
    goals: Mapping[str, int],
    *,
    out: Path,
    listen: Listener,
    take: Take = lambda trials, last: True,
) -> Iterator[WorkQueue]:
    """The queue of what is missing; what the trials call is compiled within it.

    Args:
        sweep: what they train on.
        plan: with the trials.
        goals: trial -> number of epochs it is trained to; others wait.
        out: the run's folder.
        listen: is told of trials that were done before, start, or fail.
        take: as of `WorkQueue`.
    """
    start, data, budget = sweep.start, sweep.data, sweep.budget
    missing = []
    for trial in plan.trials:
        if trial.id not in goals:
            continue
        found = partial(ended, out, trial, goals[trial.id])
        event = from_first_process(found)
        if event is None:
            missing.append(trial)
        else:
            listen(event)
    most = trials_at_once(start, budget, plan.trials, sweep.num_images)
    count = most if len(missing) > 1 else 1
    cache = ActivationCache(
        start,
        data,
        budget.room,
        batch_size=sweep.hyper.micro_batch,
        mesh=budget.mesh,
        threads=most,
        needs_device=budget.fused,
    )
    groups = group_trials(missing, goals, budget, out)
    with compile_ahead(start, data, budget, missing, compile_threads(count)) as ready:
        yield WorkQueue(
            groups, cache, ready, out=out, listen=listen, count=count, take=take
        )


def ended(out: Path, trial: Trial, epochs: int) -> Event | None:
    """How a trial ended in an earlier command; None if it is to be trained.

    One that was done before has so many epochs, or was ended by a rule. One that
    diverged would do so again; one that failed is tried again.
    """
    record = records.read_trial(out, trial.id) or {}
    if record.get("status") == "diverged":
        return Event(trial, "diverged", message=record["message"])
    done = record.get("status") == "done" and (
        len(record["epochs"]) >= epochs or bool(record.get("stopped_by"))
    )
    return Event(trial, "kept") if done else None


def group_trials(
    missing: Iterable[Trial], goals: Mapping[str, int], budget: Budget, out: Path
) -> Iterator[tuple[Trials, int]]:
    """Neighbors that can be trained at once: of one cut, policy, program and epoch.

    Args:
        missing: trials in order.
        goals: the last epoch of each.
        budget: of the machine.
        out: the run's folder, for the epochs that they have.

    Yields:
        The trials of a group, a multiple of the mesh's axis `variant` or a single one,
        and their last epoch.
    """

    def kind(trial: Trial) -> tuple:
        done = partial(newest_step, records.trial_folder(out, trial.id) / "checkpoint")
        had = from_first_process(done) if budget.seeds_at_once > 1 else None
        return trial.cut, trial.policy, trial.hyper.program, goals[trial.id], had

    axis = axis_size(budget.mesh, VARIANT)
    for (_, _, _, last, _), own in itertools.groupby(missing, key=kind):
        trials = list(own)
        while trials:
            count = min(len(trials), budget.seeds_at_once)
            count = count - count % axis or 1
            yield tuple(trials[:count]), last
            trials = trials[count:]
