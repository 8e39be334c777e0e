"""Which layers should I train with so many images, and which network?

    ftjax advise --data my_images
    ftjax advise --data my_images --model effnetlite0 effnetlite1 --train-size 50 200

Trains the head alone, some layers, all layers, and the same network from random
weights, at several numbers of training images, each a part of the next. Says which of
the four cases of Petrovska et al. 2018, figure 5, holds at each size and where that
changes, and which network is the best. Writes advice.csv, advice.png and .svg, and
advice.html, which needs nothing else. The same command goes on where it was stopped.
Exit codes: 0 done, 1 some trials failed, 2 bad arguments or input.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ftjax.cli.console import guard, make_console, parse, print_error, refuse
from ftjax.cli.sweep import stop_alike
from ftjax.config import Config

if TYPE_CHECKING:
    from ftjax.sweep.prepare import Sweep
    from ftjax.sweep.run import Outcome

HALVINGS = 3  # sizes below that of all images, by default
RATES = (1e-4, 1e-3)


@dataclass(frozen=True)
class Options:
    """Head alone, some layers, all, or from scratch: measured by number of images."""

    data: str = "digits"
    """digits, cifar10, another data set, or a folder of images."""
    model: tuple[str, ...] = ("effnetlite0",)
    """Networks, as for the sweep; several are ranked."""
    weights: str = "imagenet"
    """imagenet, random (says nothing about transfer), or the path of a weights file."""
    data_dir: Path | None = None
    """Where TFDS keeps its prepared data sets."""
    classes: tuple[str, ...] = ()
    """Names of the classes, or how many of the first ones. Default: all."""
    train_size: tuple[int, ...] = ()
    """Numbers of training images, each part of the next larger one. Default: all, and
    three times half as many."""
    val_size: int | None = None
    """Validation images, balanced over the classes. Default: all."""
    image_size: int | None = None
    """Height and width in pixels. Default: the weights' own; 32 for digits."""
    depths: tuple[str, ...] = ("spread",)
    """Depths that are tried, as of the sweep; head alone and all layers are added."""
    lr: tuple[float, ...] = RATES
    """Learning rates; every way has its best."""
    epochs: int = 5
    """Of the pretrained network."""
    scratch: bool = True
    """Train from random weights as well: case 3, similarity, a line in the figure."""
    scratch_epochs: int | None = None
    """Epochs from scratch. Default: three times as many."""
    batch_size: int = 16
    """Images per step."""
    seeds: int = 1
    """Seeds of everything; with one the noise between runs is assumed."""
    offline: bool = False
    """Open no network connection."""
    out: Path | None = None
    """Folder of the results. Default: runs/advise-DATA."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(Options, words, prog="ftjax advise", description=__doc__)
    console = make_console()
    own_process = arguments is None
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    from ftjax.analysis.advice import advise, label_ways, rank_networks
    from ftjax.report.advice_page import PAGE, write_advice
    from ftjax.session import start_jax

    if own_process:
        stop_alike()
    folder = options.out or Path("runs") / f"advise-{Path(options.data).name}"
    command = "ftjax advise " + shlex.join(words)
    tables, correct, failed = [], {}, False
    try:
        try:
            configs = make_configs(options, folder)
            start_jax(configs[0], own_process=own_process)
            sizes = options.train_size or halves(configs[0])
            configs = [replace(config, train_size=sizes) for config in configs]
            sweeps = check_all(configs)
        except ValueError as error:
            return refuse(error)
        for sweep in sweeps:
            outcome = train(sweep, command, console, own_process)
            failed |= any(e.status == "failed" for e in outcome.failed.values())
            config = sweep.config
            scratch = config.out.name == "scratch"
            tables.append(label_ways(outcome.results, config.model, scratch=scratch))
            correct |= right_answers(config.out, outcome)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130
    import pandas as pd

    rows = pd.concat(tables, ignore_index=True)
    if not (rows["status"] == "done").any():
        print_error("no trial is done, so there is no advice yet")
        return 1
    said = write_advice(
        folder,
        advise(rows, correct),
        rank_networks(rows, correct),
        subject=f"{' and '.join(options.model)} on {sweeps[0].data.name}",
        command=command,
    )
    for line in said:
        console.print(line, soft_wrap=True)
    if options.weights == "random":
        console.print("random weights: nothing here is about transfer", style="yellow")
    console.print(f"{folder / PAGE} has all of it", soft_wrap=True)
    return int(failed)


def make_configs(options: Options, folder: Path) -> list[Config]:
    """The sweeps: of every network the pretrained one, then that from scratch.

    Raises:
        ValueError: a network is unknown, or a depth.
    """
    from ftjax.backbones import make_backbone
    from ftjax.depth import parse_depths

    configs = []
    for model in dict.fromkeys(options.model):
        backbone = make_backbone(model)
        total = len(backbone.layers)
        depths = parse_depths(backbone, ("0", *options.depths, str(total)))
        shared = Config(
            model=model,
            data=options.data,
            data_dir=options.data_dir,
            classes=options.classes,
            val_size=options.val_size,
            image_size=options.image_size,
            lr=options.lr,
            batch_size=(options.batch_size,),
            seeds=options.seeds,
            replicate=False,
            offline=options.offline,
        )
        configs.append(
            replace(
                shared,
                weights=options.weights,
                depths=tuple(map(str, depths)),
                bn=("frozen",),
                epochs=(options.epochs,),
                out=folder / model / "pretrained",
            )
        )
        if options.scratch:
            longer = options.scratch_epochs or 3 * options.epochs
            configs.append(
                replace(
                    shared,
                    weights="random",
                    depths=(str(total),),
                    bn=("follow",),  # there are no statistics to keep
                    epochs=(longer,),
                    head_lr_factor=(1.0,),
                    head_start=("random",),
                    out=folder / model / "scratch",
                )
            )
    return configs


def halves(config: Config) -> tuple[int, ...]:
    """All training images, and half as many some times, as long as batches are full.

    Raises:
        ValueError: the data cannot be read.
    """
    from ftjax.config import as_tuple
    from ftjax.defaults import complete
    from ftjax.sweep.prepare import prepare

    data = prepare(complete(config)).data
    total, least = len(data.train.labels), as_tuple(config.batch_size)[0]
    least = max(least, 2 * len(data.class_names))
    sizes = [total // 2**power for power in range(HALVINGS + 1)]
    return tuple(size for size in sizes if size >= least) or (total,)


def check_all(configs: Sequence[Config]) -> "list[Sweep]":
    """Loads everything, before anything is trained.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    from ftjax import session

    return [session.load(config)[0] for config in configs]


def train(
    sweep: "Sweep", command: str, console: Console, own_process: bool
) -> "Outcome":
    """Trains what is missing of one sweep."""
    from ftjax import session
    from ftjax.report.progress import Display
    from ftjax.sweep.cores import one_core_each
    from ftjax.sweep.run import run

    config, out = sweep.config, sweep.config.out
    console.print(
        f"{config.model} ({sweep.start.weights}): {len(sweep.plan().trials)} trials, "
        f"{' '.join(map(str, config.train_size))} training images"
    )
    session.record(sweep, out, command)
    sweep = one_core_each(sweep) if own_process else sweep
    with Display(console) as display:
        outcome = run(sweep, out, display.show, display.begin_round)
    for event in outcome.failed.values():
        print_error(f"{event.status}: {event.trial.describe()}: {event.message}")
    return outcome


def right_answers(out: Path, outcome: "Outcome") -> dict:
    """Trial -> (n_val,) which answers were right, of the trials that are done."""
    from ftjax.sweep.results import read_correct

    results = outcome.results
    return read_correct(out, results[results["status"] == "done"])
