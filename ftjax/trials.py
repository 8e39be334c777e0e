"""Trains trials of one cut at once, from their checkpoints to their records."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import records
from ftjax.checkpoint import Checkpoints, unflatten
from ftjax.compile_clock import compile_seconds
from ftjax.epochs import Epoch, Problem, run_epochs
from ftjax.freeze_proof import changed_leaves
from ftjax.mesh import (
    fetch,
    from_first_process,
    replicate,
)
from ftjax.plan import Trial
from ftjax.prefix import (
    Activations,
)
from ftjax.prepare import Setup, run_time_numbers, with_fresh_head
from ftjax.train import State, SuffixUnit, init_state, make_suffix
from ftjax.variants import stack, unstack


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
