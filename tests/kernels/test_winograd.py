"""Winograd's form of wide convolutions equals plain lax and rounds little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same_gradients import assert_same_with_gradients, lowered, normal

from ftjax.backbones import layers
from ftjax.kernels import convolution, winograd

ASYMMETRIC = ((0, 1), (2, 1))

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("batch", "size", "padding"),
    [
        (2, (6, 8), "SAME"),
        (3, (5, 7), "SAME"),  # tiles that hang over the edge
        (2, (7, 8), "VALID"),
        (2, (5, 6), ASYMMETRIC),
        (3, (4, 6), "SAME"),  # tiles of 2x2 need no more products than those of 2x4
        (2, (16, 20), "SAME"),  # tiles of 4x4
        (2, (15, 18), ASYMMETRIC),  # that hang over the edge
        (2, (16, 6), "SAME"),  # of 4x2
    ],
)
def test_wide_conv_equals_lax(batch, size, padding, monkeypatch):
    monkeypatch.setattr(convolution, "WINOGRAD_TAPS", 0)

    def form(lowering):
        conv = layers.Conv(5, 3, 1, padding, use_bias=False, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k}}, x)

    x, k = normal(0, (batch, *size, 4)), normal(1, (3, 3, 4, 5))
    assert "convolution" not in lowered(form("cpu"), x, k)
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize(("batch", "groups"), [(4, 2), (7, 7), (12, 6)])
def test_wide_conv_by_groups_equals_the_whole(batch, groups, monkeypatch):
    pads = ((1, 1), (1, 1))

    def all_three(x, k, grad):
        return (
            winograd.winograd_conv(x, k, pads),
            winograd.winograd_input_gradient(grad, k, pads),
            winograd.winograd_kernel_gradient(x, grad, pads),
        )

    with jax.enable_x64(True):
        shapes = (batch, 9, 8, 4), (3, 3, 4, 5), (batch, 9, 8, 5)
        x, k, grad = (
            jnp.asarray(normal(seed, shape), jnp.float64)
            for seed, shape in enumerate(shapes)
        )
        image = x[0].nbytes + grad[0].nbytes
        assert "while" not in lowered(all_three, x, k, grad)
        whole = all_three(x, k, grad)
        monkeypatch.setattr(winograd, "WHOLE_BYTES", 0)
        monkeypatch.setattr(winograd, "GROUP_BYTES", 2 * image)
        monkeypatch.setattr(winograd, "GRADIENT_BYTES", 2 * image)
        text = lowered(lambda *inputs: all_three(*inputs), x, k, grad)
        assert f"tensor<{groups}x{batch // groups}x9x8x4xf64>" in text
        for part, expected in zip(all_three(x, k, grad), whole, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 6), (8, 12), (16, 12)])  # tiles 2x2, 2x4, 4x4
def test_wide_conv_rounds_little(size):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, *size, 256)), rng.normal(size=(3, 3, 256, 16))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + size[0], j : j + size[1]] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    y = winograd.winograd_conv(jnp.float32(x), jnp.float32(kernel), ((1, 1), (1, 1)))
    assert abs(y - exact).max() < 3e-6 * abs(exact).max()
