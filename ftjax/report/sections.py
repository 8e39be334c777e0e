"""The sections of the page, each a function of the run: a heading and its blocks.

A block is one of the kinds that the page knows (`macro block` of page.html.j2).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.curves import hold_ended
from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.variance import Effects
from ftjax.axes import Axis
from ftjax.machine.files import read_json
from ftjax.report import batchnorm_plots, drawing
from ftjax.report import depth_plot as plots
from ftjax.report.axis_panels import (
    FEWEST,
    axis_panels,
    parallel_coordinates,
    speed_by_batch_size,
    varied_axes,
)
from ftjax.report.axis_plots import axes_of, depth_by_axis
from ftjax.report.effect_plots import effect_bars
from ftjax.report.final_score import named_trial, score_sentence
from ftjax.report.inline import Image, draw_image
from ftjax.report.notices import batchnorm_advice, further_warnings
from ftjax.report.probe_plots import probe_curves
from ftjax.report.step_plots import (
    SHARE,
    curves_by_depth,
    curves_by_value,
    step_curves,
)
from ftjax.report.tables import MISSING, Table, setting_table, trial_table

TWO_MODES = (
    "A BatchNorm layer scales its input by a mean and a variance. While training "
    "(training mode) it takes them from the images of the current batch. When the "
    "network is used or tested (evaluation mode) it takes running averages collected "
    "during training. Each step moves these averages only a little, so after few steps "
    "they still describe the network as it was before fine-tuning: they lag. Then the "
    "same weights do well on the same images in training mode and badly in evaluation "
    "mode."
)
ABOUT_TABLE = (
    "Accuracy and loss are measured on the training images and Val-accuracy and "
    "Val-loss on the validation images, both in evaluation mode. Training-mode "
    "accuracy is the running mean over the batches of the last epoch. Freeze proven: "
    "after training, every frozen weight and statistic was equal bit for bit to its "
    "value before. Seconds are without compilation."
)
ABOUT_STEPS = (
    "Each training batch as it was trained, before its step; means over the seeds and "
    f"a running mean over 1/{SHARE} of the steps."
)


class Report(NamedTuple):
    """What the page is about.

    Attributes:
        folder: of the run.
        results: as in results.csv; rows may be unfinished.
        epochs: as in epochs.csv; rows may be unfinished.
        best: None as long as no trial has finished.
        config: the whole configuration of the run, nested mappings allowed.
        environment: versions, device, git commit and so on.
        command: the exact command line.
        probes: of `ftjax.probes.probe_curve`, None where they were not made.
        correlations: of `ftjax.probes.rank_correlation`, with these results.
        classes: of `content.class_tables`; empty where no labels were kept.
        every: results of all settings, where `results` are those of one.
        steps: by trial, (steps, 2) loss and accuracy of each training step, where they
            were kept.
    """

    folder: Path
    results: pd.DataFrame
    epochs: pd.DataFrame
    best: Recommendation | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    command: str
    probes: pd.DataFrame | None = None
    correlations: Sequence = ()
    classes: Sequence[Table] = ()
    every: pd.DataFrame | None = None
    steps: Mapping[str, np.ndarray] = {}

    def of_its_curve(self) -> "Report":
        """The same, with the rows of the setting that the answer names alone."""
        results = drawing.rows_of(self.results, self.best)
        epochs = hold_ended(self.epochs, results)
        if "trial" in epochs and "trial" in results:
            epochs = epochs[epochs["trial"].isin(results["trial"])]
        return self._replace(results=results, epochs=epochs, every=self.results)

    @property
    def named(self) -> Recommendation | None:
        """The depth that images mark, if there is one."""
        return self.best.named if self.best else None

    @property
    def first(self) -> Mapping[str, Any]:
        """A row of the table, for what all rows share."""
        return self.results.iloc[0].to_dict() if len(self.results) else {}


class Block(NamedTuple):
    """One part of a section.

    Attributes:
        kind: text, small, heading, facts (pairs), image (`inline.Image`), figure,
            trials, grid, wide and sentences (`content.Table`), pairs, code, list, or
            details.
        value: what it shows; its type depends on the kind.
        name: of the element in the page, where the kind has one, or its title.
    """

    kind: str
    value: Any
    name: str = ""


class Section(NamedTuple):
    """A part of the page with a heading."""

    heading: str
    blocks: tuple[Block, ...]


def why(report: Report) -> Section | None:
    """The reasons, and what BatchNorm has to do with them."""
    results = report.results
    blocks = (
        [Block("text", line) for line in report.best.explanation] if report.best else []
    )
    done = drawing.finished(results)
    if drawing.measured(done, *batchnorm_plots.MODES):
        image = draw_image(
            "batchnorm",
            lambda width: plots.batchnorm_gap(results, width=width),
            "The same training images in training mode and in evaluation mode. "
            "Training mode is the running mean over the last epoch.",
        )
        blocks += [
            Block("image", image),
            Block("heading", "What the two modes are"),
            Block("text", TWO_MODES),
            Block("text", batchnorm_advice(results)),
        ]
    return Section("Why", tuple(blocks)) if report.best and blocks else None


def all_depths(report: Report) -> Section:
    """The table of the paper, and what it leaves out."""
    table = trial_table(report.results, report.named)
    blocks = Block("trials", table, "trials"), Block("small", ABOUT_TABLE)
    return Section("All depths", blocks)


def by_axis(report: Report) -> Section | None:
    """Accuracy by depth and every hyperparameter of which several values were tried."""
    rows = report.results if report.every is None else report.every
    varied = varied_axes(rows)
    blocks = [axis_image(rows, report.named)] if varied else []
    chance = drawing.chance_level(report.best)
    if report.best and report.best.effects:
        blocks += effect_blocks(report.best.effects)
    blocks += [
        Block(
            "image",
            draw_image(
                f"axis-{axis}",
                lambda width, axis=axis: depth_by_axis(
                    rows, axis, chance=chance, width=width
                ),
                "Mean over the seeds of trials that went to the last epoch; the best "
                "depth of each value is framed. Of other settings, each cell's best. "
                "A cross: training diverged, which counts as guessing.",
            ),
        )
        for axis in axes_of(rows)
    ]
    blocks += [Block("image", image) for image in value_curves(report, rows, varied)]
    if len(varied) >= FEWEST:
        image = draw_image(
            "parallel",
            lambda width: parallel_coordinates(rows, width=width),
            "Every setting that was trained to the end, the mean of its seeds, as a "
            "line across the values that it has; the darker, the better.",
        )
        blocks.append(Block("image", image))
    sizes = [axis for axis in varied if axis.name == "batch_size"]
    if sizes and drawing.measured(rows, "seconds", "train_size"):
        image = draw_image(
            "speed",
            lambda width: speed_by_batch_size(rows, width=width),
            "Training images over the seconds of training, both axes logarithmic; the "
            "seconds hold the passes over the validation images, not compilation.",
        )
        blocks.append(Block("image", image))
    if varied:
        table = setting_table(rows, varied)
        shown = (Block("trials", table, "settings"),)
        blocks.append(Block("details", shown, f"All settings ({len(table.rows)} rows)"))
    return Section("What was tuned", tuple(blocks)) if blocks else None


def value_curves(
    report: Report, rows: pd.DataFrame, axes: Sequence[Axis]
) -> Iterator[Image]:
    """Training curves of the named depth at the values of each axis."""
    known = rows[rows["trial"].isin(report.steps)] if "trial" in rows else rows[:0]
    if report.best is None or known.empty:
        return
    depth = report.best.depth_layers
    if depth not in set(known["depth_layers"]):  # a head that was solved for
        depth = int(known["depth_layers"].max())
    known = known[known["bn"] == report.best.bn]
    for axis in axes:
        curves = curves_by_value(known, axis, depth, report.steps)
        if axis.name == "epochs" or len(curves) < 2:
            continue
        title = f"Training at {depth} layers, by {axis.title}"
        yield draw_image(
            f"steps-{axis.name}",
            lambda width, c=curves, t=title: step_curves(c, t, width=width),
            ABOUT_STEPS + " Of other settings, those that are best at each value.",
        )


def effect_blocks(effects: Effects) -> list[Block]:
    """Which axes matter, or why that cannot be told."""
    if effects.reason:
        return [Block("small", f"No analysis of variance: {effects.reason}.")]
    return [
        Block(
            "image",
            draw_image(
                f"effects{number}",
                lambda width, grid=grid: effect_bars(grid, width=width),
                "Analysis of variance over all runs of the grid: main effects, "
                "interactions (what two add beyond the sum of their effects) and "
                "seeds, with their shares of the sum of squares.",
            ),
        )
        for number, grid in enumerate(effects.grids, start=1)
    ]


def axis_image(rows: pd.DataFrame, named: Recommendation | None) -> Block:
    """The panels of all hyperparameters that were varied."""
    image = draw_image(
        "axes",
        lambda width: axis_panels(rows, named, width=width),
        "At each value, the depth that is recommended and the depth that is best there "
        "(its layers below); of the other settings, each depth's best. Dots are single "
        "seeds.",
    )
    return Block("image", image)


def test_images(report: Report) -> Section | None:
    """What the named network reaches on images that nobody has looked at."""
    score = read_json(report.folder / "test.json")
    if score is None:
        return None
    trial = named_trial(report.results, report.named) if report.named else None
    return Section("Test images", (Block("text", score_sentence(score, trial)),))


def classes(report: Report) -> Section | None:
    """Which classes a depth gains or loses, and which are confused."""
    blocks = tuple(
        Block("grid", table, f"classes{number}")
        for number, table in enumerate(report.classes, start=1)
    )
    return Section("Classes", blocks) if blocks else None


def more_images(report: Report) -> Section | None:
    """Loss, cost, learning curves and probes, where they are known."""
    results, epochs, named = report.results, report.epochs, report.named
    done = drawing.finished(results)
    images = []
    if drawing.measured(done, "val_loss"):
        images.append(
            draw_image(
                "loss",
                lambda width: plots.depth_curve(
                    results, named, metric="val_loss", width=width
                ),
                "Cross-entropy loss on the validation images over depth.",
            )
        )
    if drawing.measured(done, "seconds") or drawing.measured(done, "flops"):
        images.append(
            draw_image(
                "cost",
                lambda width: plots.pareto(results, named, width=width),
                "Accuracy over the cost of training; on the front no depth is both "
                "cheaper and better. Numbers are unfrozen layers.",
            )
        )
    if drawing.measured(epochs, "val_accuracy"):
        images.append(
            draw_image(
                "epochs",
                lambda width: plots.learning_curves(epochs, named, width=width),
                "Validation accuracy over epochs, one panel for each depth; dashed, "
                "that of the training batches as trained. Means over the seeds.",
            )
        )
    curves = curves_by_depth(results, report.steps) if report.steps else {}
    if curves:
        images.append(
            draw_image(
                "steps",
                lambda width: step_curves(curves, "Training, by depth", width=width),
                ABOUT_STEPS,
            )
        )
    probes, correlations = report.probes, report.correlations
    if probes is not None:
        images.append(
            draw_image(
                "probes",
                lambda width: probe_curves(probes, results, correlations, width=width),
                "What closed forms say of every cut before any training, below what "
                "training made of it. The rank correlation (Spearman; p by permutation "
                "of the depths) is measured on this run and promises nothing for "
                "another.",
            )
        )
    blocks = tuple(Block("image", image) for image in images)
    return Section("More images", blocks) if blocks else None


def warnings(report: Report) -> Section | None:
    """What the recommendation warns of, where no notice says it."""
    lines = further_warnings(report.best) if report.best else ()
    return Section("Warnings", (Block("list", lines),)) if lines else None


def how_it_was_made(report: Report) -> Section:
    """Command, data, environment and configuration."""
    config = flat(report.config)
    title = "The whole configuration of this run"
    blocks = (
        Block("heading", "Command"),
        Block("code", report.command),
        Block("heading", "Data hash"),
        Block("code", report.first.get("data_hash", MISSING)),
        Block("heading", "Environment"),
        Block(
            "pairs",
            ("Versions, device and source of this run", flat(report.environment)),
            "environment",
        ),
        Block(
            "details",
            (Block("pairs", (title, config), "config"),),
            f"Configuration ({len(config)} values)",
        ),
    )
    return Section("How it was made", blocks)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            pairs.append((f"{prefix}{key}", text))
    return pairs
