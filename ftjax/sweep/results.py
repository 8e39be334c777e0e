"""The run's tables: one row per depth, policy and seed that was asked for."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftjax.batch_norm import POLICIES
from ftjax.probes import probe_curve
from ftjax.sweep import records
from ftjax.sweep.cost import trainable_params, trial_flops
from ftjax.sweep.plan import Request
from ftjax.sweep.setup import Setup

NUMBERS = ("accuracy", "loss", "val_accuracy", "val_loss", "train_mode_accuracy")


def write_results(
    setup: Setup, out: Path, stopped: Collection[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes `results.csv` and `epochs.csv` from the trial store.

    Args:
        setup: what was asked for.
        out: the run's folder.
        stopped: trials that a search does not train to the last epoch.

    Returns:
        Both tables.
    """
    results, epochs = [], []
    for request in setup.plan.requests:
        record = records.read_trial(out, request.trial) or {}
        results.append(result_row(setup, request, record, request.trial in stopped))
        for epoch in record.get("epochs", [])[: setup.config.epochs]:
            epochs.append({**identity(setup, request), **epoch})
    return (
        records.write_table(out / "results.csv", results, records.RESULT_COLUMNS),
        records.write_table(out / "epochs.csv", epochs, records.EPOCH_COLUMNS),
    )


def identity(setup: Setup, request: Request) -> dict[str, Any]:
    """Which network, data, depth, policy and seed a row is of."""
    return {
        "trial": request.trial,
        "model": setup.config.model,
        "data": setup.dataset.name,
        "depth_layers": request.cut.depth_layers,
        "depth_units": request.cut.depth_units,
        "bn": request.policy,
        "seed": request.seed,
    }


def result_row(
    setup: Setup, request: Request, record: Mapping[str, Any], stopped: bool
) -> dict[str, Any]:
    """One row of `results.csv`; numbers are missing where the trial is not done.

    A trial that was stopped has its cost, and the number of epochs that it had, but no
    accuracy: that would be one of another epoch than the others'.
    """
    config, network, cut = setup.config, setup.network, request.cut
    train_size = len(setup.dataset.train.labels)
    val_size = len(setup.dataset.val.labels)
    total_layers = len(network.layers)
    trainable = trainable_params(network, cut, setup.cost)
    body = {unit.name for unit in network.body}
    total_params = sum(
        count for (unit, _), count in setup.cost.parameters.items() if unit in body
    )
    epochs = record.get("epochs", [])[: config.epochs]
    done = record.get("status") == "done" and len(epochs) == config.epochs
    failed = record.get("status") == "failed"
    status = (
        "done" if done else "failed" if failed else "stopped" if stopped else "pending"
    )
    num_epochs = len(epochs) if status == "stopped" else config.epochs
    row = {
        **identity(setup, request),
        "weights": setup.weights,
        "data_hash": setup.dataset.content_hash,
        "depth_percent": round(100 * cut.depth_layers / total_layers, 2),
        "total_layers": total_layers,
        "total_units": network.num_units,
        "trainable_params": trainable,
        "trainable_percent": round(100 * trainable / total_params, 2),
        "epochs": num_epochs,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "train_size": train_size,
        "val_size": val_size,
        "optimizer": config.optimizer,
        "lr": config.lr,
        "head_lr_factor": config.head_lr_factor,
        "weight_decay": config.weight_decay,
        "drop_connect": config.drop_connect,
        "flops": trial_flops(
            cut,
            setup.cost,
            boundary=setup.boundaries[request.trial],
            epochs=num_epochs,
            steps=train_size // config.batch_size,
            batch_size=config.batch_size,
            evaluated=val_size,
            evaluated_last=train_size,
            recalibrated=train_size if POLICIES[request.policy].recalibrates else 0,
        ).total,
        "frozen_intact": record.get("frozen_intact"),
        "status": status,
    }
    if done:
        row |= {name: epochs[-1][name] for name in NUMBERS}
    if status in ("done", "stopped"):
        compiled = sum(epoch["compile_seconds"] for epoch in epochs)
        row["compile_seconds"] = round(compiled, 3)
        total = sum(epoch["seconds"] for epoch in epochs)
        row["seconds"] = round(max(0.0, total - compiled), 3)
    return row


def read_correct(out: Path, results: pd.DataFrame) -> dict[str, np.ndarray]:
    """Per trial, which validation images were right after the epochs asked for."""
    found = {}
    for row in results.drop_duplicates("trial").itertuples():
        correct = records.read_correct(out, row.trial)
        if correct is not None and len(correct) >= row.epochs:
            found[row.trial] = correct[row.epochs - 1]
    return found


def write_probes(setup: Setup, out: Path) -> None:
    """Writes `probes.csv`, unless it has the probes of every cut already."""
    subject = {
        "model": setup.config.model,
        "weights": setup.weights,
        "data_hash": setup.dataset.content_hash,
        "image_size": setup.config.image_size,
    }
    depths = {request.cut.depth_layers for request in setup.plan.requests}
    known = read_probes(out, subject)
    if known is not None and depths <= set(known["depth_layers"]):
        return
    probes = probe_curve(
        setup.network,
        setup.params,
        setup.batch_stats,
        setup.dataset,
        depths=depths,
        batch_size=setup.config.batch_size,
    )
    rows = [{**subject, **row} for row in probes.to_dict("records")]
    records.write_table(out / "probes.csv", rows, (*subject, *probes.columns))


def read_probes(out: Path, subject: Mapping[str, Any]) -> pd.DataFrame | None:
    """What `write_probes` wrote, or None.

    Args:
        out: the run's folder.
        subject: model, weights, data_hash and image_size, e.g. a row of results.csv;
            the probes of any others are not taken.
    """
    path = out / "probes.csv"
    if not path.exists():
        return None
    probes = pd.read_csv(path)
    names = ("model", "weights", "data_hash", "image_size")
    same = all(set(probes[name]) == {subject[name]} for name in names)
    return probes if same else None
