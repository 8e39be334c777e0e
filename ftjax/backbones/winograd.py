"""3x3 convolution by Winograd's minimal filtering: 2.25 times fewer products.

For stride 1. An output tile of 2x2 pixels comes from an input tile d of 4x4 pixels and
the kernel g by 16 products in place of 36, each a matrix product over all tiles:

    y = A^T [(G g G^T) * (B^T d B)] A

F(2x2, 3x3) of Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015,
equations 4 to 8. Its rounding is that of the plain sum: the matrices hold nothing but
0, 1 and 1/2. Larger tiles need fewer products still, but lose digits (F(4x4, 3x3):
1e-5 of the largest value, here 1e-6).
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ftjax.backbones.depthwise import Pads, every_nth, frame_with_zeros

TILE = 2  # output pixels each way; an input tile has two more
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T

GROUP_BYTES = 2**23  # of pictures whose tiles should stay in the cache

Matrix = Iterable[Sequence[float]]
Grid = Sequence[Sequence[jax.Array]]  # of equal shape, by row and column of a tile


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
    """Gradient (3, 3, c, features) of the kernel, summed over groups of pictures."""
    groups = 1
    while len(x) % (2 * groups) == 0 and x.nbytes > groups * GROUP_BYTES:
        groups *= 2
    if groups == 1:  # a sum would be one pass more
        products = _tile_products(x, grad, pads)
    else:
        zeros = jnp.zeros((x.shape[-1], grad.shape[-1]), x.dtype)
        products, _ = lax.scan(
            lambda total, part: (
                jax.tree.map(jnp.add, total, _tile_products(*part, pads)),
                None,
            ),
            [[zeros] * 4] * 4,
            tuple(a.reshape(groups, -1, *a.shape[1:]) for a in (x, grad)),
        )
    slopes = _transform(_transpose(KERNEL), products)
    return jnp.stack([jnp.stack(row) for row in slopes])


def _tile_products(x: jax.Array, grad: jax.Array, pads: Pads) -> Grid:
    """Sums over all tiles of input times output slope, 4x4 arrays (c, features)."""
    rows, columns, features = grad.shape[1:]
    inputs = _transform(INPUT, _input_tiles(x, pads))
    odd = ((0, rows % TILE), (0, columns % TILE))
    slopes = _transform(_transpose(OUTPUT), _tiles(frame_with_zeros(grad, odd), TILE))
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
    dimensions = (((3,), (summed,)), ((), ()))
    products = [
        [lax.dot_general(*pair, dimensions) for pair in zip(*row, strict=True)]
        for row in zip(
            _transform(INPUT, _input_tiles(x, pads)),
            _transform(KERNEL, kernel),
            strict=True,
        )
    ]
    pixels = _transform(OUTPUT, products)
    y = jnp.stack([jnp.stack(row, 3) for row in pixels], 2)
    n, high, _, wide, _, channels = y.shape  # tiles down, pixels, tiles across, pixels
    rows, columns = (x.shape[i + 1] + sum(pads[i]) - 2 for i in (0, 1))
    return y.reshape(n, high * TILE, wide * TILE, channels)[:, :rows, :columns]


def _input_tiles(x: jax.Array, pads: Pads) -> Grid:
    """Overlapping tiles of 4x4 pixels; where the output is odd, a row of zeros more."""
    (top, bottom), (left, right) = pads
    odd = [(x.shape[i + 1] + sum(pads[i])) % TILE for i in (0, 1)]
    padded = frame_with_zeros(x, ((top, bottom + odd[0]), (left, right + odd[1])))
    return _tiles(padded, TILE + 2)


def _tiles(x: jax.Array, size: int) -> Grid:
    """Pixel (i, j) of every tile, (n, tiles down, tiles across, c), for all i and j.

    Tiles have `size` pixels each way and begin at every second pixel.
    """
    high, wide = ((length - size) // TILE + 1 for length in x.shape[1:3])
    return [
        [
            every_nth(every_nth(x, i, high, TILE, 1), j, wide, TILE, 2)
            for j in range(size)
        ]
        for i in range(size)
    ]


def _transform(matrix: Matrix, grid: Grid | jax.Array) -> Grid:
    """matrix @ grid @ matrix^T."""
    columns = [_combine(matrix, column) for column in zip(*grid, strict=True)]
    return [_combine(matrix, row) for row in zip(*columns, strict=True)]


def _combine(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Weighted sums of the parts, one for each row of the matrix."""
    sums = []
    for row in matrix:
        terms = [
            part * weight for part, weight in zip(parts, row, strict=True) if weight
        ]
        sums.append(sum(terms[1:], terms[0]))
    return sums


def _transpose(matrix: Matrix) -> list[tuple[float, ...]]:
    return list(zip(*matrix, strict=True))
