"""Why a depth curve falls: BatchNorm statistics, overfitting or optimization.

Unfreezing the top L layers in the manner of Keras also switches their BatchNorms to
batch statistics in training, while evaluation uses running averages that may lag
behind (momentum 0.99 keeps 12 % of the starting statistics after 215 steps). Three
numbers of each trial tell the causes apart:

    BatchNorm gap       training-mode minus evaluation-mode accuracy, training images
    generalization gap  training minus validation accuracy, both in evaluation mode
    optimization        training-mode accuracy itself falls with depth

Trials with `bn` = 'recalibrate' (the same trial, statistics re-estimated after it)
and 'frozen' (inference mode throughout) turn the diagnosis into a measurement.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.causes import (
    MIN_FALL,
    MIN_GAP,
    claims_overfitting,
    describe_causes,
    describe_remedy,
)
from ftjax.analysis.curves import clean_results
from ftjax.analysis.wording import percent, points
from ftjax.batch_norm import FOLLOW, FROZEN, POLICIES, RECALIBRATE


class Decomposition(NamedTuple):
    """A fall of the follow curve split into three causes that add up to it.

    fall = statistics + overfitting + optimization, accuracies 0..1.

    Attributes:
        best_depth: unfrozen layers where validation accuracy is highest.
        depth: unfrozen layers to which it falls.
        fall: of validation accuracy between the two.
        statistics: what re-estimating the running statistics gives back.
        overfitting: growth of the train-validation gap under re-estimated statistics,
            nan where training accuracy is missing.
        optimization: loss of training accuracy under them, nan where it is missing.
        recalibrated: validation accuracy at `depth` with re-estimated statistics.
    """

    best_depth: int
    depth: int
    fall: float
    statistics: float
    overfitting: float
    optimization: float
    recalibrated: float


class Explanation(NamedTuple):
    """What the table says about causes.

    Attributes:
        depths: one row per (bn, depth_layers) with bn_gap, generalization_gap and
            optimization_drop, nan where the evidence is absent.
        decomposition: None without matched recalibrated trials or without a fall.
        sentences: plain words.
    """

    depths: pd.DataFrame
    decomposition: Decomposition | None
    sentences: tuple[str, ...]


def diagnose_depths(results: pd.DataFrame) -> pd.DataFrame:
    """Gaps of every depth, averaged over seeds.

    bn_gap = train_mode_accuracy - accuracy; generalization_gap = accuracy -
    val_accuracy; optimization_drop = best training-mode accuracy at smaller or equal
    depth minus this depth's. The training-mode accuracy is a running mean over the
    last epoch, so bn_gap errs on the small side.

    Args:
        results: columns bn, depth_layers, val_accuracy; accuracy, train_mode_accuracy
            and depth_units where present.

    Returns:
        Table indexed by (bn, depth_layers), sorted.
    """
    columns = ("accuracy", "val_accuracy", "train_mode_accuracy", "depth_units")
    table = results[["bn", "depth_layers"]].copy()
    for column in columns:
        known = column in results
        table[column] = pd.to_numeric(results[column]) if known else np.nan
    means = table.groupby(["bn", "depth_layers"]).mean().sort_index()
    means["bn_gap"] = means["train_mode_accuracy"] - means["accuracy"]
    means["generalization_gap"] = means["accuracy"] - means["val_accuracy"]
    highest = means.groupby(level="bn")["train_mode_accuracy"].cummax()
    means["optimization_drop"] = highest - means["train_mode_accuracy"]
    return means


def decompose_fall(
    depths: pd.DataFrame, *, min_fall: float = MIN_FALL
) -> Decomposition | None:
    """Split the fall of the follow curve with the matched recalibrated trials.

    With V validation and A training accuracy in evaluation mode, f follow and r
    recalibrated (at the best depth r is f where it was not run), best depth d and
    deeper depth D:

        V_f(d) - V_f(D) = [(V_r(D) - V_f(D)) - (V_r(d) - V_f(d))]       statistics
                        + [A_r(d) - A_r(D)]                             optimization
                        + [(A_r(D) - V_r(D)) - (A_r(d) - V_r(d))]       overfitting

    Args:
        depths: of `diagnose_depths`.
        min_fall: smallest fall (0..1) that is split.

    Returns:
        None without a fall or without a recalibrated trial deeper than the best.
    """
    policies = depths.index.get_level_values("bn")
    if not {FOLLOW.name, RECALIBRATE.name} <= set(policies):
        return None
    follow, again = depths.loc[FOLLOW.name], depths.loc[RECALIBRATE.name]
    best = follow["val_accuracy"].idxmax()
    matched = [L for L in again.index if L > best and L in follow.index]
    if not matched:
        return None
    deep = max(matched)
    fall = float(follow["val_accuracy"][best] - follow["val_accuracy"][deep])
    if fall < min_fall:
        return None
    start = again.loc[best] if best in again.index else follow.loc[best]
    end = again.loc[deep]
    optimization = float(start["accuracy"] - end["accuracy"])
    remaining = float(start["val_accuracy"] - end["val_accuracy"])
    return Decomposition(
        best_depth=int(best),
        depth=int(deep),
        fall=fall,
        statistics=fall - remaining,
        overfitting=remaining - optimization,
        optimization=optimization,
        recalibrated=float(end["val_accuracy"]),
    )


class _Scale(NamedTuple):
    """How this table names a depth."""

    total_layers: float
    total_units: float

    def name(self, depth: int, row: Mapping[str, float]) -> str:
        if np.isfinite(self.total_units) and np.isfinite(row["depth_units"]):
            return f"{row['depth_units']:.0f} of {self.total_units:.0f} blocks"
        return f"{depth} unfrozen layers"

    def deepest(self, depth: int, row: Mapping[str, float]) -> str:
        if depth == self.total_layers:
            return "full depth"
        return self.name(depth, row)


def _opening(bn: str) -> str:
    phrase = POLICIES[bn].phrase
    return phrase[0].upper() + phrase[1:]


def _curve_sentence(
    depths: pd.DataFrame,
    bn: str,
    scale: _Scale,
    min_fall: float,
    min_gap: float,
    batch_norm: bool,
) -> str | None:
    """Describe the fall of one policy's curve from its best to its deepest depth."""
    curve, policy = depths.loc[bn], POLICIES[bn]
    best, deep = curve["val_accuracy"].idxmax(), curve.index.max()
    start, end = curve.loc[best].to_dict(), curve.loc[deep].to_dict()
    fall = float(start["val_accuracy"] - end["val_accuracy"])
    if fall >= min_fall:
        name = f"{_opening(bn)} the curve" if batch_norm else "The curve"
        text = (
            f"{name} peaks at {scale.name(best, start)} and falls by "
            f"{100 * fall:.0f} points at {scale.deepest(deep, end)}"
        )
        matched = depths.xs(deep, level="depth_layers")["val_accuracy"].to_dict()
        own = matched.pop(bn)
        if not batch_norm:
            matched = {FROZEN.name: own}
        elif not policy.trains_on_batch_statistics:
            matched[FROZEN.name] = own
        causes = describe_causes(
            start, end, matched, policy.may_lag and batch_norm, min_gap
        )
        if policy.may_lag:
            causes += describe_remedy(
                depths, deep, float(start["val_accuracy"]), min_fall
            )
        return f"{text}{causes}."
    widest = curve["bn_gap"].fillna(-np.inf).idxmax()
    if batch_norm and policy.may_lag and float(curve["bn_gap"][widest]) >= min_gap:
        row = curve.loc[widest].to_dict()
        return (
            f"{_opening(bn)}, at {scale.name(widest, row)} the network scores "
            f"{percent(row['train_mode_accuracy'])} in training mode and "
            f"{percent(row['accuracy'])} in evaluation mode on the very same training "
            "images: the running statistics lag, and the curve says too little "
            "about depth."
        )
    return None


