"""What all images share: style, curves with intervals, depth axes, files.

Nothing here touches pyplot or its global state, so images can be drawn in threads,
in notebooks and on machines without a display. Colors are from Okabe and Ito, "Color
universal design" (2008), slightly darkened where they carry text (contrast of at
least 4.5 to 1 on white).
"""

import io
import textwrap
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ftjax.analysis import wording
from ftjax.analysis.curves import clean_results
from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.rows import varying_settings
from ftjax.analysis.tuning import tuned_columns, tuned_rows
from ftjax.batch_norm import POLICIES
from ftjax.stats.distributions import student_t_quantile

INK, MUTED, GRID, PAPER, MARK = "#1f2328", "#57606a", "#d8dee4", "#ffffff", "#8250df"
WIDE, NARROW = 7.6, 4.3  # inches: a page, a phone

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": MUTED,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "ftjax",
}

NOTHING = "No trial has finished yet."
AS_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


class Look(NamedTuple):
    """How one BatchNorm policy is drawn."""

    color: str
    marker: str


OTHER = Look("#a0467c", "D")


def look_of(bn: str) -> Look:
    """How a policy is drawn, by its name; `OTHER` if there is no such policy."""
    policy = POLICIES.get(bn)
    return Look(policy.color, policy.marker) if policy else OTHER


class Curve(NamedTuple):
    """Mean of one metric over depth; arrays of shape (n,), NaN where unknown."""

    depth: np.ndarray  # layers unfrozen from the top
    mean: np.ndarray
    half: np.ndarray  # half width of the 95 % interval
    points: np.ndarray  # (m, 2): depth and value of every single trial


def finished(results: pd.DataFrame) -> pd.DataFrame:
    """The rows that `recommend` compares as well; empty when there is none yet.

    Raises:
        ValueError: a column is missing, or the rows belong to two studies.
    """
    missing = [c for c in ("depth_layers", "val_accuracy") if c not in results]
    if missing:
        raise ValueError(f"results lack the columns {missing}; give a results.csv")
    usable = np.isfinite(pd.to_numeric(results["val_accuracy"], errors="coerce"))
    if "status" in results:
        usable &= results["status"] == "done"
    if "frozen_intact" in results:
        usable &= results["frozen_intact"].astype(str).str.lower() != "false"
    if not usable.any():
        return results[usable].assign(bn="", seed=0)
    return clean_results(results)[0]


def rows_of(results: pd.DataFrame, best: Recommendation | None) -> pd.DataFrame:
    """The rows of the recommended setting, where the table holds several.

    Raises:
        ValueError: there are several and none is recommended.
    """
    for column, value in (best.setting if best else {}).items():
        results = results[results[column] == value]
    done = finished(results)
    tuned = tuned_columns(done)
    if tuned:  # each depth has its own best setting
        kept = results.index.isin(tuned_rows(done).index)
        if "status" in results:  # or none, if all of them diverged
            keys = ["depth_layers", "bn"]
            known = pd.MultiIndex.from_frame(done[keys])
            lost = ~pd.MultiIndex.from_frame(results[keys]).isin(known)
            kept |= lost & (results["status"] == "diverged").to_numpy()
        results = results.loc[kept]
    if best is not None:
        return results
    several = set(varying_settings(finished(results))) - set(tuned)
    if several:
        raise ValueError(
            f"the table holds several values of {', '.join(sorted(several))}: filter "
            "the rows to one, or give the recommendation"
        )
    return results


def chance_level(best: Recommendation | None) -> float | None:
    """Accuracy of guessing, None where the metric is another or nothing is known."""
    known = best is not None and best.metric in ("accuracy", "balanced_accuracy")
    return best.baseline if known else None


def measured(table: pd.DataFrame, *columns: str) -> bool:
    """Whether the table has all these columns with at least one number in each."""
    return all(
        c in table and np.isfinite(pd.to_numeric(table[c], errors="coerce")).any()
        for c in columns
    )


