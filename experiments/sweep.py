"""How many top layers should I unfreeze? Trains at many depths and says.

    python -m experiments.sweep
    python -m experiments.sweep --model effnetlite0 --data my_images/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input.
"""

import itertools
import os
import shlex
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import tyro
from rich.console import Console

from experiments.answer import write_answer
from experiments.console import LOG_WIDTH, print_error, refuse
from experiments.plan_table import print_forecast
from experiments.progress import Display
from ftjax.analysis.decision import Decision
from ftjax.analysis.explain import explain_trials
from ftjax.config import HALVING, Config, complete, to_json
from ftjax.depth import AUTO
from ftjax.machine import xla
from ftjax.machine.heap import keep_freed_memory
from ftjax.machine.mesh import from_first_process, is_first_process
from ftjax.search.halving import halving, rung_epochs
from ftjax.sweep import run as sweep
from ftjax.sweep.cores import one_core_each
from ftjax.sweep.plan import Point
from ftjax.sweep.records import write_run
from ftjax.sweep.results import read_correct, write_probes, write_results
from ftjax.sweep.run import Progress
from ftjax.sweep.setup import Setup, prepare, with_grid
from ftjax.sweep.strategies import decide


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    config = tyro.cli(
        Config, prog="python -m experiments.sweep", args=words, description=__doc__
    )
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    command = "python -m experiments.sweep " + shlex.join(words)
    try:
        return run(config, console, command, own_process=arguments is None)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130


def run(
    config: Config, console: Console, command: str, *, own_process: bool = False
) -> int:
    """Loads, trains what is missing, writes the answer.

    Args:
        config: what to train.
        console: to print on.
        command: the command line, for the records.
        own_process: whether nobody else has JAX arrays, or garbage, in this process.

    Returns:
        The exit code.
    """
    try:
        xla.tune_xla()
        if config.mesh != "auto" or config.distributed:  # then they share batches
            xla.give_devices_threads()
        if config.distributed:
            xla.join_processes()
            console.quiet = not is_first_process()
        config = complete(config)
        keep_freed_memory()
        if own_process:
            xla.collect_garbage_rarely()
        xla.use_compilation_cache()
        setup = prepare(config)
        config = setup.config
        out = from_first_process(partial(open_folder, config))
    except ValueError as error:
        return refuse(error)
    print_plan(setup, console)
    if config.plan:
        print_forecast(setup, console)
        return 0
    start = time.perf_counter()
    write_run(out, to_json(config), command, setup.dataset.class_names)
    if config.probes:
        write_probes(setup, out)
    if own_process:
        setup = one_core_each(setup)
    failed: dict[str, Progress] = {}
    search = train_grid
    if config.depths == AUTO:
        search = search_depths
    elif config.search == HALVING:
        search = halve
    found = search(setup, out, console, failed)
    if config.explain:
        found = explain_fall(found, out, console, failed)
    if not is_first_process():
        return 1 if failed else 0
    write_answer(out, found.results, found.epochs, console)
    console.print(f"{time.perf_counter() - start:.0f} s in all; results in {out}")
    for event in failed.values():
        cut = event.trial.cut
        print_error(
            f"failed: top {cut.depth_layers} layers, bn {event.trial.policy}, seed "
            f"{event.trial.seed}: {event.message}"
        )
    return 1 if failed else 0


class Round(NamedTuple):
    """What has been trained: the plan, its tables, and trials stopped early."""

    setup: Setup
    results: pd.DataFrame
    epochs: pd.DataFrame
    stopped: frozenset[str] = frozenset()


