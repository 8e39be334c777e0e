"""The figures 6 to 12 of the paper, drawn from our own runs, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from ftjax.analysis.evidence import Evidence
from ftjax.report.drawing import (
    AS_PERCENT,
    MUTED,
    PAPER,
    STYLE,
    WIDE,
    new_figure,
    percent,
)
from ftjax.report.step_plots import smooth
from ftjax.study.claims import Z
from ftjax.study.measured import Measured
from ftjax.study.points import FEATURES, MODES, WHOLE, Arm, Design, Sweep

# Okabe and Ito, "Color universal design" (2008), darkened.
LOOKS = {FEATURES: ("#0072b2", "s"), WHOLE: ("#c25400", "o")}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")
ReadSteps = Callable[[str], np.ndarray | None]


class Study(NamedTuple):
    """What the figures show.

    Attributes:
        design: of the study.
        measured: its runs.
        evidence: means and covariance of validation accuracy.
        epochs: as in epochs.csv.
        read_steps: of a trial, (steps, 2) loss and accuracy of each training step.
        moved: of `movement.layer_changes`.
    """

    design: Design
    measured: Measured
    evidence: Evidence
    epochs: pd.DataFrame
    read_steps: ReadSteps
    moved: pd.DataFrame

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.measured.classes

    def cells(self, mode: str, sweep: Sweep) -> tuple[list[int], list[int]]:
        """Places along a sweep that were trained, and their cells."""
        found = [
            (place, self.measured.cells[mode, arm])
            for place, arm in enumerate(sweep.arms)
            if (mode, arm) in self.measured.cells
        ]
        return [place for place, _ in found], [cell for _, cell in found]

    @property
    def modes(self) -> tuple[str, ...]:
        """Those that have a finished setting."""
        return tuple(
            m for m in MODES if any(m == own for own, _ in self.measured.cells)
        )

    def curve(self, mode: str, arm: Arm, column: str) -> np.ndarray:
        """A column of epochs.csv, (epochs,), its mean over the seeds."""
        own = []
        for seed in range(self.measured.correct.shape[1]):
            row = self.measured.rows.get((mode, arm, seed))
            if row is None or row["status"] != "done":
                return np.empty(0)
            table = self.epochs[self.epochs["trial"] == row["trial"]]
            table = table.drop_duplicates("epoch").sort_values("epoch")
            own.append(table[column].to_numpy(float)[: row["epochs"]])
        return np.mean(own, axis=0)

    def step_curve(self, mode: str, arm: Arm) -> np.ndarray | None:
        """(steps, 2) loss and accuracy of each training step, means over the seeds."""
        own = []
        for seed in range(self.measured.correct.shape[1]):
            row = self.measured.rows.get((mode, arm, seed))
            if row is None or row["status"] != "done":
                return None
            steps = self.read_steps(row["trial"])
            if steps is None:
                return None
            count = row["epochs"] * (row["train_size"] // row["batch_size"])
            own.append(steps[:count])
        return np.mean(own, axis=0)


def draw_sweep(ax: Axes, study: Study, sweep: Sweep, *, training: bool = True) -> None:
    """Accuracy of both modes along a sweep, its values evenly apart.

    Bars are 95 %, images and runs; dots are single seeds.
    """
    for number, mode in enumerate(study.modes):
        color, marker = LOOKS[mode]
        places, cells = study.cells(mode, sweep)
        if not cells:
            continue
        where = np.array(places) + 0.08 * (number - 0.5 * (len(study.modes) - 1))
        means = study.evidence.means[cells]
        half = Z * np.sqrt(np.diag(study.evidence.covariance)[cells])
        ax.errorbar(
            where, means, half, color=color, marker=marker, ms=4.5, lw=1.6, capsize=2.5
        )
        for place, values in zip(where, study.measured.val[cells], strict=True):
            ax.plot([place] * len(values), values, ".", color=color, ms=3, alpha=0.55)
        if training:
            seen = study.measured.training[cells].mean(axis=1)
            ax.plot(where, seen, "--", color=color, alpha=0.6, lw=1.1)
    ax.set_xticks(range(len(sweep.labels)), sweep.labels)
    ax.set_xlim(-0.4, len(sweep.labels) - 0.6)
    ax.set_xlabel(sweep.title)
    ax.yaxis.set_major_formatter(AS_PERCENT)


def draw_level(ax: Axes, value: float, text: str) -> None:
    """A horizontal line with its name, where it lies among what is drawn."""
    ax.axhline(value, color=MUTED, lw=0.9, ls=":")
    ax.annotate(
        text,
        (1, value),
        (-2, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        size=8,
    )


def finish(figure: Figure, study: Study, *more: Line2D, training: bool = True) -> None:
    """The legend below a figure."""
    items = [
        Line2D([], [], color=LOOKS[mode][0], marker=LOOKS[mode][1], ms=4.5, label=words)
        for mode, words in MODES.items()
        if mode in study.modes
    ]
    if training:
        gray = {"color": MUTED, "ls": "--"}
        items.append(Line2D([], [], label="training batches of the last epoch", **gray))
    figure.legend(
        handles=[*items, *more],
        loc="outside lower left",
        ncols=4 if figure.get_figwidth() > 6 else 2,
    )


def say_best(study: Study, sweep: Sweep, words: str = "") -> str:
    """E.g. `Batch size: best 8 with features alone (81.2 %), 32 with all layers (..)`.

    Args:
        study: what was measured.
        sweep: of which the best values are told.
        words: what it is of, if not its title.
    """
    parts = []
    for mode in study.modes:
        places, cells = study.cells(mode, sweep)
        if cells:
            best = int(study.evidence.means[cells].argmax())
            mean = percent(float(study.evidence.means[cells[best]]))
            label = sweep.labels[places[best]]
            parts.append(f"{label} with {MODES[mode]} ({mean})")
    words = words or sweep.title
    found = f"best {', '.join(parts)}" if parts else "no setting is finished"
    return f"{words[:1].upper()}{words[1:]}: {found}"


def sweep_figure(
    study: Study, name: str, *, width: float, level: float | None = None
) -> Figure:
    """A figure of one sweep."""
    sweep = study.design.sweeps[name]
    figure = new_figure(width, 3.7, say_best(study, sweep))
    ax = figure.subplots()
    draw_sweep(ax, study, sweep)
    ax.set_ylabel("accuracy on validation images")
    if level is not None:
        draw_level(ax, level, f"paper: {percent(level, 0)}")
    finish(figure, study)
    return figure


@matplotlib.rc_context(STYLE)
def size_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 6: accuracy over the number of training images."""
    return sweep_figure(study, "size", width=width, level=0.85)


