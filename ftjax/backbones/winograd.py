"""3x3 convolution by Winograd's minimal filtering: 2.25 times fewer products.

For stride 1. An output tile of 2x2 pixels comes from an input tile d of 4x4 pixels and
the kernel g by 16 products in place of 36, each a matrix product over all tiles:

    y = A^T [(G g G^T) * (B^T d B)] A

F(2x2, 3x3) of Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015,
equations 4 to 8. Its rounding is that of the plain sum: the matrices hold nothing but
0, 1 and 1/2. Larger tiles need fewer products still, but lose digits (F(4x4, 3x3):
1e-5 of the largest value, here 1e-6).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 2  # output pixels each way; an input tile has two more
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T

GROUP_BYTES = 2**23  # of pictures whose tiles should stay in the cache

Matrix = Sequence[Sequence[float]]
Grid = list[list[jax.Array]]  # of equal shape, by row and column of a tile
Pads = tuple[tuple[int, int], tuple[int, int]]


def winograd_conv(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolve x (n, h, w, c) with kernel (3, 3, c, features), stride 1."""
    taps = _taps(kernel)
    return _filter(x, pads, lambda row, column, tile: tile @ taps[row][column])


def winograd_input_gradient(
    grad: jax.Array, kernel: jax.Array, pads: Pads
) -> jax.Array:
    """Gradient with respect to x: grad (n, h, w, features) with the kernel turned."""
    taps = _taps(kernel[::-1, ::-1])
    reach = [(2 - low, 2 - high) for low, high in pads]
    # Taps as they are: to transpose them costs more than the product on small maps.
    over_features = (((3,), (1,)), ((), ()))
    return _filter(
        grad,
        (reach[0], reach[1]),
        lambda row, column, tile: lax.dot_general(
            tile, taps[row][column], over_features
        ),
    )


def winograd_kernel_gradient(x: jax.Array, grad: jax.Array, pads: Pads) -> jax.Array:
    """Gradient with respect to the kernel, (3, 3, c, features), summed over groups."""
    groups = 1
    while len(x) % (2 * groups) == 0 and x.nbytes > groups * GROUP_BYTES:
        groups *= 2
    if groups == 1:
        products = _tile_products(x, grad, pads)
    else:
        parts = [part.reshape(groups, -1, *part.shape[1:]) for part in (x, grad)]
        zeros = jnp.zeros((4, 4, x.shape[-1], grad.shape[-1]), x.dtype)
        products = lax.scan(
            lambda total, part: (total + _tile_products(*part, pads), None),
            zeros,
            tuple(parts),
        )[0]
    transposed = np.transpose(KERNEL).tolist()
    return _stack(_transform(transposed, [list(row) for row in products]))


def _tile_products(x: jax.Array, grad: jax.Array, pads: Pads) -> jax.Array:
    """Sums over all tiles of input times output slope, (4, 4, c, features)."""
    _, rows, columns, features = grad.shape
    inputs = _transform(INPUT, _tiles(x, pads, rows, columns))
    odd = [(0, -size % TILE) for size in (rows, columns)]
    slopes = _transform(
        np.transpose(OUTPUT).tolist(),
        _split(
            jnp.pad(grad, ((0, 0), *odd, (0, 0))),
            TILE,
            -(-rows // TILE),
            -(-columns // TILE),
        ),
    )
    return _stack(
        [
            [
                tile.reshape(-1, x.shape[-1]).T @ slope.reshape(-1, features)
                for tile, slope in zip(*pair, strict=True)
            ]
            for pair in zip(inputs, slopes, strict=True)
        ]
    )


def _filter(
    x: jax.Array, pads: Pads, product: Callable[[int, int, jax.Array], jax.Array]
) -> jax.Array:
    """Output (n, rows, columns, features) from the products of transformed tiles."""
    rows, columns = (x.shape[i + 1] + sum(pads[i]) - 2 for i in (0, 1))
    tiles = _transform(INPUT, _tiles(x, pads, rows, columns))
    products = [
        [product(i, j, tile) for j, tile in enumerate(row)]
        for i, row in enumerate(tiles)
    ]
    pixels = _transform(OUTPUT, products)
    y = jnp.stack([jnp.stack(row, 3) for row in pixels], 2)  # (n, th, 2, tw, 2, f)
    n, high, _, wide, _, features = y.shape
    whole = y.reshape(n, high * TILE, wide * TILE, features)
    return whole[:, :rows, :columns]


def _taps(kernel: jax.Array) -> Grid:
    return _transform(KERNEL, [list(row) for row in kernel])


def _tiles(x: jax.Array, pads: Pads, rows: int, columns: int) -> Grid:
    """The pixels of all input tiles, 4x4 arrays (n, tiles down, tiles across, c)."""
    (top, bottom), (left, right) = pads
    odd = (rows % TILE, columns % TILE)
    padded = jnp.pad(
        x, ((0, 0), (top, bottom + odd[0]), (left, right + odd[1]), (0, 0))
    )
    return _split(padded, TILE + 2, -(-rows // TILE), -(-columns // TILE))


def _split(x: jax.Array, size: int, high: int, wide: int) -> Grid:
    """Pixel (i, j) of every tile of `size` pixels each way, for all i and j."""

    def part(axis: int, start: int, count: int, source: jax.Array) -> jax.Array:
        stop = start + (count - 1) * TILE + 1
        return lax.slice_in_dim(source, start, stop, TILE, axis)

    return [
        [part(2, j, wide, part(1, i, high, x)) for j in range(size)]
        for i in range(size)
    ]


def _transform(matrix: Matrix, grid: Grid) -> Grid:
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


def _stack(grid: Grid) -> jax.Array:
    return jnp.stack([jnp.stack(row) for row in grid])
