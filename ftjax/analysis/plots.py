"""Pictures of a depth sweep: accuracy, loss, cost and BatchNorm over depth.

Every function takes the tidy tables of a run (`results.csv`, `epochs.csv`), leaves
out rows that are not finished, and returns a matplotlib `Figure` whose title states
the finding. `width` is in inches: `WIDE` for a page, `NARROW` for a phone.
"""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftjax.analysis.cost_plots import learning_curves, pareto
from ftjax.analysis.drawing import (
    AS_PERCENT,
    INK,
    LOOKS,
    MARK,
    MUTED,
    NARROW,
    NOTHING,
    OTHER,
    PAPER,
    STYLE,
    WIDE,
    Curve,
    Look,
    curve_of,
    depth_axes,
    empty_figure,
    finished,
    label_ends,
    measured,
    new_figure,
    peak,
    percent,
    policy_curves,
    save,
    setting_line,
)
from ftjax.analysis.fits import predict
from ftjax.analysis.recommend import Recommendation

__all__ = [
    "NARROW",
    "WIDE",
    "batchnorm_gap",
    "depth_curve",
    "learning_curves",
    "pareto",
    "save",
]

NAMES = {
    "val_accuracy": "validation accuracy",
    "accuracy": "training accuracy",
    "train_mode_accuracy": "accuracy in training mode",
    "val_loss": "validation loss",
    "loss": "training loss",
}
INTERVAL, FAILED = "interval of the best depth", "a trial failed here"
TRAINING = {"val_accuracy": "accuracy", "val_loss": "loss"}


@matplotlib.rc_context(STYLE)
def depth_curve(
    results: pd.DataFrame,
    recommendation: Recommendation | None = None,
    *,
    metric: str = "val_accuracy",
    width: float = WIDE,
) -> Figure:
    """One metric over unfreezing depth, a curve for each BatchNorm policy.

    Drawn: single trials as dots, their mean as a line, a 95 % interval where a depth
    has two or more seeds, the same metric on the training pictures dashed, and from
    the recommendation the fitted quadratic with its vertex, the depths that are not
    worse (shaded), the interval of the best depth and the depth itself.

    Args:
        results: rows as in results.csv; rows that are not done only leave a cross.
        metric: a column of results; fractions are shown in percent.

    Raises:
        ValueError: no such metric, or rows of more than one setting.
    """
    if metric not in NAMES or metric not in results:
        raise ValueError(f"unknown metric {metric!r}; choose one of {sorted(NAMES)}")
    done = finished(results)
    curves = policy_curves(done, metric)
    if not curves:
        return empty_figure(width, NOTHING, setting_line(results))
    rate = metric.endswith("accuracy")
    title = _depth_title(done, metric, recommendation)
    figure = new_figure(width, 4.9 if width > 6 else 5.4, title)
    ax = figure.subplots()
    ax.set_title(setting_line(results, width))
    training = TRAINING.get(metric)
    shown = [c.points[:, 1] for _, _, c in curves.values()]
    for _, look, curve in curves.values():
        _draw_curve(ax, curve, look)
    if training and measured(done, training):
        for bn in curves:
            side = curve_of(done[done["bn"] == bn], training)
            shown.append(side.mean)
            color = LOOKS.get(bn, OTHER).color
            ax.plot(side.depth, side.mean, "--", color=color, alpha=0.55, lw=1.1)
            if len(side.depth) == 1:
                ax.lines[-1].set_marker("_")
    answer = recommendation is not None and metric == "val_accuracy"
    _limit(ax, np.concatenate(shown), rate, strip=0.24 if answer else 0.08)
    depth_axes(ax, results, width - 1.6, top=True)
    ax.set_ylabel(NAMES[metric])
    if rate:
        ax.yaxis.set_major_formatter(AS_PERCENT)
    if recommendation is not None and answer:
        _draw_recommendation(ax, done, recommendation)
    _draw_failed(ax, results)
    ends = [(c.mean[-1], label, look.color) for label, look, c in curves.values()]
    label_ends(ax, ends, 0.055, "BatchNorm")
    _key(figure, ax, [c for _, _, c in curves.values()], metric)
    return figure


def _depth_title(done: pd.DataFrame, metric: str, best: Recommendation | None) -> str:
    means = done.groupby(["bn", "depth_layers"])[metric].mean().dropna()
    if metric == "val_accuracy" and best is not None:
        bn, depth, value = best.bn, best.depth_layers, best.val_accuracy
    else:
        bn, depth = peak(-means if "loss" in metric else means)
        value = means[bn, depth]
    total = done["total_layers"].max() if "total_layers" in done else None
    where = "head alone" if depth == 0 else f"top {depth:.0f} layers unfrozen"
    if total is not None and depth == total:
        where = f"all {depth:.0f} layers unfrozen"
    if means.index.get_level_values(0).nunique() > 1 and depth > 0:
        where += f" and BatchNorm {bn}"
    if best is not None and best.shape == "flat" and metric == "val_accuracy":
        spread = 100 * (means.xs(bn).max() - means.xs(bn).min())
        return f"No depth stands out: all lie within {spread:.1f} points"
    if metric.endswith("accuracy"):
        return f"Best {NAMES[metric]}, {percent(value)}: {where}"
    return f"Lowest {NAMES[metric]}, {value:.3f}: {where}"


