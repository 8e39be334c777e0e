"""MobileNetV3 small and large (Howard et al. 2019) of torchvision (mobilenetv3.py).

The dense layer behind the pooling belongs to the body: what it gives is the vector that
the head takes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    empty,
    relu,
    scale_images,
)
from ftjax.backbones.pooling import global_average_pool
from ftjax.backbones.preprocessing import TORCHVISION, Preprocessing
from ftjax.kernels.normalization import at_least_float32, identity

EPSILON, MOMENTUM = 1e-3, 0.99
DROPOUT = 0.2  # of what the classifier takes


def hard_swish(x: jax.Array) -> jax.Array:
    """X times `hard_sigmoid` of x."""
    return x * hard_sigmoid(x)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """0 below -3, 1 above 3, a line between."""
    return jnp.clip(x + 3, 0, 6) / 6


ACTIVATIONS = {"relu": relu, "hswish": hard_swish}


class Block(NamedTuple):
    """One row of tables 1 and 2: an inverted bottleneck."""

    kernel_size: int
    expanded: int
    features: int
    excite: bool
    activation: str
    strides: int


LARGE = (
    Block(3, 16, 16, False, "relu", 1),
    Block(3, 64, 24, False, "relu", 2),
    Block(3, 72, 24, False, "relu", 1),
    Block(5, 72, 40, True, "relu", 2),
    Block(5, 120, 40, True, "relu", 1),
    Block(5, 120, 40, True, "relu", 1),
    Block(3, 240, 80, False, "hswish", 2),
    Block(3, 200, 80, False, "hswish", 1),
    Block(3, 184, 80, False, "hswish", 1),
    Block(3, 184, 80, False, "hswish", 1),
    Block(3, 480, 112, True, "hswish", 1),
    Block(3, 672, 112, True, "hswish", 1),
    Block(5, 672, 160, True, "hswish", 2),
    Block(5, 960, 160, True, "hswish", 1),
    Block(5, 960, 160, True, "hswish", 1),
)
SMALL = (
    Block(3, 16, 16, True, "relu", 2),
    Block(3, 72, 24, False, "relu", 2),
    Block(3, 88, 24, False, "relu", 1),
    Block(5, 96, 40, True, "hswish", 2),
    Block(5, 240, 40, True, "hswish", 1),
    Block(5, 240, 40, True, "hswish", 1),
    Block(5, 120, 48, True, "hswish", 1),
    Block(5, 144, 48, True, "hswish", 1),
    Block(5, 288, 96, True, "hswish", 2),
    Block(5, 576, 96, True, "hswish", 1),
    Block(5, 576, 96, True, "hswish", 1),
)
# Blocks, and the width of the dense layer.
MEMBERS = {"mobilenetv3_large": (LARGE, 1280), "mobilenetv3_small": (SMALL, 1024)}


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, hard swish: the stem (with preprocessing) and the top."""

    features: int
    kernel_size: int
    strides: int
    preprocessing: Preprocessing | None = None

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        half = self.kernel_size // 2
        pads = ((half, half),) * 2
        size = self.features, self.kernel_size, self.strides, pads
        conv = Conv(*size, use_bias=False, name="conv")
        norm = BatchNorm(EPSILON, MOMENTUM, hard_swish, name="bn")
        return norm(conv(x), use_batch_stats="bn" in batch_norm, momentum=momentum)


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection.

    Attributes:
        shape: of the block.
        expands: whether it has an expansion.
        residual: whether the input is added to the output.
    """

    shape: Block
    expands: bool
    residual: bool

    @nn.compact
    def __call__(self, inputs, *, batch_norm=(), momentum=None, residual_scale=None):
        activation = ACTIVATIONS[self.shape.activation]

        def norm(x, name, activation=identity):
            module = BatchNorm(EPSILON, MOMENTUM, activation, name=name)
            return module(x, use_batch_stats=name in batch_norm, momentum=momentum)

        x = inputs
        if self.expands:
            conv = Conv(self.shape.expanded, use_bias=False, name="expand_conv")
            x = norm(conv(x), "expand_bn", activation)
        half = self.shape.kernel_size // 2
        conv = DepthwiseConv(
            self.shape.kernel_size,
            strides=self.shape.strides,
            padding=((half, half),) * 2,
            name="dwconv",
        )
        x = norm(conv(x), "bn", activation)
        if self.shape.excite:
            gates = global_average_pool(x)[:, None, None]  # (batch, 1, 1, c)
            width = rounded(self.shape.expanded // 4)
            gates = relu(Conv(width, name="se_reduce")(gates))
            gates = Conv(x.shape[-1], name="se_expand")(gates)
            x = scale_images(x, hard_sigmoid(gates))
        conv = Conv(self.shape.features, use_bias=False, name="project_conv")
        x = norm(conv(x), "project_bn")
        return x + inputs if self.residual else x


class PooledDense(nn.Module):
    """Mean over height and width, dense layer, hard swish: (batch, width), float32."""

    width: int

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = global_average_pool(x.astype(at_least_float32(x)))
        dense = nn.Dense(self.width, dtype=x.dtype, kernel_init=empty, name="fc")
        return hard_swish(dense(x))


def rounded(features: int) -> int:
    """A multiple of 8 near it that is not below 90 % of it."""
    found = max(8, (features + 4) // 8 * 8)
    return found + 8 if found < 0.9 * features else found


def layer(unit: str, key: str) -> Layer:
    """The layer `<unit>_<key>`; its kind follows from its key."""
    kinds = {"conv": "Conv2D", "bn": "BatchNormalization", "dwconv": "DepthwiseConv2D"}
    kinds |= {"reduce": "Conv2D", "expand": "Conv2D", "add": "Add", "fc": "Dense"}
    kinds |= {"squeeze": "GlobalAveragePooling2D", "excite": "Multiply"}
    kind = kinds.get(key.split("_")[-1], "Activation")
    parametric = ("Conv2D", "BatchNormalization", "DepthwiseConv2D", "Dense")
    return Layer(f"{unit}_{key}", kind, key if kind in parametric else "")


def block_keys(module: InvertedBottleneck) -> list[str]:
    """The layers of a block in the order of its forward pass."""
    keys = ["expand_conv", "expand_bn", "expand_activation"] if module.expands else []
    keys += ["dwconv", "bn", "activation"]
    if module.shape.excite:
        keys += ["se_squeeze", "se_reduce", "se_relu", "se_expand", "se_gates"]
        keys += ["se_excite"]
    keys += ["project_conv", "project_bn"]
    return [*keys, "add"] if module.residual else keys


def mobilenet_v3(name: str) -> Backbone:
    """MobileNetV3 without its classifier: stem, blocks, top, dense layer."""
    blocks, width = MEMBERS[name]

    def conv_norm(unit: str, module: ConvNorm) -> Unit:
        keys = "conv", "bn", "activation"
        return Unit(unit, module, tuple(layer(unit, key) for key in keys))

    units = [conv_norm("stem", ConvNorm(16, 3, 2, TORCHVISION))]
    features_in = 16
    for number, shape in enumerate(blocks, start=1):
        residual = shape.strides == 1 and features_in == shape.features
        expands = shape.expanded != features_in
        module = InvertedBottleneck(shape, expands, residual)
        unit_name = f"block{number}"
        layers = tuple(layer(unit_name, key) for key in block_keys(module))
        units.append(Unit(unit_name, module, layers))
        features_in = shape.features
    units.append(conv_norm("top", ConvNorm(6 * features_in, 1, 1)))
    layers = tuple(layer("dense", key) for key in ("squeeze", "fc", "activation"))
    units.append(Unit("dense", PooledDense(width), layers))
    return Backbone(
        name,
        tuple(units),
        smallest_size=32,
        native_size=224,
        source="torchvision",
        flat=True,
        head_dropout=DROPOUT,
    )
