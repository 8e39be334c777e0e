"""Several trials of one cut trained at once, along a first axis of all their arrays.

Such trials differ in their seed, so they run the same programs on the same shapes: a
program of one becomes one of all by `vmap`. Over the axis `variant` of a mesh every
device runs those of its own trials, by `shard_map`; left to the partitioner, it would
exchange their kernels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ftjax.machine.mesh import VARIANT, fetch, replicate, split
from ftjax.trees import Tree


class Variants(NamedTuple):
    """Trials that are trained at once; static. None stands for a single one.

    Attributes:
        count: how many.
        mesh: devices that share them; None is the default device.
    """

    count: int
    mesh: Mesh | None = None


def each_variant(function: Callable, variants: Variants | None) -> Callable:
    """A function of one trial's arrays as one of all trials' stacked arrays."""
    if variants is None:
        return function
    mapped = jax.vmap(function)
    if variants.mesh is None or VARIANT not in variants.mesh.axis_names:
        return mapped
    return jax.shard_map(
        mapped,
        mesh=variants.mesh,
        in_specs=P(VARIANT),
        out_specs=P(VARIANT),
        axis_names={VARIANT},
        # Trials exchange nothing, so there is nothing to check; with the check a loop
        # that begins with zeros is refused, because they belong to no device.
        check_vma=False,
    )


def stack(trees: Sequence[Tree], variants: Variants | None) -> Tree:
    """The trials' trees as one; leaves (variants, ...). A single one stays as it is."""
    if variants is None:
        return trees[0]
    if variants.mesh is None:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    whole = jax.tree.map(lambda *leaves: np.stack(leaves), *map(fetch, trees))
    return place(whole, variants.mesh, variants)


def unstack(tree: Tree, variants: Variants | None) -> list[Tree]:
    """The tree of every trial."""
    if variants is None:
        return [tree]
    return [
        jax.tree.map(lambda leaf, index=index: leaf[index], tree)
        for index in range(variants.count)
    ]


def place(tree: Tree, mesh: Mesh | None, variants: Variants | None) -> Tree:
    """Host arrays on the devices: each trial's on its own, a single one's on all."""
    if variants is None or mesh is None:
        return replicate(tree, mesh)
    return split(tree, mesh)


def split_rows(x: jax.Array, variants: Variants | None) -> jax.Array:
    """Rows of all trials, one trial after the other, as (variants, rows, ...)."""
    if variants is None:
        return x
    return x.reshape(variants.count, -1, *x.shape[1:])


def share(x: jax.Array, variants: Variants | None) -> jax.Array:
    """The same rows for every trial, as (variants, rows, ...)."""
    if variants is None:
        return x
    return jnp.broadcast_to(x, (variants.count, *x.shape))