def peak(values: pd.Series) -> tuple[str, int]:
    """(bn, depth_layers) of the largest value of a series indexed by both."""
    place = values.index[int(np.argmax(values.to_numpy()))]
    return str(place[0]), int(place[1])


def seed_interval(values: list[np.ndarray]) -> np.ndarray:
    """Half widths (n,) of 95 % t intervals for the mean at each of n depths.

    Two or three seeds say little about their own spread, so the variance is pooled
    with the neighboring depths (i - 1, i, i + 1); NaN where there is one seed.
    Student, "The probable error of a mean", 1908.

    Args:
        values: for each depth in order, the values of its seeds, shape (seeds,).
    """
    dof = np.array([len(v) - 1 for v in values])
    square = np.array([np.sum((v - v.mean()) ** 2) if len(v) else 0.0 for v in values])
    half = np.full(len(values), np.nan)
    for i in range(len(values)):
        near = slice(max(i - 1, 0), i + 2)
        if dof[i] >= 1:
            total = int(dof[near].sum())
            spread = np.sqrt(square[near].sum() / total / len(values[i]))
            half[i] = student_t_quantile(0.975, total) * spread
    return half


def curve_of(rows: pd.DataFrame, metric: str) -> Curve:
    """Mean of a metric at each depth, and where it has seeds its 95 % interval."""
    rows = rows.dropna(subset=[metric]).sort_values("depth_layers")
    groups = [(d, g[metric].to_numpy(float)) for d, g in rows.groupby("depth_layers")]
    values = [v for _, v in groups]
    return Curve(
        np.array([d for d, _ in groups], float),
        np.array([v.mean() for v in values]),
        seed_interval(values),
        rows[["depth_layers", metric]].to_numpy(float),
    )


def policy_curves(
    done: pd.DataFrame, metric: str
) -> dict[str, tuple[str, Look, Curve]]:
    """Policy -> (label, look, curve); policies with equal curves share one line."""
    found: dict[str, tuple[str, Look, Curve]] = {}
    if metric not in done:
        return found
    for bn, rows in done.groupby("bn", sort=False):
        curve = curve_of(rows, metric)
        if not len(curve.depth):
            continue
        for twin, (label, look, other) in found.items():
            if np.array_equal(curve.points, other.points) and len(curve.depth) > 1:
                found[twin] = (f"{label} = {bn}", look, other)
                break
        else:
            found[str(bn)] = (str(bn), look_of(str(bn)), curve)
    return found


def percent(value: float, digits: int = 1) -> str:
    """A fraction as text, 0.985 -> '98.5 %'; lines do not break at its space."""
    return wording.percent(value, digits).replace(" ", "\N{NO-BREAK SPACE}")


def shorten(text: object, length: int = 28) -> str:
    """Text with its middle left out where it is longer than length."""
    text, keep = str(text), (length - 1) // 2
    return text if len(text) <= length else f"{text[:keep]}…{text[-keep:]}"


def setting_line(results: pd.DataFrame, width: float = WIDE) -> str:
    """Model, data and number of seeds, cut to what fits in width (inches)."""
    first = {k: results[k].iloc[0] for k in ("model", "data") if k in results}
    text = " on ".join(shorten(v, int(4.6 * width)) for v in first.values())
    seeds = results["seed"].nunique() if "seed" in results else 1
    return f"{text} · {seeds} seed{'s' * (seeds != 1)}"


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, its title in lines of about equal length."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    title, room = title.replace("$", r"\$"), int(width * 10.2)
    while len(textwrap.wrap(title, room - 1)) == len(textwrap.wrap(title, room)) > 1:
        room -= 1  # lines of about equal length instead of a last one of one word
    lines = textwrap.wrap(title, room)
    figure.suptitle("\n".join(lines), x=0.012, ha="left", size=11, weight="bold")
    return figure