def _split_overfits(depths: pd.DataFrame, split: Decomposition) -> bool:
    """Whether the part that is called overfitting may be called so."""
    start = (RECALIBRATE.name, split.best_depth)
    if start not in depths.index:
        start = (FOLLOW.name, split.best_depth)
    end = depths.loc[(RECALIBRATE.name, split.depth)]
    frozen = depths["val_accuracy"].get((FROZEN.name, split.depth))
    return claims_overfitting(
        depths.loc[start].to_dict(), end.to_dict(), frozen, MIN_FALL
    )


def _decomposition_sentence(split: Decomposition, overfits: bool) -> str:
    text = (
        f"Of the {points(split.fall)} points lost between {split.best_depth} and "
        f"{split.depth} layers, lag of the running statistics is "
        f"{points(split.statistics)} (the same training with statistics re-estimated "
        f"gives {percent(split.recalibrated)})"
    )
    name = "growth of the gap between training and validation"
    parts = {
        "overfitting" if overfits else name: split.overfitting,
        "loss of training accuracy": split.optimization,
    }
    if np.isfinite(list(parts.values())).all():
        text += "".join(f", {name} {points(value)}" for name, value in parts.items())
        if min(parts.values()) <= -0.0005:
            text += " (negative: the deeper depth is better there)"
    return text + "."


