"""From the tables of a run to its recommendation and its page."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ftjax.analysis.rank_correlation import RankCorrelation, rank_correlation
from ftjax.analysis.recommend import Recommendation, recommend
from ftjax.backbones import make_backbone
from ftjax.depth import AUTO
from ftjax.machine.files import read_json
from ftjax.report.page import write_report
from ftjax.report.sections import Report
from ftjax.sweep.results import read_correct, read_probes
from ftjax.sweep.strategies import decide


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

    Its warnings begin with those about the images, which config.json keeps.

    Args:
        settings: epsilon, bootstrap and seed of `recommend`, where not its own.
    """
    saved = read_json(out / "config.json")
    backbone = make_backbone(saved["config"]["model"])
    correct = read_correct(out, results)
    search = None
    if tuple(saved["config"]["depths"]) == AUTO:
        search = decide(saved["config"], backbone, results, correct)
    answer = recommend(
        results,
        correct,
        search=search,
        num_classes=len(saved["class_names"]),
        batch_norm=any(unit.batch_norm_keys for unit in backbone.units),
        **settings,
    )
    about_images = tuple(saved.get("data_warnings", ()))
    return replace(answer, warnings=(*about_images, *answer.warnings))


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
        Report(
            folder=out,
            results=results,
            epochs=epochs,
            best=recommendation,
            config=saved["config"],
            environment=saved["environment"],
            command=saved["command"],
            probes=probes,
            correlations=correlations,
        ),
    )


def rewrite_page(out: Path) -> None:
    """Writes the report of a finished run anew, after heat maps were added to it."""
    results = pd.read_csv(out / "results.csv")
    epochs = pd.read_csv(out / "epochs.csv")
    answer = recommend_run(out, results)
    write_page(out, results, epochs, answer, *compare_probes(out, results))
