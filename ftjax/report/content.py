"""What the report page says: its table, notices, facts and advice as plain text."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.curves import MOVED, NOT_DONE, STOPPED
from ftjax.analysis.recommend import RANDOM_WEIGHTS, Recommendation
from ftjax.analysis.wording import interval_scope
from ftjax.report import batchnorm_plots, drawing

MISSING = "–"


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
    """Mean in percent, with the standard deviation of the seeds where there are."""
    values = values.dropna()
    if values.empty:
        return MISSING
    mean = drawing.percent(float(values.mean()))
    return f"{mean} ± {100 * values.std():.1f}" if len(values) > 1 else mean


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
    return Cell(text, "bad" if "failed" in counts else "open")


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
        chosen = bool(best and depth == best.depth_layers and bn == best.bn)
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
        rows.append(("best" if chosen else "", cells))
    caption, columns = "Every depth that was asked for", COLUMNS
    if set(table["status"]) == {"done"}:
        caption, columns = f"{caption}, all done", COLUMNS[:-1]
        rows = [(mark, cells[:-1]) for mark, cells in rows]
    seeds = len(set(table["seed"]))
    if seeds > 1:
        caption += f"; mean ± standard deviation of {seeds} seeds"
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


def notices(results: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """What must not be overlooked, as (level, sentence); level is 'bad' or 'warn'."""
    found = []
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


def answer_parts(sentence: str) -> tuple[str, ...]:
    """The sentence cut at its semicolons, so that the answer itself can stand big.

    The interval is left out: it stands among the key facts.
    """
    text = sentence.rstrip(".").replace("+-", "±").replace(" %", "\N{NO-BREAK SPACE}%")
    first, *others = text.split("; ")
    kept = [part for part in others if "% interval " not in part]
    return (first, *(part[:1].upper() + part[1:] for part in kept))


def key_facts(
    results: pd.DataFrame, best: Recommendation
) -> tuple[tuple[str, str], ...]:
    """The numbers a reader looks for first, as (name, value)."""
    facts = [("Validation accuracy", drawing.percent(best.val_accuracy))]
    if best.interval_layers is not None:
        low, high = best.interval_layers
        over = interval_scope(best.interval_source)
        name = f"95 % interval of the best depth{over}"
        span = f"{low} to {high}" if low < high else f"{low}"
        facts.append((name, f"{span} layers"))
    least = best.smallest_within_one_se
    facts.append(("Smallest depth as good", f"{least} layers" if least else "the head"))
    if drawing.measured(results, "seconds"):
        unique = results.drop_duplicates("trial") if "trial" in results else results
        facts.append(("Training time, all trials", f"{unique['seconds'].sum():.0f} s"))
    return tuple(facts)
