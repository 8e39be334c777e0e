"""Tables of the report page, as plain text: of trials, of settings, of classes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.metrics import class_changes, class_table, confusion_matrix
from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.wording import number
from ftjax.axes import Axis
from ftjax.report import drawing

MISSING = "–"
MOST_CLASSES = 20  # in a table of classes; a larger confusion matrix is left out


class Cell(NamedTuple):
    """One cell of a table: its text, and a class for its meaning ('' for none)."""

    text: str
    mark: str = ""


class Table(NamedTuple):
    """A table of the page; a row is (mark, cells)."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def _number(value: Any, text: str, scale: float = 1.0) -> str:
    known = isinstance(value, int | float | np.number) and math.isfinite(value)
    return format(value * scale, text) if known else MISSING


def _rate(values: pd.Series) -> str:
    """Mean in percent, the standard deviation of the seeds in brackets."""
    values = values.dropna()
    if values.empty:
        return MISSING
    mean = drawing.percent(float(values.mean()))
    return f"{mean} ({100 * values.std():.1f})" if len(values) > 1 else mean


def _proof(values: pd.Series) -> Cell:
    words = set(values.dropna().astype(str).str.lower())
    if "false" in words:
        return Cell("broken", "bad")
    return Cell("yes", "good") if words == {"true"} else Cell(MISSING)


def _status(values: pd.Series) -> Cell:
    counts = values.value_counts()
    if set(counts.index) == {"done"}:
        return Cell("done")
    text = ", ".join(f"{n} {name}" for name, n in counts.items())
    return Cell(text, "bad" if {"failed", "diverged"} & set(counts.index) else "open")


def trial_table(results: pd.DataFrame, best: Recommendation | None) -> Table:
    """The table of the paper, a row for each depth and policy, means over the seeds.

    Columns as in Philip 2025, tables 3 to 5 (Layers Unfreeze, Accuracy, Loss,
    Val-accuracy, Val-loss), and what the study needs beside them.
    """
    absent = {"seed": 0, "bn": MISSING, "status": "done"}
    table = results.assign(**{k: v for k, v in absent.items() if k not in results})
    rows = []
    for _, part in table.groupby(["depth_layers", "bn"]):
        depth, bn = part["depth_layers"].iloc[0], part["bn"].iloc[0]
        part = part.reindex(columns=[*part.columns, *REPORTED.difference(part.columns)])
        mean = part[list(NUMERIC)].apply(pd.to_numeric, errors="coerce").mean()
        own = bool(best and bn == best.bn)
        chosen = own and depth == best.depth_layers
        good = own and depth in best.not_worse
        percent = _number(100 * depth / mean["total_layers"], ".0f")
        cells = (
            Cell(f"{depth:.0f}" + (f" ({percent} %)" if percent != MISSING else "")),
            Cell(_number(mean["depth_units"], ".0f")),
            Cell(str(bn)),
            Cell(_rate(part["accuracy"])),
            Cell(_number(mean["loss"], ".4f")),
            Cell(_rate(part["val_accuracy"])),
            Cell(_number(mean["val_loss"], ".4f")),
            Cell(_rate(part["train_mode_accuracy"])),
            Cell(_number(mean["trainable_params"], ",.0f")),
            Cell(_number(mean["seconds"], ".1f")),
            _proof(part["frozen_intact"]),
            _status(part["status"]),
        )
        rows.append(("best" if chosen else "good" if good else "", cells))
    caption, columns = "Every depth that was asked for", COLUMNS
    if set(table["status"]) == {"done"}:
        caption, columns = f"{caption}, all done", COLUMNS[:-1]
        rows = [(mark, cells[:-1]) for mark, cells in rows]
    seeds = len(set(table["seed"]))
    if seeds > 1:
        caption += f"; mean (standard deviation in points) of up to {seeds} seeds"
    return Table(caption, columns, tuple(rows))


