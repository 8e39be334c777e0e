"""What of a round is to be trained, handed out in turn to the threads that train."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep

from ftjax.frozen.cache import ActivationCache
from ftjax.frozen.forward import Activations
from ftjax.machine import clock
from ftjax.machine.files import json_digest
from ftjax.machine.mesh import VARIANT, axis_size, from_first_process
from ftjax.machine.workers import stop_point
from ftjax.sweep import records
from ftjax.sweep.checkpoint import newest_step
from ftjax.sweep.claims import DEATHS, Claims, read_owner
from ftjax.sweep.compile_ahead import compile_ahead, compile_threads
from ftjax.sweep.devices import longest_first
from ftjax.sweep.epochs import Work
from ftjax.sweep.events import ENDED_BADLY, Event, Listener
from ftjax.sweep.log import record_failure, recording_failures
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.resources import Budget, trials_at_once
from ftjax.sweep.trial import Trial

Trials = tuple[Trial, ...]
POLL = 1.0  # seconds between two looks at what another command trains
Take = Callable[[Trials, int], bool]


class WorkQueue:
    """An iterator that several threads share; each item is trained by who takes it.

    Who asks for the next item has ended the last one, and other commands may have its
    trials from then on. What another command trains is left to it, and waited for at
    the end: should that command die, it is trained here.

    Args:
        groups: trials that are trained at once and the last epoch of each, from the
            earliest cut on.
        make_cache: of the activations that they train on.
        ready: waits until what they call is compiled.
        before: digests of their records when this command began.
        out: the run's folder.
        listen: is told of trials that start, or fail before they do, or are trained by
            another command.
        count: threads that are to share it.
        take: whether trials are still to be trained to an epoch; others are passed
            over.
    """

    def __init__(
        self,
        groups: Iterator[tuple[Trials, int]],
        make_cache: Callable[[], ActivationCache],
        ready: Callable[[], None],
        before: dict[str, str],
        *,
        out: Path,
        listen: Listener,
        count: int,
        take: Take,
    ):
        self.count, self._take = count, take
        self._groups, self._ready = groups, ready
        self._make_cache, self._cache, self._at = make_cache, make_cache(), 0
        self._out, self._listen = out, listen
        self._turn, self._own = threading.Lock(), threading.local()
        self._claims = Claims(out)
        self._elsewhere: list[tuple[Trials, int]] = []
        self._before = before

    def __iter__(self) -> Iterator[Work]:
        return self

    def __next__(self) -> Work:
        # Before the turn: who has it may wait for a command that waits for these.
        for trial in getattr(self._own, "trials", ()):
            self._claims.give_back(trial.id)
        self._own.trials = ()
        with self._turn:
            while True:
                trials, last = self._next_free()
                if not self._take(trials, last):
                    for trial in trials:
                        self._claims.give_back(trial.id)
                    continue
                for trial in trials:
                    self._listen(Event(trial, "started"))
                with (
                    recording_failures(trials, self._out, self._listen) as failed,
                    clock.at_work(),
                ):
                    activations = self._activations(trials[0])
                self._ready()  # before the next one, who calls the same programs
                if not failed:
                    self._own.trials, self._own.last = trials, last
                    return Work(trials, activations, last)

    def tell(self, event: Event) -> None:
        """Passes on what happens to a trial that this thread has.

        One that ran out of memory is trained again after all others, with half as many
        images at a time, if its numbers are then the same but for rounding.
        """
        if event.status == "failed" and is_out_of_memory(event.message):
            smaller = event.trial.with_smaller_parts()
            if smaller is not None:
                record = records.read_trial(self._out, smaller.id) or {}
                self._before[smaller.id] = json_digest(record)
                self._elsewhere.append(((smaller,), self._own.last))
                parts = f"again with {smaller.hyper.micro_batch} images at a time"
                event = Event(smaller, "again", message=f"{event.message}; {parts}")
        self._listen(event)

    def close(self) -> None:
        """Lets others have what is still held."""
        self._claims.give_all_back()

    def _activations(self, trial: Trial) -> Activations:
        placement = trial.placement
        if placement.boundary < self._at:  # what was waited for comes late
            self._cache = self._make_cache()
        self._at = placement.boundary
        return self._cache.at(placement, trial.hyper.view_set)

    def _next_free(self) -> tuple[Trials, int]:
        """The next trials that nobody has and nobody has ended; waits for others."""
        for trials, last in self._groups:
            free = [trial for trial in trials if self._is_free(trial, last)]
            if len(free) == len(trials):
                return trials, last
            if free:  # fewer than its programs were made for: one by one
                self._elsewhere += [((trial,), last) for trial in free]
                for trial in free:
                    self._claims.give_back(trial.id)
        told = False
        while self._elsewhere:
            waiting, self._elsewhere = self._elsewhere, []
            for number, ((trial,), last) in enumerate(waiting):
                if self._is_free(trial, last):
                    self._elsewhere += waiting[number + 1 :]
                    return (trial,), last
            if self._elsewhere:
                if not told:
                    for (trial,), _ in self._elsewhere:
                        owner = read_owner(self._out, trial.id) or "another command"
                        self._listen(Event(trial, "elsewhere", message=str(owner)))
                told = True
                stop_point()
                sleep(POLL)
        raise StopIteration

    def _is_free(self, trial: Trial, last: int) -> bool:
        """Takes a trial if it is there to be trained; tells if it has ended instead."""
        deaths = from_first_process(partial(self._claims.take, trial.id))
        if deaths is None:
            self._elsewhere.append(((trial,), last))
            return False
        event = event_of(trial, partial(self._ended, trial, last))
        if event is None and deaths >= DEATHS:
            epoch = newest_step(checkpoint_folder(self._out, trial)) + 1
            error = RuntimeError(
                f"its process died {deaths} times in epoch {epoch}; was the memory too "
                "short? The same command tries it again"
            )
            message = record_failure(self._out, trial, error, "failed")
            event = Event(trial, "failed", message=message)
        if event is None:
            return True
        self._claims.give_back(trial.id)
        self._listen(event)
        return False

    def _ended(self, trial: Trial, last: int) -> Event | None:
        """How another command has ended a trial meanwhile; None if none has."""
        event = ended(self._out, trial, last)
        record = records.read_trial(self._out, trial.id) or {}
        if event is None and record.get("status") == "failed":
            if json_digest(record) != self._before[trial.id]:
                return Event(trial, "failed", message=record["message"])
        return event


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
    missing, before = [], {}
    for trial in plan.trials:
        if trial.id not in goals:
            continue
        event = event_of(trial, partial(ended, out, trial, goals[trial.id]))
        if event is None:
            missing.append(trial)
            before[trial.id] = json_digest(records.read_trial(out, trial.id) or {})
        else:
            listen(event)
    most = trials_at_once(start, budget, plan.trials, sweep.num_images)
    count = most if len(missing) > 1 else 1
    make_cache = partial(
        ActivationCache,
        start,
        data,
        budget.room,
        batch_size=sweep.hyper.micro_batch,
        mesh=budget.mesh,
        threads=most,
        needs_device=budget.fused,
        devices=budget.devices,
    )
    if budget.devices:
        epochs = {t.id: goals[t.id] - epochs_had(out, t) for t in missing}
        missing = [*longest_first(missing, epochs)]
    groups = group_trials(missing, goals, budget, out)
    with compile_ahead(start, data, budget, missing, compile_threads(count)) as ready:
        queue = WorkQueue(
            groups,
            make_cache,
            ready,
            before,
            out=out,
            listen=listen,
            count=count,
            take=take,
        )
        try:
            yield queue
        finally:
            queue.close()


def is_out_of_memory(message: str) -> bool:
    """Whether a trial failed for want of memory, by what JAX or Python says."""
    return "RESOURCE_EXHAUSTED" in message or message.startswith("MemoryError")


def epochs_had(out: Path, trial: Trial) -> int:
    """How many epochs its checkpoint has."""
    return from_first_process(partial(newest_step, checkpoint_folder(out, trial)))


def checkpoint_folder(out: Path, trial: Trial) -> Path:
    """Where a trial keeps its checkpoint."""
    return records.trial_folder(out, trial.id) / "checkpoint"


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


def event_of(trial: Trial, make: Callable[[], Event | None]) -> Event | None:
    """What `make` says of a trial in the first process, in every process."""

    def words() -> tuple[str, str] | None:
        event = make()
        return None if event is None else (event.status, event.message)

    found = from_first_process(words)
    return None if found is None else Event(trial, found[0], message=found[1])


def has_ended(out: Path, trial: Trial, epochs: int) -> bool:
    """Whether a trial has been trained so far, or has failed."""
    record = from_first_process(partial(records.read_trial, out, trial.id)) or {}
    return record.get("status") in ENDED_BADLY or (
        event_of(trial, partial(ended, out, trial, epochs)) is not None
    )


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
        had = epochs_had(out, trial) if budget.seeds_at_once > 1 else None
        return trial.cut, trial.policy, trial.hyper.program, goals[trial.id], had

    axis = axis_size(budget.mesh, VARIANT)
    for (_, _, _, last, _), own in itertools.groupby(missing, key=kind):
        trials = list(own)
        while trials:
            count = min(len(trials), budget.seeds_at_once)
            count = count - count % axis or 1
            yield tuple(trials[:count]), last
            trials = trials[count:]
