"""Heads: what stands between a backbone's output and the logits.

A head is a tuple of units like a body. Its last unit is the `Classifier`. Its
parameters are drawn anew for every trial, by the trial's seed.
"""

from dataclasses import replace

import flax.linen as nn

from ftjax.backbones.backbone import (
    Backbone,
    Layer,
    Unit,
    draw_variables,
    variable_shapes,
)
from ftjax.backbones.layers import global_average_pool
from ftjax.kernels.normalization import at_least_float32
from ftjax.trees import Tree

UNIT_NAMES = ("avg_pool", "predictions")  # of all heads: no body has such a unit


class AveragePool(nn.Module):
    """Mean over height and width: (batch, h, w, c) -> (batch, c), float32."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return global_average_pool(x.astype(at_least_float32(x)))


class Classifier(nn.Module):
    """Linear classifier: (batch, c) -> logits (batch, num_classes), float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        dtype = at_least_float32(x)
        return nn.Dense(self.num_classes, dtype=dtype, name="predictions")(x)


def classifier(num_classes: int) -> Unit:
    """The unit that gives the logits."""
    layer = Layer("predictions", "Dense", "predictions")
    return Unit("predictions", Classifier(num_classes), (layer,))


def linear_head(num_classes: int) -> tuple[Unit, ...]:
    """Global average pooling and a linear classifier."""
    layer = Layer("avg_pool", "GlobalAveragePooling2D")
    return Unit("avg_pool", AveragePool(), (layer,)), classifier(num_classes)


def with_head(backbone: Backbone, num_classes: int) -> Backbone:
    """The backbone followed by a linear head."""
    return replace(backbone, head=linear_head(num_classes))


def draw_head(network: Backbone, seed: int, size: int) -> tuple[Tree, Tree]:
    """The head that a seed starts from.

    Args:
        network: a backbone with its head.
        seed: of the draws. The last unit draws by the seed itself, the k-th before it
            by (seed, k).
        size: height and width of the images, in pixels.

    Returns:
        `params`, `batch_stats`: by unit of the head, then layer; host arrays.
    """
    shapes = variable_shapes(network.units, size)[len(network.body) :]
    params, batch_stats = {}, {}
    for index, unit in enumerate(network.head):
        before_last = len(network.head) - 1 - index
        own = (seed, before_last) if before_last else seed
        fresh = draw_variables(shapes[index], own)
        params[unit.name] = fresh.get("params", {})
        batch_stats[unit.name] = fresh.get("batch_stats", {})
    return params, batch_stats
