"""AlexNet (Krizhevsky et al. 2012): BVLC's of Caffe and MATLAB, and torchvision's.

`alexnet` has groups in its 2nd, 4th and 5th convolution, local response normalization
with Caffe's numbers (models/bvlc_alexnet/train_val.prototxt) and images of 227 pixels;
its weights expect blue first. `alexnet_ksh` is the same with the numbers of the paper,
whose normalized values are 1.7 to 3.3 times smaller. `alexnet_torch` is "one weird
trick" (Krizhevsky 2014) as torchvision builds it: one column, narrower, without
normalization, and averaged to 6x6 before fc6.

Layers are counted as MATLAB's `alexnet` lists them, without data, fc8, prob and output.
Dropout belongs to the unit that reads its output, so that a unit's input can be kept
whatever is trained: `drop6` acts in fc7, `drop7` in the classifier, and torchvision's
two in fc6 and fc7.
"""

import flax.linen as nn

from ftjax.backbones.backbone import Backbone, Layer, Unit
from ftjax.backbones.layers import Conv, drop_out, empty, relu
from ftjax.backbones.pooling import adaptive_average_pool, max_pool
from ftjax.backbones.preprocessing import BVLC, TORCHVISION, Preprocessing
from ftjax.kernels.local_response import LocalResponse, local_response_norm

CAFFE_NUMBERS = LocalResponse(size=5, alpha=1e-4, beta=0.75, k=1.0)
KSH_NUMBERS = LocalResponse(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)
# Features, kernel size, stride, padding and groups of the convolutions.
GROUPED = (
    (96, 11, 4, 0, 1),
    (256, 5, 1, 2, 2),
    (384, 3, 1, 1, 1),
    (384, 3, 1, 1, 2),
    (256, 3, 1, 1, 2),
)
ONE_COLUMN = (
    (64, 11, 4, 2, 1),
    (192, 5, 1, 2, 1),
    (384, 3, 1, 1, 1),
    (256, 3, 1, 1, 1),
    (256, 3, 1, 1, 1),
)
POOLED, NORMALIZED = (1, 2, 5), (1, 2)  # convolutions, counted from 1
WIDTH = 4096  # of fc6 and fc7
RATE = 0.5  # of dropout
SIDE = 6  # that torchvision averages maps to


class ConvBlock(nn.Module):
    """Convolution and ReLU, then what may follow; the first one takes images.

    Attributes:
        shape: features, kernel size, stride, padding and groups.
        norm: numbers of a local response normalization, if there is one.
        pool: whether 3x3 max pooling of stride 2 follows.
        side: of the map that an average brings it to; 0 without one.
        preprocessing: of images in 0..255, before the first one.
    """

    shape: tuple[int, int, int, int, int]
    norm: LocalResponse | None = None
    pool: bool = False
    side: int = 0
    preprocessing: Preprocessing | None = None

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        features, size, strides, pad, groups = self.shape
        pads = ((pad, pad), (pad, pad))
        x = relu(Conv(features, size, strides, pads, groups=groups, name="conv")(x))
        if self.norm is not None:
            x = local_response_norm(x, self.norm)
        if self.pool:
            x = max_pool(x, 3, 2, "VALID")
        return adaptive_average_pool(x, self.side) if self.side else x


class FullyConnected(nn.Module):
    """Dense layer and ReLU on (batch, ...), of which dropout comes first."""

    features: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = x.reshape(len(x), -1)  # (batch, h * w * c)
        x = drop_out(x, self.dropout, residual_scale)
        dense = nn.Dense(self.features, dtype=x.dtype, kernel_init=empty, name="fc")
        return relu(dense(x))


def alexnet(name: str = "alexnet") -> Backbone:
    """AlexNet without its classifier: a unit for each layer with weights.

    fc6 follows the image: Caffe's weights fit images of 227 to 258 pixels, others are
    for the size they were trained at.

    Args:
        name: `alexnet`, or `alexnet_ksh` for the paper's normalization.
    """
    norm = KSH_NUMBERS if name == "alexnet_ksh" else CAFFE_NUMBERS
    units = []
    for number, shape in enumerate(GROUPED, start=1):
        own = norm if number in NORMALIZED else None
        images = None if units else BVLC
        module = ConvBlock(shape, own, number in POOLED, preprocessing=images)
        units.append(
            Unit(f"conv{number}", module, conv_layers(number, own is not None))
        )
    for number, rate in ((6, 0.0), (7, RATE)):
        layers = *dense_layers(number), Layer(f"drop{number}", "Dropout")
        module = FullyConnected(WIDTH, rate)
        units.append(Unit(f"fc{number}", module, layers))
    return Backbone(
        name,
        tuple(units),
        smallest_size=67,
        native_size=227,
        source="caffe",
        flat=True,
        head_dropout=RATE,
    )


def alexnet_torch() -> Backbone:
    """AlexNet of torchvision without its classifier: a unit for each weighted layer.

    Its fc6 is the same for all sizes of images.
    """
    units = []
    for number, shape in enumerate(ONE_COLUMN, start=1):
        last = number == len(ONE_COLUMN)
        images = None if units else TORCHVISION
        side = SIDE if last else 0
        module = ConvBlock(shape, None, number in POOLED, side, images)
        layers = conv_layers(number, normalized=False)
        if last:
            layers = *layers, Layer("avgpool", "GlobalAveragePooling2D")
        units.append(Unit(f"conv{number}", module, layers))
    for number in (6, 7):
        layers = Layer(f"drop{number}", "Dropout"), *dense_layers(number)
        module = FullyConnected(WIDTH, RATE)
        units.append(Unit(f"fc{number}", module, layers))
    return Backbone(
        "alexnet_torch",
        tuple(units),
        smallest_size=63,
        native_size=224,
        source="torchvision",
        flat=True,
    )


def conv_layers(number: int, normalized: bool) -> tuple[Layer, ...]:
    """Layers of a convolution's unit, by MATLAB's names."""
    layers = [
        Layer(f"conv{number}", "Conv2D", "conv"),
        Layer(f"relu{number}", "Activation"),
    ]
    if normalized:
        layers.append(Layer(f"norm{number}", "CrossChannelNormalization"))
    if number in POOLED:
        layers.append(Layer(f"pool{number}", "MaxPooling2D"))
    return tuple(layers)


def dense_layers(number: int) -> tuple[Layer, ...]:
    """Layers of a dense unit beside its dropout."""
    return Layer(f"fc{number}", "Dense", "fc"), Layer(f"relu{number}", "Activation")
