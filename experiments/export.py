"""Takes a trained trial to Keras or to safetensors.

    python -m experiments.export runs/resnet50-mine --depth 32 --format keras
    python -m experiments.export runs/resnet50-mine --out my.safetensors

For Keras it prints the code that builds the model and loads the file. Without --depth:
the depth that the run recommends. Exit codes: 0 done, 2 bad arguments or input.
"""

import argparse
import sys
from pathlib import Path

from experiments.console import Parser

SUFFIXES = {"keras": ".weights.h5", "safetensors": ".safetensors"}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m experiments.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", help="what --out of experiments.sweep named")
    parser.add_argument("--depth", type=int, help="layers unfrozen from the top")
    parser.add_argument("--bn", help="BatchNorm policy of the trial")
    parser.add_argument("--seed", type=int, help="seed of the trial")
    parser.add_argument("--format", choices=SUFFIXES, default="safetensors")
    parser.add_argument(
        "--out", type=Path, help="file; default: <run_dir>/<model>-depth<L><suffix>"
    )
    parser.add_argument(
        "--offline", action="store_true", help="open no network connection"
    )
    options = parser.parse_args(arguments)
    # JAX starts here, not at import, so that a wrong argument is answered at once.
    from ftjax.predictor import load
    from ftjax.weights.export import export_keras, export_safetensors, keras_code

    try:
        predictor = load(
            options.run_dir,
            options.depth,
            bn=options.bn,
            seed=options.seed,
            offline=options.offline,
        )
        network, size = predictor.network, predictor.image_size
        suffix = SUFFIXES[options.format]
        name = f"{network.name}-depth{predictor.depth_layers}{suffix}"
        path = options.out or Path(options.run_dir).expanduser() / name
        weights = (network, predictor.params, predictor.batch_stats)
        code = ""
        if options.format == "keras":
            code = keras_code(network, image_size=size, file_name=str(path))
            export_keras(path, *weights)
        else:
            export_safetensors(
                path, *weights, image_size=size, class_names=predictor.class_names
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{path}: trial {predictor.trial}, depth {predictor.depth_layers}, bn "
        f"{predictor.bn}, validation accuracy {predictor.val_accuracy:.4f}, classes "
        f"{', '.join(predictor.class_names)}"
    )
    if code:
        print(f"\n{code}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
