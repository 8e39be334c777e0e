"""A network of a few thousand parameters with every kind of unit, for tests."""

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.efficientnet import (
    ConvNorm,
    MBConv,
    block_layers,
    conv_norm_layers,
)
from ftjax.backbones.preprocessing import LITE
from ftjax.backbones.resnet import Bottleneck, residual_layers
from ftjax.backbones.vgg import MaxPool, PlainConv


def tiny() -> Backbone:
    """Stem, plain convolution, pooling, residual and MBConv blocks, top; width 8."""
    conv = Layer("plain_conv", "Conv2D", "conv")
    pool = Layer("plain_pool", "MaxPooling2D")
    first = MBConv(8, 3, 2, 2, 2, "swish", residual=False)
    second = MBConv(8, 5, 1, 2, 2, "swish", residual=True)
    units = (
        Unit("stem", ConvNorm(8, 3, 2, "swish", LITE), conv_norm_layers("stem")),
        Unit("plain_conv", PlainConv(8), (conv,)),
        Unit("plain_pool", MaxPool(), (pool,)),
        Unit(
            "res_block1", Bottleneck(4, 1, True), residual_layers("res_block1", 3, True)
        ),
        Unit("res_block2", Bottleneck(4), residual_layers("res_block2", 3, False)),
        Unit("mb_block1", first, block_layers("mb_block1", first, True)),
        Unit("mb_block2", second, block_layers("mb_block2", second, True), 0.5),
        Unit("top", ConvNorm(16, 1, 1, "swish"), conv_norm_layers("top")),
    )
    return Backbone("tiny", units, smallest_size=16, native_size=32)
