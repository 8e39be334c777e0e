"""Activations of the frozen part at one boundary, held for a whole data set.

Trials run from the earliest cut to the latest, so the frozen part is passed once for
a whole sweep: going to the next cut runs only the units in between.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import (
    Unit,
    variables,
)
from ftjax.data.augment import Views
from ftjax.data.read_ahead import read_ahead
from ftjax.machine.devices import Device, copy_on, on
from ftjax.machine.mesh import fetch, shard_batch
from ftjax.machine.stacking import Variants, each_variant
from ftjax.machine.workers import map_ahead, stop_point
from ftjax.trees import Tree


class Activations(NamedTuple):
    """Inputs of one unit for every image of the training and validation sets.

    Attributes:
        boundary: index of the unit whose inputs these are; 0 holds the images.
        train: (n_train, ...), uint8 images or activations in the network's type, on
            the host or on the device; read-only where they are mapped from disk.
        val: (n_val, ...).
        begin: the step of the unit whose inputs they are (`Unit.before`); empty: the
            unit's own.
        views: (n_train * views, ...) likewise, of stored views of the training set, in
            the order of `augment.Views`; None where there are none.
    """

    boundary: int
    train: np.ndarray | jax.Array
    val: np.ndarray | jax.Array
    begin: str = ""
    views: np.ndarray | jax.Array | Views | None = None


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
    x: np.ndarray | jax.Array | Views, batches: Sequence[np.ndarray]
) -> Iterator[np.ndarray | jax.Array]:
    """Rows of an array, where it is: on the host, on disk or on the device.

    Those of `Views` are made when they are asked for.
    """
    if isinstance(x, Views):
        found = (x[rows] for rows in batches)
    elif isinstance(x, jax.Array):
        found = (take(x, rows) for rows in batches)
    else:
        found = read_ahead(x, batches)
    for own in found:
        stop_point()
        yield own


@jax.jit
def take(x: jax.Array, rows: np.ndarray) -> jax.Array:
    """x[rows] on the device."""
    return jnp.take(x, rows, axis=0)


def batches(
    x: np.ndarray | jax.Array | Views, batch_size: int
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
    x: np.ndarray | Views,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    threads: int = 1,
    devices: Sequence[Device] = (),
) -> Iterator[np.ndarray]:
    """Runs a data set through frozen units, a batch at a time.

    Args:
        units: those between the boundary of `x` and the new one.
        params: pretrained, by unit.
        batch_stats: pretrained, by unit.
        x: (n, ...) inputs of the first of `units`.
        batch_size: images per step; the result does not depend on it.
        mesh: devices that share a batch.
        threads: that pass a batch each at the same time.
        devices: that pass one batch after the other in turn; the programs are those of
            a single device, and so are the numbers. None: the default one.

    Yields:
        (at most batch_size, ...) inputs of the unit after the last of `units`, in
        order.
    """
    names = [unit.name for unit in units]
    own = [
        {name: t[name] for name in names if name in t} for t in (params, batch_stats)
    ]
    seats = [(device, *copy_on(own, device)) for device in devices or (None,)]

    def output(batch):
        (rows, count), (device, params, batch_stats) = batch
        with on(device):
            y = infer(units, params, batch_stats, shard_batch(rows, mesh))
            return fetch(y)[:count]

    dealt = zip(batches(x, batch_size), itertools.cycle(seats), strict=False)
    yield from map_ahead(output, dealt, max(threads, len(seats)))


def advance(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray | Views,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    threads: int = 1,
    devices: Sequence[Device] = (),
) -> np.ndarray | Views:
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
        devices=devices,
    ):
        if result is None:
            result = np.empty((len(x), *y.shape[1:]), y.dtype)
        result[start : start + len(y)] = y
        start += len(y)
    return result