@matplotlib.rc_context(STYLE)
def rate_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 7: accuracy over the learning rate, and the training curves."""
    sweep = study.design.sweeps["rate"]
    title = say_best(study, sweep)
    panels = 1 + len(study.modes)
    across = panels if width > 6 else 1
    height = 4.0 if across > 1 else 1.4 + 2.6 * panels
    figure = new_figure(width, height, title)
    axes = figure.subplots(panels // across, across, sharey=True, squeeze=False)
    first, *curves = axes.ravel()
    draw_sweep(first, study, sweep)
    draw_level(first, study.chance, "chance")
    first.set_ylabel("accuracy on validation images")
    if len(sweep.labels) > 6:
        first.tick_params(axis="x", rotation=60)
    labels = {arm: own for arm, own in zip(sweep.arms, sweep.labels, strict=True)}
    colors = shades(len(labels))
    lines = {}
    for ax, mode in zip(curves, study.modes, strict=True):
        unit = "epoch"  # in a folder of an earlier version, which has no steps
        for (arm, label), color in zip(labels.items(), colors, strict=True):
            shown = study.curve(mode, arm, "train_mode_accuracy")
            places = np.arange(1, len(shown) + 1)
            steps = study.step_curve(mode, arm)
            if steps is not None:
                places, means = smooth(steps)
                shown, unit = means[:, 1], "training step"
            if len(shown):
                line = {"color": color, "lw": 1.4, "label": f"rate {label}"}
                (lines[label],) = ax.plot(places, shown, **line)
        ax.set_title(f"{MODES[mode]}: training batches")
        ax.set_xlabel(unit)
    finish(figure, study, *lines.values())
    return figure


def shades(count: int) -> np.ndarray:
    """Colors (count, 4) for the values of an axis, seen on white and on black."""
    return matplotlib.colormaps["plasma"](np.linspace(0.1, 0.8, count))


@matplotlib.rc_context(STYLE)
def l2_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 8: accuracy over the L2 penalty, at two sizes of batches."""
    return panel_figure(
        study,
        {"l2_large": "batches of 128", "l2_small": "batches of 32"},
        "L2 penalty",
        width=width,
    )


