"""EfficientNet B0 to B7 (Tan and Le 2019) and EfficientNet-Lite 0 to 2.

Layers and names as in keras/src/applications/efficientnet.py with weights="imagenet".
Lite is the same scheme without squeeze-and-excitation, with ReLU6, and with the
padding inside its convolutions, so without padding layers. It is TensorFlow's 'SAME' at
the network's own image size. The program that the weights are published with keeps that
padding at every size: where a map of odd height is halved at the own size, as many rows
are added above as below, also to a map of even height.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import BatchNorm, Conv, DepthwiseConv, relu6, scale_images
from ftjax.backbones.pooling import global_average_pool
from ftjax.backbones.preprocessing import EFFICIENTNET, LITE, Preprocessing
from ftjax.kernels.normalization import identity

EPSILON = 1e-3
MOMENTUM = 0.99
ACTIVATIONS = {"swish": nn.swish, "relu6": relu6}


class Stage(NamedTuple):
    """One row of table 1: blocks of equal kernel size, stride and width."""

    repeats: int
    kernel_size: int
    strides: int
    expand: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Scaling(NamedTuple):
    """Width and depth multipliers, and the size of the images, of one member."""

    width: float
    depth: float
    size: int


SCALINGS = {
    "effnetb0": Scaling(1.0, 1.0, 224),
    "effnetb1": Scaling(1.0, 1.1, 240),
    "effnetb2": Scaling(1.1, 1.2, 260),
    "effnetb3": Scaling(1.2, 1.4, 300),
    "effnetb4": Scaling(1.4, 1.8, 380),
    "effnetb5": Scaling(1.6, 2.2, 456),
    "effnetb6": Scaling(1.8, 2.6, 528),
    "effnetb7": Scaling(2.0, 3.1, 600),
    "effnetlite0": Scaling(1.0, 1.0, 224),
    "effnetlite1": Scaling(1.0, 1.1, 240),
    "effnetlite2": Scaling(1.1, 1.2, 260),
}


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation: the stem (with preprocessing) and the top."""

    features: int
    kernel_size: int
    strides: int
    activation: str
    preprocessing: Preprocessing | None = None
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        x = Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            use_bias=False,
            name="conv",
        )(x)
        activation = ACTIVATIONS[self.activation]
        norm = BatchNorm(EPSILON, self.momentum, activation, name="bn")
        return norm(x, use_batch_stats="bn" in batch_norm, momentum=momentum)


