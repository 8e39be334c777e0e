"""`--sets`: after the depths, any sets of blocks, at rates of their own."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from ftjax.config import AUTO_RATE
from ftjax.machine.mesh import from_first_process
from ftjax.sweep import records
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.rate_rounds import TUNING_EPOCHS, better_rates
from ftjax.sweep.rounds import Round, Strategy, exhaust


def train_sets(sweep: Sweep, strategy: Strategy, out: Path) -> Strategy:
    """Another strategy, then the sets of blocks; with `--lr auto` each has its rate.

    Args:
        sweep: what to train.
        strategy: of the depths.
        out: the run's folder.
    """
    _, last = yield from exhaust(strategy)
    plan = sweep.plan([*last.plan.points, *sweep.set_points])
    own = {request.trial for request in plan.requests if request.blocks}
    count = len({request.blocks for request in plan.requests if request.blocks})
    told = f"sets: {count} set{'s' * (count > 1)} of blocks"
    goals = {id: epochs for id, epochs in plan.goals.items() if id in own}
    stopped = last.stopped
    if sweep.config.lr == AUTO_RATE:
        short = min(TUNING_EPOCHS, sweep.hyper.epochs)
        reason = f"{told}, every rate for {short} epochs"
        yield Round(plan, dict.fromkeys(goals, short), stopped, reason)
        epochs = from_first_process(partial(read_epochs, out, own))
        size = len(sweep.data.val.labels)
        going = better_rates(plan, epochs, short, size) & own
        goals = {id: epochs for id, epochs in goals.items() if id in going}
        stopped = (stopped - own) | (own - going)
        told += f", {len(going)} of {len(own)} trials go on"
    last = Round(plan, goals, stopped, told)
    yield last
    return last


def read_epochs(out: Path, trials: Iterable[str]) -> pd.DataFrame:
    """Trial, epoch and validation accuracy of what has been trained of some trials."""
    rows = [
        (trial, epoch["epoch"], epoch["val_accuracy"])
        for trial in sorted(trials)
        for epoch in (records.read_trial(out, trial) or {}).get("epochs", [])
    ]
    return pd.DataFrame(rows, columns=["trial", "epoch", "val_accuracy"])
