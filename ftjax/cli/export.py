"""Takes a trained trial to Keras or to safetensors.

    ftjax export runs/resnet50-mine --depth 32 --format keras
    ftjax export runs/resnet50-mine --out my.safetensors

For Keras it prints the code that builds the model and loads the file. Without --depth:
the depth that the run recommends. Exit codes: 0 done, 2 bad arguments or input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ftjax.cli.console import Where, conditions, guard, make_console, parse, refuse

SUFFIXES = {"keras": ".weights.h5", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Options:
    """Writes a trained trial as a file of weights."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder that --out of the sweep named."""
    depth: int | None = None
    """Layers unfrozen from the top. Default: the recommended depth."""
    bn: str | None = None
    """BatchNorm policy of the trial."""
    seed: int | None = None
    """Seed of the trial."""
    where: Where = ()
    """Conditions on the trial's row of results.csv, e.g. lr=0.001 bn=frozen."""
    format: Literal["keras", "safetensors"] = "safetensors"
    """Kind of file."""
    out: Path | None = None
    """The file. Default: <run_dir>/<model>-depth<L><suffix>."""
    offline: bool = False
    """Open no network connection."""


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax export", description=__doc__)
    # JAX starts here, not at import: a wrong argument is answered at once.
    from ftjax.predictor import load
    from ftjax.weights.export import export_keras, export_safetensors, keras_code

    code = ""
    try:
        predictor = load(
            options.run_dir,
            options.depth,
            bn=options.bn,
            seed=options.seed,
            where=conditions(options.where),
            offline=options.offline,
        )
        network, size = predictor.network, predictor.image_size
        suffix = SUFFIXES[options.format]
        name = f"{network.name}-depth{predictor.depth_layers}{suffix}"
        path = options.out or options.run_dir.expanduser() / name
        weights = (network, predictor.params, predictor.batch_stats)
        if options.format == "keras":
            code = keras_code(network, image_size=size, file_name=str(path))
            export_keras(path, *weights)
        else:
            export_safetensors(
                path, *weights, image_size=size, class_names=predictor.class_names
            )
    except ValueError as error:
        return refuse(error)
    console = make_console()
    console.print(
        f"{path}: trial {predictor.trial}, depth {predictor.depth_layers}, bn "
        f"{predictor.bn}, validation accuracy {predictor.val_accuracy:.4f}, classes "
        f"{', '.join(predictor.class_names)}",
        soft_wrap=True,
    )
    if code:
        console.print(f"\n{code}", end="", soft_wrap=True)
    return 0
