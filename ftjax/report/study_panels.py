"""One panel of the study's figures: both modes along a sweep, with intervals."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ftjax.report.drawing import AS_PERCENT, MUTED, new_figure, percent
from ftjax.study.points import FEATURES, MODES, WHOLE, Sweep
from ftjax.study.results import Study
from ftjax.study.verdicts import Z

# Okabe and Ito, "Color universal design" (2008), darkened.
LOOKS = {FEATURES: ("#0072b2", "s"), WHOLE: ("#c25400", "o")}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")


def draw_sweep(ax: Axes, study: Study, sweep: Sweep, *, training: bool = True) -> None:
    """Accuracy of both modes along a sweep, its values evenly apart.

    Bars are 95 %, images and runs; dots are single seeds.
    """
    for number, mode in enumerate(study.modes):
        color, marker = LOOKS[mode]
        places, cells = study.cells(mode, sweep)
        if not cells:
            continue
        where = np.array(places) + 0.08 * (number - 0.5 * (len(study.modes) - 1))
        means = study.evidence.means[cells]
        half = Z * np.sqrt(np.diag(study.evidence.covariance)[cells])
        ax.errorbar(
            where, means, half, color=color, marker=marker, ms=4.5, lw=1.6, capsize=2.5
        )
        for place, values in zip(where, study.measured.val[cells], strict=True):
            ax.plot([place] * len(values), values, ".", color=color, ms=3, alpha=0.55)
        if training:
            seen = study.measured.training[cells].mean(axis=1)
            ax.plot(where, seen, "--", color=color, alpha=0.6, lw=1.1)
    ax.set_xticks(range(len(sweep.labels)), sweep.labels)
    ax.set_xlim(-0.4, len(sweep.labels) - 0.6)
    ax.set_xlabel(sweep.title)
    ax.yaxis.set_major_formatter(AS_PERCENT)


def draw_level(ax: Axes, value: float, text: str) -> None:
    """A horizontal line with its name, where it lies among what is drawn."""
    ax.axhline(value, color=MUTED, lw=0.9, ls=":")
    ax.annotate(
        text,
        (1, value),
        (-2, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        size=8,
    )


def finish(figure: Figure, study: Study, *more: Line2D, training: bool = True) -> None:
    """The legend below a figure."""
    items = [
        Line2D([], [], color=LOOKS[mode][0], marker=LOOKS[mode][1], ms=4.5, label=words)
        for mode, words in MODES.items()
        if mode in study.modes
    ]
    if training:
        gray = {"color": MUTED, "ls": "--"}
        items.append(Line2D([], [], label="training batches of the last epoch", **gray))
    figure.legend(
        handles=[*items, *more],
        loc="outside lower left",
        ncols=4 if figure.get_figwidth() > 6 else 2,
    )


def say_best(study: Study, sweep: Sweep, words: str = "") -> str:
    """E.g. `Batch size: best 8 with features alone (81.2 %), 32 with all layers (..)`.

    Args:
        study: what was measured.
        sweep: of which the best values are told.
        words: what it is of, if not its title.
    """
    parts = []
    for mode in study.modes:
        places, cells = study.cells(mode, sweep)
        if cells:
            best = int(study.evidence.means[cells].argmax())
            mean = percent(float(study.evidence.means[cells[best]]))
            label = sweep.labels[places[best]]
            parts.append(f"{label} with {MODES[mode]} ({mean})")
    words = words or sweep.title
    found = f"best {', '.join(parts)}" if parts else "no setting is finished"
    return f"{words[:1].upper()}{words[1:]}: {found}"


def sweep_figure(
    study: Study, name: str, *, width: float, level: float | None = None
) -> Figure:
    """A figure of one sweep."""
    sweep = study.design.sweeps[name]
    figure = new_figure(width, 3.7, say_best(study, sweep))
    ax = figure.subplots()
    draw_sweep(ax, study, sweep)
    ax.set_ylabel("accuracy on validation images")
    if level is not None:
        draw_level(ax, level, f"paper: {percent(level, 0)}")
    finish(figure, study)
    return figure


def shades(count: int) -> np.ndarray:
    """Colors (count, 4) for the values of an axis, seen on white and on black."""
    return matplotlib.colormaps["plasma"](np.linspace(0.1, 0.8, count))


def panel_figure(
    study: Study, names: Mapping[str, str], thing: str, *, width: float
) -> Figure:
    """A panel for each of some sweeps over the same values."""
    sweeps = study.design.sweeps
    across = 2 if width > 6 else 1
    lines = -(-len(names) // across)
    first = next(iter(names))
    title = say_best(study, sweeps[first], f"{thing}, {names[first]}")
    figure = new_figure(width, 1.4 + 2.4 * lines, title)
    axes = figure.subplots(lines, across, sharey=True, squeeze=False)
    for ax, (name, words) in zip(axes.ravel(), names.items(), strict=True):
        draw_sweep(ax, study, sweeps[name])
        ax.set_title(words)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    finish(figure, study)
    return figure
