"""Layers of the backbones: convolution, batch normalisation, pooling.

Every function has two lowerings: 'lax', the plain form that GPU and TPU want, and
'cpu', equal to it in value and gradient but written so that XLA:CPU runs it fast.
`preferred_lowering` picks one by backend, here and nowhere else.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ftjax.backbones.depthwise import (
    depthwise_conv_reference,
    depthwise_conv_shifted,
    explicit_pads,
)

Padding = str | Sequence[Sequence[int]]
relu6 = jax.nn.relu6
swish = jax.nn.swish


def preferred_lowering() -> str:
    """Return 'cpu' on the CPU backend, 'lax' on every other one."""
    return "cpu" if jax.default_backend() == "cpu" else "lax"


def _resolve(lowering: str | None) -> str:
    if lowering is None:
        return preferred_lowering()
    if lowering not in ("lax", "cpu"):
        raise ValueError(
            f"lowering={lowering!r} is unknown; use 'lax', 'cpu' or None (by backend)"
        )
    return lowering


def pointwise_conv(
    x: jax.Array, kernel: jax.Array, *, lowering: str | None = None
) -> jax.Array:
    """Convolve x (n, h, w, c) with a 1x1 kernel (1, 1, c, features), stride 1."""
    if _resolve(lowering) == "cpu":
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    return conv(x, kernel, (1, 1), "VALID")


def conv(x, kernel, strides, padding, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int = 1,
    padding: Padding = "SAME",
    *,
    lowering: str | None = None,
) -> jax.Array:
    pads = explicit_pads(x.shape[1:3], kernel.shape[:2], (strides, strides), padding)
    form = (
        depthwise_conv_shifted
        if _resolve(lowering) == "cpu"
        else depthwise_conv_reference
    )
    return form(x, kernel, (strides, strides), pads)


def global_average_pool(x: jax.Array, *, lowering: str | None = None) -> jax.Array:
    """Mean of x (n, h, w, c) over height and width: (n, c)."""
    return jnp.mean(x, axis=(1, 2))


def max_pool(
    x: jax.Array,
    window: int,
    strides: int,
    padding: Padding = "VALID",
) -> jax.Array:
    pads = explicit_pads(x.shape[1:3], (window, window), (strides, strides), padding)
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, window, window, 1),
        (1, strides, strides, 1),
        ((0, 0), *pads, (0, 0)),
    )


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.mean(
        jnp.square(x - mean.reshape((1,) * (x.ndim - 1) + (-1,))), axes
    )


class Conv(nn.Module):
    features: int
    kernel_size: int = 1
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    groups: int = 1
    kernel_init: Callable = nn.initializers.he_normal()
    lowering: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.kernel_size, self.kernel_size)
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*size, x.shape[-1] // self.groups, self.features),
        )
        strides = (self.strides, self.strides)
        pads = explicit_pads(x.shape[1:3], size, strides, self.padding)
        y = conv(x, kernel, strides, pads, self.groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.reshape(1, 1, 1, -1)
        return y


class DepthwiseConv(nn.Module):
    kernel_size: int = 3
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.he_normal()
    lowering: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (self.kernel_size, self.kernel_size, 1, channels),
        )
        y = depthwise_conv(
            x, kernel, self.strides, self.padding, lowering=self.lowering
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (channels,))
            y = y + bias.reshape(1, 1, 1, -1)
        return y


class BatchNorm(nn.Module):
    epsilon: float = 1e-3
    momentum: float = 0.99
    lowering: str | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        use_batch_stats: bool,
        momentum: float | jax.Array | None = None,
    ) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable(
            "batch_stats", "mean", lambda: jnp.zeros((channels,), jnp.float32)
        )
        running_var = self.variable(
            "batch_stats", "var", lambda: jnp.ones((channels,), jnp.float32)
        )
        if use_batch_stats:
            mean, var = batch_moments(x)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                keep = self.momentum if momentum is None else momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (channels,)
        return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)
