"""From a results table to depth curves: one per policy and setting, seeds side by side.

The table is `results.csv` of a sweep, or anybody's with at least `depth_layers` and
`val_accuracy`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.rows import (
    check_identity,
    check_keys,
    check_replicates,
    check_units,
    listed,
    varying_settings,
)
from ftjax.batch_norm import DEFAULT, POLICIES

VALUE = "metric_value"  # column of the metric that is compared, if not accuracy
COSTS = ("seconds", "flops", "trainable_params")
# Why rows are dropped: the words of the warnings.
NOT_DONE, STOPPED = "not done", "stopped early by the search"
MOVED = "frozen weights changed in training"


class DepthCurve(NamedTuple):
    """A validation metric over depth for one BatchNorm policy and setting.

    Attributes:
        bn: policy.
        depths: (d,) unfrozen layers, increasing.
        values: (d, s) metric by depth and seed, nan where missing.
        seeds: (s,).
        scores: (d, n) what each validation image adds, its mean over the seeds, or
            None.
        flips: (d,) variance of one run's metric from single images changing sides
            between runs, 0 where it is not known.
        table: one row per depth, the numeric columns averaged over seeds, indexed by
            depth_layers.
        trials: (d,) which trials a depth's values are of.
        setting: value of each varying setting, by column.
    """

    bn: str
    depths: np.ndarray
    values: np.ndarray
    seeds: tuple
    scores: np.ndarray | None
    flips: np.ndarray
    table: pd.DataFrame
    trials: tuple[frozenset, ...]
    setting: Mapping[str, Any] = {}


def _is_false(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower().isin(["false", "0", "0.0"])


# What Optuna, Ray Tune, MLflow, W&B and Slurm call a trial that is done.
FINISHED = ("complete", "terminated", "finished", "completed", "success", "succeeded")


def clean_results(results: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep the rows that can be compared, and say in words what was left out.

    Drops rows whose status is not 'done', whose validation accuracy is missing, whose
    frozen weights moved, or that ran fewer epochs than the longest trials. Fills in
    `bn` ('follow') and `seed` (one per row) where the table has none.

    Args:
        results: columns `depth_layers` and `val_accuracy` (0..1); others optional.

    Returns:
        The clean table and one sentence per thing left out.

    Raises:
        ValueError: a column is missing, an accuracy is no fraction, rows are mixed
            that do not belong together, or no row is left.
    """
    missing = [c for c in ("depth_layers", "val_accuracy") if c not in results]
    if missing:
        raise ValueError(
            f"results lack the column {' and '.join(missing)}; "
            f"found: {listed(results.columns, 12)}"
        )
    table, warnings = results.copy(), []

    def drop(bad: pd.Series, reason: str) -> None:
        nonlocal table
        count = int(bad.sum())
        if count:
            warnings.append(f"{count} of {len(table)} rows dropped: {reason}.")
            table = table[~bad]

    if "status" in table:
        status = table["status"].fillna("missing").astype(str).str.strip()
        status = status.where(~status.str.lower().isin(FINISHED), "done")
        early = status == "stopped"
        drop(early, f"{STOPPED}, so the answer compares the depths trained to the end")
        status = status[~early]
        other = status[status != "done"]
        counts = listed(f"{n} {name}" for name, n in other.value_counts().items())
        drop(status != "done", f"{NOT_DONE} ({counts})")
    check_keys(table)
    for column in ("depth_layers", "val_accuracy"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    gaps = ~np.isfinite(table[["depth_layers", "val_accuracy"]]).all(axis=1)
    drop(gaps, "no depth or no validation accuracy")
    if "frozen_intact" in table:
        drop(_is_false(table["frozen_intact"]), MOVED)
    if "epochs" in table and len(set(table["epochs"].dropna())) > 1:
        longest = table["epochs"].max()
        if "trial" in table:  # others are read off a trial that went on
            whole = table["epochs"] == longest
            table = table[whole | ~table["trial"].isin(table.loc[whole, "trial"])]
        drop(table["epochs"] < longest, f"stopped before {longest:g} epochs")
    if len(table) == 0:
        raise ValueError(
            "no finished trial with a validation accuracy is left: "
            "run the sweep on, or look at the failed trials. " + " ".join(warnings)
        )
    accuracy = table["val_accuracy"].to_numpy(float)
    check_units(accuracy)
    if accuracy.min() < 0 or accuracy.max() > 1:
        raise ValueError(
            f"val_accuracy must be a fraction 0..1, got {accuracy.min():g}.."
            f"{accuracy.max():g}: divide percentages by 100"
        )
    layers = table["depth_layers"].to_numpy(float)
    if np.any(layers < 0) or np.any(layers % 1 != 0):
        raise ValueError("depth_layers must be whole numbers of layers >= 0")
    check_identity(table)
    table = table.assign(depth_layers=layers.astype(int))
    if "bn" not in table:
        table = table.assign(bn=DEFAULT)
    table["bn"] = table["bn"].fillna(DEFAULT).astype(str)
    unknown = sorted(set(table["bn"]) - set(POLICIES))
    if unknown:
        raise ValueError(
            f"unknown bn {listed(unknown)}: choose from {', '.join(POLICIES)}"
        )
    seeded = "seed" in table and not bool(table["seed"].isna().all())
    if not seeded:
        # Without seeds nothing pairs the depths: every row is a replicate of its own.
        table = table.assign(seed=np.arange(len(table)))
    check_replicates(table, seeded)
    return table, tuple(warnings)


def split_settings(
    table: pd.DataFrame,
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """A clean table cut by the settings that vary in it: never averaged over.

    Returns:
        (value of each varying setting, its rows), one pair without any.
    """
    columns = list(varying_settings(table))
    if not columns:
        return [({}, table)]
    groups = table.groupby(columns, dropna=False, sort=True)
    return [
        (dict(zip(columns, key, strict=True)), rows)
        for key, rows in ((k if isinstance(k, tuple) else (k,), r) for k, r in groups)
    ]


def hold_ended(epochs: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The epochs, those of trials that ended early held to where they might have gone.

    --stop-accuracy and --patience end trials of one plan after different epochs; means
    over seeds and comparisons of depths at one epoch need all of them at each.

    Args:
        epochs: rows of epochs.csv.
        results: rows of results.csv.
    """
    if not {"trial", "stopped_epoch"} <= set(results) or "trial" not in epochs:
        return epochs
    ended = pd.to_numeric(results["stopped_epoch"], errors="coerce")
    early = results[ended < results["epochs"]]
    parts = [epochs]
    for row in early.drop_duplicates(["trial", "depth_layers", "bn"]).itertuples():
        same = (epochs["trial"] == row.trial) & (epochs["bn"] == row.bn)
        same &= epochs["depth_layers"] == row.depth_layers
        last = epochs[same & (epochs["epoch"] == row.stopped_epoch)].head(1)
        more = range(int(row.stopped_epoch) + 1, int(row.epochs) + 1)
        parts += [last.assign(epoch=epoch) for epoch in more]
    return pd.concat(parts, ignore_index=True) if len(early) else epochs


def stopped_depths(results: pd.DataFrame, bn: str) -> tuple[int, ...]:
    """Depths of one policy that a search stopped early, increasing."""
    if "status" not in results:
        return ()
    rows = results
    if "bn" in rows:
        rows = rows[rows["bn"] == bn]
    finished = set(rows.loc[rows["status"] == "done", "depth_layers"])
    early = set(rows.loc[rows["status"] == "stopped", "depth_layers"])
    return tuple(sorted(int(depth) for depth in early - finished))


def _images(
    rows: pd.DataFrame, depths: np.ndarray, scores: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
    """Mean score (d, n) of each image over the seeds of each depth, and the flips."""
    flips = np.zeros(len(depths))
    if not scores or "trial" not in rows:
        return None, flips, []
    sizes = {np.asarray(array).shape for array in scores.values()}
    if len(sizes) > 1 or any(len(size) != 1 for size in sizes):
        raise ValueError(
            f"per-image correctness must be 1-d and equally long in all trials, got "
            f"shapes {listed(sorted(sizes))}: it must come from one validation set"
        )
    means, absent, apart = [], 0, 0
    for place, depth in enumerate(depths):
        here = rows[rows["depth_layers"] == depth]
        known = [str(t) for t in here["trial"] if str(t) in scores]
        if not known:
            absent += 1
            continue
        runs = np.array([np.asarray(scores[trial], float) for trial in known])
        means.append(runs.mean(axis=0))
        if len(known) > 1:
            flips[place] = runs.var(axis=0, ddof=1).mean() / runs.shape[1]
        stated = here[here["trial"].astype(str).isin(known)][VALUE].mean()
        apart += abs(means[-1].mean() - stated) > 0.005
    none = np.zeros(len(depths))
    if absent:
        return (
            None,
            none,
            [f"Per-image results are missing at {absent} depths: not used."],
        )
    if apart:
        return (
            None,
            none,
            [f"Per-image results contradict val_accuracy at {apart} depths: not used."],
        )
    return np.stack(means), flips, []


def depth_curve(
    table: pd.DataFrame,
    bn: str,
    scores: Mapping[str, np.ndarray] | None = None,
    setting: Mapping[str, Any] | None = None,
) -> tuple[DepthCurve, tuple[str, ...]]:
    """Collect one policy's curve from a clean table of one setting.

    Args:
        table: of `split_settings`; the column `VALUE`, where it has one, is compared
            instead of val_accuracy.
        bn: policy.
        scores: trial -> (n,) what each image adds to the metric, on the same validation
            images in the same order.
        setting: of the table.

    Returns:
        The curve and sentences about missing seeds or images.
    """
    rows = table[table["bn"] == bn]
    if rows.empty:
        raise ValueError(
            f"no row with bn = {bn!r}; found {listed(table['bn'].unique())}"
        )
    if VALUE not in rows:
        rows = rows.assign(**{VALUE: rows["val_accuracy"]})
    pivot = rows.pivot(index="depth_layers", columns="seed", values=VALUE).sort_index()
    depths, values = pivot.index.to_numpy(), pivot.to_numpy(dtype=float)
    images, flips, notes = _images(rows, depths, scores or {})
    groups = rows.groupby("depth_layers")
    names = rows["trial"] if "trial" in rows else rows.index.map(str)
    trials = pd.Series(list(names), index=rows["depth_layers"].to_numpy())
    curve = DepthCurve(
        bn,
        depths,
        values,
        tuple(pivot.columns),
        images,
        flips,
        groups.mean(numeric_only=True),
        tuple(frozenset(trials[[depth]]) for depth in depths),
        dict(setting or {}),
    )
    return curve, tuple(notes)
