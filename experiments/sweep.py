"""How many top layers should I unfreeze? Trains at many depths and says.

    python -m experiments.sweep
    python -m experiments.sweep --model effnetlite0 --data my_pictures/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input.
"""

import itertools
import os
import shlex
import sys
import time
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from experiments.answer import write_answer
from experiments.progress import Display
from ftjax import environment, sweep
from ftjax.analysis.search import explain_trials, next_depths
from ftjax.config import Config, complete, to_json
from ftjax.depth import AUTO, block_depths
from ftjax.plan import Point, trainable_params, trial_flops
from ftjax.prefix import boundary_bytes
from ftjax.results import read_correct, write_results
from ftjax.sweep import Progress, Setup

LOG_WIDTH = 160  # columns of a log file; a terminal has its own


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    config = tyro.cli(
        Config, prog="python -m experiments.sweep", args=words, description=__doc__
    )
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    try:
        return run(config, console, "python -m experiments.sweep " + shlex.join(words))
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130


def run(config: Config, console: Console, command: str) -> int:
    """Loads, trains what is missing, writes the answer.

    Args:
        config: what to train.
        console: to print on.
        command: the command line, for the records.

    Returns:
        The exit code.
    """
    errors = Console(stderr=True)
    try:
        config = complete(config)
        environment.keep_freed_memory()
        environment.use_compilation_cache()
        setup = sweep.prepare(config)
        config = setup.config
        out = open_folder(config)
    except ValueError as error:
        errors.print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        return 2
    print_plan(setup, console)
    if config.plan:
        print_forecast(setup, console)
        return 0
    start = time.perf_counter()
    environment.write_run(out, to_json(config), command, setup.dataset.class_names)
    failed: dict[str, Progress] = {}
    search = search_depths if config.depths == AUTO else train_grid
    setup, results, epochs = search(setup, out, console, failed)
    if config.explain:
        setup, results, epochs = explain_fall(setup, out, console, failed, results)
    write_answer(out, results, epochs, console)
    console.print(f"{time.perf_counter() - start:.0f} s in all; results in {out}")
    for event in failed.values():
        cut = event.trial.cut
        errors.print(
            f"failed: top {cut.depth_layers} layers, bn {event.trial.policy}, seed "
            f"{event.trial.seed}: {event.message}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return 1 if failed else 0


Round = tuple[Setup, pd.DataFrame, pd.DataFrame]


def train_grid(
    setup: Setup, out: Path, console: Console, failed: dict[str, Progress]
) -> Round:
    """Trains what is missing of the plan; collects what fails."""
    with Display(setup, console) as display:
        for event in sweep.run(setup, out):
            display.show(event)
            if event.status in ("done", "failed", "kept"):
                write_results(setup, out)
            if event.status == "failed":
                failed[event.trial.id] = event
    return setup, *write_results(setup, out)


def search_depths(
    setup: Setup, out: Path, console: Console, failed: dict[str, Progress]
) -> Round:
    """`--depths auto`: a few depths first, then one after the other where it pays."""
    config = setup.config
    grid: list[Point] = []
    results, epochs = write_results(setup, out)
    while True:
        decision = next_depths(
            results,
            block_depths(setup.network),
            seeds=config.seeds,
            bn=config.bn,
            correct=read_correct(out, results),
        )
        console.print(decision.reason, highlight=False)
        if decision.done:
            return setup, results, epochs
        grid += [Point(*placement) for placement in decision.trials]
        setup = sweep.with_grid(setup, grid)
        setup, results, epochs = train_grid(setup, out, console, failed)


def explain_fall(
    setup: Setup,
    out: Path,
    console: Console,
    failed: dict[str, Progress],
    results: pd.DataFrame,
) -> Round:
    """`--explain`: the matched trials that tell why the follow curve falls."""
    missing = explain_trials(results)
    if not missing:
        console.print("nothing to add: the follow curve does not fall, or is explained")
    points = [
        Point(request.cut.depth_layers, request.policy, request.seed)
        for request in setup.plan.requests
    ]
    seeds = range(setup.config.seeds)
    points += [Point(*pair, seed) for pair, seed in itertools.product(missing, seeds)]
    return train_grid(sweep.with_grid(setup, points), out, console, failed)


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


def print_plan(setup: Setup, console: Console) -> None:
    """What will be trained, before anything is."""
    config, dataset, plan = setup.config, setup.dataset, setup.plan
    console.print(
        f"[bold]{config.model}[/bold] ({setup.weights}) on {dataset.name}: "
        f"{len(dataset.train.labels)} training and {len(dataset.val.labels)} "
        f"validation pictures of {len(dataset.class_names)} classes at "
        f"{config.image_size} pixels",
        highlight=False,
    )
    console.print(
        f"{len(plan.requests)} rows, {len(plan.trials)} trainings of {config.epochs} "
        "epochs: depths "
        + " ".join(str(d) for d in sorted({r.cut.depth_layers for r in plan.requests}))
        + f" of {len(setup.network.layers)} layers, bn {' '.join(config.bn)}, "
        f"{config.seeds} seed" + "s" * (config.seeds > 1),
        highlight=False,
    )
    if not any(unit.batch_norm_keys for unit in setup.network.units):
        console.print(f"{config.model} has no BatchNorm: one curve, whatever --bn says")
    if config.weights == "random":
        console.print(
            "[yellow]random weights: the curve says nothing about transfer[/yellow]"
        )


def print_forecast(setup: Setup, console: Console) -> None:
    """FLOPs and memory of every training."""
    config = setup.config
    train, val = len(setup.dataset.train.labels), len(setup.dataset.val.labels)
    sizes = boundary_bytes(setup.network, config.image_size)
    table = Table("Layers", "Blocks", "BN", "Seed", "Parameters", "Stored before", "GB")
    table.add_column("TFLOP", justify="right")
    total = 0.0
    for trial in setup.plan.trials:
        boundary = setup.boundaries[trial.id]
        flops = trial_flops(
            trial.cut,
            setup.cost,
            boundary=boundary,
            epochs=config.epochs,
            steps=train // config.batch_size,
            batch_size=config.batch_size,
            evaluated=train + val,
            recalibrated=train if trial.policy == "recalibrate" else 0,
        )
        total += flops
        table.add_row(
            str(trial.cut.depth_layers),
            str(trial.cut.depth_units),
            trial.policy,
            str(trial.seed),
            f"{trainable_params(setup.network, trial.cut, setup.cost):,}",
            setup.network.units[boundary].name,
            f"{sizes[boundary] * (train + val) / 1e9:.2f}",
            f"{flops / 1e12:.2f}",
        )
    console.print(table)
    console.print(f"{total / 1e12:.1f} TFLOP in all")


if __name__ == "__main__":
    sys.exit(main())
