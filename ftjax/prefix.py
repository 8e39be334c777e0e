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

from ftjax.backbones.backbone import (
    Backbone,
    Tree,
    Unit,
    boundary_shapes,
    trace_shapes,
    variables,
)
from ftjax.data.read_ahead import read_ahead
from ftjax.mesh import fetch, shard_batch
from ftjax.variants import Variants, each_variant
from ftjax.workers import map_ahead, stop_point

# FLOPs of inference in the time in which a byte is read from disk: rules of thumb for
# 1 GB/s beside 20 GFLOP/s on a few cores, and beside 2 TFLOP/s on an accelerator.
FLOPS_PER_BYTE = {"cpu": 20.0}
ACCELERATOR_FLOPS_PER_BYTE = 2000.0


class Activations(NamedTuple):
    """Inputs of one unit for every picture of the training and validation sets.

    Attributes:
        boundary: index of the unit whose inputs these are; 0 holds the pictures.
        train: (n_train, ...), uint8 pictures or activations in the network's type, on
            the host or on the device; read-only where they are mapped from disk.
        val: (n_val, ...).
        begin: the step of the unit whose inputs they are (`Unit.before`); empty: the
            unit's own.
    """

    boundary: int
    train: np.ndarray | jax.Array
    val: np.ndarray | jax.Array
    begin: str = ""


class Room(NamedTuple):
    """What the activations of a data set take before each unit, and what there is.

    Attributes:
        sizes: bytes before each unit.
        flops: of each unit's forward pass over the data set.
        memory: bytes for activations.
        disk: bytes for those that the memory does not hold.
        flops_per_byte: FLOPs in the time in which a byte is read from disk.
        device: bytes of the device for those that are trained on.
    """

    sizes: tuple[int, ...]
    flops: tuple[float, ...]
    memory: int
    disk: int = 0
    flops_per_byte: float = 0.0
    device: int = 0

    def on_device(self, boundary: int) -> bool:
        """Whether a trial that trains from there has them on the device."""
        return self.sizes[boundary] <= self.device

    def on_disk(self, boundary: int) -> bool:
        """Whether the memory does not hold them; the pictures take none of it."""
        return boundary > 0 and self.sizes[boundary] > self.memory


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


def take_each(
    x: np.ndarray | jax.Array, batches: Sequence[np.ndarray]
) -> Iterator[np.ndarray | jax.Array]:
    """Rows of an array, where it is: on the host, on disk or on the device."""
    on_device = isinstance(x, jax.Array)
    found = (take(x, rows) for rows in batches) if on_device else read_ahead(x, batches)
    for own in found:
        stop_point()
        yield own


@jax.jit
def take(x: jax.Array, rows: np.ndarray) -> jax.Array:
    """x[rows] on the device."""
    return jnp.take(x, rows, axis=0)


def batches(
    x: np.ndarray | jax.Array, batch_size: int
) -> Iterator[tuple[np.ndarray | jax.Array, int]]:
    """All of `x` in order, the last batch padded with its own rows to full size.

    Yields:
        (batch_size, ...) rows and how many of them are real.
    """
    starts = range(0, len(x), batch_size)
    rows = [np.arange(start, min(start + batch_size, len(x))) for start in starts]
    full = [np.resize(own, batch_size) for own in rows]
    yield from zip(take_each(x, full), map(len, rows), strict=True)


def outputs(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    threads: int = 1,
) -> Iterator[np.ndarray]:
    """Runs a data set through frozen units, a batch at a time.

    Args:
        units: those between the boundary of `x` and the new one.
        params: pretrained, by unit.
        batch_stats: pretrained, by unit.
        x: (n, ...) inputs of the first of `units`.
        batch_size: pictures per step; the result does not depend on it.
        mesh: devices that share a batch.
        threads: that pass a batch each at the same time.

    Yields:
        (at most batch_size, ...) inputs of the unit after the last of `units`, in
        order.
    """

    def output(batch):
        rows, count = batch
        y = infer(units, params, batch_stats, shard_batch(rows, mesh))
        return fetch(y)[:count]

    yield from map_ahead(output, batches(x, batch_size), threads)


def advance(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    threads: int = 1,
) -> np.ndarray:
    """What `outputs` yields, in memory: (n, ...); `x` if there are no units."""
    if not units:
        return x
    result = None
    start = 0
    for y in outputs(
        units,
        params,
        batch_stats,
        x,
        batch_size=batch_size,
        mesh=mesh,
        threads=threads,
    ):
        if result is None:
            result = np.empty((len(x), *y.shape[1:]), y.dtype)
        result[start : start + len(y)] = y
        start += len(y)
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
    network: Backbone, size: int, boundary: int, batch_size: int, begin: str = ""
) -> jax.ShapeDtypeStruct:
    """Shape and type of what is handed to unit `boundary`, or to its step `begin`."""
    shape = boundary_shapes(network.units, size)[boundary]
    if begin:
        module = network.units[boundary].before(begin).module
        (_, *shape), _ = trace_shapes(module, (1, *shape))
    dtype = network.dtype if len(shape) > 1 else "float32"
    if boundary == 0:
        dtype = "uint8"
    return jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype))


def choose_boundary(room: Room, cut: int, previous: int = 0) -> int:
    """The boundary not after `cut` from which a pass over the data costs least.

    The units between it and the cut are run again in every step, and what the memory
    does not hold is read from disk. The pictures (boundary 0) are there anyway.

    Args:
        room: sizes and budgets.
        cut: index of the first unit that is trained.
        previous: where the stored activations are before; they are read while the new
            ones are written, so the disk must hold both.
    """
    held = room.sizes[previous] if room.on_disk(previous) else 0

    def fits(boundary: int) -> bool:
        if boundary == previous or not room.on_disk(boundary):
            return True
        return held + room.sizes[boundary] <= room.disk

    def cost(boundary: int) -> float:
        read = room.sizes[boundary] if room.on_disk(boundary) else 0
        return sum(room.flops[boundary:cut]) + room.flops_per_byte * read

    return min(filter(fits, range(cut, previous - 1, -1)), key=cost)