class MBConv(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, SE, projection.

    Attributes:
        features: output channels.
        kernel_size: of the depthwise convolution.
        strides: of the depthwise convolution.
        expand: channel multiplier; 1 leaves the expansion out.
        se_features: channels of squeeze-and-excitation; 0 leaves it out.
        activation: a key of `ACTIVATIONS`.
        residual: whether the input is added to the output.
        centered: whether the depthwise convolution has as many rows of padding above as
            below, whatever the height; else TensorFlow's 'SAME'.
        momentum: share of BatchNorm's running statistics that is kept at a step.
        begin: the step that it begins with (`Unit.onward`); empty: the first one.
        end: the step before which it ends (`Unit.before`); empty: none.
    """

    features: int
    kernel_size: int
    strides: int
    expand: int
    se_features: int
    activation: str
    residual: bool
    centered: bool = False
    momentum: float = MOMENTUM
    begin: str = ""
    end: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The first layer of each step."""
        expand = ("expand_conv",) if self.expand != 1 else ()
        excite = ("se_reduce",) if self.se_features else ()
        return *expand, "dwconv", *excite, "project_conv"

    @nn.compact
    def __call__(self, inputs, *, batch_norm=(), momentum=None, residual_scale=None):
        activation = ACTIVATIONS[self.activation]
        x = shortcut = inputs
        if self.begin and self.residual:
            x, shortcut = jnp.split(inputs, [inputs.shape[-1] - self.features], -1)

        def norm(x, name, activation=identity, conv=None):
            return BatchNorm(EPSILON, self.momentum, activation, name=name)(
                x, use_batch_stats=name in batch_norm, momentum=momentum, conv=conv
            )

        steps = self.steps[self.steps.index(self.begin) if self.begin else 0 :]
        for step in steps:
            if step == self.end:
                return jnp.concatenate([x, shortcut], -1) if self.residual else x
            if step == "expand_conv":
                width = self.expand * inputs.shape[-1]
                conv = Conv(width, use_bias=False, name=step)
                x = norm(x, "expand_bn", activation, conv)
            elif step == "dwconv":
                half = self.kernel_size // 2
                conv = DepthwiseConv(
                    self.kernel_size,
                    strides=self.strides,
                    padding=((half, half),) * 2 if self.centered else "SAME",
                    name=step,
                )
                x = norm(conv(x), "bn", activation)
            elif step == "se_reduce":
                x = self.squeeze_excite(x)
            else:
                x = Conv(self.features, use_bias=False, name=step)(x)
                x = norm(x, "project_bn")
        if not self.residual:
            return x
        if residual_scale is not None:
            # 1 / (1 - rate) in bfloat16 would be off by up to 0.4 %.
            x = (x * residual_scale[:, None, None, None]).astype(x.dtype)
        return x + shortcut

    def squeeze_excite(self, x: jax.Array) -> jax.Array:
        """Channel gates from the channel means (Hu et al. 2018)."""
        gates = global_average_pool(x)[:, None, None]  # (batch, 1, 1, c)
        gates = nn.swish(Conv(self.se_features, name="se_reduce")(gates))
        gates = Conv(x.shape[-1], name="se_expand")(gates)
        return scale_images(x, jax.nn.sigmoid(gates))


def block_layers(name: str, module: MBConv, pads: bool) -> tuple:
    """Layers of one block in the order of Keras' `model.layers`.

    Args:
        name: of the block, e.g. `block6a`.
        module: its module.
        pads: whether stride 2 has a padding layer of its own, as in Keras.
    """
    kinds = []
    if module.expand != 1:
        kinds += [("expand_conv", "Conv2D"), ("expand_bn", "BatchNormalization")]
        kinds += [("expand_activation", "Activation")]
    if pads and module.strides == 2:
        kinds += [("dwconv_pad", "ZeroPadding2D")]
    kinds += [("dwconv", "DepthwiseConv2D"), ("bn", "BatchNormalization")]
    kinds += [("activation", "Activation")]
    if module.se_features:
        kinds += [("se_squeeze", "GlobalAveragePooling2D"), ("se_reshape", "Reshape")]
        kinds += [("se_reduce", "Conv2D"), ("se_expand", "Conv2D")]
        kinds += [("se_excite", "Multiply")]
    kinds += [("project_conv", "Conv2D"), ("project_bn", "BatchNormalization")]
    if module.residual:
        kinds += [("drop", "Dropout"), ("add", "Add")]
    return tuple(keras_layer(name, key, kind) for key, kind in kinds)


def keras_layer(unit: str, key: str, kind: str) -> Layer:
    """The layer `<unit>_<key>`; its parameters, if it has any, stand under `key`."""
    has_parameters = kind in ("Conv2D", "DepthwiseConv2D", "BatchNormalization")
    return Layer(f"{unit}_{key}", kind, key if has_parameters else "")


def round_features(features: int, width: float) -> int:
    """Channels scaled by `width`, as a multiple of 8 that is not below 90 % of it."""
    scaled = features * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scale(stage: Stage, scaling: Scaling) -> Stage:
    """A stage with as many blocks and as wide as the member has it."""
    return stage._replace(
        repeats=math.ceil(stage.repeats * scaling.depth),
        features=round_features(stage.features, scaling.width),
    )


def efficientnet(name: str) -> Backbone:
    """EfficientNet B0 to B7 without its classifier."""
    scaling = SCALINGS[name]
    preprocessing_layers = (
        Layer("rescaling", "Rescaling"),
        Layer("normalization", "Normalization"),
        Layer("rescaling_1", "Rescaling"),
        Layer("stem_conv_pad", "ZeroPadding2D"),
    )
    return build(
        name,
        tuple(scale(stage, scaling) for stage in STAGES),
        stem_features=round_features(32, scaling.width),
        top_features=round_features(1280, scaling.width),
        squeeze_excite=True,
        activation="swish",
        preprocessing=EFFICIENTNET,
        first_layers=preprocessing_layers,
        size=scaling.size,
    )


def efficientnet_lite(name: str) -> Backbone:
    """EfficientNet-Lite 0 to 2 without classifier (tensorflow/tpu, efficientnet/lite).

    Stem, top, and the number of blocks of the first and the last stage do not scale.
    """
    scaling = SCALINGS[name]
    stages = tuple(scale(stage, scaling) for stage in STAGES)
    first, *middle, last = stages
    backbone = build(
        name,
        (first._replace(repeats=1), *middle, last._replace(repeats=1)),
        stem_features=32,
        top_features=1280,
        squeeze_excite=False,
        activation="relu6",
        preprocessing=LITE,
        first_layers=(),
        size=scaling.size,
    )
    return replace(backbone, source="lite")


def build(
    name: str,
    stages: tuple[Stage, ...],
    *,
    stem_features: int,
    top_features: int,
    squeeze_excite: bool,
    activation: str,
    preprocessing: Preprocessing,
    first_layers: tuple[Layer, ...],
    size: int,
) -> Backbone:
    """Stem, one unit per MBConv block, top; names as in Keras."""
    stem = ConvNorm(stem_features, 3, 2, activation, preprocessing)
    units = [Unit("stem", stem, first_layers + conv_norm_layers("stem"))]
    num_blocks = sum(stage.repeats for stage in stages)
    block = 0
    features_in = stem_features
    side = -(-size // 2)
    for number, stage in enumerate(stages, start=1):
        for repeat in range(stage.repeats):
            strides = stage.strides if repeat == 0 else 1
            residual = strides == 1 and features_in == stage.features
            module = MBConv(
                stage.features,
                stage.kernel_size,
                strides,
                stage.expand,
                max(1, features_in // 4) if squeeze_excite else 0,
                activation,
                residual,
                centered=not squeeze_excite and strides == 2 and side % 2 == 1,
            )
            unit_name = f"block{number}{chr(ord('a') + repeat)}"
            layers = block_layers(unit_name, module, pads=squeeze_excite)
            share = block / num_blocks if residual else 0.0
            units.append(Unit(unit_name, module, layers, drop_share=share))
            features_in = stage.features
            side = -(-side // strides)
            block += 1
    top = ConvNorm(top_features, 1, 1, activation)
    units.append(Unit("top", top, conv_norm_layers("top")))
    return Backbone(name, tuple(units), smallest_size=32, native_size=size)


def conv_norm_layers(name: str) -> tuple[Layer, ...]:
    """Layers of the stem or the top."""
    return (
        keras_layer(name, "conv", "Conv2D"),
        keras_layer(name, "bn", "BatchNormalization"),
        keras_layer(name, "activation", "Activation"),
    )
