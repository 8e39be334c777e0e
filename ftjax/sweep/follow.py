"""Rounds that are trained elsewhere, followed by what the run's folder holds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ftjax.machine.files import Damaged
from ftjax.sweep import records
from ftjax.sweep.events import ENDED_BADLY, Epoch, Event, Listener
from ftjax.sweep.plan import Plan, Point
from ftjax.sweep.work_queue import ended as how_ended


class Part(NamedTuple):
    """What a worker is told of a round; small, because it is sent.

    Attributes:
        points: that the plan is of.
        goals: trial -> number of epochs it is trained to; others wait.
        stopped: trials that are not trained to the last epoch.
    """

    points: Sequence[Point]
    goals: Mapping[str, int]
    stopped: frozenset[str]


TrainRound = Callable[[Part, Callable[[], None]], None]  # the round, look


class Follower:
    """Tells of trials that are trained elsewhere, by what the run's folder holds.

    Args:
        out: the run's folder.
        plan: with the trials.
        goals: trial -> number of epochs it is trained to; others are not told of.
        listen: called for every epoch, and for trials that are done or have failed.
    """

    def __init__(
        self, out: Path, plan: Plan, goals: Mapping[str, int], listen: Listener
    ):
        self._out, self._goals, self._listen = out, goals, listen
        self._going = [trial for trial in plan.trials if trial.id in goals]
        self._had: dict[str, int] = {}  # epochs that were told of, or there before
        self._begun: set[str] = set()
        for trial in [*self._going]:
            event = how_ended(out, trial, goals[trial.id])
            if event is not None:
                listen(event)
                self._going.remove(trial)
            else:
                record = records.read_trial(out, trial.id) or {"epochs": ()}
                self._had[trial.id] = len(record["epochs"])

    def look(self, ended: bool = False) -> None:
        """Reads the records again.

        Args:
            ended: whether all are trained; one that failed may be of an earlier
                command until then.
        """
        for trial in [*self._going]:
            try:
                record = records.read_trial(self._out, trial.id)
            except Damaged:  # the worker says so, or trains it again
                record = None
            if record is None:
                continue
            goal, status = self._goals[trial.id], record["status"]
            event = how_ended(self._out, trial, goal)
            done = event is not None and event.status == "kept"
            new = record["epochs"][self._had[trial.id] : goal]
            if (new or done or ended) and trial.id not in self._begun:
                self._begun.add(trial.id)
                self._listen(Event(trial, "started"))
            for row in new:
                epoch = Epoch(*(row[name] for name in Epoch._fields))
                self._listen(Event(trial, "epoch", epoch))
            self._had[trial.id] = max(self._had[trial.id], len(record["epochs"]))
            if done:
                self._listen(Event(trial, "done"))
                self._going.remove(trial)
            elif ended and status in ENDED_BADLY:
                self._listen(Event(trial, status, message=record["message"]))
                self._going.remove(trial)
