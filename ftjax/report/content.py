"""What the report page says: its table, notices, facts and advice as plain text."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.curves import MOVED, NOT_DONE, STOPPED
from ftjax.analysis.metrics import class_changes, class_table, confusion_matrix
from ftjax.analysis.recommend import RANDOM_WEIGHTS, Recommendation
from ftjax.analysis.wording import METRIC_WORDS, depth_span, metric_value, number
from ftjax.axes import Axis
from ftjax.machine.files import read_json
from ftjax.report import batchnorm_plots, drawing

TIME_FILE = "time.json"  # what the commands took, in the folder of the run
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


def notices(
    results: pd.DataFrame, best: Recommendation | None = None
) -> tuple[tuple[str, str], ...]:
    """What must not be overlooked, as (level, sentence); level is 'bad' or 'warn'."""
    found = []
    if best is not None and best.left_out:
        found.append(("warn", best.left_out["sentence"]))
    if "weights" in results and "random" in set(results["weights"]):
        found.append(
            (
                "warn",
                "Random weights: this network was not pretrained. The run shows that "
                "the machinery works; it says nothing about transfer, and its depth "
                "is no advice for pretrained weights.",
            )
        )
    if "frozen_intact" in results:
        broken = results["frozen_intact"].astype(str).str.lower() == "false"
        if bool(broken.any()):
            found.append(
                (
                    "bad",
                    f"Freeze broken in {_trials(results[broken])}: frozen weights or "
                    "statistics changed. These numbers are left out; do not use them.",
                )
            )
    if "status" in results:
        for status, level, words in (
            ("failed", "bad", "Failed, and left out of every mean and fit"),
            (
                "diverged",
                "bad",
                "Diverged: at chance in the figures, in no mean or fit",
            ),
            (
                "stopped",
                "warn",
                "Stopped early by --search halving, and left out of every mean and fit",
            ),
            ("pending", "warn", "Not finished yet; the same command goes on with them"),
        ):
            rows = results[results["status"] == status]
            if len(rows):
                found.append((level, f"{words}: {_trials(rows)}."))
    return tuple(found)


def further_warnings(best: Recommendation) -> tuple[str, ...]:
    """The warnings of the recommendation that no notice has said already."""
    said = (f": {NOT_DONE}", f": {STOPPED}", f": {MOVED}", RANDOM_WEIGHTS)
    return tuple(text for text in best.warnings if not any(s in text for s in said))


def _trials(rows: pd.DataFrame) -> str:
    names = rows.drop_duplicates("trial") if "trial" in rows else rows
    depths = ", ".join(f"{d:.0f}" for d in sorted(rows["depth_layers"].unique())[:12])
    count = f"{len(names)} trial{'s' * (len(names) != 1)}"
    return f"{count} (depth {depths}{', …' * (rows['depth_layers'].nunique() > 12)})"


def _advice_without_lag(done: pd.DataFrame) -> str:
    text = (
        "Here training mode is nowhere clearly above evaluation mode: no lag of the "
        "running statistics shows. (Accuracy in training mode is the mean over the "
        "last epoch, so where a network still learns fast a small lag is hidden.) "
    )
    gains = batchnorm_plots.frozen_gains(done)
    if not gains.max() >= batchnorm_plots.CLEAR_GAP:
        return text + "Nothing needs to be done about BatchNorm."
    return (
        f"{text}Yet with BatchNorm held in inference mode the same depth scores up to "
        f"{100 * gains.max():.0f} points more ({gains.idxmax()} layers): the "
        "pretrained statistics serve better than those of each batch. What to do: "
        "keep BatchNorm frozen (--bn frozen)."
    )


def batchnorm_advice(results: pd.DataFrame) -> str:
    """One paragraph: what the distance of training and evaluation mode means here."""
    done = drawing.finished(results)
    if not drawing.measured(done, *batchnorm_plots.MODES):
        return ""
    gap = batchnorm_plots.mode_gaps(done)
    if gap.empty:
        return (
            "Here BatchNorm was frozen in every trial: both modes use the same running "
            "statistics, so they cannot lag."
        )
    if gap.max() < batchnorm_plots.CLEAR_GAP:
        return _advice_without_lag(done)
    bn, depth = drawing.peak(gap)
    return (
        f"Here the distance reaches {100 * gap.max():.0f} points (BatchNorm {bn}, "
        f"{depth} layers). Accuracy that falls for this reason is not overfitting and "
        "not forgetting: the trained weights are better than they look. What to do: "
        "keep BatchNorm frozen (--bn frozen), or let the statistics be re-estimated "
        "over the training images before evaluation (--bn recalibrate); more steps "
        "or a BatchNorm momentum of 0.9 instead of 0.99 help as well."
    )


def answer_parts(best: Recommendation) -> tuple[str, ...]:
    """The sentences of the answer without what it begins with, for the page.

    The set of depths is left out: it stands among the key facts.
    """
    return tuple(
        part.replace("+-", "±").replace(" %", "\N{NO-BREAK SPACE}%")
        for part in best.parts
    )


def key_facts(
    results: pd.DataFrame, best: Recommendation
) -> tuple[tuple[str, str], ...]:
    """The numbers a reader looks for first, as (name, value)."""
    name = METRIC_WORDS[best.metric]
    facts = []
    if best.expected is not None and best.expected_interval is not None:
        low, high = (metric_value(best.metric, x) for x in best.expected_interval)
        new = "new runs" if best.confidence is not None else "this run"
        facts.append(
            (
                f"Expected {name} ({new}, new images)",
                f"{metric_value(best.metric, best.expected)} ({low} to {high})",
            )
        )
    measured = metric_value(best.metric, best.val_accuracy)
    facts.append((f"As measured ({name})", measured))
    if best.interval_layers is not None:
        mass = best.confidence
        head = "As good as can be told"
        head += f" ({100 * mass:.0f} % set)" if mass else " (run noise assumed)"
        low, high = best.interval_layers
        span = depth_span(best.not_worse, best.tested)
        if best.scope.startswith("every depth"):
            span = f"{low} to {high} layers" if low < high else f"{low} layers"
        facts.append((head, span))
        least = f"{best.smallest} layers" if best.smallest else "the head"
        facts.append(("The smallest of them", least))
    if best.baseline is not None:
        base = metric_value(best.metric, best.baseline)
        facts.append(("Majority class", base))
    return tuple(
        (key, value.replace(" %", "\N{NO-BREAK SPACE}%")) for key, value in facts
    )


def time_facts(folder: Path, results: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """What the run took, compilation and loading included, and what was forecast.

    Where no command has written its time, the sum over the trials stands instead.

    Args:
        folder: of the run.
        results: as in results.csv.
    """
    known = read_json(folder / TIME_FILE) or {}
    commands = known.get("commands", [])
    if not commands:
        if not drawing.measured(results, "seconds"):
            return ()
        unique = results.drop_duplicates("trial") if "trial" in results else results
        columns = [name for name in ("seconds", "compile_seconds") if name in unique]
        total = unique[columns].sum().sum()
        return (("Time of all trials, with compilation", f"{total:.0f} s"),)
    total = sum(command["seconds"] for command in commands)
    facts = [("Time in all, with compilation", f"{total:.0f} s")]
    if "plan" in known:
        facts.append(("Forecast by --plan", f"{known['plan']:.0f} s"))
    if len(commands) == 1 and commands[0]["forecast"] is not None:
        text = f"{commands[0]['forecast']:.0f} s"
        facts.append(("Forecast after the first trial", text))
    return tuple(facts)


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
