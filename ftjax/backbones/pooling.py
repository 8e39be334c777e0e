"""Means over windows and bins, in one form for all backends."""

import jax
import jax.numpy as jnp
import numpy as np


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
