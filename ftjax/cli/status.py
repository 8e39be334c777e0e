"""How far is a run? What is done, running, failed and left; also while it runs.

    ftjax status runs/resnet152-cifar10

Reads the folder alone, so it can be asked on any machine that sees it. Exit codes: 0,
2 bad arguments or no run.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ftjax.analysis.wording import duration
from ftjax.cli.console import guard, make_console, parse, refuse
from ftjax.machine.paths import expand_user


@dataclass(frozen=True)
class Options:
    """Says how far a run is."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder that --out of the sweep named."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax status", description=__doc__)
    from ftjax.sweep.status import read_status, seconds_left  # starts JAX

    try:
        trials = read_status(expand_user(options.run_dir))
    except ValueError as error:
        return refuse(error)
    console, now = make_console(), time.time()
    counts = {"done": 0, "running": 0, "failed": 0, "left": 0}
    for trial in trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{len(trials)} trials: {said}")
    for trial in trials:
        if trial.owner is not None:
            console.print(
                f"running  {trial.name}: {trial.had} of {trial.epochs} epochs kept, "
                f"{trial.owner}, for {duration(now - trial.owner.since)}"
            )
        elif trial.message:
            console.print(f"{trial.status}  {trial.name}: {trial.message}")
    seconds = seconds_left(trials)
    if counts["running"] + counts["left"] and seconds is not None:
        idle = "" if counts["running"] else ", once it goes on"
        console.print(f"time left about {duration(seconds)}{idle}")
    return 0
