"""The trial store: plain files that survive a kill at any moment."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftjax.data import Dataset
from ftjax.machine.describe import describe
from ftjax.machine.files import read_json, write_atomically, write_json

RESULT_COLUMNS = (
    "trial model weights data data_hash depth_layers depth_units depth_percent "
    "total_layers total_units trainable_params trainable_percent bn seed epochs "
    "image_size batch_size train_size val_size optimizer lr head_lr_factor "
    "weight_decay drop_connect head_bias_lr_factor momentum l2 l1 layer_decay "
    "schedule warmup label_smoothing clip augment views class_weights head head_init "
    "head_start head_lr_layers stop_accuracy patience accuracy loss val_accuracy "
    "val_loss train_mode_accuracy stopped_epoch stopped_by seconds compile_seconds "
    "flops frozen_intact status"
).split()
EPOCH_COLUMNS = (
    "trial model data depth_layers depth_units bn seed epoch accuracy loss "
    "val_accuracy val_loss train_mode_accuracy train_mode_loss seconds steps"
).split()


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
    """
    write_json(
        trial_folder(out, trial) / "trial.json",
        {
            "trial": trial,
            "status": status,
            "frozen_intact": frozen_intact,
            "message": message,
            **({"stopped_by": stopped_by} if stopped_by else {}),
            "config": dict(canonical),
            "epochs": list(epochs),
        },
    )


def read_trial(out: Path, trial: str) -> dict[str, Any] | None:
    """A trial's record, or None."""
    return read_json(trial_folder(out, trial) / "trial.json")


def write_correct(out: Path, trial: str, correct: np.ndarray) -> None:
    """Per epoch and validation image, whether the answer was right: (epochs, n)."""
    path = trial_folder(out, trial) / "val_correct.npy"
    with tempfile.TemporaryFile() as file:
        np.save(file, correct.astype(bool), allow_pickle=False)
        file.seek(0)
        write_atomically(path, file.read())


def write_steps(out: Path, trial: str, steps: np.ndarray) -> None:
    """Loss (nats) and accuracy of every training step: float32 (steps, 2)."""
    with tempfile.TemporaryFile() as file:
        np.save(file, steps.astype(np.float32), allow_pickle=False)
        file.seek(0)
        write_atomically(trial_folder(out, trial) / "steps.npy", file.read())


def read_steps(out: Path, trial: str) -> np.ndarray | None:
    """What `write_steps` wrote, or None: older versions kept none."""
    path = trial_folder(out, trial) / "steps.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def write_logits(out: Path, trial: str, logits: np.ndarray) -> None:
    """Per epoch, the logits of the validation images: float16 (epochs, n, classes)."""
    with tempfile.TemporaryFile() as file:
        np.savez_compressed(file, logits=logits.astype(np.float16))
        file.seek(0)
        write_atomically(trial_folder(out, trial) / "val_logits.npz", file.read())


def read_logits(out: Path, trial: str) -> np.ndarray | None:
    """What `write_logits` wrote, or None."""
    path = trial_folder(out, trial) / "val_logits.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["logits"]


def read_correct(out: Path, trial: str) -> np.ndarray | None:
    """What `write_correct` wrote, or None."""
    path = trial_folder(out, trial) / "val_correct.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def read_labels(out: Path) -> np.ndarray | None:
    """The classes of the validation images, or None."""
    path = out / "val_labels.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> pd.DataFrame:
    """Writes rows as CSV and returns them as a table."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    write_atomically(path, table.to_csv(index=False).encode())
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
    with tempfile.TemporaryFile() as file:
        np.save(file, data.val.labels.astype(np.int32), allow_pickle=False)
        file.seek(0)
        write_atomically(out / "val_labels.npy", file.read())
    write_json(
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
