"""The trial store: plain files that survive a kill at any moment.

A record names its trial and holds a digest of itself and of the files beside it. Who
reads one that is not what was written gets `Damaged`, never other numbers. Those of
versions that kept no digests are read as they are.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftjax.data import Dataset
from ftjax.machine.describe import describe
from ftjax.machine.files import (
    Damaged,
    read_checked,
    read_json,
    set_aside,
    write_atomically,
    write_checked,
    write_sealed,
)

RESULT_COLUMNS = (
    "trial model weights data data_hash depth_layers depth_units depth_percent "
    "total_layers total_units trainable_params trainable_percent bn seed epochs "
    "image_size batch_size train_size imbalance label_noise val_size optimizer lr "
    "head_lr_factor weight_decay drop_connect head_bias_lr_factor momentum l2 l1 "
    "layer_decay schedule warmup label_smoothing clip augment views class_weights "
    "head head_init head_start head_lr_layers stop_accuracy patience accuracy loss "
    "val_accuracy val_loss train_mode_accuracy stopped_epoch stopped_by seconds "
    "compile_seconds flops frozen_intact status"
).split()
EPOCH_COLUMNS = (
    "trial model data depth_layers depth_units bn seed epoch accuracy loss "
    "val_accuracy val_loss train_mode_accuracy train_mode_loss seconds steps"
).split()


RECORD, CORRECT, LOGITS = "trial.json", "val_correct.npy", "val_logits.npz"
STEPS, LABELS = "steps.npy", "val_labels.npy"


def trial_folder(out: Path, trial: str) -> Path:
    """Where a trial keeps its checkpoint and its log."""
    return out / "trials" / trial


def write_trial(
    out: Path,
    trial: str,
    *,
    canonical: Mapping[str, Any],
    status: str,
    epochs: Sequence[Mapping[str, Any]],
    frozen_intact: bool | None = None,
    message: str = "",
    files: Mapping[str, str] | None = None,
    stopped_by: str = "",
) -> None:
    """Writes a trial's record.

    Args:
        out: the run's folder.
        trial: its id.
        canonical: all that determines its result.
        status: `done`, `failed`, `diverged` or `pending`.
        epochs: one mapping per finished epoch.
        frozen_intact: verdict of the proof of freeze.
        message: why it failed.
        stopped_by: the rule by which it ended early, if it did: `stop_accuracy` or
            `patience`.
        files: digests of what was written beside the record, by name.
    """
    record = {
        "trial": trial,
        "status": status,
        "frozen_intact": frozen_intact,
        "message": message,
        **({"stopped_by": stopped_by} if stopped_by else {}),
        "config": dict(canonical),
        "epochs": list(epochs),
        "files": dict(files or {}),
        "environment": environment(),
    }
    write_sealed(trial_folder(out, trial) / RECORD, record)


@cache
def environment() -> dict[str, Any]:
    """Where and how this process trains; asked once."""
    return describe()


def read_trial(out: Path, trial: str) -> dict[str, Any] | None:
    """A trial's record, or None.

    Raises:
        Damaged: it is not what was written, or another trial's.
    """
    path = trial_folder(out, trial) / RECORD
    try:
        record = read_json(path)
        if record is None:
            return None
        own = record["trial"], list(record["epochs"]), str(record["status"])
    except Damaged:
        raise
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Damaged(f"{path} is no record of a trial") from None
    if own[0] != trial:
        raise Damaged(f"{path} is of trial {own[0]}")
    return record


def write_correct(out: Path, trial: str, correct: np.ndarray) -> dict[str, str]:
    """Per epoch and validation image, whether the answer was right: (epochs, n).

    Returns:
        Its name and digest, for the record.
    """
    file = io.BytesIO()
    np.save(file, correct.astype(bool), allow_pickle=False)
    return write_beside(out, trial, CORRECT, file.getvalue())


def write_steps(out: Path, trial: str, steps: np.ndarray) -> dict[str, str]:
    """Loss (nats) and accuracy of every training step: float32 (steps, 2).

    Returns:
        Its name and digest, for the record.
    """
    file = io.BytesIO()
    np.save(file, steps.astype(np.float32), allow_pickle=False)
    return write_beside(out, trial, STEPS, file.getvalue())


def read_steps(out: Path, trial: str) -> np.ndarray | None:
    """What `write_steps` wrote, or None; raises Damaged as `read_trial` does."""
    return read_array(out, trial, STEPS)


def write_logits(out: Path, trial: str, logits: np.ndarray) -> dict[str, str]:
    """Per epoch, the logits of the validation images: float16 (epochs, n, classes).

    Returns:
        Its name and digest, for the record.
    """
    file = io.BytesIO()
    np.savez_compressed(file, logits=logits.astype(np.float16))
    return write_beside(out, trial, LOGITS, file.getvalue())


def write_beside(out: Path, trial: str, name: str, content: bytes) -> dict[str, str]:
    """Writes a file beside a trial's record; its name and digest."""
    write_atomically(trial_folder(out, trial) / name, content)
    return {name: hashlib.sha256(content).hexdigest()}


