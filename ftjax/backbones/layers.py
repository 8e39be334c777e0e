"""Layers of the backbones: convolution, batch normalization, activations, dropout.

Each has two forms (`lowering`). Parameters and statistics are float32. A layer computes
in the type of its input, and BatchNorm's moments and scaling are float32 at least.
"""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ftjax.backbones.lowering import resolve_lowering
from ftjax.kernels.convolution import (
    conv_reference,
    grouped_conv_by_products,
    pixelwise_product,
)
from ftjax.kernels.depthwise import (
    depthwise_conv_reference,
    depthwise_conv_shifted,
    explicit_pads,
)
from ftjax.kernels.depthwise_pairs import depthwise_conv_by_pairs, suits_pairs
from ftjax.kernels.normalization import (
    Activation,
    affine,
    identity,
    normalize_batch,
    normalize_reference,
    per_channel,
    scale_and_shift,
)
from ftjax.kernels.product_norm import MANY_PIXELS, product_norm
from ftjax.kernels.xla_calls import in_new_array

LAYER_EPSILON = 1e-6  # of the layer normalization of ConvNeXt and vision transformers
Padding = str | Sequence[Sequence[int]]  # 'SAME', 'VALID', ((top, bottom), (left, ...))
relu6 = jax.nn.relu6
swish = jax.nn.swish


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), keeping its result alone: `jax.nn.relu` keeps a mask and zeros."""
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, grad):
    return (jnp.where(y > 0, grad, 0),)


relu.defvjp(_relu_forward, _relu_backward)


# Values are read from a file or drawn (`backbone.draw_variables`). Linen traces what
# fills a kernel whenever it traces a layer, and random numbers take it longest.
empty = nn.initializers.zeros


def pointwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int = 1,
    *,
    lowering: str | None = None,
) -> jax.Array:
    """Convolve x (n, h, w, c) with a 1x1 kernel (1, 1, c, features), no padding.

    On the CPU it is a matrix product: up to twice as fast as the convolution.

    Raises:
      ValueError: the kernel is not 1x1.
    """
    if kernel.shape[:2] != (1, 1):
        raise ValueError(
            f"the kernel is {kernel.shape[0]}x{kernel.shape[1]}; a pointwise "
            "convolution needs 1x1: use Conv or conv_reference"
        )
    if resolve_lowering(lowering, x.dtype) == "lax":
        return conv_reference(x, kernel, strides, "VALID")
    if strides > 1:
        x = x[:, ::strides, ::strides]
    return pixelwise_product(x, kernel)


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int = 1,
    padding: Padding = "SAME",
    *,
    lowering: str | None = None,
) -> jax.Array:
    """Convolve every channel of x (n, h, w, c) with its own kernel (kh, kw, 1, c)."""
    steps = (strides, strides)
    pads = explicit_pads(x.shape[1:3], kernel.shape[:2], steps, padding)
    if resolve_lowering(lowering, x.dtype) == "lax":
        return depthwise_conv_reference(x, kernel, steps, pads)
    if suits_pairs(x.shape[1:3], kernel.shape[:2]):
        return depthwise_conv_by_pairs(x, kernel, steps, pads)
    return depthwise_conv_shifted(x, kernel, steps, pads)


def drop_out(x: jax.Array, rate: float, numbers: jax.Array | None) -> jax.Array:
    """Dropout (Srivastava et al. 2014): 0, or 1 / (1 - rate) times the input.

    An image's mask is drawn from its number alone, so it is the same in whatever part
    of a batch, and on whatever device, the image is.

    Args:
      x: (batch, ...).
      rate: share of the inputs that is dropped.
      numbers: (batch,) float32, one per image; None outside of training.
    """
    if not rate or numbers is None:
        return x

    def keep(number):
        key = jax.random.key(lax.bitcast_convert_type(number, jnp.uint32))
        return jax.random.bernoulli(key, 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(keep)(numbers), x / (1 - rate), 0.0)


def scale_images(
    x: jax.Array, gates: jax.Array, *, lowering: str | None = None
) -> jax.Array:
    """X (n, h, w, c) times gates (n, 1, 1, c).

    On the CPU the product is not written over x (`in_new_array`). Its gradient is
    written out, so that XLA fuses it with the loops that read it.
    """
    if resolve_lowering(lowering, x.dtype) == "lax":
        return x * gates
    return _scaled_images(x, gates)


@jax.custom_vjp
def _scaled_images(x, gates):
    return in_new_array(operator.mul)(x, gates)


def _scaled_forward(x, gates):
    return _scaled_images(x, gates), (x, gates)


def _scaled_backward(kept, grad):
    x, gates = kept
    return grad * gates, jnp.sum(grad * x, (1, 2), keepdims=True)


_scaled_images.defvjp(_scaled_forward, _scaled_backward)


class Conv(nn.Module):
    """Convolution with Keras' padding; params kernel (HWIO) and bias.

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      strides: vertical and horizontal stride.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      use_bias: whether to add one value a channel.
      groups: blocks of channels that do not see each other (AlexNet has 2).
      lowering: 'lax', 'cpu' or None, by backend.
    """

    features: int
    kernel_size: int = 1
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    groups: int = 1
    lowering: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.weights(x.shape[-1])
        kernel = kernel.astype(x.dtype)
        size, steps = kernel.shape[:2], (self.strides, self.strides)
        pads = explicit_pads(x.shape[1:3], size, steps, self.padding)
        if size == (1, 1) and self.groups == 1 and pads == ((0, 0), (0, 0)):
            y = pointwise_conv(x, kernel, self.strides, lowering=self.lowering)
        elif resolve_lowering(self.lowering, x.dtype) == "cpu":
            y = grouped_conv_by_products(x, kernel, self.strides, pads, self.groups)
        else:
            y = conv_reference(x, kernel, self.strides, pads, self.groups)
        if bias is not None:
            y = y + per_channel(bias.astype(y.dtype), y.ndim)
        return y

    def widens(self, x: jax.Array) -> bool:
        """Whether all it does is multiply each of many pixels, to more channels."""
        shape = self.kernel_size, self.strides, self.groups
        pixelwise = shape == (1, 1, 1) and not self.use_bias
        channels = x.shape[-1]
        many = x.size // channels >= MANY_PIXELS * channels
        return pixelwise and self.features > channels and many

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Kernel and bias for an input of so many channels; no bias is None."""
        shape = (self.kernel_size,) * 2 + (channels // self.groups, self.features)
        kernel = self.param("kernel", empty, shape)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", empty, (self.features,))


class DepthwiseConv(nn.Module):
    """Depthwise convolution; params kernel (kh, kw, 1, c) and, if asked, bias.

    Attributes:
      kernel_size: height and width of the kernel.
      strides: vertical and horizontal stride.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      use_bias: whether to add one value a channel.
      lowering: 'lax', 'cpu' or None, by backend.
    """

    kernel_size: int = 3
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = False
    lowering: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, 1, channels)
        kernel = self.param("kernel", empty, shape).astype(x.dtype)
        y = depthwise_conv(
            x, kernel, self.strides, self.padding, lowering=self.lowering
        )
        if self.use_bias:
            bias = self.param("bias", empty, (channels,))
            y = y + per_channel(bias.astype(y.dtype), y.ndim)
        return y


