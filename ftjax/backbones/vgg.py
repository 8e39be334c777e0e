"""VGG16 and VGG19 (Simonyan and Zisserman 2015), as keras.applications builds them.

torchvision's (`vgg16_torch`) have the same layers and other weights, which expect RGB
scaled by mean and standard deviation instead of BGR minus the mean.
"""

from dataclasses import replace

import flax.linen as nn

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import Conv, relu
from ftjax.backbones.pooling import max_pool
from ftjax.backbones.preprocessing import CAFFE, TORCHVISION, Preprocessing

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
