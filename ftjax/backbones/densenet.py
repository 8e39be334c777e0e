"""DenseNet121 (Huang et al. 2017) of keras.applications (densenet.py).

Every unit of a dense block puts its 32 new channels behind its input, so that it has
one input and one output as all units have.
"""

import flax.linen as nn
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import BatchNorm, Conv, relu
from ftjax.backbones.pooling import average_pool, max_pool
from ftjax.backbones.preprocessing import TORCHVISION, Preprocessing

EPSILON = 1.001e-5
GROWTH = 32
BLOCKS = (6, 12, 24, 16)
PAD = ((1, 1), (1, 1))


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max pooling of stride 2 over zeros."""

    preprocessing: Preprocessing

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = self.preprocessing(x)
        conv = Conv(64, 7, 2, ((3, 3), (3, 3)), use_bias=False, name="conv1_conv")
        norm = BatchNorm(EPSILON, activation=relu, name="conv1_bn")
        x = norm(conv(x), use_batch_stats="conv1_bn" in batch_norm, momentum=momentum)
        return max_pool(x, 3, 2, PAD)  # of what a ReLU gives, so zeros never win


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolution, each behind BatchNorm and ReLU: `GROWTH` more channels.

    (batch, h, w, c) -> (batch, h, w, c + 32).
    """

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        new = x
        for name, features, size in (("1_conv", 4 * GROWTH, 1), ("2_conv", GROWTH, 3)):
            norm = BatchNorm(EPSILON, activation=relu, name=NORM_BEFORE[name])
            on_batch = norm.name in batch_norm
            new = norm(new, use_batch_stats=on_batch, momentum=momentum)
            new = Conv(features, size, use_bias=False, name=name)(new)
        return jnp.concatenate([x, new], -1)


NORM_BEFORE = {"1_conv": "0_bn", "2_conv": "1_bn"}


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution to half the channels, 2x2 average pooling."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        norm = BatchNorm(EPSILON, activation=relu, name="bn")
        x = norm(x, use_batch_stats="bn" in batch_norm, momentum=momentum)
        return average_pool(Conv(x.shape[-1] // 2, use_bias=False, name="conv")(x), 2)


class LastNorm(nn.Module):
    """The BatchNorm and ReLU behind the last dense block."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        norm = BatchNorm(EPSILON, activation=relu, name="bn")
        return norm(x, use_batch_stats="bn" in batch_norm, momentum=momentum)


KINDS = {
    "bn": "BatchNormalization",
    "relu": "Activation",
    "conv": "Conv2D",
    "concat": "Concatenate",
    "pool": "AveragePooling2D",
}


def named_layers(prefix: str, keys: str) -> tuple[Layer, ...]:
    """Layers `<prefix>_<key>`; their kinds follow from their keys."""
    layers = []
    for key in keys.split():
        kind = KINDS[key.split("_")[-1]]
        has_parameters = kind in ("Conv2D", "BatchNormalization")
        layers.append(Layer(f"{prefix}_{key}", kind, key if has_parameters else ""))
    return tuple(layers)


def densenet121() -> Backbone:
    """DenseNet121 without its classifier: a unit for each layer of a dense block."""
    first = (
        Layer("zero_padding2d", "ZeroPadding2D"),
        Layer("conv1_conv", "Conv2D", "conv1_conv"),
        Layer("conv1_bn", "BatchNormalization", "conv1_bn"),
        Layer("conv1_relu", "Activation"),
        Layer("zero_padding2d_1", "ZeroPadding2D"),
        Layer("pool1", "MaxPooling2D"),
    )
    units = [Unit("conv1", Stem(TORCHVISION), first)]
    for number, blocks in enumerate(BLOCKS, start=2):
        if number > 2:
            name = f"pool{number - 1}"
            layers = named_layers(name, "bn relu conv pool")
            units.append(Unit(name, Transition(), layers))
        for block in range(1, blocks + 1):
            name = f"conv{number}_block{block}"
            keys = "0_bn 0_relu 1_conv 1_bn 1_relu 2_conv concat"
            units.append(Unit(name, DenseLayer(), named_layers(name, keys)))
    last = Layer("bn", "BatchNormalization", "bn"), Layer("relu", "Activation")
    units.append(Unit("norm", LastNorm(), last))
    return Backbone("densenet121", tuple(units), smallest_size=32, native_size=224)