def _draw_curve(ax: Axes, curve: Curve, look: Look) -> None:
    single = np.isnan(curve.half)
    size = 5.5 if len(curve.depth) <= 20 else 3.0
    ax.fill_between(
        curve.depth,
        np.where(single, np.nan, curve.mean - curve.half),
        np.where(single, np.nan, curve.mean + curve.half),
        color=look.color,
        alpha=0.14,
        lw=0,
    )
    line = {"color": look.color, "marker": look.marker, "ms": size, "lw": 1.9}
    ax.plot(curve.depth, curve.mean, **line, mec=PAPER, mew=0.7)
    if len(curve.points) > len(curve.depth):
        ax.plot(*curve.points.T, ".", color=look.color, ms=4, alpha=0.6)


def _limit(ax: Axes, values: np.ndarray, rate: bool, strip: float) -> None:
    """Limits from the measured values, with a free strip below (share of the span)."""
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.02 if rate else 0.05 * max(abs(high), 1e-3))
    middle = (high + low) / 2
    ax.set_ylim(middle - (0.5 + strip) * span, middle + 0.57 * span)


def _bands(depths: np.ndarray, chosen: tuple[int, ...]) -> list[tuple[float, float]]:
    """Intervals around the chosen depths, half way to their neighbors, merged."""
    middle = (depths[1:] + depths[:-1]) / 2
    pad = 0.5 * np.min(np.diff(depths)) if len(depths) > 1 else 0.5
    edges = np.concatenate([[depths[0] - pad], middle, [depths[-1] + pad]])
    bands: list[tuple[float, float]] = []
    for i in np.flatnonzero(np.isin(depths, chosen)):
        if bands and bands[-1][1] == edges[i]:
            bands[-1] = (bands[-1][0], edges[i + 1])
        else:
            bands.append((edges[i], edges[i + 1]))
    return bands


def _draw_recommendation(ax: Axes, done: pd.DataFrame, best: Recommendation) -> None:
    for low, high in _bands(np.unique(done["depth_layers"]), best.not_worse):
        ax.axvspan(low, high, color=MARK, alpha=0.09, lw=0)
    bottom, top = ax.get_ylim()
    grid = np.linspace(0, best.total_layers, 200)
    for bn, fit in best.quadratic.items():
        if fit is None or bn not in set(done["bn"]):
            continue
        color = LOOKS.get(bn, OTHER).color
        ax.plot(grid, predict(fit, grid), ":", c=color, lw=1.2)
        peak = float(predict(fit, fit.vertex))
        if 0 <= fit.vertex <= best.total_layers and bottom < peak < top:
            ax.plot(fit.vertex, peak, "D", ms=7, mfc=PAPER, mec=color, zorder=4)
    ax.set_ylim(bottom, top)
    here, strip = best.depth_layers, ax.get_xaxis_transform()
    ax.plot([here, here], [0.12, 0.98], color=MARK, lw=1, transform=strip, zorder=1)
    ax.plot(here, best.val_accuracy, "o", ms=12, mfc="none", mec=MARK, mew=1.8)
    text = f"recommended: {here} layers"
    if best.depth_units is not None:
        text += f", {best.depth_units} block{'s' * (best.depth_units != 1)}"
    if best.interval_layers is not None:
        ax.plot(best.interval_layers, [0.035] * 2, "|-", c=MARK, ms=7, lw=2.5)
        ax.lines[-1].set(transform=strip, label=INTERVAL)
    share = here / max(best.total_layers, 1)
    side = "left" if share < 0.4 else "right" if share > 0.6 else "center"
    ax.text(
        here,
        0.055,
        text if here else "recommended: the head alone",
        ha=side,
        va="bottom",
        color=MARK,
        weight="bold",
        transform=strip,
    )


def _draw_failed(ax: Axes, results: pd.DataFrame) -> None:
    if "status" not in results:
        return
    failed = results.loc[results["status"] == "failed", "depth_layers"].unique()
    strip = ax.get_xaxis_transform()
    if len(failed):
        ax.plot(
            failed,
            [0.0] * len(failed),
            "x",
            color=INK,
            ms=7,
            mew=2,
            transform=strip,
            clip_on=False,
            label=FAILED,
        )


