"""Under which conditions an answer holds, and what has to be said before it."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.wording import depth_list, number, percent
from ftjax.axes import AXES, NAMES

# Columns of results.csv that are conditions, in the order in which they are said.
_FIRST = (
    "lr",
    "optimizer",
    "epochs",
    "augment",
    "image_size",
    "train_size",
    "data",
    "model",
    "weights",
    "batch_size",
)
CONDITIONS = (
    *_FIRST,
    *(name for name in NAMES if name not in _FIRST),
    "warmup",
    "class_weights",
    "stop_accuracy",
    "patience",
)
RISE = 0.002  # accuracy; a smaller gain in the last epoch is below what a run shows
LEARNED = 0.25  # of the way from chance to 1: below it hardly anything was learned
FITTED = 0.9  # training accuracy from which a gap may be called overfitting
GAP = 0.1  # accuracy; training above validation


def conditions_of(rows: pd.DataFrame) -> dict[str, Any]:
    """The conditions that one curve was measured under, as plain values by column."""
    found: dict[str, Any] = {}
    for column in (c for c in CONDITIONS if c in rows):
        values = rows[column].dropna().unique()
        if len(values) == 1:
            value = values[0].item() if hasattr(values[0], "item") else values[0]
            whole = isinstance(value, float) and value.is_integer()
            found[column] = int(value) if whole and column != "lr" else value
    return found


def condition_words(conditions: Mapping[str, Any]) -> str:
    """The conditions as 'rate 1e-4, 5 epochs, 32 pixels, 1,400 images of digits'."""
    words = []
    tuned = conditions.get("tuned", {})
    for column, (value, *tried) in tuned.items():
        name = "rate" if column == "lr" else column.replace("_", " ")
        values = " ".join(map(_value, tried))
        how = f"tuned for each depth among {values}{_at_the_end(value, tried)}"
        words.append(f"{name} {_value(value)} ({how})")
    if "lr" in conditions and "lr" not in tuned:
        words.append(f"rate {number(conditions['lr'])}")
    words += _unusual(conditions, skip=(*tuned, "head_start"))
    if "epochs" in conditions:
        count = conditions["epochs"]
        ends = []
        if "stop_accuracy" in conditions:
            ends.append(f"at {percent(conditions['stop_accuracy'])} in training")
        if "patience" in conditions:
            ends.append(f"after {conditions['patience']} without gain")
        most = f" at most (ended {' or '.join(ends)})" if ends else ""
        words.append(f"{count} epoch{'s' * (count != 1)}{most}")
    augment = None if "augment" in tuned else conditions.get("augment")
    if augment not in (None, "none", "None", False, 0, ""):
        augment = "on" if augment is True or augment == 1 else augment
        words.append(f"augmentation {augment}{_views(conditions.get('views'))}")
    if conditions.get("warmup"):
        words.append(f"warm-up {_value(conditions['warmup'])} epochs")
    if conditions.get("class_weights", "none") != "none":
        words.append(f"{conditions['class_weights']} class weights")
    if conditions.get("head_start") == "probe":
        words.append("head started from a probe")
    if "image_size" in conditions:
        words.append(f"{conditions['image_size']} pixels")
    size, data = conditions.get("train_size"), conditions.get("data")
    if size is not None:
        before = " before imbalance" if conditions.get("imbalance", 1) != 1 else ""
        words.append(f"{size:,} images" + (f" of {data}" if data else "") + before)
    elif data:
        words.append(str(data))
    if conditions.get("batch_norm") is False:
        words.append("a network without BatchNorm")
    return ", ".join(words)


def _unusual(conditions: Mapping[str, Any], skip: Collection[str]) -> list[str]:
    """The settings that are not the default ones, as 'momentum 0.5'."""
    usual = {axis.name: axis.usual for axis in AXES}
    usual["head_bias_lr_factor"] = conditions.get("head_lr_factor")
    words = []
    for axis in AXES:
        value = conditions.get(axis.name)
        if usual[axis.name] is None or value is None or axis.name in skip:
            continue
        if value != usual[axis.name]:
            name = "" if axis.name == "optimizer" else f"{axis.title} "
            words.append(name + _value(value))
    return words


def _views(views: Any) -> str:
    """What to say of the views of an augmented image: ' (4 views)'."""
    if views in (None, "none"):
        return ""
    return f" ({views} view{'s' * (str(views) != '1')})"


def _at_the_end(value: Any, tried: Collection[Any]) -> str:
    """What to say of a tuned value with none beyond it: the best may lie there."""
    if not isinstance(value, int | float) or len(tried) < 2:
        return ""
    if value == max(tried):
        return "; the highest of them, a higher one may be better"
    if value == min(tried) and value > 0:
        return "; the lowest of them, a lower one may be better"
    return ""


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def rising_cells(
    epochs: pd.DataFrame, cells: Collection[tuple[int, str]], val_size: float | None
) -> tuple[tuple[int, str], ...]:
    """Which (depth, bn) reached their highest accuracy only in the last epoch.

    By more than RISE and more than one validation image above any epoch before; means
    over the seeds.

    Args:
        epochs: rows of epochs.csv: depth_layers, bn, epoch, val_accuracy.
        cells: that matter.
        val_size: number of validation images, if it is known.
    """
    least = max(RISE, 1.5 / val_size if val_size else 0.0)
    curves = _epoch_curves(epochs)
    found = []
    for cell in sorted(cells):
        if cell not in curves.index:
            continue
        values = curves.loc[cell].dropna().to_numpy(float)
        if len(values) > 1 and values[-1] > values[:-1].max() + least:
            found.append(cell)
    return tuple(found)


def changed_winner(epochs: pd.DataFrame, bn: str) -> tuple[int, int, int] | None:
    """(last epoch, best depth before it, best depth in it) where the two differ."""
    curves = _epoch_curves(epochs)
    if bn not in curves.index.get_level_values("bn"):
        return None
    table = curves.xs(bn, level="bn").dropna(axis=0)
    if table.shape[1] < 2 or len(table) < 2:
        return None
    before, last = table.columns[-2:]
    old, new = int(table[before].idxmax()), int(table[last].idxmax())
    gain = table.loc[new] - table.loc[old]  # of two that tie neither is the winner
    return (int(last), old, new) if gain[before] < 0 < gain[last] else None


def _epoch_curves(epochs: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy by (depth_layers, bn) and epoch."""
    rows = epochs.dropna(subset=["val_accuracy"])
    keys = ["depth_layers", "bn", "epoch"]
    # A replicate that is still running must not bend the mean of the others.
    reached = rows.groupby("trial")["epoch"].transform("max") if "trial" in rows else 0
    if "trial" in rows:
        rows = rows[reached == rows["epoch"].max()]
    return rows.groupby(keys)["val_accuracy"].mean().unstack().sort_index()


