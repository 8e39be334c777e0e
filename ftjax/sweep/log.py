"""What is kept of a trial while it is trained: on disk, so that it survives a kill."""

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax.analysis.metrics import image_scores
from ftjax.frozen.proof import changed_leaves
from ftjax.frozen.start import Start
from ftjax.machine.files import Damaged, write_atomically
from ftjax.machine.mesh import from_first_process
from ftjax.sweep import records
from ftjax.sweep.checkpoint import Checkpoints, Saved
from ftjax.sweep.events import Epoch, Event, Listener
from ftjax.sweep.trial import Hyperparameters, Trial
from ftjax.training.step import State
from ftjax.training.suffix import SuffixUnit
from ftjax.trees import flatten, unflatten


class Log(NamedTuple):
    """What is kept of a trial.

    Attributes:
        trial: which one.
        checkpoints: its store.
        rows: one mapping per finished epoch.
        correct: per epoch, (n_val,) whether the answers were right.
        logits: per epoch, (n_val, classes) float16; of all epochs or of none.
        steps: per epoch, (steps, 2) float32 loss and accuracy of each training step;
            of all epochs or of none.
    """

    trial: Trial
    checkpoints: Checkpoints
    rows: list[dict[str, Any]]
    correct: list[np.ndarray]
    logits: list[np.ndarray]
    steps: list[np.ndarray]

    def copy(self) -> "Log":
        """Another one, that does not change while this one grows."""
        lists = {name: [*getattr(self, name)] for name in self._fields[2:]}
        return self._replace(**lists)

    def add(
        self,
        ended: Epoch,
        logits: np.ndarray,
        labels: np.ndarray,
        steps: np.ndarray,
        compiling: float,
    ) -> None:
        """Adds an epoch.

        Args:
            ended: its numbers.
            logits: (n_val, classes).
            labels: (n_val,).
            steps: (steps, 2) loss and accuracy of each; none of a probe.
            compiling: seconds of it for compilation.
        """
        self.rows.append({**ended._asdict(), "compile_seconds": compiling})
        self.correct.append(logits.argmax(-1) == labels)
        if len(self.logits) == len(self.correct) - 1:  # older versions kept none
            self.logits.append(as_kept(logits))
        if len(steps) and len(self.steps) == len(self.rows) - 1:
            self.steps.append(steps.astype(np.float32))


def as_kept(logits: np.ndarray) -> np.ndarray:
    """As float16; what is beyond its range becomes its largest number."""
    most = np.finfo(np.float16).max
    return np.clip(logits, -most, most).astype(np.float16)


def stopped_by(
    hyper: Hyperparameters,
    trained: float,
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
) -> str:
    """The rule by which a trial ends after its newest epoch, '' if it goes on.

    Args:
        hyper: of the trial.
        trained: accuracy in training mode, mean over the newest epoch.
        logits: of every epoch, (n_val, classes) each.
        labels: (n_val,).
    """
    if hyper.stop_accuracy is not None and trained >= hyper.stop_accuracy:
        return "stop_accuracy"
    if hyper.patience is not None:
        metric = hyper.patience_metric
        values = [image_scores(own, labels, metric).mean() for own in logits]
        if len(values) - 1 - int(np.argmax(values)) >= hyper.patience:
            return "patience"
    return ""


def read_log(
    out: Path, trial: Trial, state: State, listen: Listener = lambda event: None
) -> tuple[Log, State]:
    """A trial as its newest checkpoint left it.

    Args:
        out: the run's folder.
        trial: which one.
        state: at its start; returned if there is no checkpoint.
        listen: is told where a checkpoint was damaged and is set aside.

    Returns:
        The log, and the state, on the host if it is from a checkpoint.
    """
    folder = records.trial_folder(out, trial.id) / "checkpoint"
    store = Checkpoints(folder, trial.id)
    found, why = from_first_process(partial(restore_whole, store))
    if why:
        listen(Event(trial, "damaged", message=why))
    if found is None:
        return Log(trial, store, [], [], [], []), state
    saved = Saved(*found)
    leaves = dict(saved.leaves)
    correct = leaves.pop("val_correct").astype(bool)
    logits = leaves.pop("val_logits", np.empty((0, 0, 0), np.float16))
    steps = leaves.pop("steps", np.empty((0, 0, 2), np.float32))
    own = {name.removeprefix("state/"): leaf for name, leaf in leaves.items()}
    optimizer = {k: v for k, v in flatten(state).items() if k.startswith("opt_state/")}
    if optimizer and not optimizer.keys() & own.keys():
        if len(saved.meta["epochs"]) < trial.hyper.epochs:  # no way on but from 0
            return Log(trial, store, [], [], [], []), state
        own |= jax.device_get(optimizer)  # of no use any more
    log = Log(trial, store, saved.meta["epochs"], [*correct], [*logits], [*steps])
    return log, unflatten(state, own)


