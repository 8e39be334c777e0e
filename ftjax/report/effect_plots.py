"""What each axis adds to the accuracy, as bars beside what the seeds add."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ftjax.analysis.variance import Variance, sentence_case
from ftjax.analysis.variance import share as share_text
from ftjax.report.drawing import GRID, INK, MARK, MUTED, STYLE, WIDE, new_figure

MOST_PAIRS = 8  # interactions that are drawn, the largest ones


@matplotlib.rc_context(STYLE)
def effect_bars(grid: Variance, *, width: float = WIDE) -> Figure:
    """Root mean square of each effect in points, its share of the variance beside it.

    Main effects are filled, interactions and seeds are not; a tick marks what the
    seeds' noise alone would give.
    """
    effects = (*grid.main, *grid.pairs[:MOST_PAIRS])
    whole = np.sqrt(grid.squares / grid.runs)
    bars = [
        (effect.title, effect.size, effect.noise, effect.share) for effect in effects
    ]
    if grid.seeds > 1:
        bars.append(("seeds", whole * np.sqrt(grid.within), np.nan, grid.within))
    top = grid.main[0]
    title = f"{sentence_case(top.title)}: {share_text(top.share)} of the variance"
    figure = new_figure(width, 1.3 + 0.3 * len(bars), title)
    ax = figure.subplots()
    draw_bars(ax, bars, len(grid.main))
    if grid.seeds > 1:
        tick = Line2D([], [], color=INK, ls="", marker="|", ms=9, mew=1.5)
        tick.set_label("what the seeds' noise alone would give")
        figure.legend(handles=[tick], loc="outside lower left")
    return figure


def draw_bars(
    ax: Axes, bars: list[tuple[str, float, float, float]], filled: int
) -> None:
    """Horizontal bars, the first one on top.

    Args:
        ax: to draw on.
        bars: name, length and place of the tick in accuracy (0..1; nan for none),
            share of the variance.
        filled: how many of them, the first ones.
    """
    names, sizes, noise, shares = zip(*bars, strict=True)
    lengths, ticks = 100 * np.array(sizes), 100 * np.array(noise)
    colors = [MARK] * filled + [GRID] * (len(bars) - filled)
    places = np.arange(len(bars))
    ax.barh(places, lengths, color=colors, ec=MUTED, lw=0.6, height=0.66)
    ax.vlines(ticks, places - 0.4, places + 0.4, color=INK)
    for place, part in enumerate(shares):
        end = np.fmax(lengths[place], ticks[place])
        offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(share_text(part), (end, place), size=8, **offset)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * max(lengths.max(), 0.1))
    ax.set_xlabel("points of accuracy (root mean square over the runs)")
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x")
