"""What the study trains: one-at-a-time sweeps around the paper's settings, two modes.

Petrovska, Stojanovic and Atanasova-Pacemska, "Classification of Small Sets of Images
with Pre-trained Neural Networks", IJEM 8(4), 2018. The paper lists no settings that it
holds; those here are MATLAB's of the time, and what its figures name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ftjax.analysis.variance import TITLES
from ftjax.analysis.wording import number
from ftjax.axes import ALL, GLOROT, LAST, LINEAR, RANDOM
from ftjax.batch_norm import FROZEN
from ftjax.sweep.plan import Point
from ftjax.sweep.trial import Hyperparameters

FEATURES, WHOLE = "features", "all"  # the modes
MODES = {FEATURES: "features alone", WHOLE: "all layers"}
HIDDEN, DEEP = "75", "500d0.5,75"  # heads: 75-5 and 500-75-5
LARGE, SMALL = 128, 32  # batches of figure 8

BASE = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr": 1e-4,
    "batch_size": LARGE,
    "epochs": 20,
    "l2": 1e-4,
    "head_lr_factor": 10.0,
    "head_bias_lr_factor": 20.0,
    "head_lr_layers": LAST,
    "head": LINEAR,
    "head_init": "0.01",
    "head_start": RANDOM,
    "train_size": 2000,
    "drop_connect": 0.0,
    "weight_decay": 0.0,
}


class Arm(NamedTuple):
    """A setting: the axes on which it differs from the base, and its values there."""

    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """E.g. `learning rate 1e-3`, or `base`."""
        return ", ".join(f"{TITLES[name]} {plain(v)}" for name, v in self.changes) or (
            "base"
        )


def plain(value: Any) -> str:
    """A value as people write it."""
    return number(value) if isinstance(value, int | float) else str(value)


class Sweep(NamedTuple):
    """Settings that differ in one thing.

    Attributes:
        title: of that thing.
        labels: its values, one for each arm.
        arms: the settings.
    """

    title: str
    labels: tuple[str, ...]
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class Design:
    """The values of every figure; those of the paper where it names them.

    Attributes:
        base: by axis, what a setting has unless its figure varies it.
        sizes: figure 6, numbers of training images.
        rates: figure 7.
        l2: figure 8, at batches of 128 and 32.
        batches: figure 9.
        epochs: figure 10.
        factors: figure 11, of the last layer's weights and biases.
    """

    base: Mapping[str, Any]
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    l2: tuple[float, ...]
    batches: tuple[int, ...]
    epochs: tuple[int, ...]
    factors: tuple[tuple[float, float], ...]

    def arm(self, **changes: Any) -> Arm:
        """The setting with these values, of which those of the base are left out."""
        return Arm(tuple((k, v) for k, v in changes.items() if v != self.base[k]))

    def factor_arm(self, weights: float, biases: float, **changes: Any) -> Arm:
        """The setting with these factors of the last layer."""
        factors = {"head_lr_factor": weights, "head_bias_lr_factor": biases}
        return self.arm(**factors, **changes)

    @property
    def sweeps(self) -> dict[str, Sweep]:
        """All of them, by name; those of figure 12 after the first two are controls."""
        heads = {LINEAR: "linear", HIDDEN: "75", DEEP: "500-75"}

        def along(name: str, values: tuple, **fixed: Any) -> Sweep:
            arms = tuple(self.arm(**{name: value}, **fixed) for value in values)
            return Sweep(TITLES[name], tuple(map(plain, values)), arms)

        def of_heads(**fixed: Any) -> Sweep:
            arms = tuple(self.arm(head=head, **fixed) for head in heads)
            return Sweep("hidden layers of the head", tuple(heads.values()), arms)

        one = {"head_lr_factor": 1.0, "head_bias_lr_factor": 1.0}
        return {
            "size": along("train_size", self.sizes),
            "rate": along("lr", self.rates),
            "l2_large": along("l2", self.l2, batch_size=LARGE),
            "l2_small": along("l2", self.l2, batch_size=SMALL),
            "batch": along("batch_size", self.batches),
            "epochs": along("epochs", self.epochs),
            "factor": Sweep(
                "factors of the last layer",
                tuple(f"{plain(w)}/{plain(b)}" for w, b in self.factors),
                tuple(self.factor_arm(*own) for own in self.factors),
            ),
            "heads": of_heads(),
            "heads_one": of_heads(**one),
            "heads_all": of_heads(head_lr_layers=ALL),
            "heads_glorot": of_heads(head_init=GLOROT),
        }

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every setting once, the base first; those that train alike are one."""
        found = {Arm(): None}
        for sweep in self.sweeps.values():
            found |= dict.fromkeys(sweep.arms)
        return tuple(found)

    def hyper(self, arm: Arm) -> Hyperparameters:
        """How a setting is trained."""
        values = {**self.base, **dict(arm.changes)}
        return Hyperparameters(**values, micro_batch=values["batch_size"])

    def point(self, mode: str, arm: Arm, seed: int, layers: int) -> Point:
        """Its point in a network of so many layers; BatchNorms are held."""
        depth = layers if mode == WHOLE else 0
        return Point(depth, FROZEN.name, seed, self.hyper(arm))

    def points(self, modes: Iterable[str], seeds: int, layers: int) -> Iterator[Point]:
        """All points of some modes, with seeds 0 to `seeds` - 1."""
        for mode in modes:
            for arm in self.arms:
                for seed in range(seeds):
                    yield self.point(mode, arm, seed, layers)

    @property
    def updates(self) -> int:
        """Training steps of the base."""
        base = self.base
        return base["epochs"] * (base["train_size"] // base["batch_size"])

    def with_size(self, train_size: int) -> "Design":
        """With another number of training images, and none larger."""
        smaller = [size for size in self.sizes if size < train_size]
        base = {**self.base, "train_size": train_size}
        return replace(self, base=base, sizes=(*smaller, train_size))

    def axis_values(self) -> dict[str, tuple]:
        """The values of every axis, the base's first: as `Config` takes them."""
        found = {name: {value: None} for name, value in self.base.items()}
        for arm in self.arms:
            for name, value in arm.changes:
                found[name][value] = None
        return {name: tuple(values) for name, values in found.items()}


FULL = Design(
    base=BASE,
    sizes=(150, 250, 500, 1000, 2000),
    rates=(1e-1, 1e-2, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 1e-5),
    l2=(0.0, 5e-5, 1e-4, 5e-4, 2.5e-3, 5e-3),
    batches=(8, 16, 32, 64, 128),
    epochs=(1, 2, 5, 10, 20, 40, 100),
    factors=((1.0, 1.0), (3.0, 6.0), (10.0, 20.0), (30.0, 60.0)),
)
QUICK = Design(
    base={**BASE, "train_size": 512, "epochs": 4},
    sizes=(128, 256, 512),
    rates=(1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    l2=(0.0, 1e-4, 5e-4),
    batches=(8, 32, 128),
    epochs=(1, 2, 4, 8),
    factors=((1.0, 1.0), (10.0, 20.0), (30.0, 60.0)),
)
