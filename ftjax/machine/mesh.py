"""Which devices a batch is spread over, and how arrays get there and back.

Along the axis `data` every device holds all parameters and its share of the batch. The
partitioner of `jit` adds up gradients and BatchNorm's moments over the devices, so the
statistics are those of the whole batch. Along the axis `variant` devices hold trials of
their own (`variants.py`). `None` stands for the one default device, where nothing is
partitioned. With several processes the mesh spans all of their devices, every process
holds all images on its host, and only the first one writes files.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ftjax.machine.exchange import decode, encode
from ftjax.trees import Tree

DATA, VARIANT = "data", "variant"
Value = TypeVar("Value")


def make_mesh(text: str, batch_size: int) -> Mesh | None:
    """The mesh that `--mesh` asks for.

    Args:
        text: `auto`, `data=N`, `variant=M`, or both with a comma. `auto` is none, as
            each device of a process trains trials of its own (`sweep.devices`); of
            several processes, as many devices as divide the batch.
        batch_size: images that pass through the network at a time.

    Returns:
        None for a single device of a single process.

    Raises:
        ValueError: unknown text, too many devices, or a batch that does not divide.
    """
    devices, several = jax.devices(), jax.process_count() > 1
    if text == "auto":
        limit = len(devices) if several else 1
        sizes = {DATA: max(n for n in range(1, limit + 1) if batch_size % n == 0)}
    else:
        sizes = _parse(text)
    count, shares = math.prod(sizes.values()), sizes.get(DATA, 1)
    if count > len(devices):
        raise ValueError(
            f"--mesh {text} needs {count} devices, but there are {len(devices)}"
        )
    if batch_size % shares:
        raise ValueError(
            f"--mesh {text}: {shares} devices cannot share {batch_size} images "
            "equally; choose a number that divides them, or another --batch-size"
        )
    if several and count != len(devices):
        raise ValueError(
            f"--mesh {text} uses {count} of the {len(devices)} devices of all "
            f"{jax.process_count()} processes; several processes must use all, so "
            f"choose a --batch-size that {len(devices)} divides"
        )
    if count == 1:
        return None
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        devices=devices[:count],
        axis_types=(AxisType.Auto,) * len(sizes),
    )


def _parse(text: str) -> dict[str, int]:
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    sizes = {axis: int(size) for axis, size in pairs if size.isdecimal()}
    if len(sizes) != len(pairs) or not sizes.keys() <= {DATA, VARIANT}:
        sizes = {}
    if not sizes or min(sizes.values()) < 1:
        raise ValueError(
            f"--mesh {text} is unknown; it takes auto, data=N to spread every batch "
            "over N devices, variant=M to spread the seeds over M, or data=N,variant=M"
        )
    # Trials come first, as in the arrays, so that rows need not move (`split_rows`).
    return {axis: sizes[axis] for axis in (VARIANT, DATA) if axis in sizes}


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """Devices along an axis, 1 if there is none."""
    return mesh.shape.get(axis, 1) if mesh is not None else 1


def shard_batch(x: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """Rows of a host array, in equal shares on the devices.

    All of them share if they can, else those along the axis `data`.
    """
    if mesh is None:
        placed = jax.device_put(x)
        if jax.default_backend() == "cpu":
            # A program whose input is still being copied, and all behind it, would go
            # to threads that trials side by side share.
            jax.block_until_ready(placed)
        return placed
    axes = mesh.axis_names
    if len(x) % mesh.size:
        axes = tuple(axis for axis in axes if axis == DATA)
    return _put(x, NamedSharding(mesh, P(axes)))


def split(tree: Tree, mesh: Mesh) -> Tree:
    """Host arrays (variants, ...), each trial's on the devices of its own."""
    axis = VARIANT if VARIANT in mesh.axis_names else None
    return jax.tree.map(lambda x: _put(x, NamedSharding(mesh, P(axis))), tree)


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """Host arrays, whole on every device."""
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: _put(np.asarray(x), sharding), tree)


def _put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def fetch(tree: Tree) -> Tree:
    """Whole arrays on the host; where other processes hold shares, all must call."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(_gather, tree)


def _gather(x: jax.Array) -> np.ndarray:
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def is_first_process() -> bool:
    """Whether this process writes the files and prints."""
    return jax.process_index() == 0


def from_first_process(make: Callable[[], Value]) -> Value:
    """What `make` returns, or raises, in the first process; only there it is called.

    Every process must come here, and the value must be one that `exchange` takes: a
    named tuple arrives as a plain one in the others.
    """
    if jax.process_count() == 1:
        return make()
    data, value = b"", None
    if is_first_process():
        try:
            value = make()
            data = encode((value, None))
        except Exception as error:  # raised in every process, lest the others wait
            value, data = error, encode((None, error))
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(data))))
    # As bytes: the broadcast is a sum, which would turn -0.0 into 0.0.
    buffer = np.frombuffer(data.ljust(size, b"\0"), np.uint8)
    buffer = multihost_utils.broadcast_one_to_all(buffer)
    if not is_first_process():
        value, error = decode(buffer.astype(np.uint8).tobytes())
        value = value if error is None else error
    if isinstance(value, Exception):
        raise value
    return value
