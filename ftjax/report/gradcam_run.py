"""Heat maps of a run: measured, drawn, and added to its report page."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from ftjax.frozen.forward import batches, infer
from ftjax.gradcam import run as opened
from ftjax.gradcam.checks import randomization
from ftjax.gradcam.maps import Stage, explain, find_stages
from ftjax.gradcam.rule import Agreement, Suggestion, compare, suggest_depth
from ftjax.gradcam.run import Images, Run
from ftjax.gradcam.table import COLUMNS, Explained, measure, stage_values
from ftjax.machine.files import write_atomically, write_json
from ftjax.predictor import Predictor
from ftjax.predictor import load as load_trial
from ftjax.report.answer import rewrite_page
from ftjax.report.drawing import percent, save, shorten
from ftjax.report.gradcam_plots import Row, stage_figure

BATCH_SIZE = 16  # as in `gradcam.explain`
SHOWN = 4  # images in the figure
SANITY = 16  # images of the randomization check

Sanity = Mapping[str, Mapping[str, float | None]]  # randomized down to, stage's end


class Findings(NamedTuple):
    """What the heat maps of a run say.

    Attributes:
        depth: whose maps the rule used, in layers.
        stages: of the network, input first.
        sanity: mean rank correlations of `checks.randomization`.
        suggestion: of the rule.
        agreement: with the measured optimum; None if nothing is measured.
    """

    depth: int
    stages: tuple[Stage, ...]
    sanity: Sanity
    suggestion: Suggestion
    agreement: Agreement | None


def write_heat_maps(
    folder: Path,
    *,
    depths: Sequence[int],
    images: Sequence[str],
    method: str,
    target: str,
    bn: str | None,
    seed: int,
    where: Sequence[str] = (),
    masks: Path | None,
    show: Callable[[int, pd.DataFrame, tuple[Stage, ...]], None],
) -> Findings:
    """Measures a run's trials by stage; writes numbers, figures and page.

    Args:
        folder: of a finished sweep; all is written into it.
        depths: in layers; empty: the head alone, and the recommended depth.
        images: how many are measured, or files for the figure.
        method: a key of `gradcam.METHODS`.
        target: class that the figure explains.
        bn: BatchNorm policy of the trials; None: the recommended one.
        seed: of the trials.
        where: conditions on their rows of results.csv, as `lr=0.001`.
        masks: a .npy file that says where the objects are, or None.
        show: called with the numbers of each depth as soon as they are measured.

    Raises:
        ValueError: the folder, its data or an argument cannot be used.
    """
    run = opened.open_run(folder, bn, seed, where)
    opened.check_target(run, target)
    chosen = opened.choose_images(run, images, SHOWN)
    chosen = chosen._replace(masks=opened.find_masks(run, chosen, masks))
    tables, rows, stages, before, sanity = [], [], (), None, {}
    for depth in opened.choose_depths(run, depths):
        predictor, network = open_trial(run, depth, chosen)
        stages = find_stages(predictor.network.body, predictor.image_size)
        chosen = opened.read_files(chosen, predictor.read)
        row = figure_row(run, depth, network, chosen, target=target, method=method)
        maps, table = measure(network, stages, method=method, before=before)
        if not rows:
            before = maps if depth == 0 else None
            sanity = check_sanity(network, stages, method)
        rows.append(row)
        tables.append(identify(run, depth, method, table))
        show(depth, table, stages)
    rates = stage_values(tables[0], stages, "class_hit")
    suggestion = suggest_depth(stages, rates)
    agreement = None
    if run.measured:
        agreement = compare(suggestion, run.measured, run.tested)
    first = int(tables[0]["depth_layers"].iloc[0])
    found = Findings(first, stages, sanity, suggestion, agreement)
    write_numbers(folder, found, tables, rates, method, len(chosen.labels))
    write_figures(folder, run, found, rows, chosen)
    rewrite_page(folder)
    return found


def check_sanity(
    network: Explained, stages: tuple[Stage, ...], method: str
) -> dict[str, dict[str, float | None]]:
    """Mean rank correlations of the maps after weights were destroyed from the top."""
    destroyed = randomization(
        network.units,
        network.params,
        network.batch_stats,
        network.images[:SANITY],
        classes=network.labels[:SANITY],
        stages=stages,
        method=method,
    )
    return means(destroyed)


def write_numbers(
    folder: Path,
    found: Findings,
    tables: Sequence[pd.DataFrame],
    rates: Sequence[float],
    method: str,
    num_images: int,
) -> None:
    """Writes gradcam_numbers.csv and gradcam.json."""
    content = pd.concat(tables).to_csv(index=False).encode()
    write_atomically(folder / "gradcam_numbers.csv", content)
    write_json(
        folder / "gradcam.json",
        {
            "method": method,
            "rule_depth_layers": found.depth,
            "images": num_images,
            "stages": [stage._asdict() for stage in found.stages],
            "hit_rates": [None if math.isnan(rate) else rate for rate in rates],
            "suggestion": found.suggestion._asdict(),
            "agreement": found.agreement and found.agreement._asdict(),
            "randomization": found.sanity,
        },
    )


def write_figures(
    folder: Path, run: Run, found: Findings, rows: Sequence[Row], images: Images
) -> None:
    """Draws gradcam (maps over images) and gradcam_raw (the maps' own pixels)."""
    captions = [shorten(caption, 20) for caption in images.captions]
    for name, overlay in (("gradcam", True), ("gradcam_raw", False)):
        figure = stage_figure(
            images.shown,
            captions,
            rows,
            found.stages,
            title=headline(run, found.suggestion),
            overlay=overlay,
        )
        save(figure, folder / name)


def open_trial(run: Run, depth: int, chosen: Images) -> tuple[Predictor, Explained]:
    """A trained trial, and itself with the images to measure."""
    trial = f"trial={run.row(depth)['trial']}"
    predictor = load_trial(run.folder, depth, where=(trial,), offline=True)
    units = predictor.network.units

    def logits(images: np.ndarray) -> np.ndarray:
        """Batches of one size throughout, so that nothing is compiled twice."""
        parts = []
        for rows, count in batches(images, BATCH_SIZE):
            x = jax.device_put(rows)
            y = infer(units, predictor.params, predictor.batch_stats, x)
            parts.append(np.asarray(y)[:count])
        return np.concatenate(parts)

    return predictor, Explained(
        units,
        predictor.params,
        predictor.batch_stats,
        logits,
        chosen.images,
        chosen.labels,
        chosen.masks,
    )


def figure_row(
    run: Run,
    depth: int,
    network: Explained,
    images: Images,
    *,
    target: str,
    method: str,
) -> Row:
    """Maps of the images shown, with what the network answers.

    Args:
        run: for the names of the classes.
        depth: of the trial, in layers.
        network: of that trial.
        images: to show.
        target: `true` (where that is known), `predicted`, or a class.
        method: a key of `gradcam.METHODS`.
    """
    names = run.dataset.class_names
    classes = images.shown_labels if target == "true" else None
    maps = explain(
        network.units,
        network.params,
        network.batch_stats,
        images.shown,
        classes=names.index(target) if target in names else classes,
        method=method,
    )
    shifted = np.exp(maps.logits - maps.logits.max(-1, keepdims=True))
    probability = (shifted / shifted.sum(-1, keepdims=True)).max(-1)
    answers = tuple(
        f"{shorten(names[label], 16)} {percent(share, 0)}"
        for label, share in zip(maps.logits.argmax(-1), probability, strict=True)
    )
    return Row("head alone" if depth == 0 else f"top {depth} layers", maps, answers)


def identify(run: Run, depth: int, method: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the trial's name in front."""
    row = run.row(depth)
    copied = "trial model data depth_layers depth_units bn seed".split()
    fixed = {name: row[name] for name in copied} | {"method": method}
    return table.assign(**fixed)[[*fixed, *COLUMNS]]


def means(
    values: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, float | None]]:
    """Means over the images where a number is defined; None where it never is."""
    found: dict[str, dict[str, float | None]] = {}
    for name, by_stage in values.items():
        found[name] = {}
        for end, numbers in by_stage.items():
            known = numbers[np.isfinite(numbers)]
            found[name][end] = float(known.mean()) if len(known) else None
    return found


def headline(run: Run, suggestion: Suggestion) -> str:
    """The figure's finding."""
    data = f"{run.rows['model'].iloc[0]} on {run.dataset.name}"
    if suggestion.first_stage is None:
        return f"{data}: the last maps are not shown to be class-specific"
    return f"{data}: class-specific maps from stage {suggestion.first_stage} on"
