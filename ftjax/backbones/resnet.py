"""ResNet18, 34, 50, 101 and 152 (He et al. 2016).

50 and larger are the original variant of keras.applications.

The stride of a stage sits on its first 1x1 convolutions, convolutions have biases,
BatchNorm's epsilon is 1.001e-5 (keras/src/applications/resnet.py). torchvision's
networks (`resnet50_torch`, "v1.5") are others: the stride sits on the 3x3, there are no
biases, epsilon is 1e-5, running statistics move ten times as fast, and images are
scaled differently (torchvision/models/resnet.py). 18 and 34, which Keras lacks, are
torchvision's. Layers bear Keras' names in all.
"""

from dataclasses import replace
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import BatchNorm, Conv, relu
from ftjax.backbones.pooling import max_pool
from ftjax.backbones.preprocessing import CAFFE, TORCHVISION, Preprocessing
from ftjax.kernels.normalization import identity

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class Variant(NamedTuple):
    """What Keras' and torchvision's ResNet differ in, beside the preprocessing.

    Attributes:
        epsilon: of BatchNorm.
        momentum: share of the running statistics that is kept at a step.
        use_bias: whether convolutions have biases.
        late_stride: whether a stage's stride sits on its 3x3 convolution.
    """

    epsilon: float
    momentum: float
    use_bias: bool
    late_stride: bool


KERAS = Variant(1.001e-5, 0.99, True, False)
V1_5 = Variant(1e-5, 0.9, False, True)
PAD = ((1, 1), (1, 1))  # PyTorch's; at stride 1 the same as Keras' 'SAME'


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max pooling of stride 2."""

    features: int
    preprocessing: Preprocessing
    variant: Variant = KERAS

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = self.preprocessing(x)
        x = Conv(
            self.features,
            7,
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=self.variant.use_bias,
            name="conv1_conv",
        )(x)
        norm = BatchNorm(
            self.variant.epsilon, self.variant.momentum, relu, name="conv1_bn"
        )
        x = norm(x, use_batch_stats="conv1_bn" in batch_norm, momentum=momentum)
        return max_pool(x, 3, 2, PAD)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut, projected where shapes change.

    Attributes:
        features: channels between the 1x1 convolutions, a quarter of the output's.
        strides: of the block.
        projection: whether the shortcut is a convolution.
        variant: Keras' or torchvision's.
        begin: the step that it begins with (`Unit.onward`); empty: the first one.
        end: the step before which it ends (`Unit.before`); empty: none.
    """

    features: int
    strides: int = 1
    projection: bool = False
    variant: Variant = KERAS
    begin: str = ""
    end: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The first layer of each step; none where the shortcut has layers as well."""
        return () if self.projection else ("1_conv", "2_conv", "3_conv")

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        bias = self.variant.use_bias
        early, late = self.strides, 1
        if self.variant.late_stride:
            early, late = late, early

        def norm(x, name, activation=identity):
            module = BatchNorm(
                self.variant.epsilon, self.variant.momentum, activation, name=name
            )
            return module(x, use_batch_stats=name in batch_norm, momentum=momentum)

        def conv(features, name, size=1, strides=1):
            return Conv(
                features,
                size,
                strides=strides,
                padding=PAD if size == 3 else "SAME",
                use_bias=bias,
                name=name,
            )

        shortcut = x
        if self.begin:
            x, shortcut = jnp.split(x, [self.features], -1)
        if self.projection:
            shortcut = conv(4 * self.features, "0_conv", strides=self.strides)(x)
            shortcut = norm(shortcut, "0_bn")
        order = "1_conv", "2_conv", "3_conv"
        for step in order[order.index(self.begin) if self.begin else 0 :]:
            if step == self.end:
                return jnp.concatenate([x, shortcut], -1)
            if step == "1_conv":
                x = norm(conv(self.features, step, 1, early)(x), "1_bn", relu)
            elif step == "2_conv":
                x = norm(conv(self.features, step, 3, late)(x), "2_bn", relu)
            else:
                x = norm(conv(4 * self.features, step)(x), "3_bn")
        return relu(shortcut + x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, projected where shapes change.

    Attributes:
        features: channels of the output.
        strides: of the block.
        projection: whether the shortcut is a convolution.
    """

    features: int
    strides: int = 1
    projection: bool = False

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        def layer(x, number, size, strides, activation=identity):
            padding = PAD if size == 3 else "SAME"
            shape = self.features, size, strides, padding
            conv = Conv(*shape, use_bias=False, name=f"{number}_conv")
            name = f"{number}_bn"
            norm = BatchNorm(V1_5.epsilon, V1_5.momentum, activation, name=name)
            on_batch = name in batch_norm
            return norm(conv(x), use_batch_stats=on_batch, momentum=momentum)

        shortcut = x
        if self.projection:
            shortcut = layer(x, 0, 1, self.strides)
        x = layer(layer(x, 1, 3, self.strides, relu), 2, 3, 1)
        return relu(shortcut + x)