NUMERIC = (
    "depth_units",
    "total_layers",
    "loss",
    "val_loss",
    "trainable_params",
    "seconds",
)
REPORTED = pd.Index(
    [*NUMERIC, "accuracy", "val_accuracy", "train_mode_accuracy", "frozen_intact"]
)
COLUMNS = (
    "Layers Unfreeze",
    "Blocks",
    "BatchNorm",
    "Accuracy",
    "Loss",
    "Val-accuracy",
    "Val-loss",
    "Training-mode accuracy",
    "Trainable params",
    "Seconds",
    "Freeze proven",
    "Status",
)


def setting_table(results: pd.DataFrame, axes: Sequence[Axis]) -> Table:
    """A row for each depth, policy and setting, means over the seeds.

    Args:
        results: as in results.csv, of all settings.
        axes: the hyperparameters that were varied.
    """
    keys = ["depth_layers", "bn", *(axis.name for axis in axes)]
    rows = []
    for values, part in results.groupby(keys, dropna=False):
        cells = (
            *(Cell(_setting_text(value)) for value in values),
            Cell(_rate(part["accuracy"])),
            Cell(_rate(part["val_accuracy"])),
            Cell(_number(part["seconds"].mean(), ".1f")),
            _status(part["status"]),
        )
        rows.append(("", cells))
    columns = (
        "Layers Unfreeze",
        "BatchNorm",
        *(axis.title.capitalize() for axis in axes),
        "Accuracy",
        "Val-accuracy",
        "Seconds",
        "Status",
    )
    return Table("Every setting; mean over the seeds", columns, tuple(rows))


def _setting_text(value: Any) -> str:
    if isinstance(value, int | float | np.number):
        return MISSING if value != value else number(float(value))
    return str(value)


def class_tables(
    predicted: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    correct: np.ndarray,
    depths: tuple[int, ...],
    chosen: int,
) -> tuple[Table, ...]:
    """What the named depth does to each class, and what other depths do to it.

    Args:
        predicted: (n,) answers of the named depth.
        labels: (n,) classes.
        class_names: by label.
        correct: (d, n) correctness by depth, means over the seeds.
        depths: (d,) unfrozen layers.
        chosen: index of the named depth.
    """
    per_class = class_table(predicted, labels, class_names)
    rows = [
        (
            "",
            (
                Cell(str(row.name_)),
                Cell(f"{row.images}"),
                Cell(_number(100 * row.recall, ".1f")),
                Cell(_number(100 * row.precision, ".1f")),
                Cell(_number(100 * row.f1, ".1f")),
                Cell(f"{row.taken_for} ({row.taken_count})" if row.taken_for else "–"),
            ),
        )
        for row in per_class.rename(columns={"class": "name_"}).itertuples()
    ]
    found = [
        Table(
            f"Classes at {depths[chosen]} layers, in percent",
            ("Class", "Images", "Recall", "Precision", "F1", "Most often taken for"),
            tuple(rows),
        )
    ]
    changes = class_changes(correct, labels, class_names, chosen)
    worst = changes.set_index("class")
    order = worst.abs().max(axis=1).sort_values(ascending=False, kind="stable")
    names = list(order.index[:MOST_CLASSES])
    rows = [
        (
            "",
            (Cell(str(name)), *(Cell(f"{100 * x:+z.1f}") for x in worst.loc[name])),
        )
        for name in names
    ]
    more = f"; the {len(names)} that change most" if len(order) > len(names) else ""
    found.append(
        Table(
            f"Recall of a class by depth, points more or less than at "
            f"{depths[chosen]} layers{more}",
            ("Class", *(f"{depth} layers" for depth in depths)),
            tuple(rows),
        )
    )
    if len(class_names) <= MOST_CLASSES:
        matrix = confusion_matrix(predicted, labels, len(class_names))
        rows = [
            ("", (Cell(name), *(Cell(str(count)) for count in counts)))
            for name, counts in zip(class_names, matrix, strict=True)
        ]
        found.append(
            Table(
                f"Confusion matrix at {depths[chosen]} layers: rows are the true "
                "classes, columns the answers, numbers are images",
                ("Class", *class_names),
                tuple(rows),
            )
        )
    return tuple(found)