def read_logits(out: Path, trial: str) -> np.ndarray | None:
    """What `write_logits` wrote, or None; raises Damaged as `read_trial` does."""
    return read_array(out, trial, LOGITS)


def read_correct(out: Path, trial: str) -> np.ndarray | None:
    """What `write_correct` wrote, or None; raises Damaged as `read_trial` does."""
    return read_array(out, trial, CORRECT)


def read_array(out: Path, trial: str, name: str) -> np.ndarray | None:
    """The array of a file beside a trial's record, or None.

    Raises:
        Damaged: it is not what was written, or missing though the record names it.
    """
    path = trial_folder(out, trial) / name
    digest = (read_trial(out, trial) or {}).get("files", {}).get(name)
    if not path.exists():
        if digest is None:
            return None
        raise Damaged(f"{path} is missing")
    content = path.read_bytes()
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise Damaged(f"{path} is not what was written")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
        return array if isinstance(array, np.ndarray) else array["logits"]
    except Exception:  # NumPy, zip and zlib raise what they like
        raise Damaged(f"{path} is no array") from None


def set_aside_damaged(out: Path, trial: str) -> str:
    """Renames what of a trial's record is damaged, so that it is trained again.

    A trial whose checkpoint is whole loses nothing: its last epoch is in it.

    Returns:
        What was wrong, and the new name; empty if nothing was.
    """
    folder, name = trial_folder(out, trial), RECORD
    try:
        read_trial(out, trial)
        for name in (CORRECT, LOGITS, STEPS):
            read_array(out, trial, name)
    except Damaged as error:
        moved = [set_aside(folder / each) for each in dict.fromkeys((name, RECORD))]
        names = " and ".join(each.name for each in moved if each)
        return f"{error}; set aside as {names}"
    return ""


def read_labels(out: Path) -> np.ndarray | None:
    """The classes of the validation images, (n_val,), or None.

    Raises:
        Damaged: they are not what was written.
    """
    content = read_checked(out / LABELS)
    if content is None:
        return None
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError):
        raise Damaged(f"{out / LABELS} is no array") from None


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> pd.DataFrame:
    """Writes rows as CSV, with a digest beside it, and returns them as a table."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    write_checked(path, table.to_csv(index=False).encode())
    return table


def write_run(
    out: Path,
    config: dict[str, Any],
    command: str,
    data: Dataset,
) -> None:
    """Writes what the run is of.

    `config.json` has the configuration, the command, the environment and what is known
    of the images; `val_labels.npy` the class of each validation image, (n_val,) int32.

    Args:
        out: the run's folder.
        config: as plain values.
        command: the command line.
        data: images and labels.
    """
    file = io.BytesIO()
    np.save(file, data.val.labels.astype(np.int32), allow_pickle=False)
    write_checked(out / LABELS, file.getvalue())
    write_sealed(
        out / "config.json",
        {
            "config": dict(config),
            "command": command,
            "class_names": list(data.class_names),
            "data_warnings": list(data.warnings),
            "data_report": data.report.to_json() if data.report else None,
            "data_bits": data.bits,
            "train_counts": np.bincount(
                data.train.labels, minlength=len(data.class_names)
            ).tolist(),
            "environment": describe(),
        },
    )
