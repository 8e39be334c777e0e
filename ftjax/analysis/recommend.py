"""Which depth to use, how sure that is, and what it costs.

Seeds are replicates, and all depths share data order, head start and validation
images, so depths are compared in pairs. Only validation images are looked at: a test
split is for the recommended depth alone, once.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.best_set import CONFIDENCE
from ftjax.analysis.compare import Comparison, compare_cells
from ftjax.analysis.conditions import condition_words, conditions_of, leading_caveats
from ftjax.analysis.curves import (
    VALUE,
    DepthCurve,
    clean_results,
    hold_ended,
    stopped_depths,
)
from ftjax.analysis.decision import Decision
from ftjax.analysis.explain import explain
from ftjax.analysis.fits import QuadraticFit, fit_quadratic
from ftjax.analysis.metrics import (
    accuracy_scores,
    baseline,
    check_metric,
    default_metric,
    image_scores,
    last_logits,
)
from ftjax.analysis.recommendation import Recommendation
from ftjax.analysis.selection import (
    curve_shape,
    full_difference,
    other_curves,
    pareto_depths,
)
from ftjax.analysis.tuning import tuned_conditions
from ftjax.analysis.wording import points, recommendation_parts


def _column_value(table: pd.DataFrame, column: str) -> float | None:
    if column not in table or bool(table[column].isna().all()):
        return None
    return float(pd.to_numeric(table[column]).max())


RANDOM_WEIGHTS = (
    "The weights are random: this curve says nothing about transfer from pretrained "
    "weights."
)


def _metric_scores(
    table: pd.DataFrame,
    metric: str | None,
    correct: Mapping[str, np.ndarray] | None,
    labels: np.ndarray | None,
    logits: Mapping[str, np.ndarray] | None,
) -> tuple[str, Mapping[str, np.ndarray] | None, pd.DataFrame, list[str]]:
    """The metric to compare, what each image adds to it, the table with its values.

    Raises:
        ValueError: the metric needs what the table does not have.
    """
    notes = []
    correct = correct or {}
    chosen = metric
    if chosen is None:
        chosen = default_metric(labels) if correct or logits else "accuracy"
        if chosen != "accuracy":
            notes.append(
                "The validation classes are uneven: balanced accuracy (the mean over "
                "the classes) is compared instead of accuracy."
            )
    check_metric(chosen)
    if chosen == "accuracy":
        return chosen, correct or None, table, notes
    if labels is None or "trial" not in table:
        raise ValueError(
            f"metric {chosen} needs the labels of the validation images "
            "(val_labels.npy) and the trial of each row"
        )
    scores = {}
    for trial in table["trial"].astype(str).unique():
        if logits and trial in logits:
            scores[trial] = image_scores(last_logits(logits[trial]), labels, chosen)
        elif trial in correct:
            scores[trial] = accuracy_scores(correct[trial], labels, chosen)
        else:
            raise ValueError(
                f"metric {chosen} needs per-image results of every trial; trial "
                f"{trial} has none"
            )
    values = [float(scores[trial].mean()) for trial in table["trial"].astype(str)]
    return chosen, scores, table.assign(**{VALUE: values}), notes


def _chance(
    table: pd.DataFrame,
    metric: str,
    labels: np.ndarray | None,
    num_classes: int | None,
) -> float | None:
    """The metric of always answering the majority class, where it is known."""
    if labels is not None:
        value = baseline(labels, metric)
        return -value if metric == "log_loss" else value
    classes = num_classes or _column_value(table, "num_classes")
    if (
        classes is None
        or classes < 2
        or metric not in ("accuracy", "balanced_accuracy")
    ):
        return None
    return 1 / classes


def _at_chance(
    means: np.ndarray, found: Comparison, chance: float | None, size: float | None
) -> np.ndarray:
    """Which depths (d,) cannot be told from guessing: two standard errors over it."""
    if chance is None:
        return np.zeros(len(means), dtype=bool)
    margin = 0.02
    if size:
        share = min(max(chance, 0.0), 1.0)
        margin = 2 * math.sqrt(share * (1 - share) / size)
    own = np.sqrt(np.diag(found.evidence.images)[found.places[found.chosen]])
    return means <= chance + np.maximum(margin, 2 * own if size is None else margin)


def _evidence_warnings(
    table: pd.DataFrame,
    found: Comparison,
    at_chance: np.ndarray,
    stopped: tuple[int, ...],
) -> list[str]:
    """What the table does not tell about the chosen curve."""
    warnings = []
    evidence = found.evidence
    if len(at_chance) == 1:
        tested = "trained to the end" if stopped else "tested"
        warnings.append(f"Only one depth was {tested}: there is nothing to compare.")
    elif not evidence.replicated:
        low, high = evidence.runs.spread.min(), evidence.runs.spread.max()
        known = {
            "images": "the set of depths is paired over validation images",
            "binomial": "the set of depths knows the number of validation images",
        }.get(evidence.source, "nothing is known about the validation images")
        warnings.append(
            f"One run per depth: {known}, and run-to-run noise is assumed ("
            f"{points(low)} to {points(high)} points), not measured; two or more seeds "
            "measure it."
        )
    if "weights" in table and "random" in set(table["weights"].astype(str)):
        warnings.append(RANDOM_WEIGHTS)
    if at_chance.all():
        warnings.append(
            "Every depth is at chance level: nothing was learned; check labels, "
            "learning rate and preprocessing."
        )
    elif at_chance.any():
        count = int(at_chance.sum())
        warnings.append(f"{count} of {len(at_chance)} depths are at chance level.")
    return warnings


def _quadratics(
    curves: list[DepthCurve], setting: Mapping[str, Any], total_layers: int
) -> dict[str, QuadraticFit | None]:
    fits: dict[str, QuadraticFit | None] = {}
    for curve in (c for c in curves if c.setting == setting):
        fits[curve.bn] = None
        if len(curve.depths) >= 3:
            which, seeds = np.nonzero(np.isfinite(curve.values))
            fits[curve.bn] = fit_quadratic(
                curve.depths[which],
                curve.values[which, seeds],
                total_layers=total_layers,
            )
    return fits


def _check_epsilon(
    epsilon: float | None, found: Comparison, size: float | None
) -> None:
    """Raises ValueError where an epsilon is smaller than what the table can tell."""
    if epsilon is None:
        return
    if size and epsilon < 1 / size:
        raise ValueError(
            f"epsilon {points(epsilon)} points is less than one of {size:.0f} "
            f"validation images ({points(1 / size)} points): no table of them can tell "
            "that; give more, or leave epsilon out"
        )
    errors = found.evidence.stderr[found.cell][found.places[found.chosen]]
    errors = errors[errors > 0]
    if len(errors) and epsilon < errors.min():
        raise ValueError(
            f"epsilon {points(epsilon)} points is less than one standard error of the "
            f"smallest difference to the best depth ({100 * errors.min():.2f} points): "
            "it cannot be told; give more, add seeds, or leave epsilon out"
        )


def recommend(
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray] | None = None,
    *,
    epsilon: float | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    search: Decision | None = None,
    num_classes: int | None = None,
    batch_norm: bool | None = None,
    epochs: pd.DataFrame | None = None,
    labels: np.ndarray | None = None,
    logits: Mapping[str, np.ndarray] | None = None,
    metric: str | None = None,
) -> Recommendation:
    """Recommend a depth from a table of trials.

    BatchNorm policies, and settings of which the table holds several values, are
    separate curves; the one with the highest mean is recommended from. What is said to
    be worse than the best is so in 95 % of the draws of all that is not known: the
    sampling of the validation images, paired, and the noise between runs.

    Args:
        results: one row per (depth, bn, seed) with at least `depth_layers` and
            `val_accuracy` (0..1). `accuracy`, `train_mode_accuracy`, `seconds`,
            `flops`, `trainable_params`, `total_layers`, `depth_units`, ... are used
            where present.
        correct: trial -> (n_val,) bool: which validation images it got right.
        epsilon: accuracy (0..1) that does not matter in practice: depths leave the set
            only if they are worse by more than that.
        bootstrap: number of draws.
        seed: of the draws.
        search: that chose the depths, if one did: depth, policy and interval are those
            that it believes, not those of its highest measurement.
        num_classes: to recognize chance level; the table's own column otherwise.
        batch_norm: whether the network has BatchNorm, for the wording; without it,
            whether the table has a `bn` column.
        epochs: rows of epochs.csv, to say what was not trained to the end.
        labels: (n_val,) classes of the validation images.
        logits: trial -> (n_val, classes) or (epochs, n_val, classes).
        metric: of `metrics.METRICS`. Default: balanced accuracy where the labels are
            known and uneven, else accuracy.

    Raises:
        ValueError: missing columns, accuracies that are no fractions, rows that do not
            belong together, no finished trial, or an epsilon that cannot be told.
    """
    if epsilon is not None and not 0 < epsilon < 1:
        raise ValueError(f"epsilon must be an accuracy in (0, 1), got {epsilon}")
    if bootstrap < 100:
        raise ValueError(f"bootstrap needs at least 100 draws, got {bootstrap}")
    table, notes = clean_results(results)
    warnings = list(notes)
    metric, scores, table, more = _metric_scores(table, metric, correct, labels, logits)
    warnings.extend(more)
    size = _column_value(table, "val_size")
    if labels is not None:
        size = float(len(labels))
    early = {bn: stopped_depths(results, bn) for bn in set(table["bn"])}
    found = compare_cells(
        table,
        scores,
        stopped=early,
        searched=None if search is None else search.best,
        margin=epsilon or 0.0,
        val_size=size,
        draws=bootstrap,
        seed=seed,
    )
    warnings.extend(found.notes)
    if found.curve.scores is not None:
        size = float(found.curve.scores.shape[1])
    _check_epsilon(epsilon, found, size)
    curve, places, evidence = found.curve, found.places[found.chosen], found.evidence
    stopped = early[curve.bn]
    best, depths = found.best, curve.depths
    means, inside = evidence.means[places], found.inside[places]
    scope = "among the depths trained to the end" if stopped else ""
    span, source = (depths[inside][0], depths[inside][-1]), evidence.source
    if search is not None and search.interval is not None:
        span, source = search.interval, "search"
        inside = (depths >= span[0]) & (depths <= span[1])
        scope = "every depth, by the search's model of the curve"
    depth = int(depths[best])
    total = int(_column_value(table, "total_layers") or depths[-1])
    units = _column_value(curve.table.loc[[depth]], "depth_units")
    total_units = _column_value(table, "total_units")
    chance = _chance(table, metric, labels, num_classes)
    at_chance = _at_chance(means, found, chance, size)
    warnings.extend(_evidence_warnings(table, found, at_chance, stopped))
    shape = curve_shape(depths, best, inside, evidence.replicated, stopped)
    if at_chance.all():
        shape = "chance"
    speak_of_bn = "bn" in results if batch_norm is None else batch_norm
    rows = found.rows
    why = explain(rows, batch_norm=speak_of_bn)
    conditions = conditions_of(rows[rows["bn"] == curve.bn])
    named = rows[(rows["bn"] == curve.bn) & (rows["depth_layers"] == depth)]
    tuned = tuned_conditions(results, named) if len(named) else {}
    conditions |= {"tuned": tuned} if tuned else {}
    conditions |= {"batch_norm": False} if batch_norm is False else {}
    elsewhere = {} if search is not None else found.elsewhere
    contenders = [(int(L), curve.bn) for L in depths[inside]]
    own = curve.table.loc[depth]
    accuracy = float(own["val_accuracy"])
    caveats: tuple[str, ...] = ()
    if shape != "chance":
        caveats = leading_caveats(
            epochs=_epochs_of(epochs, results, rows),
            bn=curve.bn,
            contenders=contenders,
            val_size=size,
            training=float(own["accuracy"]) if "accuracy" in own else None,
            validation=accuracy,
            chance=_chance(table, "accuracy", labels, num_classes),
        )
    counts = evidence.counts[places][inside]
    spread = evidence.runs.spread[places]
    corrected = found.corrected
    fields = dict(
        depth_layers=depth,
        depth_units=None if units is None else int(units),
        total_layers=total,
        total_units=None if total_units is None else int(total_units),
        depth_percent=100 * depth / total if total else 0.0,
        bn=curve.bn,
        setting=dict(curve.setting),
        metric=metric,
        val_accuracy=float(means[best]),
        baseline=chance,
        expected=None if corrected is None else corrected.value,
        expected_interval=None if corrected is None else corrected[1:],
        interval_layers=None if len(depths) == 1 else (int(span[0]), int(span[1])),
        interval_source=source,
        noise_source=evidence.source,
        confidence=CONFIDENCE if evidence.replicated else None,
        scope=scope,
        seeds=(int(counts.min()), int(counts.max())),
        run_spread=(float(spread[0]), float(spread[-1])),
        tested=tuple(int(L) for L in depths),
        not_worse=tuple(int(L) for L in depths[inside]),
        smallest=int(depths[inside][0]),
        elsewhere=elsewhere,
        pareto=pareto_depths(curve, means),
        interior_optimum=shape == "interior",
        shape=shape,
        full=full_difference(curve, evidence, places, best),
        losses=found.losses,
        policies=other_curves(
            found.curves, evidence, found.places, found.chosen, found.cell
        ),
        stopped=stopped,
        quadratic=_quadratics(found.curves, curve.setting, total),
        epsilon=epsilon,
        conditions=conditions,
        caveats=caveats,
    )
    parts = recommendation_parts(
        fields, conditions=condition_words(conditions), batch_norm=speak_of_bn
    )
    return Recommendation(
        **fields,
        parts=parts,
        sentence=" ".join((*caveats, *parts)),
        explanation=() if shape == "chance" else why.sentences,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _epochs_of(
    epochs: pd.DataFrame | None, results: pd.DataFrame, rows: pd.DataFrame
) -> pd.DataFrame | None:
    """The epochs of the trials that are compared, None where they are not known."""
    needed = {"depth_layers", "bn", "epoch", "val_accuracy"}
    if epochs is None or not needed <= set(epochs.columns):
        return None
    if "trial" not in epochs or "trial" not in rows:
        return epochs
    epochs = hold_ended(epochs, results)
    return epochs[epochs["trial"].isin(rows["trial"])]
