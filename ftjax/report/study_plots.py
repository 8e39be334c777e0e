"""The figures 6 to 12 of the paper, drawn from our own runs, with intervals."""

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from ftjax.report.drawing import AS_PERCENT, PAPER, STYLE, WIDE, new_figure
from ftjax.report.step_plots import smooth
from ftjax.report.study_panels import (
    LOOKS,
    PLAIN,
    draw_level,
    draw_sweep,
    finish,
    panel_figure,
    say_best,
    shades,
    sweep_figure,
)
from ftjax.study.points import MODES, WHOLE, Sweep
from ftjax.study.results import Study
from ftjax.study.verdicts import Z


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
