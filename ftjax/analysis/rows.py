"""Which rows of a table belong together: others are separated or refused.

Rows are replicates only if nothing but the seed differs. A column that the table's
author added is as good a reason to keep two rows apart as one of our own.
"""

import numpy as np
import pandas as pd

from ftjax.axes import NAMES

# Columns that make two tables different studies: one recommendation needs one value.
IDENTITY = ("model", "weights", "data", "data_hash", "num_classes", "val_size")
# Settings of one study: rows that differ in them are curves of their own.
SETTINGS = (
    "image_size",
    *(name for name in NAMES if name != "epochs"),  # those are read off one trial
    "warmup",
    "class_weights",
    "stop_accuracy",
    "patience",
)
# Settings that choose the training images, and with them the hash of the data.
IMAGES = ("train_size", "imbalance", "label_noise")
KEYS = ("depth_layers", "bn", "seed")
# What a trial is called or what was measured on it.
_MEASURED = (
    "trial accuracy loss seconds flops trainable_params trainable_percent epochs "
    "depth_units depth_percent total_layers total_units frozen_intact status steps "
    "stopped_epoch stopped_by"
).split()
_ENDINGS = ("_accuracy", "_loss", "_seconds", "_f1", "_auroc", "_auc")
_BEGINNINGS = ("val_", "test_")


def listed(values, most: int = 4) -> str:
    """Values as text, the first few of many."""
    texts = [str(value) for value in values]
    more = f", ... ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def last_rows(table: pd.DataFrame) -> pd.DataFrame:
    """One row of each trial: where several epochs are read off it, that of the most."""
    return table.sort_values("epochs", kind="stable").drop_duplicates(
        "trial", keep="last"
    )


def check_units(values: np.ndarray, name: str = "val_accuracy") -> None:
    """Raises ValueError where fractions stand beside percentages."""
    values = values[np.isfinite(values)]
    high, low = values[values > 1], values[(values > 0) & (values <= 1)]
    if len(high) and len(low):
        raise ValueError(
            f"{name} mixes fractions and percent ({low[0]:g} beside {high[0]:g}): "
            "give all of them as fractions 0..1"
        )


def check_keys(table: pd.DataFrame) -> None:
    """Raises ValueError where a finished row does not say what it is of."""
    for column in KEYS:
        if column not in table:
            continue
        empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if empty.any() and (column == "depth_layers" or not empty.all()):
            row = int(np.flatnonzero(empty)[0]) + 1
            raise ValueError(
                f"{int(empty.sum())} finished rows have an empty {column} (the first "
                f"is row {row}): fill it in, or leave the rows out"
            )


def check_identity(table: pd.DataFrame) -> None:
    """Raises ValueError where rows of two studies stand in one table."""
    for column in (c for c in IDENTITY if c in table):
        found = table[column].dropna().unique()
        images = [name for name in IMAGES if name in table]
        if column == "data_hash" and images:
            # The hash is of the training images as well: one for each choice of them.
            most = table.groupby(images)[column].nunique().max()
            found = found if most > 1 else found[:1]
        if len(found) > 1:
            raise ValueError(
                f"the table mixes {len(found)} values of {column} ({listed(found)}): "
                "one recommendation needs one, filter the rows first"
            )
    if "epoch" in table and table["epoch"].nunique() > 1:
        raise ValueError(
            "the rows are epochs of trials (column epoch): keep one epoch of each "
            "trial, its last; epochs are no replicates"
        )


def varying_settings(table: pd.DataFrame) -> tuple[str, ...]:
    """The settings of which the table holds more than one value."""
    return tuple(
        c for c in SETTINGS if c in table and table[c].nunique(dropna=False) > 1
    )


def check_replicates(table: pd.DataFrame, seeded: bool) -> None:
    """Raises ValueError where rows would be averaged that are no replicates.

    Args:
        table: clean rows with the keys filled in.
        seeded: whether its seeds were given; without them every row of a depth is taken
            as a replicate.
    """
    group = [*varying_settings(table), "bn", "depth_layers"]
    known = {*IDENTITY, *SETTINGS, *KEYS, *_MEASURED, "epoch"}
    for column in (c for c in table.columns if c not in known):
        name = str(column)
        if name.startswith(_BEGINNINGS) or name.endswith(_ENDINGS) or "seed" in name:
            continue
        counts = table.groupby(group, dropna=False)[column].nunique(dropna=False)
        if counts.max() > 1 and not _labels_rows(table[column]):
            place = counts.index[int(np.argmax(counts.to_numpy()))]
            depth = place[-1] if isinstance(place, tuple) else place
            here = table[table["depth_layers"] == depth][column].unique()
            raise ValueError(
                f"column {name} has several values at depth {depth} ({listed(here)}): "
                "rows that differ in it are no replicates; filter them to one value, "
                "or drop the column if it is a measurement"
            )
    if not seeded:
        return
    keys = [*group, "seed"]
    twice = table.duplicated(keys, keep=False)
    if twice.any():
        first = table[twice].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} rows repeat a depth, policy and seed (depth "
            f"{first['depth_layers']}, bn {first['bn']}, seed {first['seed']}): keep "
            "one row of each, or number the seeds"
        )


def _labels_rows(column: pd.Series) -> bool:
    """Whether a column tells rows apart one by one: a name, a time, a measurement."""
    count = column.nunique()
    if pd.api.types.is_float_dtype(column):
        return count > max(4, 0.5 * len(column))
    return count == len(column) and count > 4
