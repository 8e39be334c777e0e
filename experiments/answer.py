"""From the tables of a sweep to its answer: table, figures, report, sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ftjax.analysis import plots
from ftjax.analysis.gradcam_section import read_heat_maps
from ftjax.analysis.probe_plots import probe_curves, probe_finding
from ftjax.analysis.recommend import Recommendation, recommend
from ftjax.analysis.report import write_report
from ftjax.analysis.search import Decision, next_depths
from ftjax.analysis.wording import percent
from ftjax.backbones import Backbone, make_backbone
from ftjax.depth import AUTO, block_depths
from ftjax.probes import RankCorrelation, rank_correlation
from ftjax.records import read_json, write_json
from ftjax.results import read_correct, read_probes

NUMBERS = {
    "Accuracy": "accuracy",
    "Loss": "loss",
    "Val-accuracy": "val_accuracy",
    "Val-loss": "val_loss",
    "Train-mode accuracy": "train_mode_accuracy",
}


def write_answer(
    out: Path, results: pd.DataFrame, epochs: pd.DataFrame, console: Console
) -> None:
    """Writes recommendation, figures and report, and prints table and sentence."""
    console.print(result_table(results))
    if not (results.status == "done").any():
        console.print("no trial is done, so there is no answer yet")
        return
    recommendation = recommend_run(out, results)
    write_json(out / "recommendation.json", recommendation.to_json())
    plots.save(plots.depth_curve(results, recommendation.named), out / "depth_curve")
    probes, correlations = compare_probes(out, results)
    write_page(out, results, epochs, recommendation, probes, correlations)
    if probes is not None:
        figure = probe_curves(probes, results, correlations)
        plots.save(figure, out / "probe_curves")
        console.print(f"{probe_finding(correlations)}.", highlight=False)
    for warning in recommendation.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    for sentence in recommendation.explanation:
        console.print(sentence, highlight=False)
    console.print(recommendation.sentence, style="bold", highlight=False)


def compare_probes(
    out: Path, results: pd.DataFrame
) -> tuple[pd.DataFrame | None, tuple[RankCorrelation, ...]]:
    """The run's probes, None without any, and how well they order its depths."""
    probes = read_probes(out, results.iloc[0])
    return probes, () if probes is None else rank_correlation(probes, results)


def recommend_run(
    out: Path, results: pd.DataFrame, **settings: float
) -> Recommendation:
    """The recommendation of a run, from its table and what its folder holds.

    Args:
        settings: epsilon, bootstrap and seed of `recommend`, where not its own.
    """
    saved = read_json(out / "config.json")
    backbone = make_backbone(saved["config"]["model"])
    correct = read_correct(out, results)
    search = None
    if tuple(saved["config"]["depths"]) == AUTO:
        search = decide(saved["config"], backbone, results, correct)
    return recommend(
        results,
        correct,
        search=search,
        num_classes=len(saved["class_names"]),
        batch_norm=any(unit.batch_norm_keys for unit in backbone.units),
        **settings,
    )


def decide(
    config: Mapping[str, Any],
    backbone: Backbone,
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray],
) -> Decision:
    """What `--depths auto` has found so far, and which depths to train next.

    Args:
        config: as config.json holds it.
        results: of what was trained.
        correct: as for `recommend`.
    """
    return next_depths(
        results,
        block_depths(backbone),
        seeds=config["seeds"],
        bn=config["bn"],
        correct=correct,
    )


def write_page(
    out: Path,
    results: pd.DataFrame,
    epochs: pd.DataFrame,
    recommendation: Recommendation,
    probes: pd.DataFrame | None,
    correlations: tuple[RankCorrelation, ...],
) -> None:
    """Writes report.html, with the heat maps if the run has any."""
    saved = read_json(out / "config.json")
    write_report(
        out / "report.html",
        results=results,
        epochs=epochs,
        recommendation=recommendation,
        config=saved["config"],
        environment=saved["environment"],
        command=saved["command"],
        heat_maps=read_heat_maps(out),
        probes=probes,
        correlations=correlations,
    )


def rewrite_page(out: Path) -> None:
    """Writes the report of a finished run anew, after heat maps were added to it."""
    results = pd.read_csv(out / "results.csv")
    epochs = pd.read_csv(out / "epochs.csv")
    answer = recommend_run(out, results)
    write_page(out, results, epochs, answer, *compare_probes(out, results))


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