@matplotlib.rc_context(STYLE)
def head_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 12: heads under two pairs of factors, and the controls."""
    return panel_figure(
        study,
        {
            "heads": "10/20 on the last layer",
            "heads_one": "1/1",
            "heads_all": "control: 10/20 on all new layers",
            "heads_glorot": "control: 10/20, Glorot start",
        },
        "head",
        width=width,
    )


def panel_figure(
    study: Study, names: Mapping[str, str], thing: str, *, width: float
) -> Figure:
    """A panel for each of some sweeps over the same values."""
    sweeps = study.design.sweeps
    across = 2 if width > 6 else 1
    lines = -(-len(names) // across)
    first = next(iter(names))
    title = say_best(study, sweeps[first], f"{thing}, {names[first]}")
    figure = new_figure(width, 1.4 + 2.4 * lines, title)
    axes = figure.subplots(lines, across, sharey=True, squeeze=False)
    for ax, (name, words) in zip(axes.ravel(), names.items(), strict=True):
        draw_sweep(ax, study, sweeps[name])
        ax.set_title(words)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    finish(figure, study)
    return figure


@matplotlib.rc_context(STYLE)
def batch_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 9: sizes of batches by epochs, by images, by updates, and their speed."""
    sweep = study.design.sweeps["batch"]
    title = say_best(study, sweep)
    across = 2 if width > 6 else 1
    count = 2 + 2 * len(study.modes)
    lines = count // across
    figure = new_figure(width, 1.4 + 2.3 * lines, title)
    axes = figure.subplots(lines, across, squeeze=False).ravel()
    draw_sweep(axes[0], study, sweep)
    axes[0].set_title("after equally many epochs")
    axes[0].set_ylabel("validation accuracy")
    draw_speed(axes[1], study, sweep)
    handles = {}
    for number, mode in enumerate(study.modes):
        by_images, by_updates = axes[2 + 2 * number :][:2]
        for arm, label, color in zip(
            sweep.arms, sweep.labels, shades(len(sweep.arms)), strict=True
        ):
            values = study.curve(mode, arm, "val_accuracy")
            row = study.measured.rows.get((mode, arm, 0))
            if not len(values) or row is None:
                continue
            steps = np.arange(1, len(values) + 1)
            updates = steps * (row["train_size"] // row["batch_size"])
            line = {"color": color, "lw": 1.4, "marker": ".", "ms": 4}
            by_images.plot(updates * row["batch_size"], values, **line)
            (handles[label],) = by_updates.plot(
                updates, values, label=f"batches of {label}", **line
            )
        by_images.set_title(f"{MODES[mode]}, by images seen")
        by_updates.set_title(f"{MODES[mode]}, by updates")
        by_images.set_xlabel("training images seen (epochs times images)")
        by_updates.set_xlabel("updates")
        by_updates.set_xscale("log")
        by_updates.xaxis.set_major_formatter(PLAIN)
        by_images.xaxis.set_major_locator(MaxNLocator(5))
        by_updates.sharey(by_images)
        for ax in (by_images, by_updates):
            ax.yaxis.set_major_formatter(AS_PERCENT)
        by_images.set_ylabel("validation accuracy")
    finish(figure, study, *handles.values())
    return figure


def draw_speed(ax: Axes, study: Study, sweep: Sweep) -> None:
    """Training images a second over the size of a batch."""
    for mode in study.modes:
        color, marker = LOOKS[mode]
        places, speeds = [], []
        for place, arm in enumerate(sweep.arms):
            own = [
                row["epochs"] * row["train_size"] / row["seconds"]
                for seed in range(study.measured.correct.shape[1])
                if (row := study.measured.rows.get((mode, arm, seed)))
                and row["status"] == "done"
                and row["seconds"] > 0
            ]
            if own:
                places.append(place)
                speeds.append(np.mean(own))
        ax.plot(places, speeds, color=color, marker=marker, ms=4.5, lw=1.6)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PLAIN)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xticks(range(len(sweep.labels)), sweep.labels)
    ax.set_xlabel(sweep.title)
    ax.set_title("training images a second")


