"""A trial: one immutable record of what is trained, and how."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from ftjax.axes import (
    ALL,
    AUTO,
    FRESH,
    GLOROT,
    LAST,
    LINEAR,
    NO_AUGMENTATION,
    NO_VIEWS,
    PROBE,
    RANDOM,
    SGD_MOMENTUM,
    augmentations,
    parse_init,
)
from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import with_head
from ftjax.batch_norm import POLICIES
from ftjax.block_sets import set_name
from ftjax.data.augment import ViewSet
from ftjax.depth import Cut
from ftjax.frozen.placement import Placement
from ftjax.frozen.start import Start
from ftjax.sweep.cost import Flops
from ftjax.training.optimizer import Hyper


@dataclass(frozen=True)
class Hyperparameters:
    """How a trial is trained.

    Attributes:
        lr: learning rate of the backbone.
        head_lr_factor: the head's learning rate over the backbone's.
        weight_decay: decoupled.
        drop_connect: largest rate at which trainable blocks are skipped.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: images per optimizer step.
        micro_batch: images that pass through the network at a time; divides
            `batch_size`.
        epochs: to train; a longer trial goes on from a shorter one, if the rate is
            constant.
        head_bias_lr_factor: of the head's biases; None: as of its kernels.
        momentum: of SGD.
        l2: of kernels, added to their gradient.
        l1: likewise.
        layer_decay: factor on the rate from each unit to the one before it.
        schedule: of the learning rate, as of `training.schedules`.
        warmup: epochs in which the rate rises from 0.
        class_weights: `balanced` where every class weighs the same in the loss.
        train_size: number of training images; None: all of them.
        imbalance: of the training images' classes, as of `data.flaws`.
        label_noise: share of wrong training labels, likewise.
        head: as of `axes.parse_head`.
        head_init: as of `axes.parse_init`.
        head_start: `probe` where the head starts from a linear probe; `auto` where
            the cut decides (`at`).
        head_lr_layers: `last` where the head's factors are of its classifier alone.
        label_smoothing: share of the loss that asks for all classes alike.
        clip: largest norm of the gradient; 0: none.
        augment: words of the augmentation, joined by commas; `none`.
        views: a number of stored views of each training image, or `fresh`; `none`
            without augmentation.
        stop_accuracy: in training mode, from which the trial ends early.
        patience: epochs without a better validation metric after which it does.
        patience_metric: one of `metrics.METRICS`.
    """

    lr: float
    head_lr_factor: float
    weight_decay: float
    drop_connect: float
    optimizer: str
    batch_size: int
    micro_batch: int
    epochs: int
    head_bias_lr_factor: float | None = None
    momentum: float = SGD_MOMENTUM
    l2: float = 0.0
    l1: float = 0.0
    layer_decay: float = 1.0
    schedule: str = "constant"
    warmup: float = 0.0
    class_weights: str = "none"
    train_size: int | None = None
    imbalance: float = 1.0
    label_noise: float = 0.0
    head: str = LINEAR
    head_init: str = GLOROT
    head_start: str = RANDOM
    head_lr_layers: str = ALL
    label_smoothing: float = 0.0
    clip: float = 0.0
    augment: str = NO_AUGMENTATION
    views: str = NO_VIEWS
    stop_accuracy: float | None = None
    patience: int | None = None
    patience_metric: str = "accuracy"

    def at(self, cut: Cut) -> "Hyperparameters":
        """With the head start that `auto` is at a cut."""
        if self.head_start != AUTO:
            return self
        alone = cut.depth_layers == 0 and self.head == LINEAR
        return replace(self, head_start=PROBE if alone else RANDOM)

    @property
    def last_only(self) -> bool:
        """Whether hidden layers of the head train at the backbone's rate."""
        return self.head != LINEAR and self.head_lr_layers == LAST

    @property
    def probe(self) -> tuple | None:
        """What the probe depends on that the head starts from; None without one."""
        kind = *self.images, self.class_weights
        return kind if self.head_start == PROBE else None

    @property
    def images(self) -> tuple[int | None, float, float]:
        """Which training images it has, as `Dataset.chosen` takes it."""
        return self.train_size, self.imbalance, self.label_noise

    @property
    def words(self) -> tuple[str, ...]:
        """Of the augmentation."""
        return augmentations(self.augment) or ()

    @property
    def fresh(self) -> bool:
        """Whether every epoch makes views of its own."""
        return self.views == FRESH

    @property
    def stored_views(self) -> int:
        """Views of each training image that are stored at the cut."""
        return int(self.views) if self.views.isdecimal() else 0

    @property
    def view_set(self) -> ViewSet | None:
        """Augmentation and number of the stored views; None where there are none."""
        return (self.words, self.stored_views) if self.stored_views else None

    @property
    def constant(self) -> bool:
        """Whether all steps have one learning rate."""
        return self.schedule == "constant" and not self.warmup

    @property
    def grows(self) -> bool:
        """Whether a trial of more epochs goes on from this one."""
        return self.schedule != "cosine"

    @property
    def parts(self) -> int:
        """In how many parts a batch passes through the network."""
        return self.batch_size // self.micro_batch

    @property
    def numbers(self) -> Hyper:
        """Arrays of the compiled programs: other numbers need no other program.

        What is at its default, and came later, is left out of the program, so that its
        numbers are those of earlier versions.
        """
        momentum = None if self.momentum == SGD_MOMENTUM else self.momentum
        return Hyper.of(
            learning_rate=self.lr,
            head_lr_factor=self.head_lr_factor,
            weight_decay=self.weight_decay,
            head_bias_lr_factor=self.extras.get("head_bias_lr_factor"),
            momentum=momentum if self.optimizer == "sgd" else None,
            l2=self.l2 or None,
            l1=self.l1 or None,
            layer_decay=None if self.layer_decay == 1 else self.layer_decay,
            label_smoothing=self.label_smoothing or None,
            clip=self.clip or None,
        )

    @property
    def program(self) -> tuple:
        """Equal for trials that can be stacked."""
        rates = self.schedule, self.warmup, None if self.constant else self.epochs
        other = self.drop_connect, self.class_weights, self.head_start
        images = *self.images, self.augment, self.views
        return *self.unit_programs, *images, *other, rates

    @property
    def unit_programs(self) -> tuple:
        """What the compiled programs of units depend on."""
        used = tuple(number is not None for number in self.numbers)
        head = self.head, self.last_only
        return self.optimizer, self.batch_size, self.micro_batch, *head, used

    @property
    def extras(self) -> dict[str, Any]:
        """Settings of a later version that change the result, by name."""
        plain = {
            "head_bias_lr_factor": self.head_lr_factor,
            "momentum": SGD_MOMENTUM,
            "l2": 0.0,
            "l1": 0.0,
            "layer_decay": 1.0,
            "schedule": "constant",
            "warmup": 0.0,
            "class_weights": "none",
            "head": LINEAR,
            "head_init": GLOROT,
            "head_start": RANDOM,
            "head_lr_layers": ALL,
            "label_smoothing": 0.0,
            "clip": 0.0,
            "augment": NO_AUGMENTATION,
            "views": NO_VIEWS,
            "stop_accuracy": None,
            "patience": None,
            "patience_metric": "accuracy",
        }
        own = {name: getattr(self, name) for name in plain}
        if self.optimizer != "sgd":
            del own["momentum"]
        if not self.last_only:
            del own["head_lr_layers"]
        changed = {k: v for k, v in own.items() if v not in (None, plain[k])}
        # Where the rate falls to the end, more epochs are another trial.
        return changed | ({} if self.grows else {"epochs": self.epochs})


