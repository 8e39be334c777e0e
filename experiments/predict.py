"""What is on this image? Classifies files with a trained trial.

    python -m experiments.predict runs/effnetlite0-digits image.jpg
    python -m experiments.predict runs/effnetlite0-digits *.png --depth 54 --top 3

Without --depth: the depth that the run recommends. Exit codes: 0 done, 2 bad arguments
or input.
"""

import argparse
import sys

from experiments.console import Parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m experiments.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", help="what --out of experiments.sweep named")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--depth", type=int, help="layers unfrozen from the top")
    parser.add_argument("--bn", help="BatchNorm policy of the trial")
    parser.add_argument("--seed", type=int, help="seed of the trial")
    parser.add_argument("--top", type=int, default=1, help="classes to show")
    parser.add_argument(
        "--offline", action="store_true", help="open no network connection"
    )
    options = parser.parse_args(arguments)
    # JAX starts here, not at import, so that a wrong argument is answered at once.
    from ftjax.machine import xla
    from ftjax.predictor import load

    try:
        xla.tune_xla()
        xla.use_compilation_cache()
        predictor = load(
            options.run_dir,
            options.depth,
            bn=options.bn,
            seed=options.seed,
            offline=options.offline,
        )
        predictions = predictor.predict_files(options.images)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, prediction in zip(options.images, predictions, strict=True):
        order = prediction.probabilities.argsort()[::-1][: max(1, options.top)]
        shown = ", ".join(
            f"{predictor.class_names[i]} {prediction.probabilities[i]:.3f}"
            for i in order
        )
        print(f"{path}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
