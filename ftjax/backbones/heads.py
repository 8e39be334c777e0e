"""Heads: what stands between a backbone's output and the logits.

A head is a tuple of units like a body: pooling, hidden layers, the `Classifier`. Its
parameters are drawn anew for every trial, by the trial's seed.
"""

import re
from dataclasses import replace
from functools import partial

import flax.linen as nn

from ftjax.axes import LINEAR, parse_head
from ftjax.backbones.backbone import (
    Backbone,
    Layer,
    Unit,
    draw_variables,
    variable_shapes,
)
from ftjax.backbones.layers import drop_out
from ftjax.backbones.pooling import global_average_pool
from ftjax.kernels.normalization import at_least_float32
from ftjax.trees import Tree

UNIT_NAMES = ("avg_pool", "predictions")  # of all heads: no body has such a unit
HIDDEN = "hidden"  # and the layer's number: of the units between them


class AveragePool(nn.Module):
    """Mean over height and width: (batch, h, w, c) -> (batch, c), float32."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return global_average_pool(x.astype(at_least_float32(x)))


class Hidden(nn.Module):
    """Dense layer with ReLU: (batch, c) -> (batch, width), float32.

    Attributes:
        width: number of outputs.
        dropout: share of the inputs that training drops.
    """

    width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = drop_out(x, self.dropout, residual_scale)
        return nn.relu(nn.Dense(self.width, dtype=at_least_float32(x), name="dense")(x))


class Classifier(nn.Module):
    """Linear classifier: (batch, c) -> logits (batch, num_classes), float32.

    Attributes:
        num_classes: number of outputs.
        dropout: share of the inputs that training drops.
    """

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = drop_out(x, self.dropout, residual_scale)
        dtype = at_least_float32(x)
        return nn.Dense(self.num_classes, dtype=dtype, name="predictions")(x)


def classifier(num_classes: int, dropout: float = 0.0) -> Unit:
    """The unit that gives the logits."""
    layer = Layer("predictions", "Dense", "predictions")
    return Unit("predictions", Classifier(num_classes, dropout), (layer,))


def linear_head(num_classes: int) -> tuple[Unit, ...]:
    """Global average pooling and a linear classifier."""
    layer = Layer("avg_pool", "GlobalAveragePooling2D")
    return Unit("avg_pool", AveragePool(), (layer,)), classifier(num_classes)


def make_head(
    num_classes: int, head: str = LINEAR, *, pool: bool = True, dropout: float = 0.0
) -> tuple[Unit, ...]:
    """Global average pooling, hidden layers and a linear classifier.

    Dropout after a layer belongs to the unit that reads it.

    Args:
        num_classes: of the classifier.
        head: as of `axes.parse_head`.
        pool: whether it takes maps, and averages them.
        dropout: share of what it takes that its first layer drops.
    """
    units = list(linear_head(num_classes)[:1]) if pool else []
    for number, (width, after) in enumerate(parse_head(head) or (), start=1):
        name = f"{HIDDEN}{number}"
        layer = Layer(name, "Dense", "dense")
        units.append(Unit(name, Hidden(width, dropout), (layer,)))
        dropout = after
    return *units, classifier(num_classes, dropout)


def with_head(backbone: Backbone, num_classes: int, head: str = LINEAR) -> Backbone:
    """The backbone followed by a head; arguments as of `make_head`."""
    units = make_head(
        num_classes, head, pool=not backbone.flat, dropout=backbone.head_dropout
    )
    return replace(backbone, head=units)


def is_of_head(unit: str) -> bool:
    """Whether a unit of that name stands in heads."""
    return unit in UNIT_NAMES or re.fullmatch(rf"{HIDDEN}\d+", unit) is not None


def draw_head(
    network: Backbone, seed: int, size: int, deviation: float = 0.0
) -> tuple[Tree, Tree]:
    """The head that a seed starts from.

    Args:
        network: a backbone with its head.
        seed: of the draws. The last unit draws by the seed itself, the k-th before it
            by (seed, k).
        size: height and width of the images, in pixels.
        deviation: of kernels that are drawn from a normal distribution around 0; at 0
            they are as of `draw_variables`.

    Returns:
        `params`, `batch_stats`: by unit of the head, then layer; host arrays.
    """
    shapes = variable_shapes(network.units, size)[len(network.body) :]
    draw = partial(draw_variables, deviation=deviation) if deviation else draw_variables
    params, batch_stats = {}, {}
    for index, unit in enumerate(network.head):
        before_last = len(network.head) - 1 - index
        own = (seed, before_last) if before_last else seed
        fresh = draw(shapes[index], own)
        params[unit.name] = fresh.get("params", {})
        batch_stats[unit.name] = fresh.get("batch_stats", {})
    return params, batch_stats