def empty_figure(width: float, title: str, text: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = new_figure(width, 2.2, title)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", color=MUTED, transform=ax.transAxes)
    return figure


def thin(positions: np.ndarray, gap: float) -> list[int]:
    """Indices of positions at least gap apart; the last one is always kept."""
    kept: list[int] = []
    for i in reversed(range(len(positions))):
        if not kept or positions[kept[-1]] - positions[i] >= gap:
            kept.append(i)
    return kept[::-1]


def depth_axes(ax: Axes, results: pd.DataFrame, inches: float, top: bool) -> None:
    """Layers and their share below, blocks above (at the depths that were run)."""
    column = results.get("total_layers", results["depth_layers"])
    total = float(column.max())
    ax.set_xlim(-0.04 * total - 0.3, 1.04 * total + 0.3)
    ticks = MaxNLocator(max(3, int(inches * 1.3)), integer=True).tick_values(0, total)
    step = ticks[1] - ticks[0]
    ticks = [t for t in ticks if 0 <= t <= total - 0.6 * step] + [total]
    share = [f"{t:.0f}\n{100 * t / max(total, 1):.0f} %" for t in ticks]
    ax.set_xticks(ticks, share)
    ax.set_xlabel("layers unfrozen from the top, and their share (0 = head alone)")
    units = results.dropna(subset=["depth_units"]) if "depth_units" in results else None
    if not top or units is None or units.empty:
        return
    pairs = units.groupby("depth_layers")["depth_units"].max()
    place = pairs.index.to_numpy(float)
    keep = thin(place, 0.28 * 1.08 * total / inches)
    upper = ax.secondary_xaxis("top")
    upper.set_xticks(place[keep], [f"{int(pairs.iloc[i])}" for i in keep])
    whole = units["total_units"].max() if "total_units" in units else np.nan
    upper.set_xlabel(
        "blocks unfrozen" + ("" if np.isnan(whole) else f" (of {whole:.0f})")
    )


def limit_values(ax: Axes, values: np.ndarray, rate: bool, strip: float) -> None:
    """Limits from the measured values, with a free strip below (share of the span)."""
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.02 if rate else 0.05 * max(abs(high), 1e-3))
    middle = (high + low) / 2
    ax.set_ylim(middle - (0.5 + strip) * span, middle + 0.57 * span)


def label_ends(
    ax: Axes, ends: list[tuple[float, str, str]], gap: float, heading: str = ""
) -> None:
    """Names of the curves right of their last points, moved apart where they meet.

    Args:
        ax: that the curves are drawn on.
        ends: (value in data units, text, color).
        gap: least distance between two names, as a fraction of the axes.
        heading: said once, above the highest name.
    """
    low, high = ax.get_ylim()
    ends = sorted(ends)
    place = [(v - low) / (high - low) for v, _, _ in ends]
    for i in range(1, len(place)):
        place[i] = max(place[i], place[i - 1] + gap)
    shift = max(0.0, place[-1] - (0.93 if heading else 0.98)) if place else 0.0
    style = {"va": "center", "transform": ax.transAxes}
    if place and heading:
        ax.text(1.015, place[-1] - shift + gap, heading, color=MUTED, size=8, **style)
    for y, (_, text, color) in zip(place, ends, strict=True):
        ax.text(1.015, y - shift, text, color=color, weight="bold", **style)


def svg_text(figure: Figure) -> str:
    """The image as SVG; equal images give equal text (no date, salted ids)."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write the image as PNG (200 dpi) and SVG, byte for byte repeatable.

    Args:
        figure: what is saved.
        path: without suffix; missing folders are made.

    Returns:
        The paths of the PNG and the SVG.
    """
    stem = Path(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(stem.name + end) for end in (".png", ".svg"))
    with matplotlib.rc_context(STYLE):
        figure.savefig(png, dpi=200)
    svg.write_text(svg_text(figure), encoding="utf-8")
    return png, svg
