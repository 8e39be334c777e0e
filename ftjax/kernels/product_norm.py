"""A 1x1 convolution that widens, and the BatchNorm behind it, in fewer passes.

What is behind such a convolution is several times as large as what is before it, and
normalization reads it again and again. But it is a product, so much of what the
gradient needs of it can be had from the narrow side: its mean is the product of the
input's mean, and the sums of normalization's gradient are products of arrays that the
convolution's own gradient needs. With z = x @ kernel, of mean mu, and g the gradient
behind normalization, Ioffe and Szegedy's gradient of z is

    dz = factor * g - slope * (z - mu) + offset,

which is never written: with the centered input c = x - mean(x), so that c @ kernel is
z - mu, the gradients are

    d kernel = c.T @ dz = (c.T @ g) * factor - (c.T @ c) @ kernel * slope,
    d x = dz @ kernel.T = g @ (kernel * factor).T - c @ (kernel * slope @ kernel.T)
          + offset @ kernel.T.

For the CPU; elsewhere XLA fuses these loops. The variance is still added up over z:
had from c.T @ c it would lose twice as many digits where it is small.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.kernels.convolution import pixel_rows, pixelwise_product
from ftjax.kernels.normalization import (
    Activation,
    batch_moments,
    input_gradient_terms,
    normalized,
)
from ftjax.kernels.xla_calls import standalone

MANY_PIXELS = 32  # for each input channel; with fewer, c.T @ c costs more than it saves


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def product_norm(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    activation: Activation,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`normalize_batch` of the product of x (n, h, w, c) with kernel (1, 1, c, f).

    Returns:
      (n, h, w, f) normalized by its own moments and activated; mean and biased variance
      of the product, (f,).
    """
    (y, mean, var), _ = _forward(x, kernel, scale, bias, epsilon, activation)
    return y, mean, var


def _forward(x, kernel, scale, bias, epsilon, activation):
    product = pixelwise_product(x, kernel)
    center = jnp.mean(x, (0, 1, 2))
    mean = center @ pixel_rows(kernel)
    mean, var = batch_moments(product, "cpu", mean)
    inverse = lax.rsqrt(var + epsilon)
    y = activation(normalized(product, mean, scale * inverse, bias))
    kept = x, kernel, scale, bias, product, center, mean, inverse
    return (y, mean, var), kept


def _backward(epsilon, activation, kept, grads):
    x, kernel, scale, bias, product, center, mean, inverse = kept
    grad, grad_mean, grad_var = grads
    factor, matrix = scale * inverse, pixel_rows(kernel)
    _, pull = jax.vjp(activation, normalized(product, mean, factor, bias))
    (grad,) = pull(grad)

    def gradients(x, grad):
        grad = pixel_rows(grad)
        centered = pixel_rows(x) - center[None]
        with_ones = jnp.pad(centered, ((0, 0), (0, 1)), constant_values=1)
        sums, grad_bias = jnp.split(with_ones.T @ grad, [x.shape[-1]])
        grad_bias = grad_bias[0]
        grad_scale = inverse * (matrix * sums).sum(0)
        slope, offset = input_gradient_terms(
            factor, inverse, grad_scale, grad_bias, grad_mean, grad_var, len(grad)
        )
        scaled, sloped = matrix * factor[None], matrix * slope[None]
        grad_matrix = sums * factor[None] - (centered.T @ centered) @ sloped
        grad_matrix += jnp.outer(center, grad_mean)  # what dz adds up to
        grad_x = grad @ scaled.T - centered @ (sloped @ matrix.T)
        return grad_x + (matrix @ offset)[None], grad_matrix, grad_scale, grad_bias

    grad_x, grad_matrix, grad_scale, grad_bias = standalone(gradients)(x, grad)
    return (
        grad_x.reshape(x.shape),
        grad_matrix.reshape(kernel.shape),
        grad_scale,
        grad_bias,
    )


product_norm.defvjp(_forward, _backward)
