"""The run's tables: one row per depth, policy and seed that was asked for."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.rows import last_rows
from ftjax.axes import NAMES
from ftjax.block_sets import set_name
from ftjax.data import Dataset
from ftjax.frozen.start import Start
from ftjax.machine.files import read_checked, write_atomically
from ftjax.probes import probe_curve
from ftjax.sweep import records
from ftjax.sweep.cost import measure_cost, trainable_params
from ftjax.sweep.events import ENDED_BADLY
from ftjax.sweep.plan import Plan, Request
from ftjax.sweep.records import EPOCH_COLUMNS, RESULT_COLUMNS
from ftjax.sweep.trial import Trial, trial_network

SETS_FILE = "sets.csv"
SET_COLUMNS = ("blocks", *RESULT_COLUMNS)
NUMBERS = ("accuracy", "loss", "val_accuracy", "val_loss", "train_mode_accuracy")


class Tables:
    """`results.csv` and `epochs.csv`, kept in step with the trial store.

    What was trained of sets of blocks stands in `sets.csv`: they are no depths.

    A record is read once, and again when its trial has changed; only rows of that trial
    are made anew, so what an event costs does not grow with the number of trials that
    are done (writing 1,600 rows takes some milliseconds).

    Args:
        start: the pretrained network.
        data: that it is fine-tuned on.
        plan: rows and trials.
        out: the run's folder.
        stopped: ids of trials that a search does not train to the last epoch.
    """

    def __init__(
        self,
        start: Start,
        data: Dataset,
        plan: Plan,
        out: Path,
        stopped: Collection[str] = (),
    ):
        self._start, self._data, self._plan, self._out = start, data, plan, out
        self._stopped = frozenset(stopped)
        self._trials = {trial.id: trial for trial in plan.trials}
        self._requests: dict[str, list[int]] = {}
        for index, request in enumerate(plan.requests):
            self._requests.setdefault(request.trial, []).append(index)
        self._rows: list[dict[str, Any]] = [{} for _ in plan.requests]
        self._epochs: list[list[dict[str, Any]]] = [[] for _ in plan.requests]
        self._lines = [("", "") for _ in plan.requests]  # of both files
        self._sets = [bool(request.blocks) for request in plan.requests]
        for trial in self._trials:
            self.update(trial)

    def update(self, trial: str) -> None:
        """Reads a trial's record again."""
        record = records.read_trial(self._out, trial) or {}
        for index in self._requests.get(trial, ()):
            request, own = self._plan.requests[index], self._trials[trial]
            row = result_row(
                self._start, self._data, request, own, record, trial in self._stopped
            )
            epochs = [
                {**identity(self._start, self._data, request), **epoch}
                for epoch in record.get("epochs", [])[: request.hyper.epochs]
            ]
            row |= {"blocks": set_name(request.blocks)}
            self._rows[index], self._epochs[index] = row, epochs
            columns = SET_COLUMNS if request.blocks else RESULT_COLUMNS
            self._lines[index] = (
                to_csv([row], columns),
                to_csv(epochs, EPOCH_COLUMNS),
            )

    def write(self) -> None:
        """Writes the files."""
        files = [
            ("results.csv", RESULT_COLUMNS, 0, False),
            ("epochs.csv", EPOCH_COLUMNS, 1, False),
        ]
        if any(self._sets):
            files.append((SETS_FILE, SET_COLUMNS, 0, True))
        for name, columns, index, sets in files:
            lines = self._of(self._lines, sets)
            text = "".join([",".join(columns), "\n", *(own[index] for own in lines)])
            write_atomically(self._out / name, text.encode())

    def _of(self, rows: list[Any], sets: bool) -> list[Any]:
        """Those of sets of blocks, or those of depths."""
        return [row for row, own in zip(rows, self._sets, strict=True) if own == sets]

    @property
    def results(self) -> pd.DataFrame:
        """One row per depth, policy, seed and setting that was asked for."""
        rows = self._of(self._rows, False)
        return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per row of `results` and epoch."""
        rows = [row for rows in self._of(self._epochs, False) for row in rows]
        return pd.DataFrame(rows, columns=list(EPOCH_COLUMNS))


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Lines of a CSV file; what is missing or no number is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        values = (row.get(column) for column in columns)
        writer.writerow(None if value != value else value for value in values)
    return text.getvalue()


def identity(start: Start, data: Dataset, request: Request) -> dict[str, Any]:
    """Which network, data, depth, policy and seed a row is of."""
    return {
        "trial": request.trial,
        "model": start.network.name,
        "data": data.name,
        "depth_layers": request.cut.depth_layers,
        "depth_units": request.cut.depth_units,
        "bn": request.policy,
        "seed": request.seed,
    }


def result_row(
    start: Start,
    data: Dataset,
    request: Request,
    trial: Trial,
    record: Mapping[str, Any],
    stopped: bool,
) -> dict[str, Any]:
    """One row of `results.csv`; numbers are missing where the trial is not done.

    A trial that a search stopped has its cost, and the number of epochs that it had,
    but no accuracy: that would be one of another epoch than the others'. One that
    --stop-accuracy or --patience ended has the numbers of its last epoch.
    """
    cut, hyper = request.cut, request.hyper
    network = trial_network(start.network, hyper.head)
    cost = measure_cost(network, start.image_size)
    total_layers = len(network.layers)
    trainable = trainable_params(network, cut, cost)
    body = {unit.name for unit in network.body}
    total_params = sum(
        count for (unit, _), count in cost.parameters.items() if unit in body
    )
    epochs = record.get("epochs", [])[: hyper.epochs]
    status, rule = record.get("status"), record.get("stopped_by", "")
    if status == "done" and len(epochs) < hyper.epochs and not rule:
        status = None  # of fewer epochs
    if status not in ("done", *ENDED_BADLY):
        status = "stopped" if stopped else "pending"
    ended = bool(rule) and len(epochs) == len(record["epochs"])  # not read off before
    trained = len(epochs) if status == "stopped" or ended else hyper.epochs
    row = {
        **identity(start, data, request),
        "weights": start.weights,
        "data_hash": trial.subject.data_hash,
        "depth_percent": round(100 * cut.depth_layers / total_layers, 2),
        "total_layers": total_layers,
        "total_units": network.num_units,
        "trainable_params": trainable,
        "trainable_percent": round(100 * trainable / total_params, 2),
        "epochs": len(epochs) if status == "stopped" else hyper.epochs,
        "image_size": start.image_size,
        "val_size": len(data.val.labels),
        **{name: getattr(hyper, name) for name in NAMES if name != "epochs"},
        "train_size": hyper.train_size or len(data.train.labels),
        "warmup": hyper.warmup,
        "class_weights": hyper.class_weights,
        "stop_accuracy": hyper.stop_accuracy,
        "patience": hyper.patience,
        "stopped_epoch": len(epochs) if ended else None,
        "stopped_by": rule if ended else None,
        "flops": trial.flops.total(trained),
        "frozen_intact": record.get("frozen_intact"),
        "status": status,
    }
    if status == "done":
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
    for row in last_rows(results).itertuples():
        correct = records.read_correct(out, row.trial)
        ended = getattr(row, "stopped_epoch", None)
        last = row.epochs if pd.isna(ended) else int(ended)
        if correct is not None and len(correct) >= last:
            found[row.trial] = correct[last - 1]
    return found


def count_versions(out: Path, results: pd.DataFrame) -> Counter[str]:
    """How many finished trials were made by which version, where they say so."""
    made: Counter[str] = Counter()
    for trial in results.loc[results["status"] == "done", "trial"].unique():
        record = records.read_trial(out, str(trial)) or {}
        own = record.get("environment")
        if own:
            program = " ".join(filter(None, (own["ftjax"], own["commit"])))
            made[f"ftjax {program}, jax {own['jax']}, {own['device']}"] += 1
        else:
            made["a version that kept no account"] += 1
    return made


def write_probes(
    start: Start, data: Dataset, plan: Plan, out: Path, *, batch_size: int
) -> None:
    """Writes `probes.csv`, unless it has the probes of every cut already.

    Args:
        start: the pretrained network.
        data: images and labels.
        plan: whose cuts are probed.
        out: the run's folder.
        batch_size: images that pass through the network at a time.
    """
    subject = {
        "model": start.network.name,
        "weights": start.weights,
        "data_hash": data.content_hash,
        "image_size": start.image_size,
    }
    depths = {request.cut.depth_layers for request in plan.requests}
    known = read_probes(out, subject)
    if known is not None and depths <= set(known["depth_layers"]):
        return
    probes = probe_curve(
        start.network,
        start.params,
        start.batch_stats,
        data,
        depths=depths,
        batch_size=batch_size,
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
    names = ("model", "weights", "data_hash", "image_size")
    try:
        probes = pd.read_csv(io.BytesIO(read_checked(path) or b""))
        same = all(set(probes[name]) == {subject[name]} for name in names)
    except (ValueError, KeyError):  # damaged: they are made anew
        return None
    return probes if same else None