def residual_layers(
    name: str, convolutions: int, projection: bool
) -> tuple[Layer, ...]:
    """Layers of one block in the order of Keras' `model.layers`.

    Keras sorts by distance from the output, so a projection's convolution and
    BatchNorm stand apart, between the layers of the main branch.
    """
    order = [
        f"{i + 1}_{k}" for i in range(convolutions) for k in ("conv", "bn", "relu")
    ]
    last = order[-3]
    order[-1:] = ["add", "out"]
    if projection:
        at = order.index(last)
        order[at : at + 1] = ["0_conv", last, "0_bn"]
    kinds = {"conv": "Conv2D", "bn": "BatchNormalization", "add": "Add"}
    layers = []
    for key in order:
        kind = kinds.get(key.split("_")[-1], "Activation")
        has_parameters = kind in ("Conv2D", "BatchNormalization")
        layers.append(Layer(f"{name}_{key}", kind, key if has_parameters else ""))
    return tuple(layers)


def stem_unit(features: int, preprocessing: Preprocessing, variant: Variant) -> Unit:
    """The stem with its six Keras layers."""
    layers = (
        Layer("conv1_pad", "ZeroPadding2D"),
        Layer("conv1_conv", "Conv2D", "conv1_conv"),
        Layer("conv1_bn", "BatchNormalization", "conv1_bn"),
        Layer("conv1_relu", "Activation"),
        Layer("pool1_pad", "ZeroPadding2D"),
        Layer("pool1_pool", "MaxPooling2D"),
    )
    return Unit("conv1", Stem(features, preprocessing, variant), layers)


def resnet(name: str, *, torchvision: bool = False) -> Backbone:
    """ResNet without its classifier: the stem, then one unit per residual block.

    Args:
        name: a key of `BLOCKS`.
        torchvision: the "v1.5" variant of torchvision and timm; the name gets the
            suffix `_torch` where Keras has a network of that name.
    """
    basic = name in ("resnet18", "resnet34")
    variant = V1_5 if torchvision else KERAS
    units = [stem_unit(64, TORCHVISION if torchvision else CAFFE, variant)]
    for stage, blocks in enumerate(BLOCKS[name]):
        for block in range(blocks):
            first = block == 0
            strides = 2 if first and stage > 0 else 1
            if basic:  # whose first stage keeps the stem's shape
                module = BasicBlock(64 * 2**stage, strides, first and stage > 0)
            else:
                module = Bottleneck(64 * 2**stage, strides, first, variant)
            unit_name = f"conv{stage + 2}_block{block + 1}"
            layers = residual_layers(unit_name, 2 if basic else 3, module.projection)
            units.append(Unit(unit_name, module, layers))
    backbone = Backbone(name, tuple(units), smallest_size=32, native_size=224)
    if torchvision:
        name = name if basic else f"{name}_torch"
        return replace(backbone, name=name, source="torchvision")
    return backbone
