"""A live display of a sweep: trials, epochs, images per second, time left."""

import html
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from ftjax.analysis.wording import percent
from ftjax.axes import NAMES, varied
from ftjax.block_sets import parse_sets, set_name
from ftjax.config import axis_values
from ftjax.sweep.events import ENDED_BADLY, Event
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.strategies import Round
from ftjax.sweep.trial import Trial


class NotebookBar:
    """A line of HTML that is drawn again in place: a notebook needs no widgets for it.

    It has those methods of `rich.progress.Progress` that `Display` calls.
    """

    def __init__(self):
        self._handle = None
        self._shown = {"description": "", "total": 0, "done": 0, "speed": ""}

    def start(self) -> None:
        """Makes room for the line in the output of the cell."""
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)

    def stop(self) -> None:
        """Takes the line away."""
        self._draw("")

    def add_task(self, description: str, **fields) -> int:
        """Sets what is shown first; there is one task, 0."""
        self._shown |= {"description": description, **fields}
        return 0

    def reset(self, task: int, *, total: int) -> None:
        """Begins again with another number of epochs."""
        self._shown |= {"total": total, "done": 0, "speed": ""}

    def advance(self, task: int, advance: int) -> None:
        """Counts epochs."""
        self.update(task, advance=advance)

    def update(self, task: int, *, advance: int = 0, **fields: str) -> None:
        """Counts epochs, sets `description` or `speed`, and draws the line."""
        self._shown |= fields
        self._shown["done"] += advance
        description, total, done, speed = self._shown.values()
        self._draw(
            f'<progress max="{total}" value="{done}"></progress> {done}/{total} epochs'
            f"&emsp;{html.escape(f'{description}  {speed}')}"
        )

    def _draw(self, line: str) -> None:
        from IPython.display import HTML

        if self._handle is not None:
            self._handle.update(HTML(line))


class Display:
    """A bar in a terminal or a notebook; in a log file, a plain line per trial.

    Args:
        console: to print on.
        began: when the command began, as of `time.perf_counter`; None: now.

    Attributes:
        forecast: seconds from then to the last trial, as they were to be expected after
            the first trial that was trained; None before it.
    """

    def __init__(self, console: Console, *, began: float | None = None):
        self.forecast: float | None = None
        self._began = time.perf_counter() if began is None else began
        self._console = console
        notebook = console.is_jupyter and not console.quiet
        self._bar = NotebookBar() if notebook else terminal_bar(console)
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
        told = {
            "damaged": "damaged: {}; it is trained again",
            "elsewhere": "{} trains it, and is waited for",
            "again": "{}",
        }
        if event.status in told:
            words = told[event.status].format(event.message)
            self._console.print(f"{trial.describe(self._varied)}  {words}")
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
            now = time.perf_counter()
            seconds, left = now - self._start[trial.id], self._seconds_left()
            if self.forecast is None and left is not None:
                self.forecast = round(now - self._began + left, 1)
            last = "; ".join(filter(None, (self._last[trial.id], event.message)))
            self._console.print(
                f"{name}  {last}  {seconds:.0f} s, left {self._time_left()}"
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

    def _seconds_left(self) -> float | None:
        """By the mean speed so far, compilation included."""
        return self._left * self._seconds / self._done if self._done else None

    def _time_left(self) -> str:
        seconds = self._seconds_left()
        if seconds is None:
            return "?"
        minutes, seconds = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}"


def terminal_bar(console: Console) -> Bar:
    """A bar that vanishes when it is done; none where there is no terminal."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def print_plan(sweep: Sweep, console: Console) -> None:
    """What will be trained, before anything is."""
    config, start, data, _, _ = sweep
    plan = sweep.plan()
    epochs = max(axis_values(config)["epochs"])
    depths = sorted({request.cut.depth_layers for request in plan.requests})
    lines = [
        f"{config.model} ({start.weights}) on {data.name}: {len(data.train.labels)} "
        f"training and {len(data.val.labels)} validation images of "
        f"{len(data.class_names)} classes at {config.image_size} pixels",
        f"{len(plan.requests)} rows, {len(plan.trials)} trials of {epochs} epochs: "
        f"depths {' '.join(map(str, depths))} of {len(start.network.layers)} layers, "
        f"bn {' '.join(config.bn)}, {config.seeds} seed" + "s" * (config.seeds > 1),
        *(
            [f"then {len(sets)} sets of blocks: {' '.join(sets)}"]
            if (sets := [*map(set_name, parse_sets(start.network, config.sets))])
            else []
        ),
        *(
            f"{axis.title}: {' '.join(map(str, axis_values(config)[axis.name]))}"
            for axis in varied(axis_values(config))
        ),
    ]
    if not any(unit.batch_norm_keys for unit in start.network.units):
        lines.append(f"{config.model} has no BatchNorm: one curve, whatever --bn says")
    for line in lines:
        console.print(line)
    for line in data.report.lines() if data.report else ():
        console.print(line)
    for warning in data.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if config.weights == "random":
        console.print(
            "random weights: the curve says nothing about transfer", style="yellow"
        )
