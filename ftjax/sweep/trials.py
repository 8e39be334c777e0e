"""Trains trials of one cut at once, from their checkpoints to their records."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax.frozen.forward import Activations
from ftjax.frozen.proof import changed_leaves
from ftjax.machine.clock import own_compile_seconds
from ftjax.machine.mesh import fetch, from_first_process, replicate
from ftjax.machine.stacking import stack, unstack
from ftjax.machine.workers import in_background
from ftjax.sweep import records
from ftjax.sweep.checkpoint import Checkpoints
from ftjax.sweep.plan import Trial
from ftjax.sweep.setup import Setup, run_time_numbers, with_fresh_head
from ftjax.training.epochs import Epoch, Problem, run_epochs
from ftjax.training.step import State, init_state
from ftjax.training.suffix import make_suffix
from ftjax.trees import unflatten

KEEP_EVERY = 10.0  # seconds; writing a checkpoint takes a tenth of a second of a core


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
    problem = make_problem(setup, trials, activations)
    logs, states = [], []
    try:
        for trial in trials:
            log, state = restore(setup, out, trial)
            logs.append(log)
            states.append(state)
            del state
        apart = len({len(log.rows) for log in logs}) > 1
        if not apart:
            ends = yield from train(problem, out, logs, states, last)
    finally:
        for log in logs:
            log.checkpoints.close()
    if apart:  # killed between the checkpoints of one epoch
        for trial in trials:
            yield from run_trials(setup, out, [trial], activations, last)
        return
    for log, state in ends:
        finish(setup, out, log, state)


def train(
    problem: Problem, out: Path, logs: Sequence[Log], states: list[State], last: int
) -> Generator[tuple[Trial, Epoch | FloatingPointError], None, list[tuple[Log, State]]]:
    """The epochs that are missing, kept while the next ones are trained.

    The newest epoch is kept every few seconds and at the end, be it Ctrl-C.

    Args:
        problem: what the trials train on.
        out: the run's folder.
        logs: of the trials, with equally many finished epochs.
        states: of the trials, as those epochs left them; the list is emptied, lest the
            start be held in memory to the end.
        last: epoch to end with, counted from 1.

    Yields:
        As `run_trials`.

    Returns:
        The trials that did not break, and their states.
    """
    state = stack(states, problem.variants)
    states.clear()
    compiled = own_compile_seconds()
    first = len(logs[0].rows) + 1
    going = {log.trial.id for log in logs}
    newest: dict[str, tuple[Log, State]] = {}
    with in_background(KEEP_EVERY) as call:
        for ended in run_epochs(problem, state, first, last):
            state, epochs, right = ended
            seconds = (own_compile_seconds() - compiled) / len(logs)
            compiled = own_compile_seconds()
            own_states = unstack(whole(state), problem.variants)
            events = []
            for log, own, epoch, answers in zip(
                logs, own_states, epochs, right, strict=True
            ):
                if log.trial.id not in going:
                    continue
                if np.isfinite(epoch.train_mode_loss):
                    log.rows.append({**epoch._asdict(), "compile_seconds": seconds})
                    log.correct.append(answers)
                    so_far = log._replace(rows=[*log.rows], correct=[*log.correct])
                    newest[log.trial.id] = so_far, jax.device_get(own)
                    events.append((log.trial, epoch))
                else:
                    going.remove(log.trial.id)
                    events.append((log.trial, no_number(epoch, log.trial)))
            call(keep, out, [*newest.values()])
            yield from events
            if not going:
                break
    ends = zip(logs, unstack(whole(state), problem.variants), strict=True)
    return [(log, own) for log, own in ends if log.trial.id in going]


def no_number(epoch: Epoch, trial: Trial) -> FloatingPointError:
    """Why a trial ends that has diverged."""
    return FloatingPointError(
        f"the loss is {epoch.train_mode_loss} in epoch {epoch.epoch}; "
        f"try a smaller --lr than {trial.canonical['lr']}"
    )


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
        fused=config.fused and isinstance(activations.train, jax.Array),
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
    return fetch(state) if jax.process_count() > 1 else state


def keep(out: Path, reached: Iterable[tuple[Log, State]]) -> None:
    """Writes what trials have reached, unless it is kept; states are on the host."""
    for log, state in reached:
        if log.checkpoints.newest() == len(log.rows):
            continue
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


def finish(setup: Setup, out: Path, log: Log, state: State) -> None:
    """Proves the freeze and records the trial as done."""
    suffix = make_suffix(setup.network, log.trial.cut, log.trial.policy)
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
