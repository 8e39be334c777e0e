"""Runs a sweep: one pass over the frozen part, trials from the earliest cut on."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ftjax.machine.devices import on
from ftjax.machine.mesh import from_first_process
from ftjax.machine.workers import Stopped, in_threads
from ftjax.sweep.allowance import Allowance
from ftjax.sweep.claims import set_damaged_aside
from ftjax.sweep.devices import make_seats
from ftjax.sweep.events import ENDED_BADLY, Event, Listener
from ftjax.sweep.follow import Follower, Part, TrainRound
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.results import Tables
from ftjax.sweep.rounds import Found, Round, Strategy
from ftjax.sweep.shards import parse_shard
from ftjax.sweep.strategies import choose_strategy
from ftjax.sweep.trials import train_trials
from ftjax.sweep.work_queue import has_ended, open_queue

RoundListener = Callable[[Round], None]


class Outcome(NamedTuple):
    """What a sweep has found.

    Attributes:
        plan: rows and trials.
        results: one row per point that was asked for.
        epochs: one row per point and epoch.
        failed: how trials failed, by id.
        left: ids of the trials that other shards have not ended yet; what comes after
            them was not begun.
    """

    plan: Plan
    results: pd.DataFrame
    epochs: pd.DataFrame
    failed: dict[str, Event]
    left: Sequence[str] = ()


def run(
    sweep: Sweep,
    out: Path,
    listen: Listener = lambda event: None,
    begin_round: RoundListener = lambda round: None,
    allowance: Allowance | None = None,
    *,
    strategy: Strategy | None = None,
    train_round: TrainRound | None = None,
) -> Outcome:
    """Trains what is missing in `out`, round by round, as the strategy asks.

    Finished trials are kept, interrupted ones go on from their last epoch. A trial
    that fails is recorded and the others go on. Where several are trained side by side
    (`trials_at_once`), the events of one come between those of another. A shard ends
    with the first round that the other shards have not ended.

    Args:
        sweep: what to train.
        out: the run's folder.
        listen: called after every event of a trial.
        begin_round: called before the trials of a round are trained.
        allowance: of time; what it does not suffice for is left out, and a trial that
            is trained when it ends stays at its last epoch.
        strategy: None: the one that the command asks for.
        train_round: trains a round elsewhere; None: here.
    """
    start, data, budget = sweep.start, sweep.data, sweep.budget
    strategy = strategy or choose_strategy(sweep, out, allowance)
    shard = parse_shard(sweep.config.shard)
    failed: dict[str, Event] = {}
    turn = threading.Lock()
    round = next(strategy)
    while True:
        own = shard.of(round.plan.trials, round.goals)
        goals = {id: epochs for id, epochs in round.goals.items() if id in own}
        begin_round(round._replace(goals=goals))
        for trial in round.plan.trials:
            damaged = from_first_process(partial(set_damaged_aside, out, trial.id))
            if damaged:
                listen(Event(trial, "damaged", message=damaged))
        tables = Tables(start, data, round.plan, out, round.stopped)
        tables.write()

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

        if train_round is not None:
            follower = Follower(out, round.plan, goals, tell)
            train_round(Part(round.plan.points, goals, round.stopped), follower.look)
            follower.look(ended=True)
        elif goals:
            limits = {} if allowance is None else {"take": allowance.take}
            queue = open_queue(sweep, round.plan, goals, out=out, listen=tell, **limits)
            left = None if allowance is None else allowance.left
            with suppress(*() if allowance is None else (Stopped,)), queue as queue:
                train = partial(
                    train_trials,
                    data=data,
                    out=out,
                    listen=queue.tell,
                    mesh=budget.mesh,
                    fused=budget.fused,
                    keep_optimizer=sweep.config.keep_optimizer,
                )
                seats = deque(make_seats(start, budget.devices, queue.count))
                first = seats.popleft()

                def train_beside(train=train, seats=seats, queue=queue) -> None:
                    device, own = seats.popleft()
                    with on(device):
                        deque(map(partial(train, start=own), queue), maxlen=0)

                beside = in_threads(train_beside, queue.count - 1, left)
                # `map` holds on to no trial's activations, as a loop's variable would.
                with beside, on(first.device):
                    deque(map(partial(train, start=first.start), queue), maxlen=0)
        for trial in round.plan.trials:  # other commands may have trained some
            tables.update(trial.id)
        tables.write()
        results = tables.results
        badly = frozenset(results["trial"][results["status"].isin(ENDED_BADLY)])
        found = Found(results, tables.epochs, badly)
        going = [trial for trial in round.plan.trials if trial.id in round.goals]
        waiting = [t.id for t in going if not has_ended(out, t, round.goals[t.id])]
        if waiting and shard.count > 1:
            return Outcome(round.plan, found.results, found.epochs, failed, waiting)
        try:
            round = strategy.send(found)
        except StopIteration:
            break
    return Outcome(round.plan, found.results, found.epochs, failed)
