"""What do the stages look at, before and after fine-tuning, and does it tell the depth?

    ftjax gradcam runs/effnetlite0-digits
    ftjax gradcam RUN_DIR --depth 41 149 --method layercam
    ftjax gradcam RUN_DIR --images my_dog.jpg my_cat.jpg

Writes gradcam.png and .svg (maps over images), gradcam_raw.png and .svg (the maps'
own pixels), gradcam_numbers.csv and gradcam.json into RUN_DIR, and adds them to its
report.html.
Exit codes: 0 done, 2 bad arguments or input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ftjax.cli.console import Where, conditions, guard, make_console, parse, refuse

# The keys of ftjax.gradcam.maps.METHODS, which would start JAX.
Method = Literal["gradcam", "gradcam++", "hirescam", "layercam"]


@dataclass(frozen=True)
class Options:
    """Where a network looks, stage by stage: heat maps and numbers of a sweep."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of a finished sweep."""
    depth: tuple[int, ...] = ()
    """Depths in layers. Default: the head alone, and the recommended depth."""
    images: tuple[str, ...] = ("50",)
    """How many validation images the numbers are of (class-balanced), or image
    files for the figure, which then explains the predicted classes."""
    method: Method = "gradcam"
    """How activations and gradients become a map."""
    target: str = "true"
    """Class that the figure explains: true, predicted, or the name of one."""
    bn: str | None = None
    """BatchNorm policy of the trials. Default: the recommended one."""
    seed: int = 0
    """Seed of the trials."""
    where: Where = ()
    """Conditions on rows of results.csv, e.g. lr=0.001 bn=frozen."""
    masks: Path | None = None
    """bool array (n, size, size) in a .npy file: where the object is, for the first n
    validation images. Default: the boxes of the data set, if it has any."""


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax gradcam", description=__doc__)
    console = make_console()
    try:
        check(options)
        # JAX starts here, so that a wrong folder is answered at once.
        from ftjax.machine import xla
        from ftjax.report.gradcam_run import write_heat_maps

        xla.tune_xla()
        xla.use_compilation_cache()
        found = write_heat_maps(
            options.run_dir,
            depths=options.depth,
            images=options.images,
            method=options.method,
            target=options.target,
            bn=options.bn,
            seed=options.seed,
            where=conditions(options.where),
            masks=options.masks,
            show=lambda *numbers: console.print(number_table(*numbers)),
        )
    except ValueError as error:
        return refuse(error)
    print_findings(found, options.run_dir, console)
    return 0


def check(options: Options) -> None:
    """Raises ValueError if the folder is no sweep's."""
    if not (options.run_dir / "config.json").is_file():
        raise ValueError(
            f"{options.run_dir} holds no sweep (no config.json in it); give the --out "
            "folder of a sweep"
        )


def print_findings(found, folder: Path, console: Console) -> None:
    """The rule's depth beside the measured one, and how far to trust it."""
    from ftjax.gradcam.rule import RECORD

    console.print(sanity_table(found.sanity, found.stages))
    console.print(found.suggestion.sentence, style="bold")
    if found.agreement is not None:
        console.print(found.agreement.sentence, style="bold")
        names, values = zip(*found.agreement.facts, strict=True)
        shown = Table(*names, title="Depth by Grad-CAM and by measurement")
        shown.add_row(*values)
        console.print(shown)
    console.print(RECORD)
    if found.depth != 0:
        console.print(
            "note: this run has no head-only trial, so nothing is compared with the "
            f"pretrained network and the rule uses depth {found.depth}; run the sweep "
            "again with 0 among its --depths",
            style="yellow",
        )
    console.print(
        f"figures and numbers in {folder}; the page {folder / 'report.html'} has them"
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
