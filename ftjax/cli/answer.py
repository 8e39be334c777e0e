"""From the tables of a sweep to its answer: table, figures, report, sentence."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ftjax.analysis.wording import percent
from ftjax.axes import NAMES
from ftjax.machine.files import read_json, write_json
from ftjax.report import depth_plot as plots
from ftjax.report.answer import compare_probes, recommend_run, write_page
from ftjax.report.drawing import rows_of
from ftjax.report.final_score import named_trial, score_sentence
from ftjax.report.probe_plots import probe_curves, probe_finding

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
    if not (results.status == "done").any():
        show("no trial is done, so there is no answer yet")
        return
    recommendation = recommend_run(out, results)
    write_json(out / "recommendation.json", recommendation.to_json())
    trial = named_trial(results, recommendation) if recommendation.named else None
    if trial is not None:
        score_test(trial)
    curve = rows_of(results, recommendation)
    plots.save(plots.depth_curve(curve, recommendation.named), out / "depth_curve")
    probes, correlations = compare_probes(out, results)
    write_page(out, results, epochs, recommendation, probes, correlations)
    if probes is not None:
        figure = probe_curves(probes, results, correlations)
        plots.save(figure, out / "probe_curves")
        show(f"{probe_finding(correlations)}.")
    for warning in recommendation.warnings:
        show(f"warning: {warning}", style="yellow")
    for sentence in recommendation.explanation:
        show(sentence)
    show(recommendation.sentence, style="bold")
    score = read_json(out / "test.json")
    if score is not None:
        show(score_sentence(score, trial), style="bold")


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


def _number(row, column: str) -> str:
    value = getattr(row, column)
    if value != value:  # fewer epochs than were trained: not measured there
        return "-"
    return percent(value, 2) if column.endswith("accuracy") else f"{value:.4f}"
