"""Nuisance hyperparameters, tuned for every depth by itself.

Depth is what is asked about; the learning rate and its like are nuisances, of which no
single value is fair to all depths (Godbole et al. 2023, Deep Learning Tuning Playbook).
Where a table holds several values of them, each depth is judged by its own best.
"""

import numpy as np
import pandas as pd

from ftjax.analysis.rows import IMAGES, SETTINGS

# Settings that are part of the question: of these every value is a curve of its own.
ASKED = ("image_size", *IMAGES, "class_weights")
NUISANCES = tuple(name for name in SETTINGS if name not in ASKED)


def tuned_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """The nuisances of which a table holds more than one value."""
    return tuple(
        c for c in NUISANCES if c in table and table[c].nunique(dropna=False) > 1
    )


def tuned_rows(table: pd.DataFrame, value: str = "val_accuracy") -> pd.DataFrame:
    """Of each depth and policy, the rows of its best setting.

    That is the one with the most seeds, as only what may be the best is trained again;
    of those with equally many, the one with the highest mean.

    Args:
        table: finished rows.
        value: column that is compared; higher is better.
    """
    columns = tuned_columns(table)
    if not columns or table.empty:
        return table
    keys = ["depth_layers", "bn"]
    keys = [key for key in keys if key in table]
    groups = table.groupby([*keys, *columns], dropna=False)[value]
    means = groups.agg(["mean", "count"]).reset_index()
    means = means.sort_values(["count", "mean"], kind="stable", ascending=False)
    best = means.drop_duplicates(keys)[[*keys, *columns]]
    index = table.reset_index().merge(best, on=[*keys, *columns], how="inner")["index"]
    return table.loc[np.sort(index.to_numpy())]


def overtaken(
    results: pd.DataFrame, epochs: pd.DataFrame, val_size: int
) -> frozenset[str]:
    """Trials that came further than the setting their depth is judged by.

    A rate that led after two epochs may fall back later, or collapse with other seeds.
    Of the other settings of its depth and policy that have a single run, those are
    meant whose newest accuracy is more than a standard error above its mean.

    Args:
        results: as in results.csv, of all settings.
        epochs: as in epochs.csv.
        val_size: number of validation images.
    """
    done = results[results["status"] == "done"]
    if done.empty or not tuned_columns(results):
        return frozenset()
    cell = ["depth_layers", "bn"]
    best = tuned_rows(done)
    mean = best.groupby(cell)["val_accuracy"].mean().rename("mean")
    error = np.sqrt(np.maximum(mean * (1 - mean), 1 / val_size) / val_size)
    newest = epochs.sort_values("epoch").groupby("trial")["val_accuracy"].last()
    runs = results.groupby([*cell, *tuned_columns(results)], dropna=False)["trial"]
    single = runs.transform("nunique") == 1
    others = results[single & ~results["trial"].isin(best["trial"])]
    others = others.merge((mean + error).rename("least"), on=cell)
    return frozenset(others.loc[others["trial"].map(newest) > others["least"], "trial"])


def tuned_conditions(table: pd.DataFrame, named: pd.DataFrame) -> dict[str, list]:
    """By tuned column: the value at the named depth, then the values that were tried.

    Args:
        table: all rows, those that were stopped early as well.
        named: those of the named depth and policy, of its best setting.
    """
    return {
        column: [
            _plain(named[column].iloc[0]),
            *sorted(map(_plain, table[column].dropna().unique())),
        ]
        for column in tuned_columns(table)
    }


def _plain(value):
    return value.item() if hasattr(value, "item") else value
