"""FLOPs and parameters of units and trials."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import (
    Backbone,
    boundary_shapes,
    trace_shapes,
    variable_shapes,
)
from ftjax.backbones.lowering import plain_lowering
from ftjax.depth import Cut
from ftjax.frozen.placement import Placement


class Cost(NamedTuple):
    """FLOPs of one image through each unit, and parameters of each layer.

    Attributes:
        forward: per unit, multiplications and additions of one forward pass.
        parameters: (unit, key) -> number of trainable values.
    """

    forward: tuple[float, ...]
    parameters: dict[tuple[str, str], int]


@cache
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
def forward_flops(module: Any, shape: tuple[int, ...]) -> float:
    """FLOPs of one image, by the compiler's analysis of the lowered program.

    The count is that of plain convolutions on every backend; the forms for the CPU that
    need fewer products (`backbones/winograd.py`) do not change it.

    Args:
        module: of a unit, a Linen module.
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
        for unit, keys in zip(network.body[cut.unit :], cut.trainable, strict=False)
        for key in keys
    )


class Flops(NamedTuple):
    """Multiplications and additions of a trial, by epoch.

    Attributes:
        train: of training steps, forward and backward, per epoch.
        inference: of forward passes alone, per epoch: evaluation, statistics, and
            frozen units run again.
        last: likewise, of the evaluation after the last epoch.
    """

    train: float
    inference: float
    last: float = 0.0

    def total(self, epochs: int) -> float:
        """Of so many epochs."""
        return epochs * (self.train + self.inference) + self.last


def trial_flops(
    cut: Cut,
    cost: Cost,
    *,
    boundary: int,
    train_boundary: int | None = None,
    steps: int,
    batch_size: int,
    evaluated: int,
    evaluated_last: int = 0,
    recalibrated: int = 0,
    passed: float = 0.0,
) -> Flops:
    """FLOPs of a trial; a backward pass is counted as two forward passes.

    The first unit of the suffix needs no gradient of its input, so its backward pass
    is counted as one; nor do frozen units above it need that of their parameters.

    Args:
        cut: where the trainable part begins.
        cost: of the network's units.
        boundary: where the stored activations are.
        train_boundary: from which training steps run, if from another one.
        steps: optimizer steps per epoch.
        batch_size: images per step.
        evaluated: images evaluated per epoch.
        evaluated_last: those evaluated after the last epoch alone.
        recalibrated: images passed per epoch to estimate statistics anew.
        passed: of the cut's unit, FLOPs of an image in steps whose outputs are stored.
    """
    recomputed = sum(cost.forward[boundary : cut.unit])
    first, *others = cost.forward[cut.unit :]
    first -= passed
    suffix = first + sum(others)
    images = steps * batch_size
    passes = [2 if cut.blocks and not keys else 3 for keys in cut.trainable[1:]]
    step = sum(n * flops for n, flops in zip(passes, others, strict=True))
    train = images * (2 * first + step)
    seen = evaluated + recalibrated
    begin = boundary if train_boundary is None else train_boundary
    frozen = sum(cost.forward[begin : cut.unit])
    inference = (recomputed + suffix) * seen + images * frozen
    return Flops(train, inference, (recomputed + suffix) * evaluated_last)


def begun_flops(network: Backbone, size: int, placement: Placement) -> float:
    """FLOPs of an image in the steps of a unit whose outputs are stored."""
    boundary, begin, _ = placement
    if not begin:
        return 0.0
    module = network.units[boundary].before(begin).module
    return forward_flops(module, boundary_shapes(network.units, size)[boundary])
