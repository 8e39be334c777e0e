"""Our own names of tensors, `<model>/<collection>/<unit>/<key>/<leaf>`.

The model's name is part of every tensor's, because networks of equal shapes differ in
what the arrays do not show: strides, padding, epsilon, preprocessing.
"""

from collections.abc import Collection, Mapping

import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import is_of_head
from ftjax.trees import Tree
from ftjax.weights.convert import STATISTICS, Origin, Target

COLLECTIONS = ("params", "batch_stats")


def is_own(names: Collection[str]) -> bool:
    """Whether tensors are called as `flatten` calls them."""
    return all(
        len(parts) == 5 and parts[1] in COLLECTIONS
        for parts in (name.split("/") for name in names)
    )


def tensor_name(model: str, target: Target) -> str:
    """Name of one leaf."""
    collection = "batch_stats" if target.leaf in STATISTICS else "params"
    return "/".join((model, collection, *target))


def flatten(model: str, params: Tree, batch_stats: Tree) -> dict[str, np.ndarray]:
    """All leaves by name, C-contiguous float32.

    Because safetensors writes the buffer as it lies in memory, whatever the strides.
    """
    return {
        tensor_name(model, Target(unit, key, leaf)): np.ascontiguousarray(
            value, np.float32
        )
        for tree in (params, batch_stats)
        for unit, layers in tree.items()
        for key, leaves in layers.items()
        for leaf, value in leaves.items()
    }


def fits(network: Backbone, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the file is of this model."""
    return {name.split("/")[0] for name in tensors} == {network.name}


def origins(
    network: Backbone, shapes: Mapping[Target, tuple[int, ...]]
) -> dict[Target, Origin]:
    """Where every leaf of the network stands in a file."""
    return {
        target: Origin(tensor_name(network.name, target), tuple(range(len(shape))))
        for target, shape in shapes.items()
    }


def ignored(network: Backbone, names: Collection[str]) -> set[str]:
    """A classifier that is not wanted."""
    if network.head:
        return set()
    return {name for name in names if is_of_head(name.split("/")[2])}
