"""Sets of blocks beside the depths: a sentence, the map of the blocks, a table."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.set_gain import GRADUAL, SetGain, compare_sets, set_sentence
from ftjax.report.drawing import (
    AS_PERCENT,
    INK,
    MUTED,
    STYLE,
    WIDE,
    look_of,
    new_figure,
    percent,
)
from ftjax.report.inline import draw_image
from ftjax.report.sections import Block, Report, Section
from ftjax.report.tables import Cell, Table
from ftjax.sweep.results import SETS_FILE, read_correct

ABOUT_SETS = (
    "The named blocks and the head are trained, all other blocks frozen, those between "
    "trained ones as well; each set has the best of the rates that were tried. Points "
    "are paired over the validation images, ± one standard error with the noise "
    "between runs. Lee et al. 2023, “Surgical Fine-Tuning Improves Adaptation to "
    "Distribution Shifts”, train single blocks."
)
ABOUT_GRADUAL = (
    "From the head alone on, each depth goes on from the weights of the one before, "
    "for as many epochs again and with a new optimizer (Howard and Ruder 2018, "
    "“Universal Language Model Fine-tuning for Text Classification”)."
)


def read_sets(
    out: Path,
    results: pd.DataFrame,
    best: Recommendation | None,
    *,
    gradual: bool = False,
) -> SetGain | None:
    """The sets of a run against its depths; None where there are none.

    Args:
        out: the run's folder.
        results: as in results.csv.
        best: the answer.
        gradual: what was unfrozen gradually instead.
    """
    path = out / SETS_FILE
    if best is None or not path.is_file():
        return None
    sets = pd.read_csv(path, dtype={"trial": str})
    sets = sets[sets["data_hash"].isin(results["data_hash"])]
    sets = sets[sets["blocks"].str.startswith(GRADUAL) == gradual]
    done = [part[part["status"] == "done"] for part in (results, sets)]
    correct = read_correct(out, pd.concat(done, ignore_index=True))
    return compare_sets(results, sets, correct, setting=best.setting)


def answer_of_sets(
    out: Path, results: pd.DataFrame, best: Recommendation | None
) -> str:
    """The sentence about the sets of a run; '' without any. As of `read_sets`."""
    gains = (read_sets(out, results, best, gradual=kind) for kind in (False, True))
    return " ".join(set_sentence(gain) for gain in gains if gain is not None)


def gradual_unfreezing(report: Report) -> Section | None:
    """What depths reach that go on from one another."""
    every = report.results if report.every is None else report.every
    gain = read_sets(report.folder, every, report.best, gradual=True)
    if gain is None:
        return None
    blocks = (
        Block("text", set_sentence(gain).replace("+-", "±")),
        Block("grid", set_table(gain), "gradual-table"),
        Block("small", ABOUT_GRADUAL),
    )
    return Section("Gradual unfreezing", blocks)


def sets_of_blocks(report: Report) -> Section | None:
    """What sets of blocks reach beside the depths."""
    every = report.results if report.every is None else report.every
    gain = read_sets(report.folder, every, report.best)
    if gain is None:
        return None
    heads = report.results[report.results["depth_layers"] == 0]
    head = float(heads["val_accuracy"].mean()) if len(heads) else np.nan
    image = draw_image(
        "sets",
        lambda width: draw_sets(gain, head, width=width),
        "Validation accuracy where only these blocks and the head are trained, in the "
        "order of the network; whiskers are one standard error of the difference to "
        "the best cut.",
    )
    blocks = (
        Block("text", set_sentence(gain).replace("+-", "±")),
        Block("image", image),
        Block("grid", set_table(gain), "sets-table"),
        Block("small", ABOUT_SETS),
    )
    return Section("Sets of blocks", blocks)


@matplotlib.rc_context(STYLE)
def draw_sets(gain: SetGain, head: float, *, width: float = WIDE) -> Figure:
    """A point for each set and policy, with the best cut and the head alone as lines.

    Args:
        gain: of `compare_sets`.
        head: accuracy of the head alone; nan where it was not trained.
        width: of the figure, in inches.
    """
    names = list(dict.fromkeys(row.name for row in gain.sets))
    title = "A set of blocks beats every cut" if gain.beats else "Sets of blocks"
    figure = new_figure(width, 1.3 + 0.24 * len(names) + 0.5, title)
    ax = figure.subplots()
    policies = list(dict.fromkeys(row.bn for row in gain.sets))
    for shift, bn in enumerate(policies):
        own = [row for row in gain.sets if row.bn == bn]
        look = look_of(bn)
        places = [names.index(row.name) for row in own]
        offset = 0.16 * (shift - (len(policies) - 1) / 2)
        ax.errorbar(
            [row.accuracy for row in own],
            np.array(places) + offset,
            xerr=[row.stderr for row in own],
            fmt=look.marker,
            color=look.color,
            ms=5,
            lw=1.2,
            label=f"BatchNorm {bn}",
        )
    ax.axvline(gain.cut.accuracy, color=INK, lw=1.2)
    lines = [(gain.cut.accuracy, f"best cut, {gain.cut.depth} layers", INK)]
    if np.isfinite(head):
        ax.axvline(head, color=MUTED, lw=1.2, ls="--")
        lines.append((head, "head alone", MUTED))
    for place, (x, text, color) in enumerate(lines):
        end = {"xytext": (0, 4 + 10 * place), "textcoords": "offset points"}
        at = x, 1.0
        how = {"xycoords": ("data", "axes fraction"), "ha": "center", "size": 8}
        ax.annotate(text, at, color=color, **end, **how)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(AS_PERCENT)
    ax.set_xlabel("validation accuracy")
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x")
    if len(policies) > 1:
        figure.legend(loc="outside lower left", ncols=len(policies))
    return figure


def set_table(gain: SetGain) -> Table:
    """A row for each set and policy."""
    rows = [
        (
            "good" if row.inside else "",
            (
                Cell(row.name),
                Cell(row.bn),
                Cell(percent(row.accuracy)),
                Cell(f"{100 * row.gain:+.1f} ± {100 * row.stderr:.1f}"),
                Cell("yes" if row.inside else "no"),
            ),
        )
        for row in gain.sets
    ]
    columns = (
        "Trained",
        "BatchNorm",
        "Val-accuracy",
        "Points against the best cut",
        "May be the best of all",
    )
    return Table("Beside the depths", columns, tuple(rows))
