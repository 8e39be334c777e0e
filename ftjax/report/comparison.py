"""Several runs side by side: one figure, one table, one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftjax.analysis.runs import (
    RULE,
    Cost,
    RunAnswer,
    answer_words,
    comparison_sentences,
    run_table,
)
from ftjax.analysis.wording import set_basis
from ftjax.machine.files import read_json, write_atomically
from ftjax.report.answer import recommend_run
from ftjax.report.drawing import (
    MARK,
    MUTED,
    PAPER,
    STYLE,
    WIDE,
    new_figure,
    save,
    shorten,
)
from ftjax.report.inline import draw_image
from ftjax.report.page import render
from ftjax.report.sections import Block, Section
from ftjax.report.tables import MISSING, Cell, Table

# Okabe and Ito, "Color universal design" (2008), the light ones darkened.
COLORS = ("#0072b2", "#c25400", "#00795b", "#a0467c", "#3a89b8", "#8a6d00", "#57606a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HEADINGS = (
    "Run",
    "Network on data",
    "Depth (share), value",
    "As good as can be told",
    f"{RULE[0]} to {RULE[1]} % in the set",
    "Cost of that rule",
    "Cost of full fine-tuning",
    "Cost of the head alone",
)
CAPTION = (
    "Each run's best depth and what other depths cost there, in points ± one standard "
    "error of the difference"
)
ABOUT = (
    "The rule's depth is the tested one nearest to the middle of its shares; its own "
    "share is told where none within them was tested. Costs are on the validation "
    "images on which the best depth was chosen, so they are somewhat too high. A share "
    "of the layers is in a run's set where the tested depth nearest to it is."
)


class Page(NamedTuple):
    """What was written.

    Attributes:
        table: a row for each run.
        notes: what to know about single runs.
    """

    table: Table
    notes: tuple[str, ...]


def read_runs(
    folders: Sequence[Path], *, metric: str | None = None
) -> tuple[RunAnswer, ...]:
    """The answers of some sweeps, each named as its folder.

    Args:
        folders: of the sweeps.
        metric: that is compared; None: what each run was judged by.

    Raises:
        ValueError: a run has no finished trial, or not what the metric needs.
    """
    names = [folder.resolve().name for folder in folders]
    found = []
    for folder, name in zip(folders, names, strict=True):
        name = name if names.count(name) == 1 else str(folder)
        results = pd.read_csv(folder / "results.csv")
        settings = {} if metric is None else {"metric": metric}
        try:
            answer = recommend_run(folder, results, **settings)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        config = read_json(folder / "config.json")["config"]
        data = Path(str(config["data"])).name
        found.append(RunAnswer(name, config["model"], data, answer))
    return tuple(found)


def write_comparison(folder: Path, runs: Sequence[RunAnswer]) -> Page:
    """Writes compare.csv, compare.png, compare.svg and compare.html."""
    content = run_table(runs).to_csv(index=False).encode()
    write_atomically(folder / "compare.csv", content)
    save(share_curves(runs), folder / "compare")
    page = Page(shown_table(runs), run_notes(runs))
    image = draw_image(
        "compare",
        lambda width: share_curves(runs, width=width),
        "Each run against its own best depth, over the share of the layers. Filled: as "
        "good as can be told. Bands are one standard error of the difference.",
    )
    rule, *others = comparison_sentences(runs)
    notes = (Section("Notes", (Block("list", page.notes),)),) if page.notes else ()
    text = render(
        "compare.html.j2",
        subject=f"{len(runs)} runs",
        answer=(rule, *others),
        main=image,
        sections=(
            Section(
                "Run by run",
                (Block("wide", page.table, "runs"), Block("small", ABOUT)),
            ),
            *notes,
        ),
    )
    write_atomically(folder / "compare.html", text.encode())
    return page


def run_notes(runs: Sequence[RunAnswer]) -> tuple[str, ...]:
    """What each run's set is worth, and what it says before its answer."""
    notes = []
    for run in runs:
        fields = vars(run.answer)
        parts = [f"{run.name}: {set_basis(fields)}", *run.answer.caveats]
        notes.append(". ".join(part.rstrip(".") for part in parts) + ".")
    return tuple(notes)


