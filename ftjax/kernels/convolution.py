"""Convolution over all channels: XLA's own, and forms that are fast on the CPU.

XLA:CPU (jax 0.10) runs most convolutions at nine tenths of the rate of a matrix
product, with four exceptions, written here as matrix products: 1x1 kernels; maps of a
few pixels, up to a hundred times slower (2x2 pixels, 512 channels: 1 GF/s); the first
3x3 convolution, of RGB, with stride 2; and the gradient with respect to the kernel on
large maps, three to ten times slower. Where a 3x3 convolution is wide enough to pay for
it, Winograd's form needs fewer products.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.kernels.depthwise import (
    Pads,
    every_nth,
    explicit_pads,
    output_size,
    pad_with_zeros,
)
from ftjax.kernels.winograd import (
    winograd_conv,
    winograd_input_gradient,
    winograd_kernel_gradient,
)
from ftjax.kernels.xla_calls import standalone

FEW_PIXELS = 16  # of an output map; above, XLA's convolution is the faster one
FEW_VALUES = 32  # taps * channels: 3x3 kernels on RGB; 7x7 are better off with XLA's
PATCH_BYTES = 2**27  # of an array of patches, nine times its input
BAND_PIXELS = 1024  # of a loop whose operands should stay in the cache
WINOGRAD_TAPS = 2**12  # channels * features from which Winograd's form is the faster
TURNED_CHANNELS = 128  # of a narrow array from which turning it pays
TURNED_PIXELS = 3  # for each of its channels; with fewer the wide one is turned


def conv_reference(
    x: jax.Array,
    kernel: jax.Array,
    strides: int = 1,
    padding: str | Sequence[Sequence[int]] = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Convolve x (n, h, w, c) with kernel (kh, kw, c / groups, features)."""
    steps = (strides, strides)
    pads = explicit_pads(x.shape[1:3], kernel.shape[:2], steps, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        steps,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _conv(x: jax.Array, kernel: jax.Array, strides: int, pads: Pads) -> jax.Array:
    """The convolution; patches times kernel where the map is small, else Winograd's."""
    height, width, channels, features = kernel.shape
    rows, columns = output_size(x.shape[1:3], (height, width), (strides, strides), pads)
    if _suits_winograd(kernel, strides, rows * columns):
        return standalone(functools.partial(winograd_conv, pads=pads))(x, kernel)
    small = strides > 1 and _suits_patches(kernel, len(x) * rows * columns)
    if rows * columns > FEW_PIXELS and not small:
        return conv_reference(x, kernel, strides, pads)
    y = _patches(x, kernel, strides, pads, rows, columns) @ kernel.reshape(-1, features)
    return y.reshape(len(x), rows, columns, features)


def _patches(x, kernel, strides: int, pads: Pads, rows: int, columns: int) -> jax.Array:
    """What the kernel meets at each pixel: (n * rows * columns, taps * channels)."""
    height, width, channels, _ = kernel.shape
    padded = pad_with_zeros(x, pads)
    wide = [every_nth(padded, j, columns, strides, 2) for j in range(width)]
    wide = jnp.concatenate(wide, -1)
    patches = [every_nth(wide, i, rows, strides, 1) for i in range(height)]
    return jnp.concatenate(patches, -1).reshape(-1, height * width * channels)


def _suits_patches(kernel: jax.Array, pixels: int) -> bool:
    """Whether a kernel is as small as the first one, on images, and patches fit."""
    values = kernel.size // kernel.shape[-1]
    return values <= FEW_VALUES and 4 * values * pixels < PATCH_BYTES


def _suits_winograd(kernel: jax.Array, strides: int, pixels: int) -> bool:
    """Whether Winograd's form is the faster one; pixels: of the output map."""
    height, width, channels, features = kernel.shape
    return (
        (height, width, strides) == (3, 3, 1)
        and channels * features >= WINOGRAD_TAPS
        and pixels > FEW_PIXELS
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_by_products(
    x: jax.Array, kernel: jax.Array, strides: int, pads: Pads
) -> jax.Array:
    """`conv_reference` with its gradients written out for the CPU."""
    return _conv(x, kernel, strides, pads)


def _conv_forward(x, kernel, strides, pads):
    return _conv(x, kernel, strides, pads), (x, kernel)


def _conv_backward(strides, pads, residuals, grad):
    x, kernel = residuals
    return (
        _input_gradient(x, kernel, grad, strides, pads),
        _kernel_gradient(x, kernel, grad, strides, pads),
    )


conv_by_products.defvjp(_conv_forward, _conv_backward)


def grouped_conv_by_products(
    x: jax.Array, kernel: jax.Array, strides: int, pads: Pads, groups: int
) -> jax.Array:
    """A convolution for each group of channels, side by side.

    XLA:CPU's own grouped convolution and its gradients reach 2 to 12 GFLOP/s.
    """
    if groups == 1:
        return conv_by_products(x, kernel, strides, pads)
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate(
        [conv_by_products(*pair, strides, pads) for pair in pairs], -1
    )


def _input_gradient(x, kernel, grad, strides: int, pads: Pads) -> jax.Array:
    """The convolution of grad with the kernel turned round."""
    reach = [
        (size - 1 - low, size - 1 - high)
        for size, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    ]
    if strides == 1 and min(*reach[0], *reach[1]) >= 0:
        pixels = x.shape[1] * x.shape[2]
        if _suits_winograd(kernel, strides, pixels):
            form = functools.partial(winograd_input_gradient, pads=pads)
            return standalone(form)(grad, kernel)
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        return _conv(grad, turned, 1, (reach[0], reach[1]))
    plain = functools.partial(
        conv_reference, kernel=kernel, strides=strides, padding=pads
    )
    return jax.linear_transpose(plain, x)(grad)[0]


def _kernel_gradient(x, kernel, grad, strides: int, pads: Pads) -> jax.Array:
    """A sum over bands of rows, or over groups of images, that fit the cache."""
    height, width, channels, features = kernel.shape
    count, rows, columns, _ = grad.shape
    if _suits_patches(kernel, count * rows * columns):
        patches = _patches(x, kernel, strides, pads, rows, columns)
        return (patches.T @ grad.reshape(-1, features)).reshape(kernel.shape)
    if _suits_winograd(kernel, strides, rows * columns):
        form = functools.partial(winograd_kernel_gradient, pads=pads)
        return standalone(form)(x, grad)
    images = _largest_divisor(count, BAND_PIXELS // (rows * columns))
    band = rows if images > 1 else _largest_divisor(rows, BAND_PIXELS // columns)
    bands = rows // band
    padded = pad_with_zeros(x, pads)
    window = (
        images,
        (band - 1) * strides + height,
        (columns - 1) * strides + width,
        channels,
    )

    def add(total, index):
        image, row = index // bands * images, index % bands * band
        part = lax.dynamic_slice(padded, (image, row * strides, 0, 0), window)
        size = (images, band, columns, features)
        slope = lax.dynamic_slice(grad, (image, row, 0, 0), size)
        slope = slope.reshape(-1, features)
        wide = jnp.concatenate(
            [every_nth(part, j, columns, strides, 2) for j in range(width)], -1
        )
        products = [
            every_nth(wide, i, band, strides, 1).reshape(len(slope), -1).T @ slope
            for i in range(height)
        ]
        return total + jnp.stack(products), None

    start = jnp.zeros((height, width * channels, features), kernel.dtype)
    steps = count // images * bands
    return lax.scan(add, start, jnp.arange(steps))[0].reshape(kernel.shape)


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, and at least 1."""
    return max(i for i in range(1, max(1, min(number, limit)) + 1) if number % i == 0)


@jax.custom_vjp
def pixelwise_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Product of x (n, h, w, c) with kernel (1, 1, c, features)."""
    return _product(x, kernel).reshape(*x.shape[:-1], -1)


def pixel_rows(x: jax.Array) -> jax.Array:
    """A row for each pixel. XLA:CPU copies arrays of more axes before some products."""
    return x.reshape(-1, x.shape[-1])


# Both return rows: XLA would lay arrays of more axes out in an order of its own, and
# the loops that read them were up to eight times slower.
@standalone
def _product(x, kernel):
    return pixel_rows(x) @ pixel_rows(kernel)


@standalone
def _product_gradients(x, kernel, grad):
    rows, slope = pixel_rows(x), pixel_rows(grad)
    return slope @ pixel_rows(kernel).T, _product_over_pixels(rows, slope)


def _product_over_pixels(rows: jax.Array, slope: jax.Array) -> jax.Array:
    """rows.T @ slope, in the form that XLA:CPU multiplies fastest.

    Where the result is high it is made lying, and then turned: it takes up to twice as
    long for it as for the other way round (one core, 1152 pixels, 480 and 80 channels:
    137 and 240 GFLOP/s). Where the narrower array has many channels, turning it before
    the product pays (576 pixels, 256 and 1024 channels: 169 and 242 GFLOP/s). With few
    pixels turning the wider one takes less than turning the result, which XLA does
    value by value (144 pixels, 2048 and 512 channels: 1.26 ms instead of 3.8).
    """
    pixels, high = rows.shape
    wide = slope.shape[1]
    few_channels = min(high, wide) < TURNED_CHANNELS
    if high > wide and (few_channels or pixels > TURNED_PIXELS * wide):
        return _turned(standalone(_product_over_pixels)(slope, rows))
    if few_channels:
        return rows.T @ slope
    return standalone(jnp.matmul)(_turned(rows), slope)


_turned = standalone(jnp.transpose)


def _pixelwise_forward(x, kernel):
    return pixelwise_product(x, kernel), (x, kernel)


def _pixelwise_backward(residuals, grad):
    gradients = _product_gradients(*residuals, grad)
    return tuple(
        gradient.reshape(given.shape)
        for gradient, given in zip(gradients, residuals, strict=True)
    )


pixelwise_product.defvjp(_pixelwise_forward, _pixelwise_backward)
