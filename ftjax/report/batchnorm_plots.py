"""Image of what BatchNorm's two modes make of the same training images."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftjax.batch_norm import FOLLOW, FROZEN, POLICIES
from ftjax.report.drawing import (
    AS_PERCENT,
    MUTED,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    curve_of,
    depth_axes,
    empty_figure,
    finished,
    limit_values,
    look_of,
    measured,
    new_figure,
    peak,
    percent,
    setting_line,
)

MODES = ("train_mode_accuracy", "accuracy")
CLEAR_GAP = 0.03  # accuracy; a smaller gap can be the noise of one seed
GAP_LINES = {
    "train_mode_accuracy": ("training images, training mode", "-", "o"),
    "accuracy": ("training images, evaluation mode", "--", "s"),
    "val_accuracy": ("validation images, evaluation mode", ":", "^"),
}


@matplotlib.rc_context(STYLE)
def batchnorm_gap(results: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Training mode against evaluation mode over depth, a panel for each policy.

    The filled gap is what the same training images lose when BatchNorm changes
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
        color = look_of(bn).color
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
            interpolate=True,  # from the crossing on, where only one end is higher
            color=color,
            alpha=0.15,
            lw=0,
        )
        limit_values(ax, values, rate=True, strip=0.07)
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

    Seeds are averaged. Policies without batch statistics are left out: there both
    modes use the same running statistics, and a difference has other reasons
    (drop-connect, and the weights moving during the epoch).
    """
    same = [p.name for p in POLICIES.values() if not p.trains_on_batch_statistics]
    rows = done[~done["bn"].isin(same)]
    means = rows.groupby(["bn", "depth_layers"])[list(MODES)].mean().dropna()
    return means["train_mode_accuracy"] - means["accuracy"]


def frozen_gains(done: pd.DataFrame) -> pd.Series:
    """Validation accuracy of `frozen` less that of `follow`, by depth_layers.

    Seeds are averaged. Empty without depths that were trained under both.
    """
    means = done.groupby(["depth_layers", "bn"])["val_accuracy"].mean().unstack()
    if not {FROZEN.name, FOLLOW.name} <= set(means):
        return pd.Series(dtype=float)
    return (means[FROZEN.name] - means[FOLLOW.name]).dropna()


def _gap_title(done: pd.DataFrame) -> str:
    gap = mode_gaps(done)
    if gap.empty:
        return "BatchNorm frozen: both modes use the same running statistics"
    bn, depth = peak(gap)
    if gap.max() < CLEAR_GAP:
        title = (
            "No lag of the running statistics: training mode is at most "
            f"{100 * max(gap.max(), 0):.1f} points above evaluation mode"
        )
        gain = frozen_gains(done).max()
        if gain >= CLEAR_GAP:
            title += f", yet BatchNorm frozen gains up to {100 * gain:.0f} points"
        return title
    rows = done[(done["bn"] == bn) & (done["depth_layers"] == depth)]
    row = rows[list(MODES)].mean()
    return (
        f"Same images, {depth} layers, BatchNorm {bn}: "
        f"{percent(row['train_mode_accuracy'])} in training mode, "
        f"{percent(row['accuracy'])} in evaluation mode"
    )
