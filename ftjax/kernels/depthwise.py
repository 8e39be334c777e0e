"""Depthwise convolution: XLA's own, and a form that is fast on the CPU.

XLA:CPU (jax 0.10) runs a convolution with one channel a group at about 1 GF/s, and its
gradients slower still. A sum of kernel height * kernel width shifted products is
vectorized over the channels, 15 to 60 times faster. Its gradients are written out: with
respect to the input the same sum with the kernel turned round, or one for each phase of
the stride, so that no zeros are multiplied; with respect to the kernel sums over some
pixels and a dot (see `_kernel_gradient`). Maps of a few pixels have a form of their
own, `depthwise_pairs`.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.kernels.channel_blocks import in_channel_blocks
from ftjax.kernels.xla_calls import standalone
from ftjax.machine.threads import one_thread, pool_size

Pads = tuple[tuple[int, int], tuple[int, int]]


def explicit_pads(
    shape: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[Sequence[int]],
) -> Pads:
    """Return the padding of height and width as ((top, bottom), (left, right)).

    Args:
      shape: height and width of the input.
      window: height and width of the kernel.
      strides: vertical and horizontal stride.
      padding: 'SAME' (TensorFlow's: the odd row goes to the bottom), 'VALID', or
        the pairs themselves.

    Raises:
      ValueError: unknown padding.
    """
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"padding={padding!r} is unknown; use 'SAME', 'VALID' or "
                "((top, bottom), (left, right))"
            )
        pads = lax.padtype_to_pads(shape, window, strides, padding)
    else:
        pads = padding
    pairs = tuple((int(low), int(high)) for low, high in pads)
    if len(pairs) != 2:
        raise ValueError(
            f"padding={padding!r} has {len(pairs)} pairs; give one for the height and "
            "one for the width"
        )
    return pairs


def depthwise_conv_reference(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """Depthwise convolution as one grouped `lax` convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def output_size(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], pads: Pads
) -> list[int]:
    """Height and width of a convolution's output."""
    return [
        (length + low + high - taps) // stride + 1
        for length, taps, stride, (low, high) in zip(
            size, window, strides, pads, strict=True
        )
    ]


def pad_with_zeros(x: jax.Array, pads: Pads) -> jax.Array:
    """Zeros around height and width of x (n, h, w, c)."""
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))


def every_nth(x: jax.Array, start: int, count: int, step: int, axis: int) -> jax.Array:
    """`count` entries along an axis from `start` on, `step` apart."""
    stop = start + (count - 1) * step + 1
    return lax.slice_in_dim(x, start, stop, step, axis)


