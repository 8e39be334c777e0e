"""Arithmetic of batch normalization, with gradients that keep one array.

Moments and scaling are float32 whatever the type of the input.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Activation = Callable[[jax.Array], jax.Array]


def per_channel(values: jax.Array, rank: int) -> jax.Array:
    """values (c,) as (1, ..., 1, c) of `rank` axes."""
    return values.reshape((1,) * (rank - 1) + (-1,))


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of x (..., c) over all axes but the last, float32.

    Two passes: the mean of squares less the square of the mean loses all digits where
    the mean is large against the deviation. Keras' JAX backend does the same.
    """
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.mean(jnp.square(x - per_channel(mean, x.ndim)), axes)


def identity(x: jax.Array) -> jax.Array:
    """No activation."""
    return x


def normalize_reference(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    activation: Activation = identity,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalize x (..., c) by its own moments, then activate.

    Returns:
      The result, mean and biased variance.
    """
    mean, var = batch_moments(x)
    y = _normalized(x, mean, scale * lax.rsqrt(var + epsilon), bias)
    return activation(y), mean, var


def _normalized(x, mean, factor, bias):
    centered = x - per_channel(mean, x.ndim)
    y = centered * per_channel(factor, x.ndim) + per_channel(bias, x.ndim)
    return y.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    activation: Activation = identity,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`normalize_reference` with its gradient written out (Ioffe & Szegedy 2015).

    It keeps x alone between the passes, where the derived gradient also keeps x - mean
    and what the activation needs: of swish two more arrays.
    """
    return normalize_reference(x, scale, bias, epsilon, activation)


def _normalize_forward(x, scale, bias, epsilon, activation):
    y, mean, var = normalize_reference(x, scale, bias, epsilon, activation)
    return (y, mean, var), (x, mean, lax.rsqrt(var + epsilon), scale, bias)


def _normalize_backward(epsilon, activation, residuals, grads):
    x, mean, inverse, scale, bias = residuals
    grad, grad_mean, grad_var = grads
    size = x.size // x.shape[-1]
    axes = tuple(range(x.ndim - 1))
    channels = functools.partial(per_channel, rank=x.ndim)
    factor = scale * inverse
    _, pull = jax.vjp(activation, _normalized(x, mean, factor, bias))
    (grad,) = pull(grad)
    centered = x - channels(mean)
    grad_bias = jnp.sum(grad.astype(jnp.float32), axes)
    grad_scale = jnp.sum(grad * centered, axes) * inverse
    slope = (factor * inverse * grad_scale - 2 * grad_var) / size
    offset = (grad_mean - factor * grad_bias) / size
    grad_x = grad * channels(factor) - centered * channels(slope) + channels(offset)
    return grad_x.astype(x.dtype), grad_scale, grad_bias


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def scale_and_shift(
    x: jax.Array, factor: jax.Array, shift: jax.Array, activation: Activation
) -> jax.Array:
    """Activation of x (..., c) times factor (c,) plus shift (c,); keeps x alone."""
    return activation(affine(x, factor, shift))


def affine(x: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    """x (..., c) times factor (c,) plus shift (c,), in the type of x."""
    y = x * per_channel(factor, x.ndim) + per_channel(shift, x.ndim)
    return y.astype(x.dtype)


def _scale_forward(x, factor, shift, activation):
    return scale_and_shift(x, factor, shift, activation), (x, factor, shift)


def _scale_backward(activation, residuals, grad):
    x, factor, shift = residuals
    _, pull = jax.vjp(activation, affine(x, factor, shift))
    (grad,) = pull(grad)
    grad_x = (grad * per_channel(factor, x.ndim)).astype(x.dtype)
    axes = tuple(range(x.ndim - 1))
    grad = grad.astype(jnp.float32)
    return grad_x, jnp.sum(grad * x, axes), jnp.sum(grad, axes)


scale_and_shift.defvjp(_scale_forward, _scale_backward)
