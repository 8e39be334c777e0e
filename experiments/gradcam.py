"""What do the stages look at, before and after fine-tuning, and does it tell the depth?

    python -m experiments.gradcam runs/effnetlite0-digits
    python -m experiments.gradcam RUN_DIR --depth 41 149 --method layercam
    python -m experiments.gradcam RUN_DIR --images my_dog.jpg my_cat.jpg

Writes gradcam.png and .svg (maps over images), gradcam_raw.png and .svg (the maps'
own pixels), gradcam_numbers.csv and gradcam.json into RUN_DIR, and adds them to its
report.html.
Exit codes: 0 done, 2 bad arguments or input.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

LOG_WIDTH = 160  # columns of a log file; a terminal has its own
SHOWN = 4  # images in the figure
SANITY = 16  # images of the randomization check
# As in ftjax.gradcam, which would start JAX.
METHODS = ("gradcam", "gradcam++", "hirescam", "layercam")


@dataclass(frozen=True)
class CamConfig:
    """Where a network looks, stage by stage: heat maps and numbers of a sweep."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished sweep."""
    depth: tuple[int, ...] = ()
    """Depths in layers. Default: the head alone, and the recommended depth."""
    images: tuple[str, ...] = ("50",)
    """How many validation images the numbers are of (class-balanced), or image
    files for the figure, which then explains the predicted classes."""
    method: str = "gradcam"
    """gradcam, gradcam++, hirescam or layercam."""
    target: str = "true"
    """Class that the figure explains: true, predicted, or the name of one."""
    bn: str | None = None
    """BatchNorm policy of the trials. Default: the recommended one."""
    seed: int = 0
    """Seed of the trials."""
    masks: Path | None = None
    """bool array (n, size, size) in a .npy file: where the object is, for the first n
    validation images. Default: the boxes of the data set, if it has any."""
    threshold: float = 2 / 3
    """Hit rate from which a stage counts as class-specific."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    config = tyro.cli(
        CamConfig,
        prog="python -m experiments.gradcam",
        args=arguments,
        description=__doc__,
    )
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    try:
        run(config, console)
    except ValueError as error:
        errors = Console(stderr=True)
        errors.print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        return 2
    return 0


def run(config: CamConfig, console: Console) -> None:
    """Measures, draws, writes, prints.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    # JAX starts here, so that a wrong folder is answered at once.
    check(config)
    from experiments import gradcam_run as opened
    from ftjax.gradcam.checks import randomization
    from ftjax.gradcam.maps import find_stages
    from ftjax.gradcam.table import measure
    from ftjax.machine import xla

    xla.tune_xla()
    xla.use_compilation_cache()
    run = opened.open_run(config.run_dir, config.bn, config.seed)
    opened.check_target(run, config.target)
    depths = opened.choose_depths(run, config.depth)
    images = opened.choose_images(run, config.images, SHOWN)
    masks = opened.find_masks(run, images, config.masks)
    images = images._replace(masks=masks)
    tables, rows, stages, before, sanity = [], [], (), None, {}
    for depth in depths:
        predictor, network = opened.open_trial(run, depth, images)
        stages = find_stages(predictor.network.body, predictor.image_size)
        images = opened.read_files(images, predictor)
        row = opened.figure_row(
            run,
            depth,
            network,
            images,
            target=config.target,
            method=config.method,
        )
        maps, table = measure(network, stages, method=config.method, before=before)
        if depth == depths[0]:
            before = maps if depth == 0 else None
            destroyed = randomization(
                network.units,
                network.params,
                network.batch_stats,
                network.images[:SANITY],
                classes=network.labels[:SANITY],
                stages=stages,
                method=config.method,
            )
            sanity = opened.means(destroyed)
        rows.append(row)
        tables.append(opened.identify(run, depth, config.method, table))
        console.print(number_table(depth, table, stages))
    console.print(sanity_table(sanity, stages))
    answer(config, run, images, tables, rows, stages, sanity, console)