def shown_table(runs: Sequence[RunAnswer]) -> Table:
    """The table of the page and of the terminal."""
    rows = []
    for run in runs:
        held = {None: "none tested", True: "yes", False: "no"}[run.rule_in_set]
        rule = str(run.rule)
        if not run.rule_tested:
            rule += f" (at {run.rule.percent:.0f} %)"
        cells = (
            run.name,
            f"{run.model} on {run.data}",
            answer_words(run),
            run.set_words,
            held,
            rule,
            cost_words(run.full),
            cost_words(run.head),
        )
        rows.append(("", tuple(map(Cell, cells))))
    return Table(CAPTION, HEADINGS, tuple(rows))


def cost_words(cost: Cost | None) -> str:
    """A cost, or a dash where it is not known."""
    return MISSING if cost is None else str(cost)


@matplotlib.rc_context(STYLE)
def share_curves(runs: Sequence[RunAnswer], *, width: float = WIDE) -> Figure:
    """Curves of all runs over the share of the layers, and their sets below.

    Args:
        runs: that are compared.
        width: of the figure, in inches.
    """
    lines = -(-len(runs) // (2 if width > 6 else 1)) + 1
    height = 3.4 + 0.24 * len(runs) + 0.2 * lines
    title, *_ = comparison_sentences(runs)[0].partition(". ")
    figure = new_figure(width, height, title)
    curves, sets = figure.subplots(
        2, sharex=True, height_ratios=(2.6, 0.24 * len(runs) + 0.1)
    )
    for ax in (curves, sets):
        ax.axvspan(*RULE, color=MARK, alpha=0.1, lw=0)
    for number, run in enumerate(runs):
        look = {
            "color": COLORS[number % len(COLORS)],
            "marker": MARKERS[number % len(MARKERS)],
        }
        draw_run(curves, sets, run, number, look)
    curves.axhline(0, color=MUTED, lw=0.8)
    curves.set_ylabel("points below the run's best")
    sets.set_yticks(range(len(runs)), [shorten(run.name, 26) for run in runs])
    sets.set_ylim(len(runs) - 0.5, -0.5)
    sets.set_xlim(-2, 102)
    sets.set_xticks(range(0, 101, 20), [f"{x} %" for x in range(0, 101, 20)])
    sets.set_xlabel("share of the layers unfrozen from the top (0 = head alone)")
    gray = {"ls": "", "color": MUTED, "marker": "o", "ms": 5}
    figure.legend(
        handles=[
            Line2D([], [], label="as good as can be told", **gray),
            Line2D([], [], label="shown to be worse", mfc=PAPER, **gray),
            Line2D([], [], **(gray | {"ms": 11, "mfc": "none"}), label="best depth"),
            Patch(fc=MARK, alpha=0.15, label=f"{RULE[0]} to {RULE[1]} %"),
        ],
        loc="outside lower left",
        ncols=4 if width > 6 else 2,
    )
    return figure


def draw_run(curves: Axes, sets: Axes, run: RunAnswer, number: int, look: dict) -> None:
    """One curve, and one row of its tested depths."""
    depths = np.array(sorted(run.answer.losses))
    shares = np.array([run.percent(depth) for depth in depths])
    costs = [run.cost(int(depth)) for depth in depths]
    values = -100 * np.array([cost.loss for cost in costs])
    errors = 100 * np.array([cost.stderr for cost in costs])
    inside = np.isin(depths, run.answer.not_worse)
    color = look["color"]
    curves.plot(shares, values, color=color, lw=1.6)
    curves.fill_between(
        shares, values - errors, values + errors, color=color, alpha=0.1, lw=0
    )
    here = run.answer.depth_percent
    best = values[depths == run.answer.depth_layers]
    for ax, heights in ((curves, values), (sets, np.full(len(depths), number))):
        for chosen, face in ((inside, color), (~inside, PAPER)):
            ax.plot(shares[chosen], heights[chosen], ls="", ms=5.5, mfc=face, **look)
    ring = {"ms": 11, "mfc": "none", "mec": color, "mew": 1.5}
    curves.plot(here, best, "o", **ring)
    sets.plot(here, number, "o", **ring)
