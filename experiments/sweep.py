"""How many top layers should I unfreeze? Trains at many depths and says.

    python -m experiments.sweep
    python -m experiments.sweep --model effnetlite0 --data my_images/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input.
"""

import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console

from experiments.answer import write_answer
from experiments.console import LOG_WIDTH, print_error, refuse
from experiments.plan_table import print_forecast
from experiments.progress import Display
from ftjax.config import Config, complete, to_json
from ftjax.machine import xla
from ftjax.machine.caches import use_compilation_cache
from ftjax.machine.heap import keep_freed_memory
from ftjax.machine.mesh import from_first_process, is_first_process
from ftjax.sweep import run as engine
from ftjax.sweep.cores import one_core_each
from ftjax.sweep.prepare import Sweep, prepare
from ftjax.sweep.records import write_run
from ftjax.sweep.results import write_probes


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    config = tyro.cli(
        Config, prog="python -m experiments.sweep", args=words, description=__doc__
    )
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    began = time.perf_counter()
    own_process = arguments is None  # nobody else has JAX arrays in it, or garbage
    try:
        try:
            start_jax(config, own_process)
            console.quiet = not is_first_process()
            sweep = prepare(complete(config))
            out = from_first_process(partial(open_folder, sweep.config))
        except ValueError as error:
            return refuse(error)
        print_plan(sweep, console)
        if config.plan:
            print_forecast(sweep, console)
            return 0
        command = "python -m experiments.sweep " + shlex.join(words)
        write_run(out, to_json(sweep.config), command, sweep.data.class_names)
        if config.probes:
            size = sweep.config.batch_size
            write_probes(sweep.start, sweep.data, sweep.plan(), out, batch_size=size)
        if own_process:
            sweep = one_core_each(sweep)
        with Display(sweep.start, console) as display:
            outcome = engine.run(sweep, out, display.show, display.begin_round)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130
    if is_first_process():
        write_answer(out, outcome.results, outcome.epochs, console)
        console.print(f"{time.perf_counter() - began:.0f} s in all; results in {out}")
        for event in outcome.failed.values():
            print_error(f"failed: {event.trial.describe()}: {event.message}")
    return 1 if outcome.failed else 0


def start_jax(config: Config, own_process: bool) -> None:
    """Chooses how JAX compiles and runs; comes before all other use of it.

    Args:
        config: what to train.
        own_process: whether nobody else has objects in this process.

    Raises:
        ValueError: the processes of --distributed cannot be joined.
    """
    xla.tune_xla()
    if config.mesh != "auto" or config.distributed:  # then they share batches
        xla.give_devices_threads()
    if config.distributed:
        xla.join_processes()
    keep_freed_memory()
    if own_process:
        xla.collect_garbage_rarely()
    use_compilation_cache()


def open_folder(config: Config) -> Path:
    """The folder of the results.

    Raises:
        ValueError: it cannot be written, or holds results that are not to be resumed.
    """
    out = config.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise ValueError(f"--out {out} cannot be written; choose another folder")
    if not config.resume and any(out.iterdir()):
        raise ValueError(
            f"--no-resume, but {out} is not empty; remove it, or choose another --out"
        )
    return out


def print_plan(sweep: Sweep, console: Console) -> None:
    """What will be trained, before anything is."""
    config, start, data, _, _ = sweep
    plan = sweep.plan()
    depths = sorted({request.cut.depth_layers for request in plan.requests})
    lines = [
        f"{config.model} ({start.weights}) on {data.name}: {len(data.train.labels)} "
        f"training and {len(data.val.labels)} validation images of "
        f"{len(data.class_names)} classes at {config.image_size} pixels",
        f"{len(plan.requests)} rows, {len(plan.trials)} trials of {config.epochs} "
        f"epochs: depths {' '.join(map(str, depths))} of {len(start.network.layers)} "
        f"layers, bn {' '.join(config.bn)}, {config.seeds} seed"
        + "s"
        * (config.seeds > 1),
    ]
    if not any(unit.batch_norm_keys for unit in start.network.units):
        lines.append(f"{config.model} has no BatchNorm: one curve, whatever --bn says")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    if config.weights == "random":
        console.print(
            "random weights: the curve says nothing about transfer", style="yellow"
        )


if __name__ == "__main__":
    sys.exit(main())
