"""Arithmetic of batch normalization, with gradients that keep one array.

Moments and scaling are float32 at least, also of bfloat16. What adds up products over
pixels has two lowerings, 'lax' and 'cpu' (`lowering.preferred_lowering`).
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.kernels.xla_calls import in_new_array, standalone

Activation = Callable[[jax.Array], jax.Array]


def at_least_float32(x: jax.Array) -> jnp.dtype:
    """float32 for what is computed in bfloat16; float64 stays what it is."""
    return jnp.promote_types(x.dtype, jnp.float32)


def per_channel(values: jax.Array, rank: int) -> jax.Array:
    """Reshapes values (c,) to (1, ..., 1, c) of `rank` axes."""
    return values.reshape((1,) * (rank - 1) + (-1,))


# Terms of one of the CPU's loops in `channel_sums`.
MAX_TERMS = 48


def channel_sums(
    function: Callable[..., jax.Array], *arrays: jax.Array, lowering: str
) -> jax.Array:
    """Sum function(*arrays) over all axes but the last, in the type of its result.

    XLA:CPU writes what it is to add up to memory first and then reads it again. Adding
    the pixels of a row in one loop leaves little to be written: the gradient of
    normalization and swish takes two thirds of the time.

    Args:
      function: pixel by pixel and channel by channel.
      arrays: (..., c), all of one shape.
      lowering: 'lax' or 'cpu'.

    Returns:
      (c,).
    """
    *axes, width, _ = range(arrays[0].ndim)
    pixels = arrays[0].shape[width]
    terms = max(n for n in range(1, MAX_TERMS + 1) if pixels % n == 0)
    if lowering == "lax" or not axes or terms == 1:
        return jnp.sum(function(*arrays), (*axes, width))

    def add_pixels(*arrays):
        parts = (jnp.split(x, terms, width) for x in arrays)
        return functools.reduce(
            operator.add, (function(*part) for part in zip(*parts, strict=True))
        )

    return jnp.sum(standalone(add_pixels)(*arrays), (*axes, width))


def batch_moments(
    x: jax.Array, lowering: str = "lax", mean: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of x (..., c) over all axes but the last.

    Two passes: the mean of squares less the square of the mean loses all digits where
    the mean is large against the deviation. Keras' JAX backend does the same. Where
    the mean is known, the first is left out.
    """
    x = x.astype(at_least_float32(x))
    if mean is None:
        mean = jnp.mean(x, tuple(range(x.ndim - 1)))
    square = channel_sums(
        lambda x: jnp.square(x - per_channel(mean, x.ndim)), x, lowering=lowering
    )
    return mean, square / (x.size // x.shape[-1])


def identity(x: jax.Array) -> jax.Array:
    """No activation."""
    return x


def normalize_reference(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    activation: Activation = identity,
    lowering: str = "lax",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalize x (..., c) by its own moments, then activate.

    Returns:
      The result, mean and biased variance.
    """
    mean, var = batch_moments(x, lowering)
    y = normalized(x, mean, scale * lax.rsqrt(var + epsilon), bias)
    return activation(y), mean, var


def normalized(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> jax.Array:
    """(x - mean) * factor + bias in the type of x (..., c); all others are (c,)."""
    centered = x - per_channel(mean, x.ndim)
    y = centered * per_channel(factor, x.ndim) + per_channel(bias, x.ndim)
    return y.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize_batch(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    activation: Activation = identity,
    lowering: str = "lax",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`normalize_reference` with its gradient written out (Ioffe & Szegedy 2015).

    It keeps x alone between the passes, where the derived gradient also keeps x - mean
    and what the activation needs: of swish two more arrays.
    """
    return normalize_reference(x, scale, bias, epsilon, activation, lowering)


def _normalize_forward(x, scale, bias, epsilon, activation, lowering):
    y, mean, var = normalize_reference(x, scale, bias, epsilon, activation, lowering)
    return (y, mean, var), (x, mean, lax.rsqrt(var + epsilon), scale, bias)


def _normalize_backward(epsilon, activation, lowering, residuals, grads):
    x, mean, inverse, scale, bias = residuals
    grad, grad_mean, grad_var = grads
    size = x.size // x.shape[-1]
    axes = tuple(range(x.ndim - 1))
    channels = functools.partial(per_channel, rank=x.ndim)
    factor = scale * inverse
    _, pull = jax.vjp(activation, normalized(x, mean, factor, bias))
    (grad,) = pull(grad)
    grad_bias = jnp.sum(grad.astype(at_least_float32(grad)), axes)
    grad_scale = inverse * channel_sums(
        lambda grad, x: grad * (x - channels(mean)), grad, x, lowering=lowering
    )
    slope, offset = input_gradient_terms(
        factor, inverse, grad_scale, grad_bias, grad_mean, grad_var, size
    )

    def gradient(grad, x, mean, factor, slope, offset):
        # The small terms first, which rounds least.
        small = channels(offset) - (x - channels(mean)) * channels(slope)
        return (grad * channels(factor) + small).astype(x.dtype)

    if lowering == "cpu":
        gradient = in_new_array(gradient)
    grad_x = gradient(grad, x, mean, factor, slope, offset)
    return grad_x, grad_scale, grad_bias


def input_gradient_terms(
    factor, inverse, grad_scale, grad_bias, grad_mean, grad_var, size: int
) -> tuple[jax.Array, jax.Array]:
    """Slope and offset of grad * factor - (x - mean) * slope + offset, x's gradient.

    Args:
      factor: scale over deviation, (c,) as are all but the last.
      inverse: of the deviation.
      grad_scale: gradient of the scale.
      grad_bias: of the bias.
      grad_mean: of the mean that is returned.
      grad_var: of the variance that is returned.
      size: values of one channel.
    """
    slope = (factor * inverse * grad_scale - 2 * grad_var) / size
    return slope, (grad_mean - factor * grad_bias) / size


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def scale_and_shift(
    x: jax.Array,
    factor: jax.Array,
    shift: jax.Array,
    activation: Activation,
    lowering: str = "lax",
) -> jax.Array:
    """Activation of x (..., c) times factor (c,) plus shift (c,); keeps x alone."""
    return activation(affine(x, factor, shift))


def affine(x: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    """Product of x (..., c) and factor (c,), plus shift (c,), in the type of x."""
    y = x * per_channel(factor, x.ndim) + per_channel(shift, x.ndim)
    return y.astype(x.dtype)


def _scale_forward(x, factor, shift, activation, lowering):
    y = scale_and_shift(x, factor, shift, activation, lowering)
    return y, (x, factor, shift)


def _scale_backward(activation, lowering, residuals, grad):
    x, factor, shift = residuals
    _, pull = jax.vjp(activation, affine(x, factor, shift))
    (grad,) = pull(grad)
    grad_x = (grad * per_channel(factor, x.ndim)).astype(x.dtype)
    axes = tuple(range(x.ndim - 1))
    grad = grad.astype(at_least_float32(grad))
    grad_factor = channel_sums(operator.mul, grad, x, lowering=lowering)
    return grad_x, grad_factor, jnp.sum(grad, axes)


scale_and_shift.defvjp(_scale_forward, _scale_backward)
