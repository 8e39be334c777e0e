"""What is on this image? Classifies files with a trained trial.

    ftjax predict runs/effnetlite0-digits image.jpg
    ftjax predict runs/effnetlite0-digits *.png --depth 54 --top 3
    ftjax predict runs/effnetlite0-digits new_images/ --csv answers.csv

Probabilities are calibrated on the run's validation images.

Without --depth: the depth that the run recommends. Exit codes: 0 done, 2 bad arguments
or input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ftjax.cli.console import Where, conditions, guard, make_console, parse, refuse


@dataclass(frozen=True)
class Options:
    """Classifies image files."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder that --out of the sweep named."""
    images: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE ..."),
    ]
    """Image files, and folders of them."""
    depth: int | None = None
    """Layers unfrozen from the top. Default: the recommended depth."""
    bn: str | None = None
    """BatchNorm policy of the trial."""
    seed: int | None = None
    """Seed of the trial."""
    where: Where = ()
    """Conditions on the trial's row of results.csv, e.g. lr=0.001 bn=frozen."""
    top: int = 1
    """How many classes to show."""
    csv: Path | None = None
    """Write a table instead: a row per file, a column of probabilities per class."""
    offline: bool = False
    """Open no network connection."""


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax predict", description=__doc__)
    try:
        check(options)
        # JAX starts here, not at import: a wrong argument is answered at once.
        from ftjax.machine import xla
        from ftjax.predictor import load
        from ftjax.weights.export import write_file

        xla.tune_xla()
        xla.use_compilation_cache()
        predictor = load(
            options.run_dir,
            options.depth,
            bn=options.bn,
            seed=options.seed,
            where=conditions(options.where),
            offline=options.offline,
        )
        table = predictor.predict_table(options.images)
        if options.csv is not None:
            write_file(options.csv, table.to_csv(index=False).encode())
    except ValueError as error:
        return refuse(error)
    console = make_console()
    if options.csv is not None:
        console.print(f"{options.csv}: {len(table)} images", soft_wrap=True)
        return 0
    probabilities = table.iloc[:, 3:].to_numpy()
    for path, row in zip(table["file"], probabilities, strict=True):
        order = row.argsort()[::-1][: options.top]
        shown = ", ".join(f"{predictor.class_names[i]} {row[i]:.3f}" for i in order)
        console.print(f"{path}: {shown}", soft_wrap=True)
    return 0


def check(options: Options) -> None:
    """Raises ValueError if there is nothing to classify or to show."""
    if not options.images:
        raise ValueError("no image files: give one or more after the folder of the run")
    if options.top < 1:
        raise ValueError(f"--top {options.top} is too small: 1 or more")
