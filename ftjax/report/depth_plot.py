"""Images of a depth sweep: accuracy, loss, cost and BatchNorm over depth.

Every function takes the tidy tables of a run (`results.csv`, `epochs.csv`), leaves
out rows that are not finished, and returns a matplotlib `Figure` whose title states
the finding. `width` is in inches: `WIDE` for a page, `NARROW` for a phone.
"""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftjax.analysis.conditions import condition_words
from ftjax.analysis.fits import predict
from ftjax.analysis.recommend import Recommendation
from ftjax.report.batchnorm_plots import batchnorm_gap
from ftjax.report.cost_plots import learning_curves, pareto
from ftjax.report.drawing import (
    AS_PERCENT,
    INK,
    MARK,
    MUTED,
    NARROW,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    Curve,
    Look,
    chance_level,
    curve_of,
    depth_axes,
    empty_figure,
    finished,
    label_ends,
    limit_values,
    look_of,
    measured,
    new_figure,
    peak,
    percent,
    policy_curves,
    rows_of,
    save,
    setting_line,
)

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
SET = "as good as can be told"
# Trials without a number, and the mark they leave at the bottom.
ABSENT = {
    "failed": ("a trial failed here", "x"),
    "diverged": ("a trial diverged here", "x"),
    "stopped": ("stopped early", "v"),
}
TALL = 0.1  # accuracy; the span of a curve from which its top may be too crowded
CROWDED = 0.1  # share of that span that is then drawn again, enlarged
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
    has two or more seeds, the same metric on the training images dashed, and from
    the recommendation the fitted quadratic with its vertex, the depths that are as good
    as can be told (shaded, and a bar from the first to the last) and the depth itself.
    Rows of another setting than the recommended one are left out.

    Args:
        results: rows as in results.csv; rows that are not done only leave a cross.
        recommendation: what is drawn beside the measurements.
        metric: a column of results; fractions are shown in percent.
        width: of the figure, in inches.

    Raises:
        ValueError: no such metric, or rows of more than one setting.
    """
    if metric not in NAMES or metric not in results:
        raise ValueError(f"unknown metric {metric!r}; choose one of {sorted(NAMES)}")
    results = rows_of(results, recommendation)
    done = finished(results)
    curves = policy_curves(done, metric)
    if not curves:
        return empty_figure(width, NOTHING, setting_line(results))
    rate = metric.endswith("accuracy")
    title = _depth_title(done, metric, recommendation)
    lost = _at_chance(results, recommendation, metric)
    low = None
    if metric == "val_accuracy":
        low = _top([c for _, _, c in curves.values()], lost[:, 1])
    height = (4.9 if width > 6 else 5.4) + (1.9 if low is not None else 0.0)
    figure = new_figure(width, height, title)
    panels = figure.subplots(
        1 if low is None else 2,
        sharex=True,
        squeeze=False,
        height_ratios=None if low is None else (2, 1),
    )[:, 0]
    ax = panels[0]
    ax.set_title(_setting(results, recommendation, width))
    training = TRAINING.get(metric)
    shown = [c.points[:, 1] for _, _, c in curves.values()]
    for _, look, curve in curves.values():
        _draw_curve(ax, curve, look)
    if training and measured(done, training):
        for bn in curves:
            side = curve_of(done[done["bn"] == bn], training)
            shown.append(side.mean)
            color = look_of(bn).color
            ax.plot(side.depth, side.mean, "--", color=color, alpha=0.55, lw=1.1)
            if len(side.depth) == 1:
                ax.lines[-1].set_marker("_")
    shown.append(lost[:, 1])
    answer = recommendation is not None and metric == "val_accuracy"
    limit_values(ax, np.concatenate(shown), rate, strip=0.24 if answer else 0.08)
    depth_axes(ax, results, width - 1.6, top=True)
    ax.set_ylabel(NAMES[metric])
    if rate:
        ax.yaxis.set_major_formatter(AS_PERCENT)
    if recommendation is not None and answer:
        _draw_recommendation(ax, done, recommendation)
    _draw_absent(ax, results, lost)
    if low is not None:
        _draw_top(panels[1], [c[1:] for c in curves.values()], low)
        if recommendation is not None:
            _mark_best(panels[1], done, recommendation)
        depth_axes(panels[1], results, width - 1.6, top=False)
        ax.set_xlabel("")
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
    if best is not None and metric == "val_accuracy":
        if best.caveats:
            return f"{best.caveats[0]} Highest: {percent(value)}, {where}"
        if best.shape == "flat":
            highest = f"highest, {percent(value)}: {where}"
            return f"No tested depth can be told from the others; {highest}"
    if metric.endswith("accuracy"):
        return f"Best {NAMES[metric]}, {percent(value)}: {where}"
    return f"Lowest {NAMES[metric]}, {value:.3f}: {where}"


def _setting(results: pd.DataFrame, best: Recommendation | None, width: float) -> str:
    """Model, data and seeds, and below them the conditions of the answer."""
    line = setting_line(results, width)
    words = condition_words(best.conditions) if best is not None else ""
    if not words:
        return line
    room = int(13 * width)
    return line + "\n" + "\n".join(textwrap.wrap(words, room))


def short_basis(best: Recommendation) -> str:
    """What the set of depths is worth, in a few words."""
    if best.confidence is None:
        return "run noise assumed"
    low, high = best.seeds
    runs = f"{high} seeds" if low == high else f"{low} to {high} seeds"
    return f"{100 * best.confidence:.0f} % set, {runs}"


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


def _mark_best(ax: Axes, done: pd.DataFrame, best: Recommendation) -> None:
    """A ring at the depth; a shade at its policy's depths that are as good."""
    depths = np.unique(done.loc[done["bn"] == best.bn, "depth_layers"])
    for low, high in _bands(depths, best.not_worse):
        ax.axvspan(low, high, color=MARK, alpha=0.09, lw=0)
    ring = {"ms": 12, "mfc": "none", "mec": MARK, "mew": 1.8}
    rows = done[(done["bn"] == best.bn) & (done["depth_layers"] == best.depth_layers)]
    ax.plot(best.depth_layers, rows["val_accuracy"].mean(), "o", **ring)


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
    _mark_best(ax, done, best)
    bottom, top = ax.get_ylim()
    grid = np.linspace(0, best.total_layers, 200)
    depths = done.groupby("bn")["depth_layers"].nunique()
    for bn, fit in best.quadratic.items():
        if fit is None or depths.get(bn, 0) <= len(fit.coef):  # goes through any points
            continue
        color = look_of(bn).color
        ax.plot(grid, predict(fit, grid), ":", c=color, lw=1.2)
        peak = float(predict(fit, fit.vertex))
        if 0 <= fit.vertex <= best.total_layers and bottom < peak < top:
            ax.plot(fit.vertex, peak, "D", ms=7, mfc=PAPER, mec=color, zorder=4)
    ax.set_ylim(bottom, top)
    here, strip = best.depth_layers, ax.get_xaxis_transform()
    ax.plot([here, here], [0.12, 0.98], color=MARK, lw=1, transform=strip, zorder=1)
    text = f"recommended: {here} layers"
    if best.depth_units is not None and ax.figure.get_figwidth() > 6:
        text += f", {best.depth_units} block{'s' * (best.depth_units != 1)}"
    if best.interval_layers is not None:
        for number, ends in enumerate(_stretches(best)):
            ax.plot(ends, [0.035] * 2, "|-", c=MARK, ms=7, lw=2.5, transform=strip)
            label = f"{SET}: {short_basis(best)}" if number == 0 else "_"
            ax.lines[-1].set(label=label)
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


