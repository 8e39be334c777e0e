"""Pooling: means and maxima over windows, bins or whole images."""

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.backbones.layers import Padding
from ftjax.backbones.lowering import resolve_lowering
from ftjax.kernels.depthwise import explicit_pads
from ftjax.kernels.max_pooling import max_pool_reference, max_pool_shifted


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean of x (n, h, w, c) over height and width: (n, c)."""
    return jnp.mean(x, axis=(1, 2))


def average_pool(x: jax.Array, window: int) -> jax.Array:
    """Means over windows of x (n, h, w, c) that do not overlap; what is left is cut."""
    n, height, width, c = x.shape
    rows, columns = height // window, width // window
    x = x[:, : rows * window, : columns * window]
    return x.reshape(n, rows, window, columns, window, c).mean((2, 4))


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """Means of x (n, h, w, c) over side x side bins: (n, side, side, c).

    Of n pixels, bin i has those from floor(i n / side) to ceil((i + 1) n / side), as in
    PyTorch's AdaptiveAvgPool2d: they overlap where side does not divide n.
    """
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (bin_shares(pixels, side) for pixels in x.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, columns).astype(x.dtype)


def bin_shares(pixels: int, side: int) -> np.ndarray:
    """(side, pixels) float32: the share of each pixel in the mean of each bin."""
    shares = np.zeros((side, pixels), np.float32)
    for i in range(side):
        first, last = i * pixels // side, -(-(i + 1) * pixels // side)
        shares[i, first:last] = 1 / (last - first)
    return shares


def max_pool(
    x: jax.Array,
    window: int,
    strides: int,
    padding: Padding = "VALID",
    *,
    lowering: str | None = None,
) -> jax.Array:
    """Maximum over windows of x (n, h, w, c); padding counts as minus infinity.

    The gradient goes to the first of equal maxima.
    """
    pads = explicit_pads(x.shape[1:3], (window, window), (strides, strides), padding)
    plain = resolve_lowering(lowering, x.dtype) == "lax"
    form = max_pool_reference if plain else max_pool_shifted
    return form(x, window, strides, pads)
