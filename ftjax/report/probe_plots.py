"""Image of the probes beside the measured curve."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from ftjax.report.drawing import (
    AS_PERCENT,
    MARK,
    MUTED,
    NOTHING,
    PAPER,
    STYLE,
    WIDE,
    depth_axes,
    empty_figure,
    finished,
    label_ends,
    look_of,
    new_figure,
    policy_curves,
    setting_line,
)

NAMES = {
    "ridge_accuracy": "ridge probe, validation accuracy",
    "logme": "LogME, log evidence per image",
    "gradient_norm": "relative gradient of the first unfrozen unit",
}
CONVINCING = 0.05  # p value above which no probe is said to follow the curve


@matplotlib.rc_context(STYLE)
def probe_curves(
    probes: pd.DataFrame,
    results: pd.DataFrame,
    correlations: Sequence = (),
    *,
    width: float = WIDE,
) -> Figure:
    """Probes before any training over depth, below the measured accuracy.

    Args:
        probes: depth_layers and the columns of `NAMES`, one row per depth.
        results: rows as in results.csv; none may be finished yet.
        correlations: entries with probe, bn, correlation, p_value and num_depths,
            shown in each probe's title.
        width: in inches.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in ("depth_layers", *NAMES) if name not in probes]
    if missing:
        raise ValueError(f"probes lack the columns {', '.join(missing)}")
    if probes.empty:
        return empty_figure(width, NOTHING, setting_line(results))
    figure = new_figure(
        width, 1.0 + 1.75 * (1 + len(NAMES)), probe_finding(correlations)
    )
    axes = figure.subplots(1 + len(NAMES), 1, sharex=True)
    _draw_measured(axes[0], results, width)
    for ax, (name, label) in zip(axes[1:], NAMES.items(), strict=True):
        known = probes.dropna(subset=[name]).sort_values("depth_layers")
        depth, value = known[["depth_layers", name]].to_numpy(float).T
        ax.plot(depth, value, "-", marker="D", ms=4.5, color=MARK, mec=PAPER, mew=0.6)
        ax.set_title(f"{label}{_words(name, correlations)}")
        if name == "ridge_accuracy":
            ax.yaxis.set_major_formatter(AS_PERCENT)
        if name == "gradient_norm" and len(value) and np.all(value > 0):
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(ScalarFormatter())
            ax.yaxis.set_minor_formatter(NullFormatter())
    for ax in axes:
        depth_axes(ax, _depths(probes, results), width - 1.6, top=ax is axes[0])
        if ax is not axes[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    return figure


def _depths(probes: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """What the axes need to know: the network's size from the results if they say."""
    table = probes.copy()
    for name in ("total_layers", "total_units"):
        if name in results and results[name].notna().any():
            table[name] = results[name].max()
    return table


def _draw_measured(ax: Axes, results: pd.DataFrame, width: float) -> None:
    curves = policy_curves(finished(results), "val_accuracy") if len(results) else {}
    ax.set_title("measured validation accuracy after training")
    if not curves:
        ax.text(0.5, 0.5, NOTHING, ha="center", color=MUTED, transform=ax.transAxes)
        return
    for bn, (_, look, curve) in curves.items():
        style = {"marker": look.marker, "ms": 4.5, "mec": PAPER, "mew": 0.6}
        color = look_of(bn).color
        ax.plot(curve.depth, curve.mean, color=color, lw=1.7, **style)
    ax.yaxis.set_major_formatter(AS_PERCENT)
    ends = [(c.mean[-1], label, look.color) for label, look, c in curves.values()]
    label_ends(ax, ends, 0.13)


def _known(correlations: Sequence) -> list:
    return [one for one in correlations if np.isfinite(one.correlation)]


def _words(probe: str, correlations: Sequence) -> str:
    """Measured rank correlations of one probe, as the end of its title."""
    own = [one for one in _known(correlations) if one.probe == probe]
    parts = [f"{one.bn} {one.correlation:+.2f} (p {one.p_value:.2g})" for one in own]
    return f": rank correlation {', '.join(parts)}" if parts else ""


def probe_finding(correlations: Sequence) -> str:
    """What the rank correlations say, in one line.

    Args:
        correlations: as for `probe_curves`.
    """
    known = _known(correlations)
    if not known:
        return "Probes before any training"
    best = max(known, key=lambda one: one.correlation)
    # Several probes and policies were tried, so the level is shared (Bonferroni).
    if best.correlation <= 0 or best.p_value > CONVINCING / len(known):
        return f"No probe foretells the measured order of {best.num_depths} depths"
    name = NAMES[best.probe].split(",")[0]
    if any(one.correlation <= 0 for one in known if one.probe == best.probe):
        return (
            f"The {name} follows the curve of BatchNorm {best.bn} (rank correlation "
            f"{best.correlation:.2f}), but not every policy's"
        )
    return (
        f"The {name} orders {best.num_depths} depths much as training does "
        f"(BatchNorm {best.bn}, rank correlation {best.correlation:.2f})"
    )
