"""3x3 convolution by Winograd's minimal filtering: 2.25 to 4 times fewer products.

For stride 1. An output tile y of 4x4 pixels comes from an input tile d of 6x6 pixels
and the kernel g by 36 products in place of 144, each a matrix product over all tiles:

    y = A^T [(G g G'^T) * (B^T d B')] A'

Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015, equations 4 to
8: F(2, 3) or F(4, 3) from row to row and along a row. Of large maps a few images go
through at a time, so that their tiles, 2.25 to 4 times as many values, stay in a cache.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.kernels.depthwise import (
    Pads,
    add_terms,
    every_nth,
    frame_with_zeros,
    output_size,
)
from ftjax.kernels.xla_calls import standalone

WHOLE_BYTES = 2**25  # of input and output up to which a batch goes through at once
GROUP_BYTES = 2**24  # of input and output of the images that go through together
GRADIENT_BYTES = 2**23  # the same for the kernel's gradient
FEW_ROWS = 13  # of a map; up to these F(2, 3) from row to row, for smaller kernels

Matrix = Sequence[Sequence[float]]
Grid = Sequence[Sequence[jax.Array]]  # of equal shape, by row and column of a tile


class Filter(NamedTuple):
    """F(m, 3): m outputs of three taps by m + 2 products."""

    input: Matrix  # B^T
    kernel: Matrix  # G
    output: Matrix  # A^T

    @property
    def step(self) -> int:
        """Outputs of a tile; the next tile begins as many pixels further."""
        return len(self.output)

    @property
    def width(self) -> int:
        """Inputs of a tile, and products."""
        return len(self.input)


def make_filter(*points: float) -> Filter:
    """The filter that multiplies polynomials at the points, and at infinity.

    Two polynomials, of 3 coefficients and of m, are multiplied by evaluating both at
    m + 2 points and interpolating; F(m, 3) is the transpose of that (Toom and Cook;
    Blahut, "Fast Algorithms for Signal Processing", 2010, chapter 5).

    Args:
        points: m + 1 numbers, sums and products of which floats hold exactly.
    """
    others = [[other for other in points if other != point] for point in points]
    degrees = range(len(points) - 1)
    return Filter(
        input=[[*_coefficients(rest), 0] for rest in others] + [_coefficients(points)],
        kernel=[
            [point**degree / math.prod(point - r for r in rest) for degree in range(3)]
            for point, rest in zip(points, others, strict=True)
        ]
        + [[0, 0, 1]],
        output=[
            [point**degree for point in points] + [float(degree == degrees[-1])]
            for degree in degrees
        ],
    )


def _coefficients(roots: Iterable[float]) -> list[float]:
    """Of the polynomial with these roots, by rising degree."""
    powers = [1.0]
    for root in roots:
        higher, lower = [0.0, *powers], [*powers, 0.0]
        powers = [h - root * p for h, p in zip(higher, lower, strict=True)]
    return powers


# Rounding grows with m and with the spread of the points. Of the largest value it takes
# 3e-7 to 7e-7 with F(2, 3) both ways, 6e-7 to 1.3e-6 with one of each and 8e-7 to
# 2.9e-6 with F(4, 3) both ways, where a plain sum takes 3e-7 to 1.2e-6 (64 to 512
# channels); with 0, 1, -1, 2, -2 the last would be 1.1e-5.
TWO = make_filter(0, 1, -1)
FOUR = make_filter(0, 0.75, -0.75, 1.5, -1.5)
Filters = tuple[Filter, Filter]  # from row to row, and along a row


def choose_filters(rows: int, columns: int) -> Filters:
    """Of an output of that size, those with the fewest products.

    On small maps there are few tiles to a kernel, and transforming it, 36 values for 9,
    would take longer than the products that are spared.
    """

    def fewest(length: int) -> Filter:
        return min((TWO, FOUR), key=lambda f: -(-length // f.step) * f.width)

    return TWO if rows <= FEW_ROWS else fewest(rows), fewest(columns)


def winograd_conv(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolve x (n, h, w, c) with kernel (3, 3, c, features), stride 1."""
    return _filter(x, pads, kernel, summed=0)


def winograd_input_gradient(
    grad: jax.Array, kernel: jax.Array, pads: Pads
) -> jax.Array:
    """Gradient (n, h, w, c) of the input: grad (n, ., ., features), kernel turned."""
    (top, bottom), (left, right) = pads
    reach = ((2 - top, 2 - bottom), (2 - left, 2 - right))
    # Not transposed: that costs more than the product on small maps.
    return _filter(grad, reach, kernel[::-1, ::-1], summed=1)


def winograd_kernel_gradient(x: jax.Array, grad: jax.Array, pads: Pads) -> jax.Array:
    """Gradient (3, 3, c, features) of the kernel, summed over groups of images."""
    filters = choose_filters(*grad.shape[1:3])
    groups = _count_groups(len(x), x.nbytes + grad.nbytes, GRADIENT_BYTES)
    if groups == 1:  # a sum would be one pass more
        products = _tile_products(x, grad, pads, filters)
    else:
        rows, columns = (f.width for f in filters)
        zeros = jnp.zeros((x.shape[-1], grad.shape[-1]), x.dtype)
        products, _ = lax.scan(
            lambda total, part: (
                jax.tree.map(jnp.add, total, _tile_products(*part, pads, filters)),
                None,
            ),
            [[zeros] * columns] * rows,
            tuple(a.reshape(groups, -1, *a.shape[1:]) for a in (x, grad)),
        )
    slopes = _transform([_transpose(f.kernel) for f in filters], products)
    return jnp.stack([jnp.stack(row) for row in slopes])


