"""EfficientNetV2-S (Tan and Le 2021) of keras.applications (efficientnet_v2.py).

Its first three stages have fused blocks: one convolution in place of the expansion and
the depthwise one.
"""

import flax.linen as nn

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.efficientnet import (
    EPSILON,
    ConvNorm,
    MBConv,
    Stage,
    block_layers,
    conv_norm_layers,
    keras_layer,
)
from ftjax.backbones.layers import BatchNorm, Conv
from ftjax.backbones.preprocessing import Preprocessing
from ftjax.kernels.normalization import identity

MOMENTUM = 0.9
# Keras' Rescaling(1 / 128, offset=-1).
PREPROCESSING = Preprocessing(mean=(128.0,) * 3, std=(128.0,) * 3)
FUSED = (
    Stage(2, 3, 1, 1, 24),
    Stage(4, 3, 2, 4, 48),
    Stage(4, 3, 2, 4, 64),
)
STAGES = (
    Stage(6, 3, 2, 4, 128),
    Stage(9, 3, 1, 6, 160),
    Stage(15, 3, 2, 6, 256),
)
STEM, TOP = 24, 1280


class FusedMBConv(nn.Module):
    """A 3x3 convolution that widens, and a 1x1 one that narrows, or one 3x3 for both.

    Attributes:
        features: output channels.
        strides: of the 3x3 convolution.
        expand: channel multiplier; 1 has one convolution alone.
        residual: whether the input is added to the output.
    """

    features: int
    strides: int
    expand: int
    residual: bool

    @nn.compact
    def __call__(self, inputs, *, batch_norm=(), momentum=None, residual_scale=None):
        def layer(x, name, features, size, strides, activation):
            conv = Conv(features, size, strides, use_bias=False, name=f"{name}_conv")
            norm = BatchNorm(EPSILON, MOMENTUM, activation, name=f"{name}_bn")
            on_batch = norm.name in batch_norm
            return norm(conv(x), use_batch_stats=on_batch, momentum=momentum)

        if self.expand == 1:
            x = layer(inputs, "project", self.features, 3, self.strides, nn.swish)
        else:
            width = self.expand * inputs.shape[-1]
            x = layer(inputs, "expand", width, 3, self.strides, nn.swish)
            x = layer(x, "project", self.features, 1, 1, identity)
        if not self.residual:
            return x
        if residual_scale is not None:
            x = (x * residual_scale[:, None, None, None]).astype(x.dtype)
        return x + inputs


def fused_layers(name: str, module: FusedMBConv) -> tuple[Layer, ...]:
    """Layers of one fused block in the order of Keras' `model.layers`."""
    kinds = []
    if module.expand != 1:
        kinds += [("expand_conv", "Conv2D"), ("expand_bn", "BatchNormalization")]
        kinds += [("expand_activation", "Activation")]
    kinds += [("project_conv", "Conv2D"), ("project_bn", "BatchNormalization")]
    if module.expand == 1:
        kinds += [("project_activation", "Activation")]
    return tuple(keras_layer(name, key, kind) for key, kind in kinds)


def efficientnet_v2(name: str) -> Backbone:
    """EfficientNetV2-S without its classifier."""
    stem = ConvNorm(STEM, 3, 2, "swish", PREPROCESSING, MOMENTUM)
    first = (Layer("rescaling", "Rescaling"), *conv_norm_layers("stem"))
    units = [Unit("stem", stem, first)]
    num_blocks = sum(stage.repeats for stage in FUSED + STAGES)
    features_in = STEM
    for number, stage in enumerate(FUSED + STAGES, start=1):
        for repeat in range(stage.repeats):
            strides = stage.strides if repeat == 0 else 1
            residual = strides == 1 and features_in == stage.features
            unit_name = f"block{number}{chr(ord('a') + repeat)}"
            share = (len(units) - 1) / num_blocks if residual else 0.0
            if stage in FUSED:
                module = FusedMBConv(stage.features, strides, stage.expand, residual)
                layers = fused_layers(unit_name, module)
            else:
                module = MBConv(
                    stage.features,
                    stage.kernel_size,
                    strides,
                    stage.expand,
                    max(1, features_in // 4),
                    "swish",
                    residual,
                    momentum=MOMENTUM,
                )
                layers = block_layers(unit_name, module, pads=False)
                layers = tuple(map(with_v2_name, layers))
            if residual:
                # Keras leaves the dropout of rate 0, the first block's, out.
                ends = [("drop", "Dropout")] if share else []
                ends += [("add", "Add")]
                body = [x for x in layers if x.kind not in ("Dropout", "Add")]
                layers = *body, *(keras_layer(unit_name, *end) for end in ends)
            units.append(Unit(unit_name, module, layers, drop_share=share))
            features_in = stage.features
    top = ConvNorm(TOP, 1, 1, "swish", None, MOMENTUM)
    units.append(Unit("top", top, conv_norm_layers("top")))
    return Backbone(name, tuple(units), smallest_size=32, native_size=384)


def with_v2_name(layer: Layer) -> Layer:
    """The depthwise layer is called `dwconv2` in V2."""
    if not layer.name.endswith("_dwconv"):
        return layer
    return Layer(f"{layer.name}2", layer.kind, layer.key)
