"""A live display of a sweep: trials, epochs, images per second, time left."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from ftjax.analysis.wording import percent
from ftjax.axes import NAMES
from ftjax.cli.console import time_text
from ftjax.sweep.events import ENDED_BADLY, Event
from ftjax.sweep.strategies import Round
from ftjax.sweep.trial import Trial


class Display:
    """A bar in a terminal or a notebook; in a log file, a plain line per trial.

    Args:
        console: to print on.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            console=console,
            transient=True,
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._task = self._bar.add_task("epochs", total=0, speed="")
        self._goals: dict[str, int] = {}
        self._kept = 0

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()
        self._end_round()

    def begin_round(self, round: Round) -> None:
        """Shows the reason of a round, and counts from its start on."""
        self._end_round()
        if round.reason:
            self._console.print(round.reason)
        self._goals = dict(round.goals)
        going = [trial for trial in round.plan.trials if trial.id in self._goals]
        asked = [row.hyper for row in round.plan.requests if row.trial in self._goals]
        self._varied = [
            name
            for name in NAMES
            if name != "epochs" and len({getattr(hyper, name) for hyper in asked}) > 1
        ]
        self._numbers = {trial.id: number for number, trial in enumerate(going, 1)}
        self._work = {trial.id: trial.flops.total(1) for trial in going}
        self._left = sum(self._work[id] * goal for id, goal in self._goals.items())
        self._done, self._seconds = 0.0, 0.0
        self._start: dict[str, float] = {}
        self._epochs: dict[str, int] = {}  # trained now, of trials that have begun
        self._last: dict[str, str] = {}  # what their newest epoch said
        self._bar.reset(self._task, total=sum(self._goals.values()))

    def _end_round(self) -> None:
        if self._kept:
            total = len(self._goals)
            self._console.print(f"kept {self._kept} of {total} finished trials")
        self._kept = 0

    def show(self, event: Event) -> None:
        """Shows one event of the sweep."""
        trial = event.trial
        if event.status == "damaged":
            what = f"{trial.describe(self._varied)}: {event.message}"
            self._console.print(f"damaged  {what}; it is trained again", style="yellow")
            return
        if event.status == "elsewhere":
            who = f"{event.message} trains {trial.describe(self._varied)}"
            self._console.print(f"waiting: {who}")
            return
        if event.status == "again":
            self._console.print(f"{trial.describe(self._varied)}  {event.message}")
            return
        total, number = len(self._goals), self._numbers[trial.id]
        name = f"trial {number}/{total}  {trial.describe(self._varied)}"
        epochs = self._goals[trial.id]
        if event.status == "started":
            self._bar.update(self._task, description=name)
            self._start[trial.id] = time.perf_counter()
            self._epochs[trial.id], self._last[trial.id] = 0, "no epoch was missing"
        elif event.status == "kept":
            self._skip(trial, epochs)
            self._kept += 1
        elif event.status == "epoch":
            self._epoch_ended(event)
        elif event.status in ENDED_BADLY:
            self._skip(trial, epochs - self._epochs.get(trial.id, 0))
            self._console.print(f"{name}  {event.status}: {event.message}")
        elif event.status == "done":
            self._skip(trial, epochs - self._epochs[trial.id])  # those it had before
            seconds = time.perf_counter() - self._start[trial.id]
            self._console.print(
                f"{name}  {self._last[trial.id]}  {seconds:.0f} s, "
                f"left {self._time_left()}"
            )

    def _skip(self, trial: Trial, epochs: int) -> None:
        """Counts epochs that will not be trained now."""
        self._left -= self._work[trial.id] * epochs
        self._bar.advance(self._task, epochs)

    def _epoch_ended(self, event: Event) -> None:
        epoch, id = event.epoch, event.trial.id
        work = self._work[id]
        self._epochs[id] += 1
        self._left -= work
        self._done += work
        self._seconds += epoch.seconds
        images = epoch.steps * event.trial.hyper.batch_size
        self._last[id] = (
            f"training {percent(epoch.train_mode_accuracy)}, "
            f"val {percent(epoch.val_accuracy)}, "
            f"{images / epoch.seconds:.0f} img/s"
        )
        speed = f"{self._last[id]}, left {self._time_left()}"
        self._bar.update(self._task, advance=1, speed=speed)

    def _time_left(self) -> str:
        if not self._done:
            return "?"
        return time_text(self._left * self._seconds / self._done)
