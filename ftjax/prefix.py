"""Activations of the frozen part at one boundary, held for a whole data set.

Trials run from the earliest cut to the latest, so the frozen part is passed once for
a whole sweep: going to the next cut runs only the units in between.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Backbone, Tree, Unit, boundary_shapes, variables
from ftjax.mesh import fetch, shard_batch
from ftjax.variants import Variants, each_variant


class Activations(NamedTuple):
    """Inputs of one unit for every picture of the training and validation sets.

    Attributes:
        boundary: index of the unit whose inputs these are; 0 holds the pictures.
        train: (n_train, ...), uint8 pictures or activations in the network's type.
        val: (n_val, ...).
    """

    boundary: int
    train: np.ndarray
    val: np.ndarray


@partial(jax.jit, static_argnums=(0, 3))
def infer_unit(
    module, unit_variables: Tree, x: jax.Array, variants: Variants | None = None
) -> jax.Array:
    """One unit in inference mode; units of equal shape share the program."""
    return each_variant(module.apply, variants)(unit_variables, x)


def infer(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: jax.Array,
    variants: Variants | None = None,
) -> jax.Array:
    """`backbone.apply` as a chain of compiled units, of one trial or stacked ones."""
    for unit in units:
        own = variables(params, batch_stats, unit.name)
        x = infer_unit(unit.module, own, x, variants)
    return x


def batches(x: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """All of `x` in order, the last batch padded with its own rows to full size.

    Yields:
        (batch_size, ...) rows and how many of them are real.
    """
    for start in range(0, len(x), batch_size):
        rows = x[start : start + batch_size]
        count = len(rows)
        if count < batch_size:
            rows = np.resize(rows, (batch_size, *rows.shape[1:]))
        yield rows, count


def advance(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Runs a data set through frozen units.

    Args:
        units: those between the boundary of `x` and the new one.
        params: pretrained, by unit.
        batch_stats: pretrained, by unit.
        x: (n, ...) inputs of the first of `units`.
        batch_size: pictures per step; the result does not depend on it.
        mesh: devices that share a batch.

    Returns:
        (n, ...) inputs of the unit after the last of `units`; `x` if there are none.
    """
    if not units:
        return x
    result = None
    start = 0
    for rows, count in batches(x, batch_size):
        y = fetch(infer(units, params, batch_stats, shard_batch(rows, mesh)))
        if result is None:
            result = np.empty((len(x), *y.shape[1:]), y.dtype)
        result[start : start + count] = y[:count]
        start += count
    return result


def boundary_bytes(network: Backbone, size: int) -> tuple[int, ...]:
    """Bytes of one picture's activation before each unit.

    The pictures are uint8; maps are of the network's type, vectors (small) float32.
    """
    structs = (
        activation_struct(network, size, boundary, 1)
        for boundary in range(len(network.units))
    )
    return tuple(struct.size * struct.dtype.itemsize for struct in structs)


def activation_struct(
    network: Backbone, size: int, boundary: int, batch_size: int
) -> jax.ShapeDtypeStruct:
    """Shape and type of what is handed to unit `boundary`."""
    shape = boundary_shapes(network.units, size)[boundary]
    dtype = network.dtype if len(shape) > 1 else "float32"
    if boundary == 0:
        dtype = "uint8"
    return jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype))


def choose_boundary(
    bytes_per_picture: Sequence[int], cut: int, num_pictures: int, budget: int
) -> int:
    """The latest boundary not after `cut` whose activations fit into `budget` bytes.

    The units between it and the cut are run again in every step. The pictures
    themselves (boundary 0) are in memory anyway and always fit.
    """
    fitting = (
        boundary
        for boundary in range(cut, 0, -1)
        if bytes_per_picture[boundary] * num_pictures <= budget
    )
    return next(fitting, 0)