def layer_norm(x: jax.Array, name: str) -> jax.Array:
    """Layer normalization of x (..., c) inside a module; params scale and bias (c,).

    Ba et al. 2016. Moments are float32; their two passes keep the digits that one would
    lose.
    """
    norm = nn.LayerNorm(
        LAYER_EPSILON, dtype=x.dtype, use_fast_variance=False, name=name
    )
    return norm(x)


class BatchNorm(nn.Module):
    """Batch normalization with Keras' meaning of momentum.

    Params scale and bias; collection `batch_stats` holds mean and var, float32. As in
    keras/layers/normalization/batch_normalization.py (3.15), new = momentum * old +
    (1 - momentum) * batch, with the *biased* batch variance (PyTorch and tf.keras 2
    fused take the unbiased one).

    Attributes:
      epsilon: added to the variance.
      momentum: weight of the old statistics.
      activation: of the result; one program with it keeps fewer arrays.
      lowering: 'lax' for the derived gradient, 'cpu' for the written one and the CPU's
        way to add up, None for the written one and the backend's way.
    """

    epsilon: float = 1e-3
    momentum: float = 0.99
    activation: Activation = identity
    lowering: str | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        use_batch_stats: bool,
        momentum: float | jax.Array | None = None,
        conv: Conv | None = None,
    ) -> jax.Array:
        """Normalize x (..., c), or the convolution of x if there is one.

        Args:
          x: input, channels last.
          use_batch_stats: normalize by the moments of x and, where `batch_stats` is
            mutable, update the running ones; else use the running ones, unchanged.
          momentum: instead of the attribute; may be traced. At 0 the new running
            statistics are exactly the batch's.
          conv: a 1x1 convolution that runs before; with what is behind it in one form
            where that takes fewer passes over memory (`product_norm`).
        """
        lowering = resolve_lowering(self.lowering, x.dtype)
        joined = conv is not None and use_batch_stats and lowering == "cpu"
        joined = joined and conv.widens(x)
        if conv is not None and not joined:
            x = conv(x)
        channels = (conv.features if joined else x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if use_batch_stats:
            numbers = scale, bias, self.epsilon, self.activation
            # On every backend: what the derived gradient keeps is float32 in any case.
            plain = self.lowering and lowering == "lax"
            form = normalize_reference if plain else normalize_batch
            if joined:
                kernel, _ = conv.weights(x.shape[-1])
                y, mean, var = product_norm(x, kernel, *numbers)
            else:
                y, mean, var = form(x, *numbers, lowering)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                keep = self.momentum if momentum is None else momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var
            return y
        factor = scale * lax.rsqrt(running_var.value + self.epsilon)
        shift = bias - running_mean.value * factor
        if self.activation is identity:  # keeps x only if scale is differentiated
            return affine(x, factor, shift)
        return scale_and_shift(x, factor, shift, self.activation, lowering)
