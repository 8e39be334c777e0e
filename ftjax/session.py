"""What the command and the Python API do around a sweep: before, and after it."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ftjax.config import Config, to_json
from ftjax.data.index import Source
from ftjax.defaults import complete, parse_time
from ftjax.machine.files import read_json, write_json
from ftjax.machine.mesh import from_first_process
from ftjax.report.facts import TIME_FILE
from ftjax.report.tensorboard import TensorBoard
from ftjax.sweep.allowance import Allowance, write_report
from ftjax.sweep.events import Event, Listener
from ftjax.sweep.final_score import score_test
from ftjax.sweep.prepare import Sweep, prepare
from ftjax.sweep.process import start_jax as start_jax
from ftjax.sweep.records import write_run
from ftjax.sweep.results import write_probes
from ftjax.sweep.run import Outcome
from ftjax.sweep.shards import parse_shard


def load(config: Config, source: Source | None = None) -> tuple[Sweep, Path]:
    """Loads weights and images, and makes the folder of the results.

    Args:
        config: what to train.
        source: the images, where `config.data` does not name them.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    if config.shard is not None:
        config = replace(config, shard=str(parse_shard(config.shard)))
    sweep = prepare(complete(config), source)
    return sweep, from_first_process(partial(open_folder, sweep.config))


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


def record(sweep: Sweep, out: Path, command: str) -> None:
    """Writes what the run is of, and the probes if they are asked for."""
    write_run(out, to_json(sweep.config), command, sweep.data)
    from_first_process(partial(write_report, out, None))
    if sweep.config.probes:
        size = sweep.hyper.micro_batch
        write_probes(sweep.start, sweep.data, sweep.plan(), out, batch_size=size)


def make_allowance(sweep: Sweep, out: Path, began: float) -> Allowance | None:
    """What `--budget` allows from a time of `time.perf_counter` on; None without it."""
    if sweep.config.budget is None:
        return None
    return Allowance(sweep, out, parse_time(sweep.config.budget), began)


def report_allowance(allowance: Allowance | None, outcome: Outcome, out: Path) -> str:
    """Writes what a budget has left out, as a sentence too; '' without one."""
    if allowance is None:
        return ""
    left_out = allowance.report(outcome.plan, outcome.results)
    write_report(out, left_out)
    return "" if left_out is None else left_out["sentence"]


def make_listener(sweep: Sweep, out: Path, *others: Listener) -> Listener:
    """Tells several, and writes event files if the configuration asks for them."""
    own = [TensorBoard(out / "tensorboard")] if sweep.config.tensorboard else []

    def tell(event: Event) -> None:
        for listener in (*others, *own):
            listener(event)

    return tell


def record_time(out: Path, *, seconds: float, forecast: float | None) -> None:
    """Adds to time.json what a command took, and what was forecast of it.

    Args:
        out: the run's folder.
        seconds: from the start of the command to its last trial, compilation and
            loading included.
        forecast: the same, as told after its first trial; None if it trained none.
    """
    known = read_json(out / TIME_FILE) or {}
    took = {"seconds": round(seconds, 1), "forecast": forecast}
    commands = [*known.get("commands", []), took]
    write_json(out / TIME_FILE, {**known, "commands": commands})


def record_forecast(out: Path, seconds: float) -> None:
    """Keeps in time.json what `--plan` said of the whole sweep."""
    known = read_json(out / TIME_FILE) or {}
    write_json(out / TIME_FILE, {**known, "plan": round(seconds, 1)})


def make_scorer(sweep: Sweep, outcome: Outcome, out: Path) -> Callable[[str], None]:
    """Scores the test images, where there are any, by the trial of an id."""
    trials = {trial.id: trial for trial in outcome.plan.trials}

    def score(trial: str) -> None:
        if sweep.data.test is not None:
            score_test(out, sweep.start, trials[trial], *sweep.data.test)

    return score
