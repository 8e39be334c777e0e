"""From a results table to depth curves: one per BatchNorm policy, seeds side by side.

The table is `results.csv` of a sweep, or anybody's with at least `depth_layers` and
`val_accuracy`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.batch_norm import DEFAULT, POLICIES

COSTS = ("seconds", "flops", "trainable_params")
# Why rows are dropped: the words of the warnings.
NOT_DONE, STOPPED = "not done", "stopped early by the search"
MOVED = "frozen weights changed in training"
# Columns that make two tables different studies, and columns that make them different
# settings of one study.
_IDENTITY = ("model", "weights", "data", "data_hash")
_SETTINGS = (
    "image_size",
    "batch_size",
    "train_size",
    "val_size",
    "optimizer",
    "lr",
    "head_lr_factor",
    "weight_decay",
    "drop_connect",
)


class DepthCurve(NamedTuple):
    """Validation accuracy over depth for one BatchNorm policy.

    depths: (d,) unfrozen layers, increasing. values: (d, s) accuracy by depth and
    seed, nan where missing. seeds: (s,). correct: (d, n) mean correctness of each
    validation image over the seeds, or None. table: one row per depth, the numeric
    columns averaged over seeds, indexed by depth_layers.
    """

    bn: str
    depths: np.ndarray
    values: np.ndarray
    seeds: tuple
    correct: np.ndarray | None
    table: pd.DataFrame


def _listed(values, most: int = 4) -> str:
    texts = [str(value) for value in values]
    more = f", ... ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _is_false(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower().isin(["false", "0", "0.0"])


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
        ValueError: a column is missing, an accuracy is no fraction, two studies are
            mixed, or no row is left.
    """
    missing = [c for c in ("depth_layers", "val_accuracy") if c not in results]
    if missing:
        raise ValueError(
            f"results lack the column {' and '.join(missing)}; "
            f"found: {_listed(results.columns, 12)}"
        )
    table, warnings = results.copy(), []

    def drop(bad: pd.Series, reason: str) -> None:
        nonlocal table
        count = int(bad.sum())
        if count:
            warnings.append(f"{count} of {len(table)} rows dropped: {reason}.")
            table = table[~bad]

    if "status" in table:
        status = table["status"].fillna("missing").astype(str)
        early = status == "stopped"
        drop(early, f"{STOPPED}, so the answer compares the depths trained to the end")
        status = status[~early]
        other = status[status != "done"]
        counts = _listed(f"{n} {name}" for name, n in other.value_counts().items())
        drop(status != "done", f"{NOT_DONE} ({counts})")
    for column in ("depth_layers", "val_accuracy"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    gaps = ~np.isfinite(table[["depth_layers", "val_accuracy"]]).all(axis=1)
    drop(gaps, "no depth or no validation accuracy")
    if "frozen_intact" in table:
        drop(_is_false(table["frozen_intact"]), MOVED)
    if "epochs" in table and len(set(table["epochs"].dropna())) > 1:
        longest = table["epochs"].max()
        drop(table["epochs"] < longest, f"stopped before {longest:g} epochs")
    if len(table) == 0:
        raise ValueError(
            "no finished trial with a validation accuracy is left: "
            "run the sweep on, or look at the failed trials. " + " ".join(warnings)
        )
    accuracy = table["val_accuracy"].to_numpy(float)
    if accuracy.min() < 0 or accuracy.max() > 1:
        raise ValueError(
            f"val_accuracy must be a fraction 0..1, got {accuracy.min():g}.."
            f"{accuracy.max():g}: divide percentages by 100"
        )
    layers = table["depth_layers"].to_numpy(float)
    if np.any(layers < 0) or np.any(layers % 1 != 0):
        raise ValueError("depth_layers must be whole numbers of layers >= 0")
    for column in (c for c in _IDENTITY if c in table):
        found = table[column].dropna().unique()
        if len(found) > 1:
            raise ValueError(
                f"the table mixes {len(found)} values of {column} ({_listed(found)}): "
                "one recommendation needs one, filter the rows first"
            )
    for column in (c for c in _SETTINGS if c in table):
        found = table[column].dropna().unique()
        if len(found) > 1:
            warnings.append(f"Averaged over {column}: {_listed(found)}.")
    table = table.assign(depth_layers=layers.astype(int))
    if "bn" not in table:
        table = table.assign(bn=DEFAULT)
    table["bn"] = table["bn"].fillna(DEFAULT).astype(str)
    unknown = sorted(set(table["bn"]) - set(POLICIES))
    if unknown:
        raise ValueError(
            f"unknown bn {_listed(unknown)}: choose from {', '.join(POLICIES)}"
        )
    if "seed" not in table or bool(table["seed"].isna().all()):
        # Without seeds nothing pairs the depths: every row is a replicate of its own.
        table = table.assign(seed=np.arange(len(table)))
    return table, tuple(warnings)


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
    rows: pd.DataFrame, depths: np.ndarray, correct: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, list[str]]:
    """Mean correctness (d, n) of each image over the seeds of each depth."""
    if not correct or "trial" not in rows:
        return None, []
    sizes = {np.asarray(array).shape for array in correct.values()}
    if len(sizes) > 1 or any(len(size) != 1 for size in sizes):
        raise ValueError(
            f"per-image correctness must be 1-d and equally long in all trials, got "
            f"shapes {_listed(sorted(sizes))}: it must come from one validation set"
        )
    means, absent, apart = [], 0, 0
    for depth in depths:
        here = rows[rows["depth_layers"] == depth]
        known = [str(t) for t in here["trial"] if str(t) in correct]
        if not known:
            absent += 1
            continue
        means.append(np.mean([np.asarray(correct[t], float) for t in known], axis=0))
        stated = here[here["trial"].astype(str).isin(known)]["val_accuracy"].mean()
        apart += abs(means[-1].mean() - stated) > 0.005
    if absent:
        return None, [f"Per-image results are missing at {absent} depths: not used."]
    if apart:
        return None, [
            f"Per-image results contradict val_accuracy at {apart} depths: not used."
        ]
    return np.stack(means), []


def depth_curve(
    table: pd.DataFrame, bn: str, correct: Mapping[str, np.ndarray] | None = None
) -> tuple[DepthCurve, tuple[str, ...]]:
    """Collect one policy's curve from a clean table.

    Args:
        table: of `clean_results`. bn: policy. correct: trial -> (n,) bool, correctness
            on the same validation images in the same order.

    Returns:
        The curve and sentences about missing seeds or images.
    """
    rows = table[table["bn"] == bn]
    if rows.empty:
        raise ValueError(
            f"no row with bn = {bn!r}; found {_listed(table['bn'].unique())}"
        )
    pivot = rows.pivot_table(
        index="depth_layers", columns="seed", values="val_accuracy", aggfunc="mean"
    ).sort_index()
    depths, values = pivot.index.to_numpy(), pivot.to_numpy(dtype=float)
    warnings = []
    gaps = int(np.isnan(values).sum())
    paired = np.isfinite(values).sum(axis=0).max() > 1
    if gaps and paired:
        lacking = [
            int(L) for L, row in zip(depths, values, strict=True) if np.isnan(row).any()
        ]
        warnings.append(
            f"{gaps} of {values.size} depth-seed pairs are missing (bn {bn}, depths "
            f"{_listed(lacking)}): seed effects were removed by the additive model."
        )
    images, notes = _images(rows, depths, correct or {})
    means = rows.groupby("depth_layers").mean(numeric_only=True)
    curve = DepthCurve(bn, depths, values, tuple(pivot.columns), images, means)
    return curve, (*warnings, *notes)
