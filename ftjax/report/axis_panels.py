"""Accuracy along every hyperparameter that was varied, and all of them at once."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.tuning import tuned_rows
from ftjax.analysis.wording import number
from ftjax.axes import AXES, Axis
from ftjax.report.drawing import (
    AS_PERCENT,
    GRID,
    MARK,
    MUTED,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    empty_figure,
    finished,
    limit_values,
    look_of,
    measured,
    new_figure,
    percent,
    seed_interval,
    setting_line,
)

FEWEST = 3  # axes from which parallel coordinates are drawn


def varied_axes(results: pd.DataFrame) -> tuple[Axis, ...]:
    """The hyperparameters of which several values were trained to the end."""
    rows = rows_along(results, "epochs")
    return tuple(
        axis for axis in AXES if axis.name in rows and rows[axis.name].nunique() > 1
    )


def rows_along(results: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Finished rows: of the longest trials, but along the epochs of all."""
    longest = finished(results)
    if axis != "epochs" or longest.empty or "epochs" not in results:
        return longest
    counts = np.unique(results.loc[results["val_accuracy"].notna(), "epochs"])
    parts = (finished(results[results["epochs"] == count]) for count in counts)
    return pd.concat(list(parts))


@matplotlib.rc_context(STYLE)
def axis_panels(
    results: pd.DataFrame,
    recommendation: Recommendation | None = None,
    *,
    width: float = WIDE,
) -> Figure:
    """Accuracy along each varied hyperparameter, a panel each.

    At every value of the hyperparameter the other settings are each depth's best.

    Args:
        results: as in results.csv, of all settings.
        recommendation: whose depth and policy are drawn; of the first policy without.
        width: of the figure, in inches.
    """
    axes = varied_axes(results)
    if not axes:
        return empty_figure(width, NOTHING, setting_line(results))
    columns = min(len(axes), 3 if width > 6 else 1)
    lines = -(-len(axes) // columns)
    names = [axis.title for axis in axes]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    title = f"Validation accuracy along {listed}"
    figure = new_figure(width, 1.2 + 2.2 * lines, title)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel in panels[len(axes) :]:
        panel.remove()
    values = []
    for panel, axis in zip(panels, axes, strict=False):
        rows = rows_along(results, axis.name)
        bn = recommendation.bn if recommendation else rows["bn"].iloc[0]
        values += draw_panel(panel, rows[rows["bn"] == bn], axis, recommendation)
    limit_values(panels[0], np.concatenate(values), rate=True, strip=0.2)
    for panel in panels[:: max(columns, 1)][:lines]:
        panel.yaxis.set_major_formatter(AS_PERCENT)
    figure.legend(
        handles=panel_key(recommendation),
        loc="outside lower left",
        ncols=4 if width > 6 else 2,
    )
    return figure


def panel_key(best: Recommendation | None) -> list[Line2D]:
    """What the lines of a panel mean."""
    items = [
        Line2D([], [], color=MUTED, ls=":", marker="o", mfc=PAPER, ms=4),
    ]
    items[0].set_label("each value's best depth (its layers below)")
    if best is not None:
        look = look_of(best.bn)
        line = {"color": look.color, "marker": look.marker, "ms": 4.5}
        where = f"{best.depth_layers} layers" if best.depth_layers else "head alone"
        items.insert(0, Line2D([], [], label=f"{where}, 95 % interval", **line))
        training = {"color": look.color, "ls": "--", "alpha": 0.55}
        items.insert(1, Line2D([], [], label="training images", **training))
    return items


def draw_panel(
    ax: Axes, rows: pd.DataFrame, axis: Axis, best: Recommendation | None
) -> list[np.ndarray]:
    """One hyperparameter; returns the accuracies that are drawn."""
    values = sorted(rows[axis.name].unique())
    is_number = pd.api.types.is_numeric_dtype(rows[axis.name])
    places = np.array(values, float) if is_number else np.arange(len(values))
    tuned = {
        value: tuned_rows(rows[rows[axis.name] == value]).groupby("depth_layers")
        for value in values
    }
    means = [groups["val_accuracy"].mean() for groups in tuned.values()]
    tops = np.array([own.max() for own in means])
    ax.plot(places, tops, ":", color=MUTED, marker="o", mfc=PAPER, ms=4)
    text = {"ha": "center", "size": 8, "color": MUTED}
    for place, own in zip(places, means, strict=True):
        where = ax.get_xaxis_transform()
        ax.text(place, 0.03, f"{own.idxmax():.0f}", transform=where, **text)
    shown = [tops]
    if best is not None:
        shown += draw_named(ax, places, list(tuned.values()), best)
    if is_number and axis.log and places.min() > 0:
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(places, [number(v) if is_number else str(v) for v in values])
    ax.set_xlabel(axis.title)
    ax.margins(x=0.12)
    return shown


def draw_named(ax: Axes, places: np.ndarray, groups: Sequence, best: Recommendation):
    """The recommended depth along the values where it was trained."""
    at = [i for i, own in enumerate(groups) if best.depth_layers in own.groups]
    if not at:
        return []
    parts = [groups[i].get_group(best.depth_layers) for i in at]
    runs = [part["val_accuracy"].to_numpy(float) for part in parts]
    mean, half = np.array([own.mean() for own in runs]), seed_interval(runs)
    look, where = look_of(best.bn), places[at]
    ax.plot(where, mean, color=look.color, marker=look.marker, ms=4.5, lw=1.7)
    for place, own in zip(where, runs, strict=True):
        if len(own) > 1:
            ax.plot([place] * len(own), own, ".", color=look.color, ms=4, alpha=0.6)
    ax.errorbar(where, mean, half, fmt="none", ecolor=look.color, capsize=3, lw=1)
    shown = [mean, *runs]
    if all(measured(part, "accuracy") for part in parts):
        training = np.array([part["accuracy"].mean() for part in parts])
        ax.plot(where, training, "--", color=look.color, alpha=0.55, lw=1.1)
        shown.append(training)
    return shown


@matplotlib.rc_context(STYLE)
def speed_by_batch_size(results: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Images per second over the batch size, at three of the depths."""
    done = finished(results)
    done = done[done["seconds"] > 0]
    speed = done["epochs"] * done["train_size"] / done["seconds"]
    table = done.assign(speed=speed).groupby(["depth_layers", "batch_size"])["speed"]
    means = table.mean().unstack()
    depths = means.index[np.unique([0, len(means) // 2, len(means) - 1])]
    sizes = means.columns.to_numpy(float)
    best = means.max(axis=None)
    figure = new_figure(width, 3.2, f"Up to {best:,.0f} images a second")
    ax = figure.subplots()
    for style, depth in zip(("-", "--", ":"), depths, strict=False):
        name = "head alone" if depth == 0 else f"{depth:.0f} layers"
        line = {"color": MARK, "ls": style, "marker": "o", "ms": 4.5}
        ax.plot(sizes, means.loc[depth], label=name, **line)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    ax.set_xlabel("batch size")
    ax.set_ylabel("training images a second")
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}")
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_formatter(plain)
    figure.legend(loc="outside lower left", ncols=3)
    return figure


@matplotlib.rc_context(STYLE)
def parallel_coordinates(results: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Every setting as a line across all varied axes, the best one marked.

    Args:
        results: as in results.csv, of all settings.
        width: of the figure, in inches.
    """
    rows = rows_along(results, "epochs")
    axes = varied_axes(results)
    names = {axis.name: axis.title for axis in axes} | {"depth_layers": "layers"}
    if rows["bn"].nunique() > 1:
        names |= {"bn": "BatchNorm"}
    cells = rows.groupby([*names], dropna=False)["val_accuracy"].mean().reset_index()
    cells = cells.sort_values("val_accuracy")
    accuracy = cells["val_accuracy"].to_numpy(float)
    low, high = accuracy.min(), accuracy.max()
    shades = (accuracy - low) / max(high - low, 1e-9)
    title = f"{len(cells)} settings; the best, {percent(high)}, is marked"
    figure = new_figure(width, 3.8, title)
    ax = figure.subplots()
    heights = np.empty((len(cells), len(names) + 1))
    for column, name in enumerate(names):
        values = sorted(cells[name].dropna().unique())
        steps = max(len(values) - 1, 1)
        place = {value: i / steps for i, value in enumerate(values)}
        heights[:, column] = [place.get(value, np.nan) for value in cells[name]]
        for value, height in place.items():
            text = number(value) if isinstance(value, int | float) else str(value)
            ax.annotate(
                text,
                (column, height),
                (-5, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                size=8,
                bbox={"fc": PAPER, "ec": "none", "pad": 1, "alpha": 0.85},
            )
    heights[:, -1] = shades
    places = np.arange(len(names) + 1)
    for place in places:
        ax.axvline(place, color=GRID, lw=1, zorder=0)
    colors = matplotlib.colormaps["viridis"](1 - shades)
    for own, color in zip(heights, colors, strict=True):
        ax.plot(places, own, color=color, lw=1, alpha=0.6)
    ax.plot(places, heights[-1], color=MARK, lw=2.6)
    for share in (0.0, 0.5, 1.0):
        ax.annotate(
            percent(low + share * (high - low)),
            (places[-1], share),
            (5, 0),
            textcoords="offset points",
            va="center",
            size=8,
        )
    ax.set_xticks(places, [*names.values(), "validation\naccuracy"])
    ax.set_yticks([])
    ax.set_xlim(-0.45, places[-1] + 0.5)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return figure
