"""Runs a plan: one pass over the frozen part, trials from the earliest cut on."""

import itertools
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from ftjax import records
from ftjax.epochs import Epoch
from ftjax.mesh import VARIANT, axis_size, from_first_process
from ftjax.plan import Trial
from ftjax.prefix import Activations
from ftjax.prepare import Setup
from ftjax.rolling import move, put_on_device
from ftjax.trials import run_trials


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
            activations = put_on_device(setup, activations)
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
