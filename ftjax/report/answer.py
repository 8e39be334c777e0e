"""From the tables of a run to its recommendation and its page."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.metrics import last_logits
from ftjax.analysis.rank_correlation import RankCorrelation, rank_correlation
from ftjax.analysis.recommend import Recommendation, recommend
from ftjax.analysis.rows import last_rows
from ftjax.analysis.surface import surface_sentences
from ftjax.analysis.variance import axis_effects
from ftjax.backbones import make_backbone
from ftjax.depth import AUTO
from ftjax.machine.files import read_json, write_sealed
from ftjax.report import depth_plot as plots
from ftjax.report import drawing
from ftjax.report.final_score import named_trial, score_sentence
from ftjax.report.page import write_report
from ftjax.report.probe_plots import probe_curves, probe_finding
from ftjax.report.sections import Report
from ftjax.report.tables import Table, class_tables
from ftjax.sweep import records
from ftjax.sweep.allowance import read_report
from ftjax.sweep.results import count_versions, read_correct, read_probes
from ftjax.sweep.strategies import decide


class Answer(NamedTuple):
    """What the tables of a run say.

    Attributes:
        best: the recommendation.
        probes: how well the probes ordered the depths, '' without probes.
        score: what the test images say, '' without any.
    """

    best: Recommendation
    probes: str
    score: str


def write_files(
    out: Path,
    results: pd.DataFrame,
    epochs: pd.DataFrame,
    score_test: Callable[[str], object] = lambda trial: None,
) -> Answer | None:
    """From the tables of a run to recommendation.json, figures and report.

    Args:
        out: the run's folder.
        results: as in results.csv.
        epochs: as in epochs.csv.
        score_test: scores the test images by the trial that is named, once.

    Returns:
        The answer; None, and no file, as long as no trial is done.
    """
    if not (results.status == "done").any():
        return None
    best = recommend_run(out, results)
    trial = named_trial(results, best) if best.named else None
    if trial is not None:
        score_test(trial)
    probes, correlations = write_recommendation(out, results, epochs, best)
    finding = ""
    if probes is not None:
        figure = probe_curves(probes, results, correlations)
        plots.save(figure, out / "probe_curves")
        finding = f"{probe_finding(correlations)}."
    score = read_json(out / "test.json")
    said = "" if score is None else score_sentence(score, trial)
    return Answer(best, finding, said)


def write_recommendation(
    out: Path, results: pd.DataFrame, epochs: pd.DataFrame, best: Recommendation
) -> tuple[pd.DataFrame | None, tuple[RankCorrelation, ...]]:
    """Writes recommendation, depth curve and page; returns the probes, as compared.

    Args:
        out: the run's folder.
        results: as in results.csv.
        epochs: as in epochs.csv.
        best: the recommendation of them.
    """
    write_sealed(out / "recommendation.json", best.to_json())
    curve = drawing.rows_of(results, best)
    plots.save(plots.depth_curve(curve, best.named), out / "depth_curve")
    probes, correlations = compare_probes(out, results)
    write_page(out, results, epochs, best, probes, correlations)
    return probes, correlations


def compare_probes(
    out: Path, results: pd.DataFrame
) -> tuple[pd.DataFrame | None, tuple[RankCorrelation, ...]]:
    """The run's probes, None without any, and how well they order its depths."""
    largest = results["train_size"].to_numpy().argmax()  # the probes are of all images
    probes = read_probes(out, results.iloc[largest])
    return probes, () if probes is None else rank_correlation(probes, results)


