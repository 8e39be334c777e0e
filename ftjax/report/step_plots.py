"""Loss and accuracy of the training batches, step by step."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ftjax.analysis.tuning import tuned_rows
from ftjax.analysis.wording import number
from ftjax.axes import Axis
from ftjax.report.drawing import AS_PERCENT, STYLE, WIDE, finished, new_figure

SHARE = 10  # of the steps, one part is the width of the running mean
MOST_POINTS = 200  # of a line
MOST_LINES = 6
Curves = dict[str, np.ndarray]  # (steps, 2) loss and accuracy by name


def curves_by_depth(results: pd.DataFrame, steps: Mapping[str, np.ndarray]) -> Curves:
    """Of up to six depths, evenly spaced; seeds and policies are averaged.

    Args:
        results: as in results.csv, of one setting.
        steps: by trial, (steps, 2) loss and accuracy.
    """
    rows = finished(results)
    rows = rows[rows["trial"].isin(steps)]
    depths = np.unique(rows["depth_layers"])
    if len(depths) > MOST_LINES:
        depths = depths[np.linspace(0, len(depths) - 1, MOST_LINES).round().astype(int)]
    return {
        "head alone" if depth == 0 else f"{depth:.0f} layers": mean_curve(
            rows.loc[rows["depth_layers"] == depth, "trial"], steps
        )
        for depth in depths
    }


def curves_by_value(
    results: pd.DataFrame, axis: Axis, depth: int, steps: Mapping[str, np.ndarray]
) -> Curves:
    """Of a depth, at every value of an axis; other settings are the best there.

    Args:
        results: as in results.csv, of all settings.
        axis: that was varied.
        depth: in layers.
        steps: by trial, (steps, 2) loss and accuracy.
    """
    rows = finished(results)
    rows = rows[rows["trial"].isin(steps) & (rows["depth_layers"] == depth)]
    found = {}
    for value, own in rows.groupby(axis.name):
        plain = pd.api.types.is_number(value)
        name = f"{axis.title} {number(value) if plain else value}"
        found[name] = mean_curve(tuned_rows(own)["trial"], steps)
    return found


def mean_curve(trials: Sequence[str], steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean (steps, 2) of the trials, as far as the shortest one goes."""
    own = [steps[trial] for trial in dict.fromkeys(trials)]
    return np.mean([curve[: min(map(len, own))] for curve in own], axis=0)


def smooth(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running means (points, 2) of a curve, and the steps at their middle.

    Args:
        curve: (steps, 2).
    """
    size = max(1, len(curve) // SHARE)
    sums = np.cumsum(np.vstack([np.zeros((1, 2)), curve]), axis=0)
    means = (sums[size:] - sums[:-size]) / size
    places = np.arange(len(means)) + (size + 1) / 2
    kept = slice(None, None, -(-len(means) // MOST_POINTS))
    return places[kept], means[kept]


@matplotlib.rc_context(STYLE)
def step_curves(curves: Curves, title: str, *, width: float = WIDE) -> Figure:
    """Loss and accuracy over the steps, a line for each name.

    Args:
        curves: one or more, in the order of their colors.
        title: of the figure.
        width: of the figure, in inches.
    """
    wide = width > 6
    figure = new_figure(width, 3.4 if wide else 5.4, title)
    panels = figure.subplots(*((1, 2) if wide else (2, 1)))
    # Neither end of the map: one fades on white, the other on black.
    colors = matplotlib.colormaps["viridis"](np.linspace(0.35, 0.78, len(curves)))
    for (name, curve), color in zip(curves.items(), colors, strict=True):
        places, means = smooth(curve)
        for ax, values in zip(panels, means.T, strict=True):
            ax.plot(places, values, color=color, lw=1.5, label=name)
    for ax, name in zip(panels, ("loss (nats)", "accuracy"), strict=True):
        ax.set_xlabel("training step")
        ax.set_ylabel(f"{name} of the batch")
    panels[1].yaxis.set_major_formatter(AS_PERCENT)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower left",
        ncols=4 if wide else 2,
    )
    return figure