def _key(figure: Figure, ax: Axes, curves: list[Curve], metric: str) -> None:
    """What the marks mean, in neutral gray: the colors are named at the curves."""
    gray, name = {"color": MUTED}, NAMES[metric]
    items: list = [Line2D([], [], marker="o", lw=1.9, ms=5, **gray, label=name)]
    if any(len(c.points) > len(c.depth) for c in curves):
        items[0].set_label(f"{name}, mean of the seeds")
        items.append(Line2D([], [], ls="", marker=".", **gray, label="one seed"))
    if any(np.isfinite(c.half).any() for c in curves):
        items.append(Patch(fc=MUTED, alpha=0.2, label="95 % t interval of the mean"))
    styles = {line.get_linestyle() for line in ax.lines}
    if "--" in styles:
        label = f"{NAMES[TRAINING[metric]]} (evaluation mode)"
        items.append(Line2D([], [], ls="--", lw=1.1, **gray, label=label))
    if ":" in styles:
        mark = {"marker": "D", "mfc": PAPER, "ms": 5}
        label = "fitted quadratic, its vertex"
        items.append(Line2D([], [], ls=":", **mark, **gray, label=label))
    if ax.patches:
        items.append(Patch(fc=MARK, alpha=0.15, label="not worse than the best"))
    items += [line for line in ax.lines if line.get_label() in (INTERVAL, FAILED)]
    columns = 3 if figure.get_figwidth() > 6 else 1
    figure.legend(handles=items, loc="outside lower left", ncols=columns)


MODES = ("train_mode_accuracy", "accuracy")
CLEAR_GAP = 0.03  # accuracy; a smaller gap can be the noise of one seed
GAP_LINES = {
    "train_mode_accuracy": ("training pictures, training mode", "-", "o"),
    "accuracy": ("training pictures, evaluation mode", "--", "s"),
    "val_accuracy": ("validation pictures, evaluation mode", ":", "^"),
}


@matplotlib.rc_context(STYLE)
def batchnorm_gap(results: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Training mode against evaluation mode over depth, a panel for each policy.

    The filled gap is what the same training pictures lose when BatchNorm changes
    from the statistics of the batch to its running statistics: a lag of those
    statistics shows here, overfitting does not (it opens the gap below, between the
    two evaluation-mode lines). Ioffe and Szegedy, 2015, arXiv:1502.03167.
    """
    done = finished(results)
    needed = list(GAP_LINES)
    if not measured(done, *needed):
        return empty_figure(width, NOTHING, setting_line(results))
    panels = list(done.dropna(subset=needed)["bn"].unique())
    wide = width > 6
    height = 3.9 if wide else 0.9 + 2.6 * len(panels)
    figure = new_figure(width, height, _gap_title(done))
    shape = (1, len(panels)) if wide else (len(panels), 1)
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel()
    values = done[needed].to_numpy(float)
    for ax, bn in zip(axes, panels, strict=True):
        rows = done[done["bn"] == bn].dropna(subset=needed)
        lines = {metric: curve_of(rows, metric) for metric in needed}
        color = LOOKS.get(bn, OTHER).color
        for metric, (label, dash, marker) in GAP_LINES.items():
            line, size = lines[metric], 4.5 if len(rows) <= 40 else 2.5
            ax.plot(line.depth, line.mean, dash, marker=marker, ms=size, lw=1.6)
            ax.lines[-1].set(color=color, label=label, mec=PAPER, mew=0.5)
        upper, lower = lines["train_mode_accuracy"], lines["accuracy"]
        ax.fill_between(
            upper.depth,
            upper.mean,
            lower.mean,
            where=list(upper.mean > lower.mean),
            color=color,
            alpha=0.15,
            lw=0,
        )
        _limit(ax, values, rate=True, strip=0.07)
        ax.set_title(f"BatchNorm {bn}", color=color, weight="bold")
        depth_axes(ax, results, (width - 1) / shape[1], top=False)
        ax.yaxis.set_major_formatter(AS_PERCENT)
        if len(panels) > 1:
            ax.set_xlabel("layers unfrozen" if wide or ax is axes[-1] else "")
    items: list = [
        Line2D([], [], ls=dash, marker=marker, color=MUTED, ms=5, label=label)
        for label, dash, marker in GAP_LINES.values()
    ]
    items.insert(2, Patch(fc=MUTED, alpha=0.25, label="BatchNorm gap"))
    figure.legend(handles=items, loc="outside lower left", ncols=2 if wide else 1)
    return figure


def mode_gaps(done: pd.DataFrame) -> pd.Series:
    """Training-mode minus evaluation-mode accuracy by (bn, depth_layers).

    Seeds are averaged. Policy `frozen` is left out: there both modes use the same
    running statistics, and a difference has other reasons (drop-connect, and the
    weights moving during the epoch).
    """
    rows = done[done["bn"] != "frozen"]
    means = rows.groupby(["bn", "depth_layers"])[list(MODES)].mean().dropna()
    return means["train_mode_accuracy"] - means["accuracy"]


def _gap_title(done: pd.DataFrame) -> str:
    gap = mode_gaps(done)
    if gap.empty:
        return "BatchNorm frozen: both modes use the same running statistics"
    bn, depth = peak(gap)
    if gap.max() < CLEAR_GAP:
        return (
            "Training mode and evaluation mode agree: BatchNorm statistics do not "
            f"shape this curve (largest gap {100 * max(gap.max(), 0):.1f} points)"
        )
    rows = done[(done["bn"] == bn) & (done["depth_layers"] == depth)]
    row = rows[list(MODES)].mean()
    return (
        f"Same pictures, {depth} layers, BatchNorm {bn}: "
        f"{percent(row['train_mode_accuracy'])} in training mode, "
        f"{percent(row['accuracy'])} in evaluation mode"
    )
