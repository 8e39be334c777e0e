"""Convolutions as products equal plain lax, forward and backward."""

import pytest
from same_gradients import assert_same_with_gradients, normal

from ftjax.backbones import layers

ASYMMETRIC = ((0, 1), (2, 1))

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (14, 15)])
@pytest.mark.parametrize("channels", [(3, 5), (5, 3), (128, 130), (130, 128)])
def test_pointwise_equals_lax(size, strides, channels):
    def form(lowering):
        return lambda x, k: layers.pointwise_conv(x, k, strides, lowering=lowering)

    x, k = normal(0, (2, *size, channels[0])), normal(1, (1, 1, *channels))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k / channels[0] ** 0.5)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "strides", "padding", "channels"),
    [
        (2, (6, 7), 3, 1, "SAME", 4),
        (2, (6, 7), 3, 2, "SAME", 4),
        (2, (7, 6), 3, 1, "SAME", 3),  # of images
        (3, (9, 12), 3, 2, ASYMMETRIC, 3),
        (3, (2, 2), 3, 1, "SAME", 4),  # a product of patches
        (3, (3, 5), 3, 2, ASYMMETRIC, 4),
        (2, (7, 8), 5, 1, "VALID", 4),
        (3, (40, 30), 3, 1, "SAME", 4),  # the gradient in bands of rows
        (2, (67, 64), 7, 2, ((3, 3), (3, 3)), 4),
        (4, (9, 9), 2, 1, ASYMMETRIC, 4),  # more padding than the kernel reaches
    ],
)
def test_conv_equals_lax(batch, size, kernel, strides, padding, channels):
    def form(lowering):
        conv = layers.Conv(5, kernel, strides, padding, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k, "bias": bias}}, x)

    bias = normal(2, (5,))
    x = normal(0, (batch, *size, channels))
    k = normal(1, (kernel, kernel, channels, 5))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


def test_a_grouped_conv_equals_lax():
    def form(lowering):
        conv = layers.Conv(6, 5, 1, "SAME", groups=2, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k, "bias": bias}}, x)

    bias, x, k = normal(2, (6,)), normal(0, (2, 7, 9, 4)), normal(1, (5, 5, 2, 6))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)
