"""VGG16 and VGG19 (Simonyan and Zisserman 2015), as keras.applications builds them.

torchvision's (`vgg16_torch`) have the same layers and other weights, which expect RGB
scaled by mean and standard deviation instead of BGR minus the mean.
"""

from dataclasses import replace

import flax.linen as nn

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import Conv, max_pool, relu
from ftjax.backbones.preprocessing import CAFFE, TORCHVISION, Preprocessing
from ftjax.kernels.normalization import at_least_float32

# Convolutions per block, and their width (table 1, columns D and E).
BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
FEATURES = (64, 128, 256, 512, 512)


class PlainConv(nn.Module):
    """3x3 convolution with bias and ReLU; the first one takes images in 0..255."""

    features: int
    preprocessing: Preprocessing | None = None

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        return relu(Conv(self.features, kernel_size=3, name="conv")(x))


class MaxPool(nn.Module):
    """2x2 max pooling of stride 2."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return max_pool(x, 2, 2, "VALID")


class Flatten(nn.Module):
    """(batch, h, w, c) -> (batch, h * w * c), channels fastest, as Keras' Flatten."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return x.reshape(x.shape[0], -1)


class FullyConnected(nn.Module):
    """Dense layer with ReLU, unless it gives the logits."""

    features: int
    key: str
    relu: bool = True

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        dtype = x.dtype if self.relu else at_least_float32(x)
        x = nn.Dense(self.features, dtype=dtype, name=self.key)(x)
        return relu(x) if self.relu else x


def vgg(name: str, *, torchvision: bool = False) -> Backbone:
    """VGG without its fully connected layers: one unit per convolution and pooling.

    Args:
        name: a key of `BLOCKS`.
        torchvision: for torchvision's weights; the name gets the suffix `_torch`.
    """
    preprocessing = TORCHVISION if torchvision else CAFFE
    units = []
    for block, convs in enumerate(BLOCKS[name], start=1):
        for conv in range(1, convs + 1):
            layer = Layer(f"block{block}_conv{conv}", "Conv2D", "conv")
            module = PlainConv(FEATURES[block - 1], None if units else preprocessing)
            units.append(Unit(layer.name, module, (layer,)))
        pool = Layer(f"block{block}_pool", "MaxPooling2D")
        units.append(Unit(pool.name, MaxPool(), (pool,)))
    backbone = Backbone(name, tuple(units), smallest_size=32, native_size=224)
    if torchvision:
        return replace(backbone, name=f"{name}_torch", source="torchvision")
    return backbone


def vgg_top(backbone: Backbone, num_classes: int = 1000) -> Backbone:
    """VGG with the classifier it was trained with, for its logits.

    The pretrained layers take 7x7 maps, so images must be 224 pixels. For fine-tuning
    `with_head` is meant: 89 % of VGG16's parameters are in this classifier.

    Args:
        backbone: made by `vgg`.
        num_classes: number of logits.
    """
    flatten = Unit("flatten", Flatten(), (Layer("flatten", "Flatten"),), counted=False)
    units = [*backbone.units, flatten]
    for name, features in (("fc1", 4096), ("fc2", 4096), ("predictions", num_classes)):
        module = FullyConnected(features, name, relu=name != "predictions")
        layers = (Layer(name, "Dense", name),)
        units.append(Unit(name, module, layers, counted=False))
    return replace(backbone, units=tuple(units))