def train_grid(
    setup: Setup,
    out: Path,
    console: Console,
    failed: dict[str, Progress],
    goals: Mapping[str, int] | None = None,
    stopped: frozenset[str] = frozenset(),
) -> Round:
    """Trains what is missing of the plan; collects what fails.

    Args:
        goals: as for `sweep.run`.
        stopped: as for `results.write_results`.
    """
    with Display(setup, console, goals) as display:
        for event in sweep.run(setup, out, goals):
            display.show(event)
            if event.status in ("done", "failed"):
                write_results(setup, out, stopped)
            if event.status == "failed":
                failed[event.trial.id] = event
    return Round(setup, *write_results(setup, out, stopped), stopped)


def halve(
    setup: Setup, out: Path, console: Console, failed: dict[str, Progress]
) -> Round:
    """`--search halving`: all cuts for a few epochs, then fewer of them for longer.

    Every rung passes the frozen part again. What goes on depends on the epochs up to
    the rung alone, so the same command resumes where it was stopped.
    """
    num_epochs = setup.config.epochs
    everything = frozenset(trial.id for trial in setup.plan.trials)
    goals = dict.fromkeys(everything, rung_epochs(num_epochs)[0])
    stopped: frozenset[str] = frozenset()
    while True:
        found = train_grid(setup, out, console, failed, goals, stopped)
        # Policies that are equal at a cut are one trial, and one runner.
        runners = found.epochs.drop_duplicates(["trial", "epoch"])
        if runners[~runners["trial"].isin(list(failed))].empty:
            return found
        rung = halving(
            runners,
            num_epochs=num_epochs,
            val_size=len(setup.dataset.val.labels),
            failed=failed,
        )
        console.print(f"halving: {rung.reason}", highlight=False)
        cuts = zip(runners["depth_layers"], runners["bn"], strict=True)
        race = {
            trial
            for trial, cut in zip(runners["trial"], cuts, strict=True)
            if cut in rung.cuts
        }
        stopped = everything - race
        if rung.done:
            return Round(setup, *write_results(setup, out, stopped), stopped)
        goals = dict.fromkeys(race - set(failed), rung.epochs)


def search_depths(
    setup: Setup, out: Path, console: Console, failed: dict[str, Progress]
) -> Round:
    """`--depths auto`: a few depths first, then one after the other where it pays."""
    grid: list[Point] = []
    found = Round(setup, *write_results(setup, out))
    while True:
        decision = from_first_process(partial(decide_run, setup, out, found.results))
        console.print(decision.reason, highlight=False)
        if decision.done:
            return found
        grid += [Point(*placement) for placement in decision.trials]
        setup = with_grid(setup, grid)
        found = train_grid(setup, out, console, failed)


def decide_run(setup: Setup, out: Path, results: pd.DataFrame) -> Decision:
    """Which depths to train next, from what is trained so far."""
    correct = read_correct(out, results)
    return decide(to_json(setup.config), setup.network, results, correct)


def explain_fall(
    found: Round, out: Path, console: Console, failed: dict[str, Progress]
) -> Round:
    """`--explain`: the matched trials that tell why the follow curve falls."""
    setup = found.setup
    missing = from_first_process(partial(explain_trials, found.results))
    if not missing:
        console.print("nothing to add: the follow curve does not fall, or is explained")
    points = [
        Point(request.cut.depth_layers, request.policy, request.seed)
        for request in setup.plan.requests
    ]
    seeds = range(setup.config.seeds)
    points += [Point(*pair, seed) for pair, seed in itertools.product(missing, seeds)]
    setup = with_grid(setup, points)
    stopped = found.stopped - {
        request.trial
        for request in setup.plan.requests
        if (request.cut.depth_layers, request.policy) in missing
    }
    goals = {id: n for id, n in sweep.all_goals(setup).items() if id not in stopped}
    return train_grid(setup, out, console, failed, goals, stopped)


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
        f"validation images of {len(dataset.class_names)} classes at "
        f"{config.image_size} pixels",
        highlight=False,
    )
    console.print(
        f"{len(plan.requests)} rows, {len(plan.trials)} trials of {config.epochs} "
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


if __name__ == "__main__":
    sys.exit(main())
