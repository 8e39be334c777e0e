"""Which settings does a small set of images need? The second paper's study, measured.

    ftjax alexnet-study --weights mine.safetensors --image-size 67 --quick
    ftjax alexnet-study --model effnetlite0 --data-dir DIR

Trains the settings of figures 6 to 12 of Petrovska et al. 2018 one at a time around a
base, with features alone and with all layers, several seeds each. Writes results.csv,
claims.csv (what became of every sentence with a number or a direction), movement.csv,
the figures, and study.html, which needs nothing else. The same command goes on where it
was stopped. Exit codes: 0 done, 1 some trials failed, 2 bad arguments or input.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftjax.cli.console import make_console, parse, print_error, refuse
from ftjax.cli.sweep import stop_alike
from ftjax.config import Config, to_json
from ftjax.defaults import complete

if TYPE_CHECKING:
    from ftjax.study.points import Design
    from ftjax.sweep.prepare import Sweep
    from ftjax.sweep.run import Outcome

CIFAR = "cifar10"
FIVE = ("5",)  # the paper's number of classes; it does not name them


@dataclass(frozen=True)
class Options:
    """Figures 6 to 12 of the second paper, on one network and data set."""

    model: str = "alexnet"
    """A network, as for the sweep."""
    weights: str = "imagenet"
    """imagenet, random, or the path of a weights file."""
    data: str = CIFAR
    """cifar10, another data set, or a folder of images."""
    data_dir: Path | None = None
    """Where TFDS keeps its prepared data sets."""
    classes: tuple[str, ...] = ()
    """Names of the classes, or how many of the first ones. Default: 5 of cifar10."""
    image_size: int | None = None
    """Height and width in pixels. Default: the weights' own; with --quick the smallest
    that the network takes."""
    train_size: int | None = None
    """Training images of the base. Default: 2,000; with --quick 512."""
    val_size: int = 0
    """Validation images. Default: 500; with --quick 250."""
    seeds: int = 0
    """Seeds of every setting. Default: 3; with --quick 2."""
    modes: tuple[Literal["features", "all"], ...] = ("features", "all")
    """features: the new layers alone. all: all layers."""
    quick: bool = False
    """Fewer values, images and epochs: minutes on two cores instead of hours. The
    base has few updates then, so levels of accuracy are not comparable with the
    paper's."""
    offline: bool = False
    """Open no network connection."""
    out: Path | None = None
    """Folder of the results. Default: runs/study-MODEL-DATA."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(Options, words, prog="ftjax alexnet-study", description=__doc__)
    console = make_console()
    own_process = arguments is None
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    from ftjax.report.progress import Display
    from ftjax.session import open_folder, start_jax
    from ftjax.study.points import FULL, QUICK
    from ftjax.sweep.cores import one_core_each
    from ftjax.sweep.prepare import prepare
    from ftjax.sweep.records import write_run
    from ftjax.sweep.run import run

    design = QUICK if options.quick else FULL
    if options.train_size is not None:
        design = design.with_size(options.train_size)
    seeds = options.seeds or (2 if options.quick else 3)
    if own_process:
        stop_alike()
    try:
        try:
            config = make_config(options, design, seeds)
            start_jax(config, own_process=own_process)
            sweep = prepare(complete(config))
            layers = len(sweep.start.network.layers)
            points = tuple(design.points(options.modes, seeds, layers))
            sweep = sweep._replace(points=points)
            folder = open_folder(sweep.config)
        except ValueError as error:
            return refuse(error)
        data, plan = sweep.data, sweep.plan()
        console.print(
            f"{sweep.config.model} ({sweep.start.weights}) on {data.name}: "
            f"{design.base['train_size']} training and {len(data.val.labels)} "
            f"validation images of {len(data.class_names)} classes at "
            f"{sweep.config.image_size} pixels; {len(design.arms)} settings, "
            f"{' and '.join(options.modes)}, {seeds} seed{'s' * (seeds > 1)}: "
            f"{len(plan.trials)} trials",
            soft_wrap=True,
        )
        command = "ftjax alexnet-study " + shlex.join(words)
        write_run(folder, to_json(sweep.config), command, data)
        if own_process:
            sweep = one_core_each(sweep)
        with Display(console) as display:
            outcome = run(sweep, folder, display.show, display.begin_round)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130
    for line in write_answer(options, design, seeds, sweep, outcome, command):
        console.print(line, soft_wrap=True)
    failed = [e for e in outcome.failed.values() if e.status == "failed"]
    for event in failed:
        print_error(f"{event.status}: {event.trial.describe()}: {event.message}")
    return 1 if failed else 0


def make_config(options: Options, design: "Design", seeds: int) -> Config:
    """The study as a sweep whose axes hold all its values.

    Raises:
        ValueError: a number is not allowed.
    """
    from ftjax.backbones import make_backbone

    for name in ("val_size", "seeds"):
        if getattr(options, name) < 0:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} {getattr(options, name)} is too small: 1 or more")
    backbone = make_backbone(options.model)
    size = options.image_size
    if size is None and options.quick:
        size = backbone.smallest_size
    classes = options.classes or (FIVE if options.data == CIFAR else ())
    name = Path(options.data).name
    values = design.axis_values()
    # The smallest set is checked against the largest batch.
    values["train_size"] = tuple(sorted(values["train_size"], reverse=True))
    return Config(
        model=options.model,
        weights=options.weights,
        data=options.data,
        data_dir=options.data_dir,
        classes=classes,
        image_size=size,
        val_size=options.val_size or (250 if options.quick else 500),
        depths=("0", str(len(backbone.layers))),
        bn=("frozen",),
        seeds=seeds,
        replicate=False,
        vary="one",
        offline=options.offline,
        out=options.out or Path("runs") / f"study-{options.model}-{name}",
        **values,
    )


def write_answer(
    options: Options,
    design: "Design",
    seeds: int,
    sweep: "Sweep",
    outcome: "Outcome",
    command: str,
) -> list[str]:
    """Writes tables, figures and page; returns what is said of them."""
    from functools import partial

    from ftjax.report.study_page import PAGE, verdict_counts, write_study
    from ftjax.study.advice import recommended
    from ftjax.study.measured import gather, weigh
    from ftjax.study.movement import layer_changes
    from ftjax.study.results import Study
    from ftjax.study.verdicts import judge_all, judge_movement, judge_stops
    from ftjax.sweep import records

    folder, data = sweep.config.out, sweep.data

    def read_correct(trial: str, epochs: int):
        correct = records.read_correct(folder, trial)
        return None if correct is None or len(correct) < epochs else correct[epochs - 1]

    measured = gather(
        design,
        outcome.plan,
        outcome.results,
        read_correct,
        seeds=seeds,
        layers=len(sweep.start.network.layers),
        classes=len(data.class_names),
    )
    if not measured.cells:
        return ["no setting was trained to the end in all its runs: nothing to show"]
    moved = layer_changes(folder, measured, sweep.start)
    findings = [
        *judge_all(design, measured),
        *judge_stops(design, measured, outcome.epochs),
        judge_movement(moved),
    ]
    findings = [finding for finding in findings if finding.mode in options.modes]
    answer = recommended(design, measured)
    read_steps = partial(records.read_steps, folder)
    study = Study(design, measured, weigh(measured), outcome.epochs, read_steps, moved)
    write_study(
        folder,
        study,
        findings,
        subject=f"{sweep.config.model} on {data.name}",
        answer=answer,
        caveats=caveats(options, design, seeds),
        command=command,
    )
    counts = ", ".join(f"{count} {name}" for name, count in verdict_counts(findings))
    return [answer, f"claims: {counts.lower()}", f"{folder / PAGE} has all of it"]


def caveats(options: Options, design: "Design", seeds: int) -> list[str]:
    """What to know before the answer."""
    found = []
    if options.quick:
        found.append(
            f"A quick run: the base has {design.updates} updates where the paper's has "
            "about 300, so levels of accuracy say nothing about the paper's"
        )
    if seeds == 1:
        found.append(
            "One seed: how far two runs differ was not measured, and is assumed"
        )
    if options.weights == "random":
        found.append("Random weights: nothing here is about transfer")
    return found
