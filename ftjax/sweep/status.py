"""How far a run is, from its folder alone: also while others train, on any machine."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ftjax.machine.files import Damaged
from ftjax.sweep.claims import LOCK, Owner, read_owner, try_lock
from ftjax.sweep.events import ENDED_BADLY
from ftjax.sweep.records import read_trial, trial_folder


class TrialStatus(NamedTuple):
    """How far a trial is.

    Attributes:
        name: its depth, policy and seed.
        status: `done`, `running`, `failed`, `diverged`, `stopped` (a search has ended
            it early), `damaged` or `left`.
        had: epochs that are kept.
        epochs: that were asked for.
        flops: of all its epochs.
        seconds: that the epochs took which it had.
        message: why it failed, or what is damaged.
        owner: who trains it.
    """

    name: str
    status: str
    had: int
    epochs: int
    flops: float
    seconds: float
    message: str = ""
    owner: Owner | None = None


def read_status(out: Path) -> list[TrialStatus]:
    """The trials of a run's table, in its order.

    Raises:
        ValueError: the folder holds no table.
    """
    path = out / "results.csv"
    if not path.is_file():
        raise ValueError(
            f"{out} holds no results.csv: give the folder that --out of a sweep named; "
            "it is there once the first trial is begun"
        )
    table = pd.read_csv(path, dtype={"trial": str})
    table = table.sort_values("epochs", kind="stable", ascending=False)
    rows = table.drop_duplicates("trial").sort_index().to_dict("records")
    return [trial_status(out, row) for row in rows]


def trial_status(out: Path, row: dict) -> TrialStatus:
    """How far the trial of a row of results.csv is."""
    trial, epochs = row["trial"], int(row["epochs"])
    name = f"top {row['depth_layers']} layers  bn {row['bn']}  seed {row['seed']}"
    plain = TrialStatus(name, "left", 0, epochs, float(row["flops"]), 0.0)
    try:
        record = read_trial(out, trial)
    except Damaged as error:
        return plain._replace(status="damaged", message=str(error))
    if record is not None:
        kept = record["epochs"][:epochs]
        seconds = sum(epoch["seconds"] for epoch in kept)
        plain = plain._replace(had=len(kept), seconds=seconds)
        if record["status"] in ENDED_BADLY:
            plain = plain._replace(status=record["status"], message=record["message"])
        elif record["status"] == "done" and (
            plain.had == epochs or record.get("stopped_by")
        ):
            return plain._replace(status="done")
    owner = running_owner(out, trial)
    if owner is not None:
        return plain._replace(status="running", owner=owner)
    return plain._replace(status="stopped") if row["status"] == "stopped" else plain


def running_owner(out: Path, trial: str) -> Owner | None:
    """Who trains a trial; None if nobody, or if the process that did has died."""
    owner = read_owner(out, trial)
    if owner is None or not (trial_folder(out, trial) / LOCK).exists():
        return None
    lock = try_lock(out, trial)
    if lock is None:
        return owner
    lock.release()
    return None


def seconds_left(trials: list[TrialStatus]) -> float | None:
    """Until all are done, by the speed so far and the processes that train now.

    None if no epoch tells the speed.
    """
    had = sum(trial.flops * trial.had / trial.epochs for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    if not had or not seconds:
        return None
    going = [trial for trial in trials if trial.status in ("running", "left")]
    left = sum(trial.flops * (1 - trial.had / trial.epochs) for trial in going)
    owners = {trial.owner[:2] for trial in trials if trial.owner is not None}
    return left * seconds / had / max(len(owners), 1)