def _count_groups(images: int, num_bytes: int, limit: int) -> int:
    """How many equal groups a batch goes through in.

    Args:
        images: of the batch.
        num_bytes: of its input and output.
        limit: of a group's, unless that is a single image.
    """
    if num_bytes <= WHOLE_BYTES:
        return 1
    counts = (n for n in range(1, images + 1) if images % n == 0)
    return next((n for n in counts if num_bytes <= n * limit), images)


def _tile_products(x: jax.Array, grad: jax.Array, pads: Pads, filters: Filters) -> Grid:
    """Sums over all tiles of input times output slope: arrays (c, features)."""
    lengths, features = grad.shape[1:3], grad.shape[3]
    inputs = _transform([f.input for f in filters], _input_tiles(x, pads, filters))
    framed = frame_with_zeros(grad, _missing(lengths, filters))
    steps = [f.step for f in filters]
    slopes = _transform(
        [_transpose(f.output) for f in filters], _tiles(framed, steps, steps)
    )
    return [
        [
            tile.reshape(-1, x.shape[-1]).T @ slope.reshape(-1, features)
            for tile, slope in zip(*row, strict=True)
        ]
        for row in zip(inputs, slopes, strict=True)
    ]


def _filter(x: jax.Array, pads: Pads, kernel: jax.Array, summed: int) -> jax.Array:
    """Output (n, rows, columns, .) of a convolution.

    Args:
        x: input.
        pads: around it.
        kernel: (3, 3, c, features).
        summed: whether x has c channels (0) or as many as there are features (1).
    """
    rows, columns = _lengths(x, pads)
    filters = choose_filters(rows, columns)
    dimensions = (((3,), (summed,)), ((), ()))

    def through(x):
        products = [
            [lax.dot_general(*pair, dimensions) for pair in zip(*row, strict=True)]
            for row in zip(
                _transform([f.input for f in filters], _input_tiles(x, pads, filters)),
                _transform([f.kernel for f in filters], kernel),
                strict=True,
            )
        ]
        return _output_pixels(products, filters)[:, :rows, :columns]

    n, num_values = len(x), len(x) * rows * columns * kernel.shape[3 - summed]
    num_bytes = x.nbytes + num_values * x.dtype.itemsize
    groups = _count_groups(n, num_bytes, GROUP_BYTES)
    if groups == 1:
        return through(x)
    # The kernel is transformed with each group: as an operand of the loop, 36 arrays
    # more, it took longer (64 channels, 96x96 pixels: 21.9 instead of 19.8 ms).
    y = lax.map(through, x.reshape(groups, -1, *x.shape[1:]))
    return y.reshape(n, *y.shape[2:])


def _output_pixels(products: Grid, filters: Filters) -> jax.Array:
    """Pixels (n, rows, columns, features) of all tiles, from their products.

    Along the rows first, in calls of their own: in one loop XLA would combine all
    products anew for each pixel of a tile, in three to nine times as long.
    """
    down, along = filters

    @standalone
    def combine(*row):
        return jnp.stack(_combine(along.output, row), 3)

    pixels = jnp.stack(_combine(down.output, [combine(*row) for row in products]), 2)
    n, high, step, wide, across, features = pixels.shape
    return pixels.reshape(n, high * step, wide * across, features)


def _lengths(x: jax.Array, pads: Pads) -> list[int]:
    """Height and width of the output."""
    return output_size(x.shape[1:3], (3, 3), (1, 1), pads)


def _missing(lengths: Sequence[int], filters: Filters) -> Pads:
    """Zeros after an output, for its last tiles."""
    down, across = (
        (0, -length % f.step) for length, f in zip(lengths, filters, strict=True)
    )
    return down, across


def _input_tiles(x: jax.Array, pads: Pads, filters: Filters) -> Grid:
    """Overlapping tiles of the padded input."""
    missing = _missing(_lengths(x, pads), filters)
    frame = tuple(
        (low, high + more) for (low, high), (_, more) in zip(pads, missing, strict=True)
    )
    sizes, steps = [f.width for f in filters], [f.step for f in filters]
    return _tiles(frame_with_zeros(x, frame), sizes, steps)


def _tiles(x: jax.Array, sizes: Sequence[int], steps: Sequence[int]) -> Grid:
    """Pixel (i, j) of every tile, (n, tiles down, tiles across, c), for all i and j."""
    high, wide = (
        (length - size) // step + 1
        for length, size, step in zip(x.shape[1:3], sizes, steps, strict=True)
    )
    return [
        [
            every_nth(every_nth(x, i, high, steps[0], 1), j, wide, steps[1], 2)
            for j in range(sizes[1])
        ]
        for i in range(sizes[0])
    ]


def _transform(matrices: Sequence[Matrix], grid: Grid | jax.Array) -> Grid:
    """matrices[0] @ grid @ matrices[1]^T."""
    columns = [_combine(matrices[0], column) for column in zip(*grid, strict=True)]
    return [_combine(matrices[1], row) for row in zip(*columns, strict=True)]


def _combine(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Weighted sums of the parts, one for each row of the matrix."""
    return [
        add_terms(
            part * weight for part, weight in zip(parts, row, strict=True) if weight
        )
        for row in matrix
    ]


def _transpose(matrix: Matrix) -> list[tuple[float, ...]]:
    return list(zip(*matrix, strict=True))
