"""Depthwise convolutions on the CPU equal plain lax, forward and backward."""

import pytest
from same_gradients import assert_same_with_gradients, lowered, normal

from ftjax.backbones import layers
from ftjax.machine.threads import POOL_SIZE

ASYMMETRIC = ((0, 1), (2, 1))

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "strides", "padding"),
    [
        (2, (6, 7), 3, 1, "SAME"),
        (2, (6, 7), 3, 2, "SAME"),
        (9, (5, 6), 3, 2, ASYMMETRIC),  # a batch that 8 does not divide
        (2, (5, 6), 3, 1, ASYMMETRIC),
        (2, (6, 7), 5, 1, "SAME"),
        (3, (6, 7), 5, 2, "SAME"),
        (2, (7, 8), 5, 1, "VALID"),
        (2, (5, 6), 5, 2, ASYMMETRIC),
        (2, (2, 2), 5, 1, "SAME"),  # taps that never meet the image
        (19, (3, 4), 5, 1, "SAME"),  # 20 images in two groups, one of zeros
        (2, (4, 3), 5, 2, "SAME"),
        (3, (3, 3), 3, 1, "SAME"),  # as many taps as pixels
        (2, (4, 4), 5, 1, ASYMMETRIC),
        (2, (5, 4), 1, 2, "SAME"),  # the kernel is smaller than the stride
        (1, (8, 7), 3, 3, "SAME"),
        (1, (3, 4), 3, 1, ((3, 0), (0, 4))),  # more padding than the kernel reaches
    ],
)
def test_depthwise_equals_lax(batch, size, kernel, strides, padding):
    def form(lowering):
        return lambda x, k: layers.depthwise_conv(
            x, k, strides, padding, lowering=lowering
        )

    x, k = normal(0, (batch, *size, 3)), normal(1, (kernel, kernel, 1, 3))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize("threads", ["1", "2", "4"])  # of more, no blocks of channels
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (9, 8)])  # pixels added at once, and by rows
def test_depthwise_in_blocks_equals_lax(threads, kernel, strides, size, monkeypatch):
    monkeypatch.setenv(POOL_SIZE, threads)

    def form(lowering):
        return lambda x, k: layers.depthwise_conv(x, k, strides, lowering=lowering)

    x, k = normal(0, (2, *size, 48)), normal(1, (kernel, kernel, 1, 48))
    assert ("while" in lowered(form("cpu"), x, k)) == (kernel == 5 and threads != "4")
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)