def answer(
    config: CamConfig,
    run,
    images,
    tables: Sequence,
    rows: Sequence,
    stages: Sequence,
    sanity: Mapping,
    console: Console,
) -> None:
    """The rule's depth beside the measured one; numbers and figures into the folder."""
    import pandas as pd

    from experiments import gradcam_run as opened
    from ftjax.gradcam.rule import RECORD, compare, suggest_depth
    from ftjax.gradcam.table import stage_values
    from ftjax.machine.files import write_atomically, write_json
    from ftjax.report.answer import rewrite_page
    from ftjax.report.drawing import save
    from ftjax.report.gradcam_plots import stage_figure

    depth = int(tables[0]["depth_layers"].iloc[0])
    rates = stage_values(tables[0], stages, "class_hit")
    suggestion = suggest_depth(stages, rates, threshold=config.threshold)
    console.print(suggestion.sentence, style="bold", highlight=False)
    agreement = None
    if run.measured:
        agreement = compare(suggestion, run.measured, run.tested)
        console.print(agreement.sentence, style="bold", highlight=False)
        names, values = zip(*agreement.facts, strict=True)
        shown = Table(*names, title="Depth by Grad-CAM and by measurement")
        shown.add_row(*values)
        console.print(shown)
    console.print(RECORD, highlight=False)
    if depth != 0:
        console.print(
            "note: this run has no head-only trial, so nothing is compared with the "
            f"pretrained network and the rule uses depth {depth}; run the sweep again "
            "with 0 among its --depths",
            style="yellow",
            highlight=False,
        )
    folder = config.run_dir
    content = pd.concat(tables).to_csv(index=False).encode()
    write_atomically(folder / "gradcam_numbers.csv", content)
    write_json(
        folder / "gradcam.json",
        {
            "method": config.method,
            "rule_depth_layers": depth,
            "images": len(images.labels),
            "stages": [stage._asdict() for stage in stages],
            "hit_rates": [None if math.isnan(rate) else rate for rate in rates],
            "suggestion": suggestion._asdict(),
            "agreement": agreement and agreement._asdict(),
            "randomization": sanity,
        },
    )
    title = opened.headline(run, suggestion)
    for name, overlay in (("gradcam", True), ("gradcam_raw", False)):
        figure = stage_figure(
            images.shown,
            images.captions,
            rows,
            stages,
            title=title,
            overlay=overlay,
        )
        save(figure, folder / name)
    rewrite_page(folder)
    console.print(
        f"figures and numbers in {folder}; the page {folder / 'report.html'} has them",
        highlight=False,
    )


def check(config: CamConfig) -> None:
    """Raises ValueError if the folder or the method cannot be used."""
    if not (config.run_dir / "config.json").is_file():
        raise ValueError(
            f"{config.run_dir} holds no sweep (no config.json in it); give the --out "
            "folder of python -m experiments.sweep"
        )
    if config.method not in METHODS:
        raise ValueError(
            f"unknown --method {config.method!r}; allowed: {', '.join(METHODS)}"
        )
    if not 0 < config.threshold <= 1:
        raise ValueError(
            f"--threshold {config.threshold} is no share; allowed: above 0, to 1"
        )


def number_table(depth: int, table, stages: Sequence) -> Table:
    """Mean and 95 % interval of every number at the end of every stage."""
    title = "head alone" if depth == 0 else f"top {depth} layers unfrozen"
    shown = Table(title=f"{title}: mean (95 % interval over images)")
    shown.add_column("number")
    for number, stage in enumerate(stages, start=1):
        shown.add_column(
            f"stage {number}\n{stage.end} {stage.height}x{stage.width}",
            justify="right",
        )
    ends = table[table["stage_end"]]
    for name, rows in ends.groupby("number", sort=False):
        by_unit = rows.set_index("unit")
        cells = []
        for stage in stages:
            row = by_unit.loc[stage.end]
            cells.append(f"{row['mean']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
        shown.add_row(str(name), *cells)
    return shown


def sanity_table(sanity, stages: Sequence) -> Table:
    """Rank correlation of the maps after weights were destroyed from the top."""
    shown = Table(title="Sanity check: rank correlation after randomizing down to ...")
    shown.add_column("randomized down to")
    for stage in stages:
        shown.add_column(stage.end, justify="right")
    for name, by_stage in sanity.items():
        cells = (by_stage[stage.end] for stage in stages)
        shown.add_row(name, *("-" if c is None else f"{c:.2f}" for c in cells))
    return shown


if __name__ == "__main__":
    sys.exit(main())
