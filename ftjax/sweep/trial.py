"""A trial: one immutable record of what is trained, and how."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ftjax.axes import SGD_MOMENTUM
from ftjax.batch_norm import POLICIES
from ftjax.depth import Cut
from ftjax.frozen.placement import Placement
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
        head_start: `probe` where the head starts from a linear probe.
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
    head_start: str = "random"
    stop_accuracy: float | None = None
    patience: int | None = None
    patience_metric: str = "accuracy"

    @property
    def constant(self) -> bool:
        """Whether all steps have one learning rate."""
        return self.schedule == "constant" and not self.warmup

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
        )

    @property
    def program(self) -> tuple:
        """What compiled programs depend on: equal for trials that can be stacked."""
        used = tuple(number is not None for number in self.numbers)
        rates = self.schedule, self.warmup, None if self.constant else self.epochs
        sizes = self.batch_size, self.micro_batch
        other = self.drop_connect, self.class_weights, self.head_start
        return self.optimizer, *sizes, *other, used, rates

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
            "head_start": "random",
            "stop_accuracy": None,
            "patience": None,
            "patience_metric": "accuracy",
        }
        own = {name: getattr(self, name) for name in plain}
        if self.optimizer != "sgd":
            del own["momentum"]
        changed = {k: v for k, v in own.items() if v not in (None, plain[k])}
        # Where the rate falls to the end, more epochs are another trial.
        return changed | ({} if self.schedule != "cosine" else {"epochs": self.epochs})


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
        subject, hyper = self.subject, self.hyper
        canonical: dict[str, Any] = {
            "model": subject.model,
            "weights": subject.weights,
            "data": subject.data_hash,
            "depth": self.cut.same_set,
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

    def describe(self, varied: Iterable[str] = ()) -> str:
        """E.g. `top 41 layers (5 blocks)  bn frozen  seed 0  lr 0.0001`.

        Args:
            varied: names of the hyperparameters that are told as well.
        """
        cut = self.cut
        return "  ".join(
            [
                f"top {cut.depth_layers} layers ({cut.depth_units} blocks)",
                f"bn {self.policy}",
                f"seed {self.seed}",
                *(f"{name} {getattr(self.hyper, name)}" for name in varied),
            ]
        )
