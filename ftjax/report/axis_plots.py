"""Accuracy over depth and one hyperparameter, with the ridge of the best depths."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ftjax.analysis.surface import surface_axes
from ftjax.analysis.tuning import tuned_rows
from ftjax.analysis.wording import number
from ftjax.axes import AXES
from ftjax.report.drawing import (
    MARK,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    empty_figure,
    finished,
    new_figure,
    setting_line,
)

ON_LIGHT, ON_DARK = "#101418", "#f7fbff"  # on cells, which look the same by night
CELL_TEXT = 9  # columns above which the cells bear no numbers


@matplotlib.rc_context(STYLE)
def depth_by_axis(
    results: pd.DataFrame,
    axis: str,
    *,
    chance: float | None = None,
    width: float = WIDE,
) -> Figure:
    """Mean validation accuracy by depth and value, one panel for each policy.

    Of the other settings each cell has its best. A frame marks the best depth of every
    value. A cell of which every trial diverged is drawn at chance, with a cross.

    Args:
        results: as in results.csv.
        axis: column of numbers.
        chance: accuracy of guessing, if it is known.
        width: of the figure, in inches.
    """
    values = results.groupby(axis)
    done = pd.concat([finished(rows) for _, rows in values])
    if done.empty:
        return empty_figure(width, NOTHING, setting_line(results))
    name = next((own.title for own in AXES if own.name == axis), axis)
    policies = sorted(done["bn"].unique())
    wide = width > 6
    shape = (1, len(policies)) if wide else (len(policies), 1)
    lost = results[results["status"] == "diverged"] if "status" in results else done[:0]
    tried = pd.concat([done, lost])[[axis, "depth_layers"]]
    values, depths = (sorted(tried[column].unique()) for column in tried)
    height = 1.6 + (0.42 * len(values) + 0.9) * (1 if wide else len(policies))
    figure = new_figure(width, height, f"Validation accuracy by depth and {name}")
    panels = figure.subplots(*shape, squeeze=False, sharey=True).ravel()
    for ax, bn in zip(panels, policies, strict=True):
        part = done[done["bn"] == bn]
        tuned = pd.concat([tuned_rows(rows) for _, rows in part.groupby(axis)])
        cells = tuned.groupby([axis, "depth_layers"])["val_accuracy"].mean()
        table = cells.unstack().reindex(index=values, columns=depths)
        own = lost[lost["bn"] == bn].groupby([axis, "depth_layers"]).size()
        crossed = own.unstack().reindex(index=values, columns=depths).notna()
        draw_cells(ax, table, crossed & table.isna(), chance, str(bn))
    panels[0].set_ylabel(name)
    return figure


def draw_cells(
    ax: Axes, table: pd.DataFrame, crossed: pd.DataFrame, chance: float | None, bn: str
) -> None:
    """One panel: a row of cells for each value.

    Args:
        ax: to draw on.
        table: accuracy, values by depths; gaps where nothing was trained to the end.
        crossed: which gaps are of trials that diverged.
        chance: accuracy of guessing, which those have; None where it is not known.
        bn: policy, for the title.
    """
    values, crossed = table.to_numpy(float), crossed.to_numpy(bool)
    low, high = np.nanmin(values), np.nanmax(values)
    values = np.where(crossed, np.nan if chance is None else chance, values)
    ax.imshow(values, aspect="auto", origin="lower", cmap="Blues", vmin=low, vmax=high)
    for row, column in np.ndindex(*values.shape):
        value, cross = values[row, column], crossed[row, column]
        known = np.isfinite(value) and values.shape[1] <= CELL_TEXT
        if not (known or cross):
            continue
        dark = value - low > 0.55 * max(high - low, 1e-9)
        color = ON_DARK if dark else ON_LIGHT
        text = [f"{100 * value:.1f}"] if known else []
        text += ["\N{MULTIPLICATION SIGN}"] if cross else []
        ax.text(
            column,
            row,
            " ".join(text),
            ha="center",
            va="center",
            color=color,
            size=8,
            zorder=3,
        )
    ridge = [
        (int(np.nanargmax(own)), row)
        for row, own in enumerate(values)
        if np.isfinite(own).any()
    ]
    outline = [withStroke(linewidth=4.5, foreground=PAPER)]
    line = {"color": MARK, "lw": 2.2, "zorder": 2.5, "path_effects": outline}
    ax.plot(*zip(*ridge, strict=True), **line)
    for column, row in ridge:
        # Filled, so that the line runs from cell to cell and not across the numbers.
        shade = ax.images[0].to_rgba(values[row, column])
        frame = {"fc": shade, "ec": MARK, "lw": 2.2, "zorder": 2.6}
        ax.add_patch(Rectangle((column - 0.45, row - 0.42), 0.9, 0.84, **frame))
    ax.set_xticks(range(len(table.columns)), [f"{depth:g}" for depth in table.columns])
    ax.set_yticks(range(len(table.index)), [number(value) for value in table.index])
    ax.set_xlabel("layers unfrozen")
    ax.set_title(f"BatchNorm {bn}, percent", size=10)
    ax.grid(visible=False)


def axes_of(results: pd.DataFrame) -> tuple[str, ...]:
    """The axes that have a figure."""
    return surface_axes(results)