@matplotlib.rc_context(STYLE)
def epoch_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 10: accuracy after every epoch of the longest training."""
    sweep = study.design.sweeps["epochs"]
    figure = new_figure(width, 3.7, say_best(study, sweep))
    ax = figure.subplots()
    longest = sweep.arms[-1]
    for mode in study.modes:
        color, marker = LOOKS[mode]
        values = study.curve(mode, longest, "val_accuracy")
        seen = study.curve(mode, longest, "train_mode_accuracy")
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, values, color=color, lw=1.4)
        ax.plot(epochs, seen, "--", color=color, lw=1.1, alpha=0.6)
        places, cells = study.cells(mode, sweep)
        counts = [int(sweep.labels[place]) for place in places]
        half = Z * np.sqrt(np.diag(study.evidence.covariance)[cells])
        ax.errorbar(
            counts,
            study.evidence.means[cells],
            half,
            color=color,
            marker=marker,
            ms=4.5,
            ls="none",
            capsize=2.5,
        )
    ax.set_xscale("log")
    counts = [int(label) for label in sweep.labels]
    ax.xaxis.set_major_locator(FixedLocator(counts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(counts, sweep.labels)
    ax.set_xlabel("epochs")
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(AS_PERCENT)
    draw_level(ax, 0.83, "paper: 83 %")
    finish(figure, study)
    return figure


@matplotlib.rc_context(STYLE)
def factor_figure(study: Study, *, width: float = WIDE) -> Figure:
    """Figure 11: accuracy over the factors of the last layer."""
    return sweep_figure(study, "factor", width=width)


@matplotlib.rc_context(STYLE)
def movement_figure(study: Study, *, width: float = WIDE) -> Figure:
    """How far the weights of each block moved, with all layers trained."""
    means = study.moved.groupby("block", sort=False)["change"].mean()
    top = means.idxmax()
    title = f"{top} moved most: by {100 * means.max():.2g} % of its norm"
    figure = new_figure(width, 1.2 + 0.2 * len(means), title)
    ax = figure.subplots()
    color, marker = LOOKS[WHOLE]
    rows = np.arange(len(means))
    ax.hlines(rows, 0, 100 * means, color=color, lw=1.2)
    ax.plot(100 * means, rows, ls="", marker=marker, color=color, ms=5)
    for row, (block, _) in enumerate(means.items()):
        own = 100 * study.moved.loc[study.moved["block"] == block, "change"]
        ax.plot(own, [row] * len(own), ".", color=PAPER, ms=2.5)
    ax.set_yticks(rows, [str(block) for block in means.index])
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("change of the weights, % of the norm that they started from")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    return figure


FIGURES: Sequence[tuple[str, Callable[..., Figure], str]] = (
    (
        "figure06",
        size_figure,
        "Figure 6. Accuracy over the number of training images, epochs fixed: fewer "
        "images are also fewer updates.",
    ),
    (
        "figure07",
        rate_figure,
        "Figure 7. Accuracy over the learning rate, and accuracy of the training "
        "batches on the way (running means over a tenth of the steps). A run whose "
        "loss became no number counts as chance and has no curve.",
    ),
    (
        "figure08",
        l2_figure,
        "Figure 8. Accuracy over the L2 penalty (lambda times the weight in the "
        "gradient, as in MATLAB; none on biases).",
    ),
    (
        "figure09",
        batch_figure,
        "Figure 9. Sizes of batches, compared after equally many epochs, images and "
        "updates, and what they cost.",
    ),
    (
        "figure10",
        epoch_figure,
        "Figure 10. Accuracy over the epochs of one constant rate.",
    ),
    (
        "figure11",
        factor_figure,
        "Figure 11. Accuracy over the factors of the last layer's learning rate, of "
        "its weights and of its biases.",
    ),
    (
        "figure12",
        head_figure,
        "Figure 12. Deeper heads, under the paper's two pairs of factors, with the "
        "factors on all new layers, and with Glorot's start.",
    ),
)
ABOUT = (
    "Bars are 95 %, sampling of the validation images and runs included; dots are "
    "single seeds."
)
