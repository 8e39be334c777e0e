"""ConvNeXt tiny and base (Liu et al. 2022) of torchvision (convnext.py).

They have LayerNorm alone, so no statistics of a batch and no BatchNorm policy.
"""

import flax.linen as nn
import jax

from ftjax.backbones.backbone import Backbone, Unit, named_layers
from ftjax.backbones.layers import Conv, DepthwiseConv, empty, layer_norm
from ftjax.backbones.pooling import global_average_pool
from ftjax.backbones.preprocessing import TORCHVISION, Preprocessing
from ftjax.kernels.normalization import at_least_float32, per_channel

# Blocks and channels of the stages.
MEMBERS = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class Stem(nn.Module):
    """Preprocessing, a 4x4 convolution of stride 4, LayerNorm."""

    features: int
    preprocessing: Preprocessing

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        conv = Conv(self.features, 4, 4, "VALID", name="conv")
        return layer_norm(conv(self.preprocessing(x)), "norm")


class Downsample(nn.Module):
    """LayerNorm and a 2x2 convolution of stride 2."""

    features: int

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return Conv(self.features, 2, 2, "VALID", name="conv")(layer_norm(x, "norm"))


class Block(nn.Module):
    """7x7 depthwise convolution, LayerNorm, two dense layers, around a shortcut."""

    features: int

    @nn.compact
    def __call__(self, inputs, *, batch_norm=(), momentum=None, residual_scale=None):
        pads = ((3, 3), (3, 3))
        x = DepthwiseConv(7, padding=pads, use_bias=True, name="dwconv")(inputs)
        x = layer_norm(x, "norm")
        for name, width in (("fc1", 4 * self.features), ("fc2", self.features)):
            dense = nn.Dense(width, dtype=x.dtype, kernel_init=empty, name=name)
            x = dense(x) if name == "fc2" else jax.nn.gelu(dense(x), approximate=False)
        x = Scale(name="scale")(x)
        if residual_scale is not None:
            x = (x * residual_scale[:, None, None, None]).astype(x.dtype)
        return x + inputs


class Scale(nn.Module):
    """A factor for each channel (Touvron et al. 2021), params gamma (c,)."""

    @nn.compact
    def __call__(self, x):
        gamma = self.param("gamma", nn.initializers.constant(1e-6), x.shape[-1:])
        return x * per_channel(gamma.astype(x.dtype), x.ndim)


class PooledNorm(nn.Module):
    """Mean over height and width, then LayerNorm: (batch, c), float32."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return layer_norm(global_average_pool(x.astype(at_least_float32(x))), "norm")


KINDS = {
    "conv": "Conv2D",
    "dwconv": "DepthwiseConv2D",
    "norm": "LayerNormalization",
    "fc1": "Dense",
    "fc2": "Dense",
    "scale": "LayerScale",
}
OTHERS = {
    "gelu": "Activation",
    "drop": "StochasticDepth",
    "add": "Add",
    "pool": "GlobalAveragePooling2D",
}


def convnext(name: str) -> Backbone:
    """ConvNeXt without its classifier: stem, blocks, between the stages a reduction."""
    repeats, widths = MEMBERS[name]
    stem = Stem(widths[0], TORCHVISION)
    units = [Unit("stem", stem, named_layers("stem", "conv norm", KINDS, OTHERS))]
    number, total = 0, sum(repeats)
    for stage, (blocks, features) in enumerate(zip(repeats, widths, strict=True), 1):
        if stage > 1:
            unit = f"down{stage}"
            layers = named_layers(unit, "norm conv", KINDS, OTHERS)
            units.append(Unit(unit, Downsample(features), layers))
        for block in range(1, blocks + 1):
            unit = f"stage{stage}_block{block}"
            layers = named_layers(
                unit, "dwconv norm fc1 gelu fc2 scale drop add", KINDS, OTHERS
            )
            share = number / (total - 1)
            units.append(Unit(unit, Block(features), layers, drop_share=share))
            number += 1
    units.append(
        Unit("norm", PooledNorm(), named_layers("norm", "pool norm", KINDS, OTHERS))
    )
    return Backbone(
        name,
        tuple(units),
        smallest_size=32,
        native_size=224,
        source="torchvision",
        flat=True,
    )
