"""Takes a trained network home: to Keras, ONNX, PyTorch or safetensors.

    ftjax export runs/resnet50-mine --format keras
    ftjax export runs/resnet50-mine --format onnx --depth 32 --out my.onnx

Prints the code that loads the file. Every file says its preprocessing, its classes, the
licence of the pretrained weights and the run's answer. Without --depth: the depth that
the run recommends. Exit codes: 0 done, 2 bad arguments or input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ftjax.cli.console import Where, conditions, guard, make_console, parse, refuse


@dataclass(frozen=True)
class Options:
    """Writes a trained network as a file."""

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
    format: Literal["keras", "onnx", "safetensors", "torch"] = "safetensors"
    """keras (a whole .keras model), onnx, torch (names of timm or torchvision), or
    safetensors (our own names, read back by --weights)."""
    out: Path | None = None
    """The file. Default: <run_dir>/<model>-depth<L><suffix>. With --format keras and a
    name ending in .weights.h5: weights for the model of keras.applications."""
    offline: bool = False
    """Open no network connection."""


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax export", description=__doc__)
    # JAX starts here, not at import: a wrong argument is answered at once.
    from ftjax.exports import export_network
    from ftjax.predictor import load

    try:
        predictor = load(
            options.run_dir,
            options.depth,
            bn=options.bn,
            seed=options.seed,
            where=conditions(options.where),
            offline=options.offline,
        )
        run_dir = options.run_dir.expanduser()
        path, code = export_network(
            predictor, run_dir, format=options.format, path=options.out
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
