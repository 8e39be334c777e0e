"""The whole run in one printable, hashable value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ftjax.axes import DEFAULT_VIEWS, NAMES, NO_AUGMENTATION
from ftjax.batch_norm import FOLLOW, FROZEN, describe_policies
from ftjax.machine.console import OVERRIDE

HALVING = "halving"  # of --search
AUTO_RATE, ONE = "auto", "one"  # of --lr and --vary
FIXED_RATE = 1e-4
RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # that --lr auto tries


@dataclass(frozen=True)
class Config:
    """How many top layers of a pretrained CNN to unfreeze: train at many depths.

    Without arguments: EfficientNet-Lite0 with its ImageNet weights on handwritten
    digits, six depths, BatchNorm following the unfreezing and held frozen.
    """

    model: str = "effnetlite0"
    """effnetlite0 to 2, effnetb0 to 7, effnetv2s, resnet18, 34, 50, 101 and 152,
    mobilenetv3_small and _large, convnext_tiny and _base, vit_small and _base,
    densenet121, vgg16, vgg19, alexnet, tiny."""
    data: str | None = None
    """digits, cifar10, food101, stanford_dogs, or a folder of images: train/<class>/*
    and val/<class>/*, or <class>/*. Default: the paper's for its three models, else
    digits."""
    data_dir: Path | None = None
    """Where TFDS keeps its prepared data sets."""
    classes: tuple[str, ...] = ()
    """Names of the classes to tell apart, or how many of the first ones. Default:
    all."""
    weights: str = "imagenet"
    """imagenet, random (says nothing about transfer), or the path of a weights file."""
    depths: tuple[str, ...] = ()
    """Numbers of layers counted from the top (0 is the head alone), or paper, units
    (every block), layers (every distinct set), spread (six blocks), auto (a few
    first, then where the best may lie). Default: paper for its three models, else
    spread."""
    sets: tuple[str, ...] = ()
    """Beside the depths, sets of blocks that are trained while all others are frozen,
    by their names joined by +: block6a+block6b+block7a; or each: every block alone.
    Default: none."""
    gradual: bool = False
    """Beside the depths, gradual unfreezing: from the head alone on, each depth goes on
    from the weights of the one before, for as many epochs again."""
    bn: Annotated[tuple[str, ...], tyro.conf.arg(help=describe_policies())] = (
        FOLLOW.name,
        FROZEN.name,
    )
    search: str | None = None
    """halving: all depths for a few epochs, then the better half of them for longer,
    and so on; deep cuts that still rise go on too. Default: train all to the end."""
    explain: bool = False
    """Where the follow curve falls, add the matched frozen and recalibrate trials."""
    probes: bool = False
    """Before any training, probe every cut by closed forms, and show them beside the
    measured curve with their rank correlation."""
    seeds: int = 1
    """Number of seeds: of head, data order and drop-connect. They are replicates."""
    first_seed: int = 0
    """The first of them; the others follow."""
    replicate: bool = True
    """With one seed, train the depths that could be the best again with two more, so
    that run-to-run noise is measured where it decides."""
    epochs: tuple[int, ...] = ()
    """Epochs per trial; several are read off one trial where the rate is constant.
    Default: 5 (vgg16: 10, as in the paper)."""
    image_size: int | None = None
    """Height and width in pixels. Default: the weights' own; 32 for digits."""
    batch_size: tuple[int, ...] = (32,)
    """Images per step."""
    micro_batch: int | None = None
    """Images that pass through the network at a time, if the memory is short for a
    batch; gradients are added up over the batch. BatchNorms that are trained then use
    the statistics of this many images. Default: the batch."""
    train_size: tuple[int, ...] = ()
    """Training images, balanced over the classes; of several sizes each is part of the
    next larger one. Default: all (food101: 10 %)."""
    imbalance: tuple[float, ...] = (1.0,)
    """Uneven classes, to see what they do: the first class keeps all its training
    images, the last one this many times fewer, those between a geometric series.
    Validation and test images stay as they are. 1: as the data is."""
    label_noise: tuple[float, ...] = (0.0,)
    """Share of the training images whose label is replaced by another class, drawn from
    the data alone. Validation and test labels stay as they are."""
    val_size: int | None = None
    """Validation images, balanced over the classes. Default: all."""
    test_size: int | None = None
    """Test images, set aside before all others, and scored once, for the network that
    the answer names. Default: those of a folder's own test/; else none."""
    metric: (
        Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"] | None
    ) = None
    """What depths are compared by. Default: accuracy; balanced accuracy where the
    classes are uneven."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class weighs the same in the loss, whatever its number of
    training images."""
    head: tuple[str, ...] = ("linear",)
    """What follows the pooling: linear, or hidden layers with ReLU before the classes,
    by their widths: 75, or 500d0.5,75, where dropout of 0.5 follows the first."""
    head_init: tuple[str, ...] = ("glorot",)
    """Kernels that a head starts from: glorot (uniform), or the standard deviation of a
    normal distribution, as 0.01."""
    head_start: tuple[str, ...] = ("auto",)
    """What the head of every depth starts from: random (numbers by seed), or probe, a
    linear probe that was fitted to the end on the frozen network; with it the head
    alone is that probe. auto: the head alone is the probe, so that no gain over it is
    one of longer training; all other depths start from random numbers."""
    head_lr_layers: tuple[str, ...] = ("all",)
    """Which layers of the head have --head-lr-factor: all, or last, the classifier
    alone, as where a factor is set on the last layer; hidden layers then train at the
    backbone's rate."""
    strict: bool = False
    """Refuse a folder with files that would be skipped, are damaged, or stand in more
    than one split."""
    dtype: str = "auto"
    """Type that the network computes in: float32, bfloat16, or auto (bfloat16 where the
    GPU or TPU has it; a T4 has not). Parameters, statistics, optimizer and logits are
    float32 in any case."""
    lr: tuple[float, ...] | Literal["auto"] | None = None
    """Learning rate of the backbone, or several; auto tunes it for every depth: a few
    rates for two epochs, the better ones to the end. Default: auto; 1e-4 with --depths
    auto or paper, --search or --distributed."""
    optimizer: tuple[str, ...] = ("adam",)
    """adam, sgd, or both. Of this and all that follow: several values are trained in
    all their combinations (--vary)."""
    head_lr_factor: tuple[float, ...] = (10.0,)
    """The head's learning rate over the backbone's."""
    head_bias_lr_factor: tuple[float, ...] = ()
    """Likewise of the head's biases. Default: as --head-lr-factor."""
    momentum: tuple[float, ...] = (0.9,)
    """Momentum of sgd."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Decoupled weight decay."""
    l2: tuple[float, ...] = (0.0,)
    """Times each weight of a kernel, added to its gradient before momentum, as in Caffe
    and MATLAB; a penalty lambda times the sum of squares is twice that."""
    l1: tuple[float, ...] = (0.0,)
    """Times the sign of each weight of a kernel, likewise."""
    layer_decay: tuple[float, ...] = (1.0,)
    """Factor on the learning rate from each block to the one before it."""
    drop_connect: tuple[float, ...] = (0.2,)
    """Largest rate at which trainable EfficientNet blocks are skipped in training."""
    schedule: tuple[str, ...] = ("constant",)
    """Learning rate over the trial: constant, cosine (falls to 0), one-over-t:TAU
    (TAU in epochs)."""
    label_smoothing: tuple[float, ...] = (0.0,)
    """Share of the loss that asks for all classes alike."""
    clip: tuple[float, ...] = (0.0,)
    """Largest norm of the gradient of all that is trained; a larger one is scaled down
    to it. 0: none."""
    augment: tuple[str, ...] = (NO_AUGMENTATION,)
    """Random changes of the training images: flip (left to right), crop (60 to 100 % of
    the area, resized), color (brightness, contrast, saturation), randaugment (two of 13
    operations), mixup (with another image and its label), joined by commas: flip,crop.
    Several of these are several settings: none flip,crop. Validation images, the
    accuracy on the training images and --head-start probe are without."""
    views: tuple[str, ...] = ()
    """With --augment: the frozen part keeps so many fixed views of each training image,
    of which every epoch takes one; or fresh: a new one in every epoch, for which the
    frozen part runs in every step. Default: 4."""
    warmup: float = 0.0
    """Epochs in which the learning rate rises from 0."""
    stop_accuracy: float | None = None
    """Training accuracy (mean over an epoch's batches, in training mode) from which a
    trial ends early, e.g. 0.995. Default: no trial does."""
    patience: int | None = None
    """Epochs without a better validation accuracy, or --metric where it is given, after
    which a trial ends early. Default: no trial does."""
    vary: Literal["all", "one"] = "all"
    """Of options with several values: all combinations, or one at a time around the
    first values."""
    seeds_at_once: Annotated[int | None, OVERRIDE] = None
    """Seeds of one depth and policy that are trained at once, by one program: for
    accelerators that a single small trial leaves idle. Default: 1, or as many as
    --mesh spreads them over."""
    trials_at_once: Annotated[int | None, OVERRIDE] = None
    """Trials, of any depths, that run side by side, each from a thread
    of its own: where a single one leaves the cores idle now and then. Of several
    devices each takes the next in turn. Default: one on each GPU or TPU; on a CPU 2 to
    4, by the cores, or 1 where memory or cores are short."""
    mesh: Annotated[str, OVERRIDE] = "auto"
    """Devices: auto (one trial on each; they share batches only where a trial does not
    fit one, or where there are fewer trials than devices and 32 images for each),
    data=N to spread every batch, data=1 to use a single one, variant=M to spread the
    seeds, or data=N,variant=M. BatchNorm's statistics are those of the whole batch."""
    distributed: bool = False
    """This is one of several processes that train together: started by SLURM, Open MPI
    or a TPU pod, or told by JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. Each needs the same arguments, weights and images; the first
    writes the results."""
    shard: str | None = None
    """i/n: train the i-th of n parts of the trials, i from 0 to n - 1, so that n
    commands with one --out share the work; the same command without it adds what is
    missing and gives the answer. auto: from a Slurm job array; auto/n: from an Indexed
    Job of Kubernetes. Default: all, less what other commands on --out are training."""
    engine: Literal["local", "ray", "submitit"] = "local"
    """Where trials are trained: local (this process), ray (the cluster that RAY_ADDRESS
    names, or one that is started here), submitit (a Slurm job array; processes of this
    machine where there is no Slurm). All machines must see --out, images and weights
    at the same paths."""
    workers: int | None = None
    """Processes that --engine starts. Default: one per GPU, TPU or machine of the Ray
    cluster; submitit needs a number."""
    job: tuple[str, ...] = ()
    """Parameters of submitit's jobs as name=value, e.g. gpus_per_node=1
    slurm_partition=gpu timeout_min=600."""
    cache_gb: float | None = None
    """Memory of the host for the activations of the frozen part, in GB; what does not
    fit is kept on disk (--disk-gb), or computed again in every step from what fits.
    Default: a quarter of the machine's, beside a GPU or TPU half of it; 4 at least."""
    device_gb: Annotated[float | None, OVERRIDE] = None
    """Memory of each device for the activations that a depth trains on, in GB: those
    that fit are not sent to it again in every step. Default: on a GPU or TPU what twice
    the least memory of the largest trial leaves; on a CPU, which has them at hand, and
    where devices share batches, none. 0: none."""
    fused: Annotated[bool, OVERRIDE] = False
    """A whole epoch of a depth as a few programs, where its activations are on the
    device: many small programs would leave a GPU or TPU idle, so there it is the
    default, and --device-gb 0 turns it off. Every depth compiles its own."""
    disk_gb: float = 0.0
    """Disk for activations that --cache-gb does not hold, in GB, in the cache folder;
    later commands on the same images and weights find them there. 0: none."""
    out: Path | None = None
    """Folder of the results. Default: runs/<model>-<data>."""
    tensorboard: bool = False
    """Write event files of every epoch into the folder tensorboard of the results, for
    tensorboard --logdir."""
    resume: bool = True
    """Go on with what is in the folder; otherwise it must be new or empty."""
    keep_optimizer: bool = True
    """Keep Adam's moments of finished trials, two thirds of a checkpoint, so that more
    epochs go on from the last one; without them they start from the first one again."""
    budget: str | None = None
    """Time for this command, e.g. 90s, 30m, 2h: a coarse spread of depths is trained
    first, then what else fits, and the answer says what was left out; the same command
    goes on with that. Drawing the last page comes on top. Default: no limit."""
    plan: bool = False
    """Print what would be trained, with FLOPs and memory, and stop."""
    offline: bool = False
    """Open no network connection."""


def axis_values(config: Config) -> dict[str, tuple]:
    """The values of every axis of a completed configuration."""
    values = {name: as_tuple(getattr(config, name)) for name in NAMES}
    for name in ("head_bias_lr_factor", "train_size"):
        values[name] = values[name] or (None,)
    values["views"] = values["views"] or (DEFAULT_VIEWS,)
    return values | ({"lr": RATES} if config.lr == AUTO_RATE else {})


def as_tuple(value: Any) -> tuple:
    """One value or several."""
    if isinstance(value, tuple | list):
        return tuple(dict.fromkeys(value))
    return (value,)


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def to_json(config: Config) -> Mapping[str, Any]:
    """The configuration as plain values, tuples as lists and paths as text.

    An axis of one value is that value, as in earlier versions.
    """
    plain = {}
    for name, value in asdict(config).items():
        if name in NAMES and isinstance(value, tuple) and len(value) == 1:
            (value,) = value
        plain[name] = str(value) if isinstance(value, Path) else value
    return plain
