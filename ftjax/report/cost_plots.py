"""Images of what training costs: learning curves and the Pareto front."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from ftjax.analysis.recommend import Recommendation
from ftjax.report.drawing import (
    AS_PERCENT,
    MARK,
    MUTED,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    empty_figure,
    finished,
    look_of,
    measured,
    new_figure,
    setting_line,
    thin,
)


@matplotlib.rc_context(STYLE)
def learning_curves(
    epochs: pd.DataFrame,
    recommendation: Recommendation | None = None,
    *,
    width: float = WIDE,
    max_panels: int = 12,
) -> Figure:
    """Validation accuracy over epochs, a small panel for each depth.

    Args:
        epochs: rows as in epochs.csv; seeds are averaged, training accuracy (of the
            batches as they were trained) is dashed.
        recommendation: whose depth is marked.
        width: of the figure, in inches.
        max_panels: of more depths, this many evenly spaced ones are shown, always
            with the recommended one.
    """
    rows = epochs.dropna(subset=["val_accuracy"])
    if rows.empty:
        return empty_figure(width, "No epoch has finished yet.", "")
    depths = np.unique(rows["depth_layers"])
    here = recommendation.depth_layers if recommendation is not None else depths[0]
    pick = np.unique(np.linspace(0, len(depths) - 1, max_panels).round().astype(int))
    chosen = depths[pick] if len(depths) > max_panels else depths
    if here in depths and here not in chosen:
        chosen[np.argmin(np.abs(chosen - here))] = here
    columns = min(len(chosen), 4 if width > 6 else 2)
    lines = -(-len(chosen) // columns)
    figure = new_figure(width, 1.1 + 1.55 * lines, _epoch_title(rows))
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.ravel()[len(chosen) :]:
        ax.remove()
    policies = list(rows["bn"].unique())
    for ax, depth in zip(axes.ravel(), chosen, strict=False):
        for bn, part in rows[rows["depth_layers"] == depth].groupby("bn"):
            names = ["val_accuracy", "train_mode_accuracy"]
            mean = part.groupby("epoch")[names].mean()
            color, marker = look_of(str(bn))
            ax.plot(mean["val_accuracy"], color=color, marker=marker, ms=3.5, lw=1.5)
            ax.plot(mean["train_mode_accuracy"], "--", color=color, alpha=0.55, lw=1)
        best = bool(recommendation is not None and depth == here)
        name = "head alone" if depth == 0 else f"{depth:.0f} layers"
        style = {"color": MARK, "weight": "bold"} if best else {}
        ax.set_title(f"recommended: {depth:.0f}" if best else name, **style)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.set_xlim(rows["epoch"].min() - 0.3, rows["epoch"].max() + 0.3)
        ax.yaxis.set_major_formatter(AS_PERCENT)
    for ax in axes.ravel()[: len(chosen)][-columns:]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("epoch")
    items = [
        Line2D([], [], color=color, marker=marker, ms=4, label=f"BatchNorm {bn}")
        for bn in policies
        for color, marker in [look_of(bn)]
    ]
    items.append(Line2D([], [], ls="--", color=MUTED, label="training batches"))
    figure.legend(handles=items, loc="outside lower left", ncols=4 if width > 6 else 2)
    return figure


def _epoch_title(rows: pd.DataFrame) -> str:
    keys = ["depth_layers", "bn", "epoch"]
    table = rows.groupby(keys)["val_accuracy"].mean().unstack()
    last = table.columns[-1]
    if table.shape[1] < 2:
        return "Accuracy after the only epoch"
    # A rise of less than 0.2 points is below what one seed can show.
    rising = table[last] - table.drop(columns=last).max(axis=1) > 0.002
    count = int(rising.sum())
    if count == 0:
        return f"No depth still gains in epoch {last}, the last one"
    return f"{count} of {len(table)} runs still gain in the last epoch ({last})"


@matplotlib.rc_context(STYLE)
def pareto(
    results: pd.DataFrame,
    recommendation: Recommendation | None = None,
    *,
    width: float = WIDE,
) -> Figure:
    """Validation accuracy over run time and over FLOPs, with the Pareto front.

    A point is the mean over the seeds of one depth and policy; points on the front
    are named by their unfrozen layers: none is both cheaper and more accurate.
    """
    done = finished(results)
    costs = {"seconds": "seconds of training", "flops": "FLOPs of training"}
    costs = {c: n for c, n in costs.items() if measured(done, c)}
    if not costs:
        return empty_figure(width, NOTHING, setting_line(results))
    columns = ["val_accuracy", *costs]
    means = done.groupby(["bn", "depth_layers"], as_index=False)[columns].mean()
    wide = width > 6
    shape = (1, len(costs)) if wide else (len(costs), 1)
    height = 3.9 if wide else 1.2 + 2.9 * len(costs)
    figure = new_figure(width, height, _pareto_title(means, recommendation))
    axes = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    for ax, (cost, name) in zip(axes, costs.items(), strict=True):
        points = means.dropna(subset=[cost, "val_accuracy"])
        for bn, part in points.groupby("bn"):
            color, marker = look_of(str(bn))
            ax.plot(part[cost], part["val_accuracy"], marker, color=color, mec=PAPER)
            ax.lines[-1].set_label(f"BatchNorm {bn}")
        order = points.sort_values([cost, "val_accuracy"], ascending=[True, False])
        front = order[
            order["val_accuracy"]
            > order["val_accuracy"].cummax().shift(fill_value=-1.0)
        ]
        place = front[cost].to_numpy(float)
        ax.step(place, front["val_accuracy"], where="post", color=MUTED, lw=1, zorder=1)
        for i in thin(place, 0.1 * float(points[cost].max() - points[cost].min())):
            row = front.iloc[i]
            text = "head" if row["depth_layers"] == 0 else f"{row['depth_layers']:.0f}"
            ax.annotate(
                text,
                (row[cost], row["val_accuracy"]),
                (0, 8),
                textcoords="offset points",
                ha="center",
                size=8,
            )
        if recommendation is not None:
            at = points["depth_layers"] == recommendation.depth_layers
            best = points[at & (points["bn"] == recommendation.bn)]
            ax.plot(best[cost], best["val_accuracy"], "o", ms=12, mfc="none", mec=MARK)
            ax.lines[-1].set(mew=1.8, label="recommended")
        ax.set_xlabel(name)
        ax.margins(0.12)
        ax.yaxis.set_major_formatter(AS_PERCENT)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if cost == "flops":
            ax.xaxis.set_major_formatter(EngFormatter())
    axes[0].set_ylabel("validation accuracy")
    items = list(axes[0].get_legend_handles_labels()[0])
    items.append(Line2D([], [], color=MUTED, lw=1, label="front, layers unfrozen"))
    figure.legend(handles=items, loc="outside lower left", ncols=4 if wide else 2)
    return figure


def _pareto_title(means: pd.DataFrame, best: Recommendation | None) -> str:
    table = means.set_index(["bn", "depth_layers"])
    title = "Accuracy against the cost of training"
    if best is None or "seconds" not in table:
        return title
    here, head = (best.bn, best.depth_layers), (best.bn, 0)
    if best.depth_layers == 0 or not {here, head} <= set(table.index):
        return title
    gain = 100 * (table.loc[here, "val_accuracy"] - table.loc[head, "val_accuracy"])
    times = table.loc[here, "seconds"] / max(table.loc[head, "seconds"], 1e-9)
    return (
        f"The recommended depth gains {gain:.1f} points over the head alone "
        f"for {times:.1f}x its training time"
    )
