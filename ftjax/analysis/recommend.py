"""Which depth to use, how sure that is, and what it costs.

Seeds are replicates, and all depths share data order, head start and validation
images, so depths are compared in pairs. Only validation accuracy is looked at: a
test split is for the recommended depth alone, once.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.bootstrap import (
    CurveBootstrap,
    best_depth_interval,
    bootstrap_curve,
)
from ftjax.analysis.curves import DepthCurve, clean_results, depth_curve, stopped_depths
from ftjax.analysis.decision import Decision
from ftjax.analysis.explain import explain
from ftjax.analysis.fits import QuadraticFit, fit_quadratic
from ftjax.analysis.selection import (
    choose_curve,
    choose_searched,
    curve_shape,
    full_difference,
    pareto_depths,
    smallest_within_one_stderr,
)
from ftjax.analysis.wording import recommendation_sentence
from ftjax.batch_norm import POLICIES


@dataclass(frozen=True)
class Recommendation:
    """The recommended depth with its uncertainty, costs and reasons.

    depth_layers, depth_units, depth_percent: how much to unfreeze, of total_layers /
    total_units (None where the table does not say). bn: BatchNorm policy of the best
    curve. val_accuracy: its mean there (0..1).
    interval_layers: 95 % bootstrap interval of the best depth among those tested, None
    without replicates, images or val_size; after a search its own, of the best of
    all depths. interval_source: what was resampled, or 'search'.
    not_worse: depths whose mean is at most epsilon below the best, the best included.
    smallest_within_one_se: smallest depth at most one paired standard error below the
    best (Breiman et al. 1984, the one-standard-error rule).
    pareto: depths that no other beats in accuracy and in every known cost.
    interior_optimum: both ends are worse than the best by more than epsilon and the
    interval excludes them. shape: of `selection.curve_shape`, or 'chance'.
    full: accuracy difference of the deepest tested depth to the best, its paired
    standard error (points of 0..1) and its time as a multiple of the best's.
    quadratic: parabola by policy, None with fewer than three depths.
    stopped: depths of this policy that a search stopped early; nothing is said of them.
    sentence, explanation, warnings: plain words.
    """

    depth_layers: int
    depth_units: int | None
    total_layers: int
    total_units: int | None
    depth_percent: float
    bn: str
    val_accuracy: float
    interval_layers: tuple[int, int] | None
    not_worse: tuple[int, ...]
    smallest_within_one_se: int
    pareto: tuple[int, ...]
    interior_optimum: bool
    quadratic: dict[str, QuadraticFit | None]
    sentence: str
    explanation: tuple[str, ...]
    warnings: tuple[str, ...]
    epsilon: float = 0.005
    interval_source: str = "none"
    shape: str = "unproven"
    full: dict[str, float] = field(default_factory=dict)
    stopped: tuple[int, ...] = ()

    @property
    def named(self) -> "Recommendation | None":
        """What images mark: itself, or None if no depth can be recommended."""
        return None if self.shape == "chance" else self

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump: lists for arrays, None for nan and infinity."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _column_value(table: pd.DataFrame, column: str) -> float | None:
    if column not in table or bool(table[column].isna().all()):
        return None
    return float(pd.to_numeric(table[column]).max())


_EVIDENCE = {
    "none": "No seeds, no per-image results and no val_size: the best depth has no "
    "interval; repeat with two or more seeds.",
    "binomial": "One run per depth: the interval knows the validation set's sampling "
    "error only, not run-to-run noise; repeat with two or more seeds.",
    "images": "One seed: the interval is paired over validation images and does "
    "not hold all run-to-run noise.",
}


RANDOM_WEIGHTS = (
    "The weights are random: this curve says nothing about transfer from pretrained "
    "weights."
)


def _at_chance(
    table: pd.DataFrame, means: np.ndarray, num_classes: int | None
) -> np.ndarray:
    """Which depths (d,) cannot be told from guessing: 1/C plus two standard errors."""
    classes = num_classes or _column_value(table, "num_classes")
    if classes is None or classes < 2:
        return np.zeros(len(means), dtype=bool)
    chance = 1 / classes
    size = _column_value(table, "val_size")
    margin = 2 * math.sqrt(chance * (1 - chance) / size) if size else 0.02
    return means <= chance + margin


def _evidence_warnings(
    table: pd.DataFrame,
    draw: CurveBootstrap,
    at_chance: np.ndarray,
    stopped: tuple[int, ...],
) -> list[str]:
    """What the table does not tell about the chosen curve."""
    warnings = []
    if len(draw.means) == 1:
        tested = "trained to the end" if stopped else "tested"
        warnings.append(f"Only one depth was {tested}: there is nothing to compare.")
    elif draw.named is None and draw.source in _EVIDENCE:
        warnings.append(_EVIDENCE[draw.source])
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
    curves: list[DepthCurve], total_layers: int
) -> dict[str, QuadraticFit | None]:
    fits: dict[str, QuadraticFit | None] = {}
    for curve in curves:
        fits[curve.bn] = None
        if len(curve.depths) >= 3:
            which, seeds = np.nonzero(np.isfinite(curve.values))
            fits[curve.bn] = fit_quadratic(
                curve.depths[which],
                curve.values[which, seeds],
                total_layers=total_layers,
            )
    return fits


def _all_curves(
    table: pd.DataFrame,
    correct: Mapping[str, np.ndarray] | None,
    count: int,
    seed: int,
) -> tuple[list[DepthCurve], list[CurveBootstrap], list[str]]:
    """Every policy's curve with `count` draws of its noise, and what is missing."""
    warnings: list[str] = []
    curves, draws = [], []
    for bn in (p for p in POLICIES if p in set(table["bn"])):
        curve, more = depth_curve(table, bn, correct)
        warnings.extend(note for note in more if note not in warnings)
        curves.append(curve)
        draws.append(
            bootstrap_curve(
                curve.values,
                correct=curve.correct,
                val_size=_column_value(table, "val_size"),
                draws=count,
                seed=seed,
            )
        )
    return curves, draws, warnings