def _stretches(best: Recommendation) -> list[tuple[int, int]]:
    """Ends of the stretches of tested depths that are as good as can be told."""
    if best.scope.startswith("every depth") and best.interval_layers is not None:
        return [best.interval_layers]
    inside, found = set(best.not_worse), []
    before = None
    for depth in best.tested:
        if depth in inside:
            start = found.pop()[0] if before in inside else depth
            found.append((start, depth))
        before = depth
    return found


def _at_chance(
    results: pd.DataFrame, best: Recommendation | None, metric: str
) -> np.ndarray:
    """Depth and accuracy of guessing, (n, 2), where trials diverged.

    None of them where that accuracy is not known, or another metric is drawn.
    """
    chance = chance_level(best) if metric == "val_accuracy" else None
    if chance is None or "status" not in results:
        return np.empty((0, 2))
    depths = results.loc[results["status"] == "diverged", "depth_layers"].unique()
    return np.array([(depth, chance) for depth in depths]).reshape(-1, 2)


def _draw_absent(ax: Axes, results: pd.DataFrame, lost: np.ndarray) -> None:
    """Marks of trials without a number: at chance if they diverged, else at the bottom.

    Args:
        ax: to draw on.
        results: rows as in results.csv.
        lost: of `_at_chance`.
    """
    if "status" not in results:
        return
    strip = ax.get_xaxis_transform()
    line = {"color": INK, "ms": 7, "mew": 1.6, "mfc": "none"}
    for status, (label, marker) in ABSENT.items():
        if status == "diverged" and len(lost):
            ax.plot(*lost.T, marker, **line, label=f"{label}: drawn at chance")
            continue
        depths = results.loc[results["status"] == status, "depth_layers"].unique()
        if len(depths):
            ax.plot(depths, [0.0] * len(depths), marker, **line)
            ax.lines[-1].set(transform=strip, clip_on=False, label=label)


def _top(curves: Sequence[Curve], lost: np.ndarray) -> float | None:
    """The least value of an enlarged panel, None where the top is not crowded.

    Args:
        curves: that are drawn.
        lost: accuracies drawn at chance.
    """
    means = np.concatenate([*(curve.mean for curve in curves), lost])
    span = float(np.ptp(means))
    top = means[means >= means.max() - CROWDED * span]
    return float(top.min()) if span >= TALL and len(top) >= 3 else None


def _draw_top(ax: Axes, curves: Sequence[tuple[Look, Curve]], low: float) -> None:
    """The same curves again from `low` on; what is below leaves the panel."""
    for look, curve in curves:
        _draw_curve(ax, curve, look)
    values = np.concatenate([curve.points[:, 1] for _, curve in curves])
    limit_values(ax, values[values >= low], rate=True, strip=0.15)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.1 * (top - bottom))  # room for the mark of the best
    ax.set_title("the top of it, enlarged")
    ax.yaxis.set_major_formatter(AS_PERCENT)


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
    marks = [line for line in ax.lines if str(line.get_label()).startswith(SET)]
    if ax.patches and not marks:
        items.append(Patch(fc=MARK, alpha=0.15, label=SET))
    labels = (SET, *(label for label, _ in ABSENT.values()))
    items += [line for line in ax.lines if str(line.get_label()).startswith(labels)]
    columns = 2 if figure.get_figwidth() > 6 else 1
    figure.legend(handles=items, loc="outside lower left", ncols=columns)
