"""Local response normalization (Krizhevsky et al. 2012, section 3.3).

y = x / (k + alpha / size * s) ** beta, where s is the sum of squares over `size`
neighbouring channels, as Caffe, MATLAB, ONNX and PyTorch write it; the paper has alpha
without the division.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class LocalResponse(NamedTuple):
    """The numbers of a normalization.

    Attributes:
        size: channels in a sum, an odd number.
        alpha: over `size`, the weight of the sum.
        beta: the exponent.
        k: what is added.
    """

    size: int
    alpha: float
    beta: float
    k: float


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def local_response_norm(x: jax.Array, numbers: LocalResponse) -> jax.Array:
    """Divides each value of x (..., c) by a power of its neighbours' squares.

    It computes in float32 at least; the gradient, which is written out, keeps x alone.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * _power(_base(wide, numbers), numbers.beta)).astype(x.dtype)


def _forward(x, numbers):
    return local_response_norm(x, numbers), x


def _backward(numbers, x, grad):
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    wide, slope = x.astype(dtype), grad.astype(dtype)
    base = _base(wide, numbers)
    scaled = slope * _power(base, numbers.beta)
    factor = 2 * numbers.alpha * numbers.beta / numbers.size
    around = _window_sum(scaled * wide / base, numbers.size)
    return ((scaled - factor * wide * around).astype(x.dtype),)


local_response_norm.defvjp(_forward, _backward)


def _base(x: jax.Array, numbers: LocalResponse) -> jax.Array:
    """What is raised to a power: k + alpha / size * s."""
    return numbers.k + numbers.alpha / numbers.size * _window_sum(x * x, numbers.size)


def _power(base: jax.Array, beta: float) -> jax.Array:
    """The power -beta; by square roots where beta is the usual 3/4, which is faster."""
    if beta != 0.75:
        return base**-beta
    root = lax.rsqrt(base)
    return root * jnp.sqrt(root)


def _window_sum(x: jax.Array, size: int) -> jax.Array:
    """Sums over `size` neighbouring channels of x (..., c), fewer at the ends."""
    channels, reach = x.shape[-1], size // 2
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    parts = [padded[..., i : i + channels] for i in range(size)]
    return sum(parts[1:], parts[0])