def recommend(
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray] | None = None,
    *,
    epsilon: float = 0.005,
    bootstrap: int = 2000,
    seed: int = 0,
    search: Decision | None = None,
    num_classes: int | None = None,
    batch_norm: bool | None = None,
) -> Recommendation:
    """Recommend a depth from a table of trials.

    BatchNorm policies are separate curves; the one with the highest mean validation
    accuracy is recommended from. The interval of the best depth resamples seeds and,
    where `correct` is given, validation images; with neither, the binomial error of
    `val_size` images.

    Args:
        results: one row per (depth, bn, seed) with at least `depth_layers` and
            `val_accuracy` (0..1). `accuracy`, `train_mode_accuracy`, `seconds`,
            `flops`, `trainable_params`, `total_layers`, `depth_units`, ... are used
            where present.
        correct: trial -> (n_val,) bool: which validation images it got right.
        epsilon: accuracy (0..1) that does not matter in practice.
        bootstrap: number of draws. seed: of the draws.
        search: that chose the depths, if one did: depth, policy and interval are those
            that it believes, not those of its highest measurement.
        num_classes: to recognize chance level; the table's own column otherwise.
        batch_norm: whether the network has BatchNorm, for the wording; without it,
            whether the table has a `bn` column.

    Raises:
        ValueError: missing columns, accuracies that are no fractions, two studies in
            one table, or no finished trial.
    """
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be an accuracy in [0, 1), got {epsilon}")
    if bootstrap < 100:
        raise ValueError(f"bootstrap needs at least 100 draws, got {bootstrap}")
    table, notes = clean_results(results)
    warnings = list(notes)
    curves, draws, more = _all_curves(table, correct, bootstrap, seed)
    warnings.extend(more)
    early = [stopped_depths(results, curve.bn) for curve in curves]
    if search is None or search.best is None:
        chosen, note = choose_curve(curves, draws, [len(depths) for depths in early])
        warnings.extend(note)
        curve, draw = curves[chosen], draws[chosen]
        interval, source = best_depth_interval(curve.depths, draw), draw.source
    else:
        chosen, named = choose_searched(curves, search.best)
        curve, draw = curves[chosen], draws[chosen]._replace(named=named)
        interval, source = search.interval, "search"
    if len(curve.depths) == 1:
        interval = None
    best = draw.best
    depth = int(curve.depths[best])
    total = int(_column_value(table, "total_layers") or curve.depths[-1])
    units = _column_value(curve.table.loc[[depth]], "depth_units")
    total_units = _column_value(table, "total_units")
    at_chance = _at_chance(table, draw.means, num_classes)
    warnings.extend(_evidence_warnings(table, draw, at_chance, early[chosen]))
    shape = curve_shape(curve, draw, interval, epsilon, early[chosen])
    if at_chance.all():
        shape = "chance"
    gaps = draw.means[best] - draw.means
    others = {c.bn: float(d.means.max()) for c, d in zip(curves, draws, strict=True)}
    speak_of_bn = "bn" in results if batch_norm is None else batch_norm
    why = explain(table, batch_norm=speak_of_bn)
    fields = dict(
        depth_layers=depth,
        depth_units=None if units is None else int(units),
        total_layers=total,
        total_units=None if total_units is None else int(total_units),
        depth_percent=100 * depth / total if total else 0.0,
        bn=curve.bn,
        val_accuracy=float(draw.means[best]),
        interval_layers=interval,
        interval_source=source,
        not_worse=tuple(int(L) for L in curve.depths[gaps <= epsilon + 1e-12]),
        smallest_within_one_se=smallest_within_one_stderr(curve, draw),
        pareto=pareto_depths(curve, draw.means),
        interior_optimum=shape == "interior",
        shape=shape,
        full=full_difference(curve, draw),
        stopped=early[chosen],
        quadratic=_quadratics(curves, total),
        epsilon=epsilon,
    )
    return Recommendation(
        **fields,
        sentence=recommendation_sentence(
            fields, policies=others, batch_norm=speak_of_bn
        ),
        explanation=() if shape == "chance" else why.sentences,
        warnings=tuple(warnings),
    )