def restore_whole(store: Checkpoints) -> tuple[Saved | None, str]:
    """The newest checkpoint, and an empty text; what is damaged is set aside, and told.

    Either may be missing.
    """
    try:
        return store.restore(), ""
    except Damaged as error:
        return None, f"{error}; set aside as {store.set_aside()}"


@contextmanager
def closing_all(logs: Iterable[Log]) -> Iterator[None]:
    """At its end, frees what the stores of checkpoints hold."""
    try:
        yield
    finally:
        for log in logs:
            log.checkpoints.close()


def keep(out: Path, reached: Iterable[tuple[Log, State]], keep_optimizer: bool) -> None:
    """Writes what trials have reached, unless it is kept.

    Args:
        out: the run's folder.
        reached: logs, and the states after their last epoch.
        keep_optimizer: whether what goes on only with more epochs is kept at the end.
    """
    for log, state in reached:
        if log.checkpoints.newest() == len(log.rows):
            continue
        hyper = log.trial.hyper
        ended = len(log.rows) >= hyper.epochs
        if ended and not (keep_optimizer and hyper.grows):
            state = state._replace(opt_state={})
        kept = {"state": state, "val_correct": np.array(log.correct, np.uint8)}
        if len(log.logits) == len(log.correct):
            kept["val_logits"] = np.array(log.logits)
        if len(log.steps) == len(log.rows):
            kept["steps"] = np.array(log.steps)
        log.checkpoints.save(len(log.rows), kept, {"epochs": log.rows})
        records.write_trial(
            out,
            log.trial.id,
            canonical=log.trial.canonical,
            status="pending",
            epochs=log.rows,
        )


def finish(
    out: Path,
    log: Log,
    state: State,
    start: Start,
    suffix: Sequence[SuffixUnit],
    stopped_by: str = "",
) -> None:
    """Proves the freeze and records the trial as done.

    Args:
        out: the run's folder.
        log: of the trial.
        state: after its last epoch.
        start: the pretrained network.
        suffix: what of it was trained.
        stopped_by: the rule by which it ended, if one did.
    """
    changed = changed_leaves(
        start.digests,
        {**start.params, **state.params},
        {**start.batch_stats, **state.batch_stats},
        trainable={part.unit.name: part.trainable for part in suffix},
        batch_norm={part.unit.name: part.batch_norm for part in suffix},
    )
    files = records.write_correct(out, log.trial.id, np.array(log.correct, bool))
    if log.logits and len(log.logits) == len(log.correct):
        files |= records.write_logits(out, log.trial.id, np.array(log.logits))
    if log.steps and len(log.steps) == len(log.rows):
        files |= records.write_steps(out, log.trial.id, np.concatenate(log.steps))
    records.write_trial(
        out,
        log.trial.id,
        canonical=log.trial.canonical,
        status="done",
        epochs=log.rows,
        frozen_intact=not changed,
        message=f"frozen leaves changed: {', '.join(changed[:5])}" if changed else "",
        files=files,
        stopped_by=stopped_by,
    )


@contextmanager
def recording_failures(
    trials: Sequence[Trial], out: Path, listen: Listener
) -> Iterator[dict[str, Exception]]:
    """Records the trials that fail within it, so that the others go on.

    Args:
        trials: that are trained within it.
        out: the run's folder.
        listen: is told of those that failed.

    Yields:
        Trial -> why it failed, to be filled in; an error that ends it is that of all.

    Raises:
        OSError: of files; no trial is to blame for it.
    """
    failed: dict[str, Exception] = {}
    try:
        yield failed
    except OSError:
        raise
    except Exception as error:
        if jax.process_count() > 1:
            raise  # the other processes may not have failed, and would wait
        failed |= {trial.id: error for trial in trials if trial.id not in failed}
    for trial in trials:
        if trial.id in failed:
            error = failed[trial.id]
            status = "diverged" if isinstance(error, FloatingPointError) else "failed"
            message = record_failure(out, trial, error, status)
            listen(Event(trial, status, message=message))


def record_failure(out: Path, trial: Trial, error: Exception, status: str) -> str:
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
        status=status,
        epochs=record.get("epochs", []),
        message=message,
    )
    return message
