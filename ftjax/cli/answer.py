"""What a sweep has found, printed: its table, warnings, reasons and sentence."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ftjax.analysis.variance import Variance, share
from ftjax.analysis.wording import percent, points
from ftjax.axes import NAMES
from ftjax.report.answer import recommend_run, write_files, write_recommendation
from ftjax.report.set_section import answer_of_sets
from ftjax.sweep.events import Event

FIRST = 300.0  # seconds before the first answer, and at least between two of them
SHARE = 0.05  # of the time that answers take while trials are trained

NUMBERS = {
    "Accuracy": "accuracy",
    "Loss": "loss",
    "Val-accuracy": "val_accuracy",
    "Val-loss": "val_loss",
    "Train-mode accuracy": "train_mode_accuracy",
}


def write_answer(
    out: Path,
    results: pd.DataFrame,
    epochs: pd.DataFrame,
    console: Console,
    score_test: Callable[[str], object] = lambda trial: None,
) -> None:
    """Writes recommendation, figures and report, and prints table and sentence.

    Args:
        out: the run's folder.
        results: as in results.csv.
        epochs: as in epochs.csv.
        console: to print on.
        score_test: scores the test images by the trial that is named, once.
    """
    # Names and errors stand in these texts as they are: no markup.
    show = partial(console.print, markup=False, highlight=False, emoji=False)
    show(result_table(results))
    answer = write_files(out, results, epochs, score_test)
    if answer is None:
        show("no trial is done, so there is no answer yet")
        return
    best = answer.best
    if answer.probes:
        show(answer.probes)
    for warning in best.warnings:
        show(f"warning: {warning}", style="yellow")
    for grid in best.effects.grids if best.effects else ():
        show(effect_table(grid))
    for sentence in best.explanation:
        show(sentence)
    show(best.sentence, style="bold")
    if sets := answer_of_sets(out, results, best):
        show(sets, style="bold")
    if answer.score:
        show(answer.score, style="bold")


class AnswerSoFar:
    """Writes page and recommendation anew while a sweep goes on, and says the answer.

    Its figures take cores from the training for tens of seconds: after the first time,
    no more than `SHARE` of the time.

    Args:
        out: the run's folder.
        console: to print on.
    """

    def __init__(self, out: Path, console: Console):
        self._out, self._console = out, console
        self._next = time.perf_counter() + FIRST
        self._said = ""

    def heard(self, event: Event) -> None:
        """Looks whether it is time, after a trial has ended; the tables are written."""
        began = time.perf_counter()
        if event.status != "done" or began < self._next:
            return
        results, epochs = (
            pd.read_csv(self._out / name) for name in ("results.csv", "epochs.csv")
        )
        done = results[results["status"] == "done"]
        if done["depth_layers"].nunique() < 2:
            return
        recommendation = recommend_run(self._out, results)
        write_recommendation(self._out, results, epochs, recommendation)
        answer = " ".join(recommendation.parts[:2])
        if answer != self._said:
            self._said = answer
            self._console.print(f"so far, from {len(done)} rows: {answer}")
        now = time.perf_counter()
        self._next = now + max(FIRST, (now - began) / SHARE)


def result_table(results: pd.DataFrame) -> Table:
    """The paper's table (Philip 2025, table 3), with what it leaves out.

    Trials that were stopped early stand in results.csv alone.
    """
    table = Table()
    shown = results[results["status"] != "stopped"]
    varied = [name for name in NAMES if name in shown and shown[name].nunique() > 1]
    for name in ("Layers Unfreeze", "Blocks", "BN", "Seed", *varied):
        table.add_column(name, justify="right", no_wrap=name == "BN")
    for name in (*NUMBERS, "Seconds", "Frozen intact"):
        table.add_column(name, justify="right")
    for row in shown.itertuples():
        cells = [str(row.depth_layers), str(row.depth_units), row.bn, str(row.seed)]
        cells += [str(getattr(row, name)) for name in varied]
        if row.status == "done":
            cells += [_number(row, column) for column in NUMBERS.values()]
            cells += [f"{row.seconds:.1f}", "yes" if row.frozen_intact else "NO"]
        else:
            cells += [row.status]
        table.add_row(*cells)
    return table


def effect_table(grid: Variance) -> Table:
    """What depth and each varied axis add to the accuracy, and the seeds beside them.

    Of a small p, chance alone hardly gives as much.
    """
    table = Table()
    for name in ("Effect", "Share", "Worst to best, points", "95 %", "p"):
        table.add_column(name, justify="left" if name == "Effect" else "right")
    for effect in (*grid.main, *grid.pairs):
        ends = effect.interval
        table.add_row(
            effect.title,
            share(effect.share),
            "-" if math.isnan(effect.range) else points(effect.range),
            f"{points(ends[0])} to {points(ends[1])}" if ends else "-",
            _chance(effect.probability),
        )
    if len(grid.levels) > 2:
        table.add_row("three and more together", share(grid.higher), *("---"))
    if grid.seeds > 1:
        table.add_row("seeds", share(grid.within), *("---"))
    return table


def _chance(probability: float) -> str:
    if math.isnan(probability):
        return "-"
    return f"{probability:.3f}" if probability >= 0.001 else "<0.001"


def _number(row, column: str) -> str:
    value = getattr(row, column)
    if value != value:  # fewer epochs than were trained: not measured there
        return "-"
    return percent(value, 2) if column.endswith("accuracy") else f"{value:.4f}"