def leading_caveats(
    *,
    epochs: pd.DataFrame | None,
    bn: str,
    contenders: Collection[tuple[int, str]],
    val_size: float | None,
    training: float | None,
    validation: float,
    chance: float | None,
) -> tuple[str, ...]:
    """What the sentence has to begin with, each as a sentence.

    Args:
        epochs: rows of epochs.csv, None where they are not known.
        bn: named policy.
        contenders: (depth, bn) that may be the best.
        val_size: number of validation images, if it is known.
        training: accuracy of the named depth on the training images, in evaluation
            mode.
        validation: its accuracy on the validation images.
        chance: accuracy of always answering the majority class.
    """
    said = []
    if epochs is not None and len(epochs):
        rising = rising_cells(epochs, contenders, val_size)
        if rising:
            last = int(epochs["epoch"].max())
            depths = depth_list(sorted({depth for depth, _ in rising}))
            said.append(
                f"Not trained to the end: {depths} still gained in epoch {last}, the "
                "last one; more epochs may name another depth."
            )
        changed = changed_winner(epochs, bn)
        if changed is not None:
            epoch, before, after = changed
            said.append(
                f"The best depth changed in the last epoch ({depth_list([before])} "
                f"after epoch {epoch - 1}, {depth_list([after])} after epoch {epoch})."
            )
    if training is not None and np.isfinite(training):
        least = chance if chance is not None else 0.0
        if chance is not None and training < least + LEARNED * (1 - least):
            said.append(
                f"Hardly anything was learned: {percent(training)} of the training "
                f"images are right, where guessing gives {percent(least)}; train "
                "longer or at a higher rate before comparing depths."
            )
        elif training >= FITTED and training - validation >= GAP:
            said.append(
                f"Overfitting: {percent(training)} of the training images but "
                f"{percent(validation)} of the validation images are right; try more "
                "images, augmentation, weight decay or fewer epochs."
            )
    return tuple(said)