def _window(x, start, count, strides, factor=1):
    """Every `strides`-th pixel of x from row and column `start` on, times factor.

    Pixels outside x are zero: the part inside is cut out, multiplied and padded, which
    XLA fuses into the loop that reads it, so that no padded copy of x is made. (Padded
    first and multiplied then, the loop takes 7.0 ms instead of 1.4 on 32x24x24x96.)
    """
    inside, pads = [], []
    for first, number, stride, size in zip(
        start, count, strides, x.shape[1:3], strict=True
    ):
        low = min(number, max(0, -(first // stride)))
        high = max(low, min(number, (size - 1 - first) // stride + 1))
        inside.append((first + low * stride, high - low, stride))
        pads.append((low, number - high))
    if any(number == 0 for _, number, _ in inside):
        return jnp.zeros((len(x), *count, x.shape[3]), x.dtype)
    (top, rows, down), (left, columns, across) = inside
    cut = lax.slice(
        x,
        (0, top, left, 0),
        (
            len(x),
            top + (rows - 1) * down + 1,
            left + (columns - 1) * across + 1,
            x.shape[3],
        ),
        (1, down, across, 1),
    )
    return pad_with_zeros(cut * factor, pads)


# Loops of more terms than this are fast only on a padded copy: with 25 terms and the
# padding fused XLA:CPU took 12 ms where the copy and the sum took 3.6 ms.
FUSED_TERMS = 9


def add_terms(terms: Iterable[jax.Array]) -> jax.Array:
    """Their sum."""
    return functools.reduce(operator.add, terms)


def frame_with_zeros(x: jax.Array, pads: Pads) -> jax.Array:
    """`pad_with_zeros` as an array of its own.

    XLA:CPU writes a lone pad pixel by pixel, and joins arrays in blocks: 32x48x48x96
    in 5.6 ms instead of 11.
    """

    def join(x):
        for axis, widths in zip((2, 1), pads[::-1], strict=True):
            low, high = (
                jnp.zeros((*x.shape[:axis], width, *x.shape[axis + 1 :]), x.dtype)
                for width in widths
            )
            x = jnp.concatenate((low, x, high), axis)
        return x

    return standalone(join)(x)


def _tap(kernel, i, j):
    return kernel[i, j].reshape(1, 1, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv_shifted(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """Depthwise convolution as a sum of shifted products, with its own gradients.

    Args:
      x: (n, height, width, channels).
      kernel: (kernel height, kernel width, 1, channels).
      strides: vertical and horizontal stride.
      pads: ((top, bottom), (left, right)), none negative.

    Returns:
      (n, output height, output width, channels).
    """
    taps = kernel.shape[:2]
    out = output_size(x.shape[1:3], taps, strides, pads)

    def convolve(x, kernel):
        return _convolve(x, kernel, strides, pads, out)

    form = in_channel_blocks if _suits_blocks(taps) else standalone
    return form(convolve)(x, kernel)


def _convolve(x, kernel, strides, pads, out):
    """Sum of the shifted products; `pads` may be negative, and cut pixels off."""
    taps = kernel.shape[:2]
    top, left = pads[0][0], pads[1][0]
    if math.prod(taps) > FUSED_TERMS:
        frame = [(max(0, low), max(0, high)) for low, high in pads]
        x, top, left = frame_with_zeros(x, frame), min(0, top), min(0, left)
    return add_terms(
        _window(x, (i - top, j - left), out, strides, _tap(kernel, i, j))
        for i, j in itertools.product(*map(range, taps))
    )


def _suits_blocks(taps: Sequence[int]) -> bool:
    """Whether blocks of channels, one after the other, beat loops that are split.

    Measured with one thread and with two; more would share the work better.
    """
    return math.prod(taps) > FUSED_TERMS and pool_size() <= 2


def _forward(x, kernel, strides, pads):
    return depthwise_conv_shifted(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, residuals, grad):
    x, kernel = residuals
    taps = kernel.shape[:2]

    def of_input(grad, kernel):
        size = x.shape[1:3]
        if strides != (1, 1):
            return _spread_gradient(grad, kernel, strides, pads, size)
        reach = [
            (length - 1 - low, length - 1 - high)
            for length, (low, high) in zip(taps, pads, strict=True)
        ]
        return _convolve(grad, kernel[::-1, ::-1], strides, reach, size)

    def of_kernel(grad, x):
        return _kernel_gradient(grad, x, taps, strides, pads)

    if _suits_blocks(taps) and strides == (1, 1):  # else the loops are many and short
        of_input = in_channel_blocks(of_input)
    small_map = _is_small(grad) and pool_size() <= 2
    if small_map or (_suits_blocks(taps) and one_thread()):
        of_kernel = in_channel_blocks(of_kernel)

    def gradients(grad, x, kernel):
        return of_input(grad, kernel), of_kernel(grad, x)

    return standalone(gradients)(grad, x, kernel)


depthwise_conv_shifted.defvjp(_forward, _backward)


def _phases(taps, stride, low):
    """For each input position modulo stride, the (tap, output offset) that reach it.

    Input row stride * q + phase lies in row stride * q + phase + low of the padded
    input, which tap i of output row q + offset reads if
    phase + low - i = stride * offset.
    """
    return [
        [
            (i, (phase + low - i) // stride)
            for i in range(taps)
            if (phase + low - i) % stride == 0
        ]
        for phase in range(stride)
    ]


def _spread_gradient(grad, kernel, strides, pads, size):
    """Gradient of the input where the stride leaves pixels out, by phases of it."""
    counts = [-(-size[axis] // strides[axis]) for axis in (0, 1)]
    plans = [_phases(kernel.shape[a], strides[a], pads[a][0]) for a in (0, 1)]
    top, left = 0, 0
    if math.prod(kernel.shape[:2]) > FUSED_TERMS:
        margins = []  # zeros around grad, so that every offset stays inside
        for axis, plan in enumerate(plans):
            offsets = [offset for phase in plan for _, offset in phase]
            high = max(offsets) + counts[axis] - grad.shape[axis + 1]
            margins.append((max(0, -min(offsets)), max(0, high)))
        grad = frame_with_zeros(grad, margins)
        top, left = margins[0][0], margins[1][0]
    total = jnp.zeros((len(grad), *size, grad.shape[3]), grad.dtype)
    for (row, rows), (column, columns) in itertools.product(*map(enumerate, plans)):
        terms = [
            _window(grad, (di + top, dj + left), counts, (1, 1), _tap(kernel, i, j))
            for (i, di), (j, dj) in itertools.product(rows, columns)
        ]
        if terms:  # none where the kernel is smaller than the stride
            spread = [
                (first, length - first - (count - 1) * stride - 1, stride - 1)
                for first, length, count, stride in zip(
                    (row, column), size, counts, strides, strict=True
                )
            ]
            zero = jnp.zeros((), grad.dtype)
            total += lax.pad(add_terms(terms), zero, ((0,) * 3, *spread, (0,) * 3))
    return total


# XLA:CPU's loops of more terms than this in a row known only at run time are slow; with
# those of a small map, known when it compiles, they are not.
STRETCH_TERMS, MAP_TERMS = 14, 49


def _is_small(grad):
    return math.prod(grad.shape[1:3]) <= MAP_TERMS


def _kernel_gradient(grad, x, taps, strides, pads):
    # A pixel of grad times the window of x below it, added over some pixels: one loop
    # over images, taps and channels. All pixels of a small map are its terms, else
    # those of a stretch of a row, and the rows are a scan. Then images are added by a
    # dot with ones, because XLA:CPU's own reductions are slow.
    rows, columns = grad.shape[1:3]
    padded = frame_with_zeros(x, pads)

    def add_pixels(x, grad, across):
        return add_terms(
            _window(x, (i * strides[0], j * strides[1]), taps, (1, 1))
            * grad[:, i : i + 1, j : j + 1]
            for i, j in itertools.product(range(grad.shape[1]), across)
        )

    if _is_small(grad):
        add_map = functools.partial(add_pixels, across=range(columns))
        total = standalone(add_map)(padded, grad)
    else:
        stretches = -(-columns // STRETCH_TERMS)
        width = -(-columns // stretches)

        def add_stretch(x, grad, row, start):
            x = lax.dynamic_slice_in_dim(x, row * strides[0], taps[0], 1)
            grad = lax.dynamic_slice_in_dim(grad, row, 1, 1)
            across = range(start, min(start + width, columns))
            return add_pixels(x, grad, across)

        def add_row(total, row):
            sums = [
                standalone(functools.partial(add_stretch, start=start))(
                    padded, grad, row
                )
                for start in range(0, columns, width)
            ]
            # In the same loop as the products the sum would be several times slower.
            return standalone(lambda *terms: add_terms(terms))(total, *sums), None

        zeros = jnp.zeros((len(x), *taps, x.shape[3]), x.dtype)
        total = lax.scan(add_row, zeros, jnp.arange(rows))[0]
    ones = jnp.ones((1, len(x)), x.dtype)
    return (ones @ total.reshape(len(x), -1)).reshape(*taps, 1, x.shape[3])
