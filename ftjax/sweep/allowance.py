"""`--budget`: what of a plan still fits in the time, cheap trials first."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ftjax.analysis.wording import duration
from ftjax.axes import varied
from ftjax.config import axis_values
from ftjax.machine import clock
from ftjax.machine.files import read_json, write_sealed
from ftjax.sweep import records
from ftjax.sweep.events import ENDED_BADLY, Event
from ftjax.sweep.forecast import Rates, measure_inference, passed_flops
from ftjax.sweep.memory import programs_of
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.trial import Trial
from ftjax.sweep.work_queue import ended

FILE = "budget.json"
TRUST = 2.0  # seconds of measurement that the first forecast is worth
LEAST = 2  # trials that are begun whatever the first forecast says
TRAINING = 2.0  # times as long as that of a forward pass, a program to train compiles


class Allowance:
    """The time of a command, and what trials are expected to take of it.

    The speed of forward passes is measured on one batch, before any trial; what trials
    and programs take then corrects the forecast. Trials that run side by side add up,
    as their seconds are shares of those that pass.

    Args:
        sweep: whose trials they are.
        out: the run's folder.
        seconds: that may pass.
        began: when they began to, by `time.perf_counter`.
    """

    def __init__(self, sweep: Sweep, out: Path, seconds: float, began: float):
        self.seconds, self._ends = seconds, began + seconds
        self._sweep, self._out = sweep, out
        self._predicted = self._measured = TRUST  # seconds of epochs
        self._programs: set[tuple] = set()  # that are compiled
        self._coming = self._compiled = TRUST  # seconds of compilation
        self._read = clock.compile_seconds()
        self._running: dict[str, float] = {}  # forecast of what is left of them
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._ends - time.perf_counter())

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return self.seconds - (self._ends - time.perf_counter())

    @cached_property
    def rates(self) -> Rates:
        """The speed; measured when it is first asked for."""
        sweep = self._sweep
        count = sweep.hyper.micro_batch
        found = measure_inference(sweep.start, sweep.data, sweep.budget, count)
        self._read = clock.compile_seconds()
        return found

    def forecast(self, trial: Trial, last: int) -> float:
        """Seconds of the epochs that a trial lacks up to its `last` one."""
        record = records.read_trial(self._out, trial.id) or {}
        lacks = max(0, last - len(record.get("epochs", [])))
        seconds = self.rates.seconds(trial, lacks)
        return seconds * self._measured / self._predicted

    def choose(self, plan: Plan, goals: Mapping[str, int]) -> dict[str, int]:
        """Those of the goals that fit together, the cheapest first.

        What has ended before costs nothing. The pass through the frozen part and the
        compilation of new programs are shared.

        Args:
            plan: with the trials.
            goals: trial -> its last epoch.
        """
        lacking = self.lacking(plan, goals)
        chosen = {id: epochs for id, epochs in goals.items() if id not in lacking}
        missing = [trial for trial in plan.trials if trial.id in lacking]
        if not missing or not self.left:
            return chosen
        costs = {trial.id: self.forecast(trial, goals[trial.id]) for trial in missing}
        self._look_at_compilation()
        taken, seconds, first = [], 0.0, not self._programs
        for trial in sorted(missing, key=lambda trial: costs[trial.id]):
            new = programs_of(self._sweep.start, [trial]) - self._programs
            compiling = self._per_program * len(new)
            more = costs[trial.id] + compiling * self._compiled / self._coming
            needed = seconds + more + self._passing([*taken, trial])
            if needed > self.left and not (first and len(taken) < LEAST):
                break  # the others take longer
            taken.append(trial)
            seconds += more
            self._coming += compiling
            self._programs |= new
            chosen[trial.id] = goals[trial.id]
        return chosen

    def take(self, trials: Sequence[Trial], last: int) -> bool:
        """Whether trials still fit beside those that run; if so they count as begun."""
        with self._lock:
            costs = {trial.id: self.forecast(trial, last) for trial in trials}
            if sum(costs.values()) + sum(self._running.values()) > self.left:
                return False
            self._running |= costs
            return True

    def lacking(self, plan: Plan, goals: Mapping[str, int]) -> frozenset[str]:
        """The trials that have not reached their goals; arguments as of `choose`."""
        return frozenset(
            trial.id
            for trial in plan.trials
            if trial.id in goals and ended(self._out, trial, goals[trial.id]) is None
        )

    def heard(self, event: Event) -> None:
        """Learns from what trials took."""
        with self._lock:
            id = event.trial.id
            if event.status in ("done", *ENDED_BADLY):
                self._running.pop(id, None)
            if event.epoch is None:
                return
            one = self.rates.seconds(event.trial, 1)
            self._predicted += one
            compiling = self._look_at_compilation()
            self._measured += max(0.0, event.epoch.seconds - compiling)
            self._running[id] = max(0.0, self._running.get(id, 0.0) - one)

    def _look_at_compilation(self) -> float:
        """Seconds of it since the last look."""
        now = clock.compile_seconds()
        passed, self._read = now - self._read, now
        self._compiled += passed
        return passed

    @property
    def _per_program(self) -> float:
        """Seconds to compile the training of a unit, as the first batch tells."""
        units = len(self._sweep.start.network.units)
        return TRAINING * self.rates.compile_seconds / units

    def _passing(self, trials: Sequence[Trial]) -> float:
        """Seconds of the pass through the frozen part, up to the latest cut."""
        sweep = self._sweep
        flops = passed_flops(sweep.budget.room, trials)
        return flops / self.rates.inference

    def report(self, plan: Plan, results: pd.DataFrame) -> dict[str, Any] | None:
        """What the time did not suffice for, as plain values; None if for all.

        Args:
            plan: of the last round.
            results: its rows, as in results.csv.
        """
        waiting = set(results.loc[results["status"] == "pending", "trial"])
        lacking = [trial for trial in plan.trials if trial.id in waiting]
        if not lacking:
            return None
        seconds, about = None, ""
        if "rates" in self.__dict__:  # there was time to measure them
            seconds = sum(self.forecast(t, t.hyper.epochs) for t in lacking)
            about = f", for about {duration(seconds)} more"
        ends = len(plan.trials) - len(lacking)
        words = [f"depths {listed(t.cut.depth_layers for t in lacking)}"]
        words.append(f"bn {listed(t.policy for t in lacking)}")
        for axis in varied(axis_values(self._sweep.config)):
            values = listed(getattr(t.hyper, axis.name) for t in lacking)
            words.append(f"{axis.title} {values}")
        sentence = (
            f"The budget of {duration(self.seconds)} is spent: {ends} of "
            f"{len(plan.trials)} trials have ended. Left out{about}: "
            f"{len(lacking)} trials ({', '.join(words)}). The same command goes on "
            "with them for as long again, without --budget to the end."
        )
        return {
            "budget_seconds": self.seconds,
            "spent_seconds": round(self.spent, 1),
            "missing_seconds": seconds,
            "trials": [t.canonical | {"epochs": t.hyper.epochs} for t in lacking],
            "sentence": sentence,
        }


def listed(values: Iterable[Any]) -> str:
    """Distinct values in order, e.g. 0 11 30."""
    return " ".join(map(str, sorted(set(values))))


def write_report(out: Path, report: Mapping[str, Any] | None) -> None:
    """Keeps what a budget left out, or that it left out nothing."""
    if report is None:
        (out / FILE).unlink(missing_ok=True)
    else:
        write_sealed(out / FILE, report)


def read_report(out: Path) -> dict[str, Any] | None:
    """What `write_report` wrote, or None."""
    return read_json(out / FILE)