def recommend_run(out: Path, results: pd.DataFrame, **settings: Any) -> Recommendation:
    """The recommendation of a run, from its table and what its folder holds.

    Its warnings begin with those about the images, which config.json keeps.

    Args:
        out: folder of the run.
        results: rows of its results.csv.
        **settings: epsilon, bootstrap, seed and metric of `recommend`, where not its
            own.
    """
    saved = read_json(out / "config.json")
    backbone = make_backbone(saved["config"]["model"])
    settings = {"metric": saved["config"].get("metric"), **settings}
    read = partial(read_correct, out)
    correct = read(results)
    search = None
    if tuple(saved["config"]["depths"]) == AUTO:
        search = decide(saved["config"], backbone, results, correct)
    answer = recommend(
        results,
        correct,
        search=search,
        num_classes=len(saved["class_names"]),
        batch_norm=any(unit.batch_norm_keys for unit in backbone.units),
        epochs=read_epochs(out),
        labels=records.read_labels(out),
        **read_logits_if_needed(out, results, settings.get("metric")),
        **settings,
    )
    effects = axis_effects(results)
    most = (effects.sentence,) if effects and effects.sentence else ()
    about_images = tuple(saved.get("data_warnings", ()))
    made = count_versions(out, results)
    several = ()
    if len(made) > 1:
        counts = "; ".join(f"{n} by {name}" for name, n in made.most_common())
        several = (
            f"The trials are of {len(made)} versions or devices, which may round "
            f"differently: {counts}.",
        )
    left_out = read_report(out) or {}
    moves = () if answer.shape == "chance" else surface_sentences(results, read)
    return replace(
        answer,
        explanation=(*answer.explanation, *moves, *most),
        warnings=(*about_images, *several, *answer.warnings),
        left_out=left_out,
        effects=effects,
    )


def read_epochs(out: Path) -> pd.DataFrame | None:
    """A run's epochs.csv, or None."""
    path = out / "epochs.csv"
    return pd.read_csv(path) if path.is_file() else None


def read_logits(out: Path, results: pd.DataFrame) -> dict[str, np.ndarray]:
    """Per trial, the logits (n_val, classes) of the validation images.

    From trials/<id>/val_logits.npz, array `logits`: (n_val, classes), or (epochs,
    n_val, classes), of which the last epoch that the row has is taken.
    """
    found = {}
    for row in last_rows(results).itertuples():
        logits = records.read_logits(out, str(row.trial))
        if logits is None:
            continue
        if logits.ndim == 3:
            logits = logits[min(int(row.epochs), len(logits)) - 1]
        found[str(row.trial)] = logits
    return found


def read_logits_if_needed(
    out: Path, results: pd.DataFrame, metric: str | None
) -> dict[str, Any]:
    """The argument `logits` of `recommend`, where correctness alone is not enough."""
    if metric in (None, "accuracy", "balanced_accuracy"):
        return {}
    return {"logits": read_logits(out, results)}


def read_steps(out: Path, results: pd.DataFrame) -> dict[str, np.ndarray]:
    """By trial, loss and accuracy of every training step, (steps, 2), where kept."""
    read = {trial: records.read_steps(out, trial) for trial in set(results["trial"])}
    return {trial: steps for trial, steps in read.items() if steps is not None}


def classes_of_run(
    out: Path, results: pd.DataFrame, best: Recommendation
) -> tuple[Table, ...]:
    """The tables of classes of a run; empty where it kept no labels or logits."""
    labels, correct = records.read_labels(out), read_correct(out, results)
    rows = drawing.finished(drawing.rows_of(results, best))
    rows = rows[rows["bn"] == best.bn]
    depths = tuple(sorted(int(depth) for depth in rows["depth_layers"].unique()))
    trials = {
        depth: [str(t) for t in rows.loc[rows["depth_layers"] == depth, "trial"]]
        for depth in depths
    }
    known = [[correct[t] for t in trials[d] if t in correct] for d in depths]
    named = rows[rows["depth_layers"] == best.depth_layers].head(1)
    logits = list(read_logits(out, named).values())
    if labels is None or not logits or not all(known):
        return ()
    return class_tables(
        last_logits(logits[0]).argmax(axis=1),
        labels,
        tuple(read_json(out / "config.json")["class_names"]),
        correct=np.array([np.mean(runs, axis=0) for runs in known]),
        depths=depths,
        chosen=depths.index(best.depth_layers),
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
            steps=read_steps(out, results),
            classes=classes_of_run(out, results, recommendation),
        ),
    )


def rewrite_page(out: Path) -> None:
    """Writes the report of a finished run anew, after heat maps were added to it."""
    results = pd.read_csv(out / "results.csv")
    epochs = pd.read_csv(out / "epochs.csv")
    answer = recommend_run(out, results)
    write_page(out, results, epochs, answer, *compare_probes(out, results))
