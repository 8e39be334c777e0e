"""The grid becomes trials, each distinct training once, ordered by cut."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import (
    Backbone,
    boundary_shapes,
    trace_shapes,
    variable_shapes,
)
from ftjax.backbones.layers import plain_lowering
from ftjax.config import Config
from ftjax.depth import Cut, make_cut
from ftjax.train import make_suffix


class Trial(NamedTuple):
    """One training.

    Attributes:
        id: hash of all that determines its result, except the number of epochs.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        seed: of head, data order and drop-connect.
        canonical: what the hash is of; plain values.
    """

    id: str
    cut: Cut
    policy: str
    seed: int
    canonical: dict[str, Any]


class Request(NamedTuple):
    """One row that the user asked for, and the training that answers it.

    Several rows may share one: depths that unfreeze the same parameters, and policies
    that are equal where no BatchNorm is trainable.
    """

    cut: Cut
    policy: str
    seed: int
    trial: str


class Point(NamedTuple):
    """One point of the grid: depth in layers, BatchNorm policy, seed."""

    depth_layers: int
    policy: str
    seed: int


class Plan(NamedTuple):
    """Rows in the order of depth, trainings in the order of their cut."""

    requests: tuple[Request, ...]
    trials: tuple[Trial, ...]


def _depth(point: Point) -> int:
    return point.depth_layers


def make_plan(
    config: Config,
    network: Backbone,
    grid: Iterable[Point],
    *,
    weights: str,
    data_hash: str,
) -> Plan:
    """One row per point of the grid, and the trainings that answer them.

    Args:
        config: completed.
        network: backbone with head.
        grid: depths in layers, BatchNorm policies and seeds.
        weights: source of the pretrained parameters.
        data_hash: of pictures and labels.
    """
    requests, trials = [], {}
    for depth, policy, seed in sorted(dict.fromkeys(grid), key=_depth):
        cut = make_cut(network, depth)
        norms = any(part.batch_norm for part in make_suffix(network, cut, policy))
        canonical = {
            "model": config.model,
            "weights": weights,
            "data": data_hash,
            "depth": cut.same_set,
            "batch_norm": policy if norms else "frozen",
            "seed": seed,
            "image_size": config.image_size,
            "batch_size": config.batch_size,
            "optimizer": config.optimizer,
            "lr": config.lr,
            "head_lr_factor": config.head_lr_factor,
            "weight_decay": config.weight_decay,
            "drop_connect": config.drop_connect,
            "draws": "numpy",  # order of pictures; JAX's made other orders of a seed
        }
        # Only where they change a result, so that older results keep their ids.
        if config.dtype != "float32":
            canonical["dtype"] = config.dtype
        if canonical["batch_norm"] != "frozen":
            if config.micro_batch != config.batch_size:
                canonical["micro_batch"] = config.micro_batch
        text = json.dumps(canonical, sort_keys=True)
        trial_id = hashlib.sha256(text.encode()).hexdigest()[:12]
        trial = Trial(trial_id, cut, canonical["batch_norm"], seed, canonical)
        trials.setdefault(trial_id, trial)
        requests.append(Request(cut, policy, seed, trial_id))
    ordered = sorted(trials.values(), key=lambda trial: trial.cut.unit)
    return Plan(tuple(requests), tuple(ordered))


class Cost(NamedTuple):
    """FLOPs of one picture through each unit, and parameters of each layer.

    Attributes:
        forward: per unit, multiplications and additions of one forward pass.
        parameters: (unit, key) -> number of trainable values.
    """

    forward: tuple[float, ...]
    parameters: dict[tuple[str, str], int]


def measure_cost(network: Backbone, size: int) -> Cost:
    """FLOPs of every unit (`forward_flops`), and parameters of every layer."""
    units = network.units
    parameters = {
        (unit.name, layer): sum(leaf.size for leaf in leaves.values())
        for unit, shapes in zip(units, variable_shapes(units, size), strict=True)
        for layer, leaves in shapes.get("params", {}).items()
    }
    shapes = boundary_shapes(units, size)[:-1]
    forward = (
        forward_flops(unit.module, shape)
        for unit, shape in zip(units, shapes, strict=True)
    )
    return Cost(tuple(forward), parameters)


@cache
def forward_flops(module: nn.Module, shape: tuple[int, ...]) -> float:
    """FLOPs of one picture, by the compiler's analysis of the lowered program.

    The count is that of plain convolutions on every backend; the forms for the CPU that
    need fewer products (`backbones/winograd.py`) do not change it.

    Args:
        module: of a unit.
        shape: of its input, without the batch axis.
    """
    _, shapes = trace_shapes(module, (1, *shape))
    variables = {"params": {}, "batch_stats": {}, **shapes}
    with plain_lowering():
        # A function of its own, so that JAX does not trace the other form.
        forward_pass = partial(module.apply)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        lowered = jax.jit(forward_pass).lower(variables, x)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def trainable_params(network: Backbone, cut: Cut, cost: Cost) -> int:
    """Trainable values of the backbone at this cut, the head's not counted."""
    return sum(
        cost.parameters[unit.name, key]
        for unit, keys in zip(network.units[cut.unit :], cut.trainable, strict=True)
        if unit.counted
        for key in keys
    )


class Flops(NamedTuple):
    """Multiplications and additions.

    Attributes:
        train: of training steps, forward and backward.
        inference: of forward passes alone: evaluation, and frozen units run again.
    """

    train: float
    inference: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.train + self.inference


def trial_flops(
    cut: Cut,
    cost: Cost,
    *,
    boundary: int,
    epochs: int,
    steps: int,
    batch_size: int,
    evaluated: int,
    evaluated_last: int = 0,
    recalibrated: int = 0,
    passed: float = 0.0,
) -> Flops:
    """FLOPs of a whole trial; a backward pass is counted as two forward passes.

    The first unit of the suffix needs no gradient of its input, so its backward pass
    is counted as one.

    Args:
        cut: where the trainable part begins.
        cost: of the network's units.
        boundary: where the stored activations are.
        epochs: number of epochs.
        steps: optimizer steps per epoch.
        batch_size: pictures per step.
        evaluated: pictures evaluated per epoch.
        evaluated_last: those evaluated after the last epoch alone.
        recalibrated: pictures passed per epoch to estimate statistics anew.
        passed: of the cut's unit, FLOPs of a picture in steps whose outputs are stored.
    """
    recomputed = sum(cost.forward[boundary : cut.unit])
    first, *others = cost.forward[cut.unit :]
    first -= passed
    suffix = first + sum(others)
    pictures = steps * batch_size
    train = pictures * (2 * first + 3 * sum(others))
    seen = epochs * (evaluated + recalibrated) + evaluated_last
    inference = (recomputed + suffix) * seen + epochs * pictures * recomputed
    return Flops(epochs * train, inference)
