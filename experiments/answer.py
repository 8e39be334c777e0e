"""From the tables of a sweep to its answer: table, figures, report, sentence."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ftjax import environment
from ftjax.analysis import plots, report
from ftjax.analysis.recommend import recommend
from ftjax.config import to_json
from ftjax.records import write_json
from ftjax.results import read_correct
from ftjax.sweep import Setup

NUMBERS = {
    "Accuracy": "accuracy",
    "Loss": "loss",
    "Val-accuracy": "val_accuracy",
    "Val-loss": "val_loss",
    "Train-mode accuracy": "train_mode_accuracy",
}


def write_answer(
    setup: Setup,
    out: Path,
    results: pd.DataFrame,
    epochs: pd.DataFrame,
    command: str,
    console: Console,
) -> None:
    """Writes recommendation, figures and report, and prints table and sentence."""
    console.print(result_table(results))
    if not (results.status == "done").any():
        console.print("no trial is done, so there is no answer yet")
        return
    recommendation = recommend(
        results,
        read_correct(setup, out),
        num_classes=len(setup.dataset.class_names),
        batch_norm=any(unit.batch_norm_keys for unit in setup.network.units),
    )
    write_json(out / "recommendation.json", recommendation.to_json())
    plots.save(plots.depth_curve(results, recommendation), out / "depth_curve")
    report.write_report(
        out / "report.html",
        results=results,
        epochs=epochs,
        recommendation=recommendation,
        config=to_json(setup.config),
        environment=environment.describe(),
        command=command,
    )
    for warning in recommendation.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    for sentence in recommendation.explanation:
        console.print(sentence, highlight=False)
    console.print(recommendation.sentence, style="bold", highlight=False)


def result_table(results: pd.DataFrame) -> Table:
    """The paper's table (Philip 2025, table 3), with what it leaves out."""
    table = Table()
    for name in ("Layers Unfreeze", "Blocks", "BN", "Seed"):
        table.add_column(name, justify="right", no_wrap=name == "BN")
    for name in (*NUMBERS, "Seconds", "Frozen intact"):
        table.add_column(name, justify="right")
    for row in results.itertuples():
        cells = [str(row.depth_layers), str(row.depth_units), row.bn, str(row.seed)]
        if row.status == "done":
            cells += [f"{getattr(row, column):.4f}" for column in NUMBERS.values()]
            cells += [f"{row.seconds:.1f}", "yes" if row.frozen_intact else "NO"]
        else:
            cells += [row.status]
        table.add_row(*cells)
    return table
