"""ResNet50, 101 and 152 (He et al. 2016), the original variant of keras.applications.

The stride of a stage sits on its first 1x1 convolutions (torchvision's "v1.5" puts it
on the 3x3), convolutions have biases, BatchNorm's epsilon is 1.001e-5
(keras/src/applications/resnet.py).
"""

import flax.linen as nn

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import BatchNorm, Conv, max_pool
from ftjax.backbones.preprocessing import CAFFE, Preprocessing

BLOCKS = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
EPSILON = 1.001e-5
MOMENTUM = 0.99


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max pooling of stride 2."""

    features: int
    preprocessing: Preprocessing

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = self.preprocessing(x)
        x = Conv(
            self.features, 7, strides=2, padding=((3, 3), (3, 3)), name="conv1_conv"
        )(x)
        x = BatchNorm(EPSILON, MOMENTUM, name="conv1_bn")(
            x, use_batch_stats="conv1_bn" in batch_norm, momentum=momentum
        )
        return max_pool(nn.relu(x), 3, 2, ((1, 1), (1, 1)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut, projected where shapes change."""

    features: int
    strides: int = 1
    projection: bool = False

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        def norm(x, name):
            return BatchNorm(EPSILON, MOMENTUM, name=name)(
                x, use_batch_stats=name in batch_norm, momentum=momentum
            )

        shortcut = x
        if self.projection:
            shortcut = Conv(
                4 * self.features, strides=self.strides, name="0_conv"
            )(x)
            shortcut = norm(shortcut, "0_bn")
        x = Conv(self.features, strides=self.strides, name="1_conv")(x)
        x = nn.relu(norm(x, "1_bn"))
        x = Conv(self.features, 3, name="2_conv")(x)
        x = nn.relu(norm(x, "2_bn"))
        x = Conv(4 * self.features, name="3_conv")(x)
        return nn.relu(shortcut + norm(x, "3_bn"))


def bottleneck_layers(name: str, projection: bool) -> tuple[Layer, ...]:
    """Layers of one block in the order of Keras' `model.layers`.

    Keras sorts by distance from the output, so a projection's convolution and
    BatchNorm stand apart, between the layers of the main branch.
    """
    order = "1_conv 1_bn 1_relu 2_conv 2_bn 2_relu 3_conv 3_bn add out".split()
    if projection:
        order[6:7] = ["0_conv", "3_conv", "0_bn"]
    kinds = {"conv": "Conv2D", "bn": "BatchNormalization", "add": "Add"}
    layers = []
    for key in order:
        kind = kinds.get(key.split("_")[-1], "Activation")
        has_parameters = kind in ("Conv2D", "BatchNormalization")
        layers.append(Layer(f"{name}_{key}", kind, key if has_parameters else ""))
    return tuple(layers)


def stem_unit(features: int) -> Unit:
    """The stem with its six Keras layers."""
    layers = (
        Layer("conv1_pad", "ZeroPadding2D"),
        Layer("conv1_conv", "Conv2D", "conv1_conv"),
        Layer("conv1_bn", "BatchNormalization", "conv1_bn"),
        Layer("conv1_relu", "Activation"),
        Layer("pool1_pad", "ZeroPadding2D"),
        Layer("pool1_pool", "MaxPooling2D"),
    )
    return Unit("conv1", Stem(features, CAFFE), layers)


def resnet(name: str) -> Backbone:
    """ResNet without its classifier: the stem, then one unit per residual block."""
    units = [stem_unit(64)]
    for stage, blocks in enumerate(BLOCKS[name]):
        for block in range(blocks):
            first = block == 0
            module = Bottleneck(
                64 * 2**stage,
                strides=2 if first and stage > 0 else 1,
                projection=first,
            )
            unit_name = f"conv{stage + 2}_block{block + 1}"
            layers = bottleneck_layers(unit_name, projection=first)
            units.append(Unit(unit_name, module, layers))
    return Backbone(name, tuple(units), smallest_size=32, native_size=224)