class Subject(NamedTuple):
    """What is fine-tuned, and on what.

    Attributes:
        model: name of the network.
        weights: where its pretrained parameters are from.
        data_hash: of images and labels.
        image_size: in pixels.
        dtype: that the network computes in.
    """

    model: str
    weights: str
    data_hash: str
    image_size: int
    dtype: str


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        subject: what is fine-tuned, and on what.
        cut: where the trainable part begins.
        policy: of BatchNorm; `frozen` where none is trainable.
        seed: of head, data order and drop-connect.
        hyper: how it is trained.
        placement: where the activations are that it trains on.
        flops: that it takes.
    """

    subject: Subject
    cut: Cut
    policy: str
    seed: int
    hyper: Hyperparameters
    placement: Placement
    flops: Flops

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """All that determines the result, except the number of epochs: plain values.

        Settings that came later stand in it only where they change a result, so that
        earlier results keep their ids.
        """
        subject, hyper, blocks = self.subject, self.hyper, self.cut.blocks
        canonical: dict[str, Any] = {
            "model": subject.model,
            "weights": subject.weights,
            "data": subject.data_hash,
            "depth": list(blocks) if blocks else self.cut.same_set,
            "batch_norm": self.policy,
            "seed": self.seed,
            "image_size": subject.image_size,
            "batch_size": hyper.batch_size,
            "optimizer": hyper.optimizer,
            "lr": hyper.lr,
            "head_lr_factor": hyper.head_lr_factor,
            "weight_decay": hyper.weight_decay,
            "drop_connect": hyper.drop_connect,
            "draws": "numpy",  # order of images; JAX's made other orders of a seed
        }
        if subject.dtype != "float32":
            canonical["dtype"] = subject.dtype
        # With BatchNorm frozen, gradients of parts add up to the batch's.
        if POLICIES[self.policy].trains_on_batch_statistics and hyper.parts > 1:
            canonical["micro_batch"] = hyper.micro_batch
        return canonical | hyper.extras

    @cached_property
    def id(self) -> str:
        """A hash of `canonical`."""
        text = json.dumps(self.canonical, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_probe(self) -> bool:
        """Whether it is the head alone, fitted to the end: there is no step to take."""
        return self.hyper.probe is not None and self.cut.depth_layers == 0

    def with_smaller_parts(self) -> "Trial | None":
        """The same trial with half as many images at a time in memory.

        None where that is another trial, as the statistics of BatchNorm would be those
        of fewer images, or where there is one image already, or an odd number.
        """
        if self.hyper.micro_batch % 2:
            return None
        hyper = replace(self.hyper, micro_batch=self.hyper.micro_batch // 2)
        smaller = replace(self, hyper=hyper)
        return smaller if smaller.id == self.id else None

    def describe(self, varied: Iterable[str] = ()) -> str:
        """E.g. `top 41 layers (5 blocks)  bn frozen  seed 0  lr 0.0001`.

        Args:
            varied: names of the hyperparameters that are told as well.
        """
        cut = self.cut
        what = f"top {cut.depth_layers} layers ({cut.depth_units} blocks)"
        if cut.blocks:
            what = f"{set_name(cut.blocks)} ({cut.depth_layers} layers)"
        return "  ".join(
            [
                what,
                f"bn {self.policy}",
                f"seed {self.seed}",
                *(f"{name} {getattr(self.hyper, name)}" for name in varied),
            ]
        )


def trial_network(network: Backbone, head: str) -> Backbone:
    """A backbone with its linear head replaced by another one.

    Args:
        network: with the linear head of a sweep.
        head: as of `axes.parse_head`.
    """
    if head == LINEAR:
        return network
    return with_head(network, network.head[-1].module.num_classes, head)


def trial_start(start: Start, hyper: Hyperparameters) -> Start:
    """What a trial starts from: the network with the head that its settings name.

    Args:
        start: the pretrained network.
        hyper: of the trial.
    """
    return start._replace(
        network=trial_network(start.network, hyper.head),
        deviation=parse_init(hyper.head_init) or 0.0,
    )