def explain(
    results: pd.DataFrame,
    *,
    min_fall: float = MIN_FALL,
    min_gap: float = MIN_GAP,
    batch_norm: bool = True,
) -> Explanation:
    """Say why the curves fall, as far as the table holds evidence; else say nothing.

    Args:
        results: finished trials; columns bn, depth_layers, val_accuracy and, where
            present, accuracy, train_mode_accuracy, depth_units, total_units,
            total_layers.
        min_fall: accuracy (0..1); smaller falls from the best depth are not discussed.
        min_gap: accuracy (0..1); smaller gaps between modes, or between training and
            validation, do not count as evidence.
        batch_norm: False for a network without BatchNorm, or a table that does not
            say how it was treated: nothing is then said about statistics.
    """
    depths = diagnose_depths(results)
    sizes = [
        float(pd.to_numeric(results[c]).max()) if c in results else np.nan
        for c in ("total_layers", "total_units")
    ]
    scale = _Scale(*sizes)
    sentences = []
    policies = [p for p in POLICIES if p in depths.index.get_level_values("bn")]
    for bn in policies:
        sentence = _curve_sentence(depths, bn, scale, min_fall, min_gap, batch_norm)
        if sentence is not None:
            sentences.append(sentence)
    split = decompose_fall(depths, min_fall=min_fall)
    if split is not None:
        sentences.append(_decomposition_sentence(split, _split_overfits(depths, split)))
    sides = depths["val_accuracy"].unstack("bn")
    if {FOLLOW.name, FROZEN.name} <= set(policies):
        best = (
            sides[[FOLLOW.name, FROZEN.name]].dropna().max()
        )  # over the depths of both
        gain = float(best[FROZEN.name] - best[FOLLOW.name])
        if abs(gain) >= min_fall:
            verb = "raises" if gain > 0 else "lowers"
            sentences.append(
                f"Holding BatchNorm in inference mode {verb} the best accuracy over "
                f"depth from {percent(best[FOLLOW.name])} to "
                f"{percent(best[FROZEN.name])}."
            )
    return Explanation(depths, split, tuple(sentences))


def explain_trials(
    results: pd.DataFrame, *, min_fall: float = MIN_FALL, most: int = 3
) -> tuple[tuple[int, str], ...]:
    """Matched trials that are missing to say why the follow curve falls.

    At the best depth, at the deepest (where `explain.decompose_fall` looks), and where
    half of the fall has happened: the same depth under `recalibrate` tells lag of the
    running statistics from overfitting, under `frozen` it shows the remedy.

    Args:
        results: rows of results.csv so far.
        min_fall: accuracy (0..1); smaller falls are not explained.
        most: depths at most.

    Returns:
        (depth_layers, bn) pairs, empty without a fall.
    """
    table, _ = clean_results(results)
    follow = table[table["bn"] == FOLLOW.name].groupby("depth_layers")["val_accuracy"]
    curve = follow.mean()
    if curve.empty or most < 1:
        return ()
    best = int(curve.idxmax())
    fallen = curve[(curve.index > best) & (curve <= curve.max() - min_fall)]
    deepest = curve.index.max()
    if fallen.empty or deepest not in fallen.index:
        return ()
    known = results
    if "status" in results:  # what halving stopped has no accuracy to compare
        known = results[results["status"] != "stopped"]
    half = fallen[fallen <= (curve.max() + curve[deepest]) / 2].index[0]
    wanted = list(dict.fromkeys([best, int(deepest), int(half)]))[:most]
    tried = set(zip(known["depth_layers"], known.get("bn", ()), strict=False))
    return tuple(
        (depth, bn)
        for depth in sorted(wanted)
        for bn in (FROZEN.name, RECALIBRATE.name)
        if (depth, bn) not in tried
    )
