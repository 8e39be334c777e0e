"""How fast is a sweep, beside the same work in PyTorch and Keras?

    python -m experiments.benchmark step --model effnetb0 vgg16 resnet152
    python -m experiments.benchmark grid --data cifar10 --data-dir ~/tensorflow_datasets
    python -m experiments.benchmark growth
    python -m experiments.benchmark accelerator --image-size 224

Every framework runs in a process of its own, on the device that JAX chooses here; they
take turns, so that a busy machine slows all of them. Shown are medians, and ratios to
ftjax: above 1, ftjax is faster. `step` times training steps; ftjax trains on stored
activations of the frozen part, as every epoch but the first does. The last column has
the FLOPs of the unfrozen part (of plain convolutions) per second, over those of a
matrix product. `grid` times whole sweeps, compilation included; every epoch ends with
the accuracy on the validation set, the last one also with that on the training set, in
evaluation mode. `growth` times sweeps of ftjax alone, by number of depths, seeds and
images. These need the extra `benchmark`. `accelerator` times steps and a sweep on one
device, beside PyTorch eager and compiled, in ten minutes at most; stopped before, it
prints what it has. It needs torch and torchvision, and no internet.
"""

import os
import signal
import sys

from experiments.benchmark.options import Options
from ftjax.cli.console import make_console, parse, print_error, refuse


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(
        Options,
        arguments,
        prog="python -m experiments.benchmark",
        description=__doc__,
    )
    # A process that takes most of a GPU's memory at its start leaves none to others.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # JAX starts here, not at import: a wrong argument is answered at once.
    import numpy as np

    from experiments.benchmark.measure import TASKS, default_dtype
    from experiments.benchmark.table import (
        draw,
        machine,
        print_table,
        read_ticks,
        with_ratios,
    )
    from ftjax.report.drawing import save

    if options.task == "accelerator":
        from experiments.benchmark.accelerator import accelerate

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return accelerate(options, make_console())
    console = make_console()
    # An orphan would go on with its turn and slow whatever is measured next.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ticks = read_ticks()
    try:
        rows = list(TASKS[options.task](options, console))
    except ValueError as error:
        return refuse(error)
    if not rows:
        print_error("error: nothing could be measured")
        return 1
    table = with_ratios(rows).assign(**machine(options.dtype or default_dtype(), ticks))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.task}.csv"
    table.to_csv(path, index=False)
    save(draw(table), path.with_suffix(""))
    print_table(table, console)
    stolen = table.stolen[0]
    taken = (
        "" if np.isnan(stolen) else f", {stolen:.0%} of their time stolen by the host"
    )
    console.print(
        f"{table.cores[0]} cores{taken}, matrix product {table.matrix_gflops[0]:.0f} "
        f"GFLOP/s; written to {path}, with a figure"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
