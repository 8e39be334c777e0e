"""Runs a sweep: one pass over the frozen part, trials from the earliest cut on."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ftjax.machine.workers import Stopped, in_threads
from ftjax.sweep.allowance import Allowance
from ftjax.sweep.events import ENDED_BADLY, Event, Listener
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.results import Tables
from ftjax.sweep.strategies import Found, Round, choose_strategy
from ftjax.sweep.trials import train_trials
from ftjax.sweep.work_queue import open_queue

RoundListener = Callable[[Round], None]


class Outcome(NamedTuple):
    """What a sweep has found.

    Attributes:
        plan: rows and trials.
        results: one row per point that was asked for.
        epochs: one row per point and epoch.
        failed: how trials failed, by id.
    """

    plan: Plan
    results: pd.DataFrame
    epochs: pd.DataFrame
    failed: dict[str, Event]


def run(
    sweep: Sweep,
    out: Path,
    listen: Listener = lambda event: None,
    begin_round: RoundListener = lambda round: None,
    allowance: Allowance | None = None,
) -> Outcome:
    """Trains what is missing in `out`, round by round, as the strategy asks.

    Finished trials are kept, interrupted ones go on from their last epoch. A trial
    that fails is recorded and the others go on. Where several are trained side by side
    (`trials_at_once`), the events of one come between those of another.

    Args:
        sweep: what to train.
        out: the run's folder.
        listen: called after every event of a trial.
        begin_round: called before the trials of a round are trained.
        allowance: of time; what it does not suffice for is left out, and a trial that
            is trained when it ends stays at its last epoch.
    """
    start, data, budget = sweep.start, sweep.data, sweep.budget
    strategy = choose_strategy(sweep, out, allowance)
    failed: dict[str, Event] = {}
    turn = threading.Lock()
    round = next(strategy)
    while True:
        begin_round(round)
        tables = Tables(start, data, round.plan, out, round.stopped)

        def tell(event: Event, tables: Tables = tables) -> None:
            with turn:
                if event.status in ("done", *ENDED_BADLY):
                    tables.update(event.trial.id)
                    tables.write()
                if event.status in ENDED_BADLY:
                    failed[event.trial.id] = event
                if allowance is not None:
                    allowance.heard(event)
                listen(event)

        train = partial(
            train_trials,
            start=start,
            data=data,
            out=out,
            listen=tell,
            mesh=budget.mesh,
            fused=budget.fused,
        )
        limits = {} if allowance is None else {"take": allowance.take}
        queue = open_queue(
            sweep, round.plan, round.goals, out=out, listen=tell, **limits
        )
        left = None if allowance is None else allowance.left
        with suppress(*() if allowance is None else (Stopped,)), queue as queue:
            # `map` holds on to no trial's activations, as a loop's variable would.
            train_all = partial(deque, map(train, queue), maxlen=0)
            with in_threads(train_all, queue.count - 1, left):
                train_all()
        tables.write()
        found = Found(tables.results, tables.epochs, frozenset(failed))
        try:
            round = strategy.send(found)
        except StopIteration:
            return Outcome(round.plan, found.results, found.epochs, failed)
