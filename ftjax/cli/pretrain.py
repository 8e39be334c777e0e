"""Trains a network from random weights, as a start for the other commands.

    ftjax pretrain --model alexnet --data cifar10 --image-size 67 --out mine.safetensors
    ftjax sweep --model alexnet --weights mine.safetensors --image-size 67 ...

The file holds the weights of the last epoch, with the classifier; `--weights` takes it.
What is needed to go on stands in a folder beside it, mine.pretrain: the same command
goes on from the last epoch. Exit codes: 0 done, 1 the training failed, 2 bad arguments
or input.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftjax.cli.console import guard, make_console, parse, print_error, refuse
from ftjax.cli.sweep import stop_alike
from ftjax.config import Config, to_json
from ftjax.defaults import complete
from ftjax.machine.paths import expand_user

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Options:
    """Trains all layers of a network from random weights."""

    out: Path
    """The file of weights, NAME.safetensors."""
    model: str = "alexnet"
    """A network, as for the sweep."""
    data: str | None = None
    """digits, cifar10, food101, stanford_dogs, or a folder of images."""
    data_dir: Path | None = None
    """Where TFDS keeps its prepared data sets."""
    classes: tuple[str, ...] = ()
    """Names of the classes to tell apart, or how many of the first ones. Default:
    all."""
    image_size: int | None = None
    """Height and width in pixels. Default: the network's own; 32 for digits."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step."""
    lr: float = 3e-4
    """Learning rate at the start."""
    optimizer: str = "adam"
    """adam or sgd."""
    schedule: str = "cosine"
    """Learning rate over the training: cosine (falls to 0), constant or
    one-over-t:TAU."""
    warmup: float = 1.0
    """Epochs in which the learning rate rises from 0."""
    l2: float = 5e-4
    """Times each weight of a kernel, added to its gradient, as in Caffe and MATLAB."""
    seed: int = 0
    """Of the order of images and of dropout; the weights start from seed 0."""
    train_size: int | None = None
    """Training images, balanced over the classes. Default: all."""
    val_size: int | None = None
    """Validation images, balanced over the classes. Default: all."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(Options, words, prog="ftjax pretrain", description=__doc__)
    console = make_console()
    own_process = arguments is None
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    from ftjax.predictor import load
    from ftjax.report.progress import Display
    from ftjax.session import open_folder, start_jax
    from ftjax.sweep.prepare import prepare
    from ftjax.sweep.records import write_run
    from ftjax.sweep.run import run
    from ftjax.weights.export import export_safetensors

    if own_process:
        stop_alike()
    try:
        try:
            config = make_config(options)
            start_jax(config, own_process=own_process)
            sweep = prepare(complete(config))
            folder = open_folder(sweep.config)
        except ValueError as error:
            return refuse(error)
        data, network = sweep.data, sweep.start.network
        console.print(
            f"{network.name} from random weights on {data.name}: "
            f"{len(data.train.labels)} training and {len(data.val.labels)} validation "
            f"images of {len(data.class_names)} classes at {sweep.start.image_size} "
            f"pixels, {options.epochs} epochs"
        )
        command = "ftjax pretrain " + shlex.join(words)
        write_run(folder, to_json(sweep.config), command, data)
        with Display(console) as display:
            outcome = run(sweep, folder, display.show, display.begin_round)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130
    for event in outcome.failed.values():
        print_error(f"{event.status}: {event.message}")
        return 1
    try:
        trained = load(folder, len(network.layers))
        path = expand_user(options.out)
        export_safetensors(
            path,
            trained.network,
            trained.params,
            trained.batch_stats,
            image_size=trained.image_size,
            class_names=trained.class_names,
        )
    except ValueError as error:
        return refuse(error)
    console.print(f"{path}: validation accuracy {trained.val_accuracy:.4f}")
    return 0


def make_config(options: Options) -> Config:
    """The training as a sweep of one trial: all layers, at one rate, from the start.

    Raises:
        ValueError: the network or the file's name is not allowed.
    """
    from ftjax.backbones import make_backbone

    out = expand_user(options.out)
    if out.suffix != SUFFIX:
        raise ValueError(f"--out {out} must end in {SUFFIX}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    return Config(
        model=options.model,
        data=options.data,
        data_dir=options.data_dir,
        classes=options.classes,
        weights="random",
        depths=(str(len(make_backbone(options.model).layers)),),
        bn=("follow",),
        first_seed=options.seed,
        replicate=False,
        epochs=(options.epochs,),
        image_size=options.image_size,
        batch_size=(options.batch_size,),
        train_size=() if options.train_size is None else (options.train_size,),
        val_size=options.val_size,
        lr=(options.lr,),
        optimizer=(options.optimizer,),
        head_lr_factor=(1.0,),
        head_start=("random",),
        l2=(options.l2,),
        schedule=(options.schedule,),
        warmup=options.warmup,
        out=out.with_suffix(".pretrain"),
    )
