"""How many top layers should I unfreeze? Trains at many depths and says.

    ftjax sweep
    ftjax sweep --model effnetlite0 --data my_images/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input, 3 a
file cannot be read or written (disk full, damaged), 130 stopped by Ctrl-C.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ftjax.axes import varied
from ftjax.cli.console import guard, make_console, parse, print_error, refuse
from ftjax.config import Config, axis_values, complete, to_json

if TYPE_CHECKING:
    from ftjax.sweep.prepare import Sweep


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    config = parse(Config, words, prog="ftjax sweep", description=__doc__)
    console = make_console()
    began = time.perf_counter()
    own_process = arguments is None  # nobody else has JAX arrays in it, or garbage
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    from ftjax.cli.answer import write_answer
    from ftjax.cli.display import Display
    from ftjax.cli.plan_table import print_forecast
    from ftjax.machine.mesh import from_first_process, is_first_process
    from ftjax.sweep.cores import one_core_each
    from ftjax.sweep.engines import open_engine
    from ftjax.sweep.events import ENDED_BADLY
    from ftjax.sweep.final_score import score_test
    from ftjax.sweep.prepare import prepare
    from ftjax.sweep.process import start_jax
    from ftjax.sweep.records import write_run
    from ftjax.sweep.results import write_probes
    from ftjax.sweep.run import run
    from ftjax.sweep.shards import parse_shard

    if own_process:
        stop_alike()
    try:
        try:
            start_jax(config, own_process)
            console.quiet = not is_first_process()
            if config.shard is not None:
                config = replace(config, shard=str(parse_shard(config.shard)))
            sweep = prepare(complete(config))
            out = from_first_process(partial(open_folder, sweep.config))
            engine = open_engine(sweep.config, out)
        except ValueError as error:
            return refuse(error)
        print_plan(sweep, console)
        if config.plan:
            print_forecast(sweep, console)
            return 0
        command, data = "ftjax sweep " + shlex.join(words), sweep.data
        settings = to_json(sweep.config)
        write_run(out, settings, command, data)
        if config.probes:
            size = sweep.hyper.micro_batch
            write_probes(sweep.start, data, sweep.plan(), out, batch_size=size)
        if own_process and config.engine == "local":
            sweep = one_core_each(sweep)
        with engine as elsewhere, Display(console) as display:
            show, begin = display.show, display.begin_round
            outcome = run(sweep, out, show, begin, train_round=elsewhere)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130
    if is_first_process():
        trials = {trial.id: trial for trial in outcome.plan.trials}

        def score(trial: str) -> None:
            if data.test is not None:
                score_test(out, sweep.start, trials[trial], *data.test)

        if outcome.left:
            console.print(
                f"shard {sweep.config.shard} has ended its trials; {len(outcome.left)} "
                "of other shards have not ended. The same command without --shard adds "
                "what is missing and gives the answer"
            )
        else:
            write_answer(out, outcome.results, outcome.epochs, console, score)
        console.print(f"{time.perf_counter() - began:.0f} s in all; results in {out}")
        for event in outcome.failed.values():
            print_error(f"{event.status}: {event.trial.describe()}: {event.message}")
    # Of several rates, one that diverges is an answer.
    several = bool(varied(axis_values(sweep.config)))
    bad = ("failed",) if several else ENDED_BADLY
    return 1 if any(e.status in bad for e in outcome.failed.values()) else 0


def stop_alike() -> None:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP stop as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), stop)


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


def print_plan(sweep: "Sweep", console: Console) -> None:
    """What will be trained, before anything is."""
    config, start, data, _, _ = sweep
    plan = sweep.plan()
    epochs = max(axis_values(config)["epochs"])
    depths = sorted({request.cut.depth_layers for request in plan.requests})
    lines = [
        f"{config.model} ({start.weights}) on {data.name}: {len(data.train.labels)} "
        f"training and {len(data.val.labels)} validation images of "
        f"{len(data.class_names)} classes at {config.image_size} pixels",
        f"{len(plan.requests)} rows, {len(plan.trials)} trials of {epochs} epochs: "
        f"depths {' '.join(map(str, depths))} of {len(start.network.layers)} layers, "
        f"bn {' '.join(config.bn)}, {config.seeds} seed" + "s" * (config.seeds > 1),
        *(
            f"{axis.title}: {' '.join(map(str, axis_values(config)[axis.name]))}"
            for axis in varied(axis_values(config))
        ),
    ]
    if not any(unit.batch_norm_keys for unit in start.network.units):
        lines.append(f"{config.model} has no BatchNorm: one curve, whatever --bn says")
    for line in lines:
        console.print(line)
    for line in data.report.lines() if data.report else ():
        console.print(line)
    for warning in data.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if config.weights == "random":
        console.print(
            "random weights: the curve says nothing about transfer", style="yellow"
        )
