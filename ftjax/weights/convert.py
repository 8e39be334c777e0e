"""Tensors of a weights file become `params` and `batch_stats`, strictly both ways."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from ftjax.backbones.backbone import Backbone, variable_shapes
from ftjax.trees import Tree

STATISTICS = ("mean", "var")
LARGEST = 1e10  # that a parameter or statistic of a trained network can be


class Target(NamedTuple):
    """Where a tensor goes: `params` or `batch_stats` [unit][key][leaf]."""

    unit: str
    key: str
    leaf: str


class Origin(NamedTuple):
    """Where a leaf comes from.

    Attributes:
        name: of the tensor in the file.
        axes: the permutation that brings it to our order of axes.
        view: if given, the shape it is reshaped to before the permutation; afterwards
            it is reshaped to ours. For dense layers on flattened maps.
    """

    name: str
    axes: tuple[int, ...]
    view: tuple[int, ...] = ()


def convert(
    tensors: Mapping[str, np.ndarray],
    origins: Mapping[Target, Origin],
    shapes: Mapping[Target, tuple[int, ...]],
    *,
    ignored: Collection[str] = (),
    source: str,
) -> tuple[Tree, Tree]:
    """Fills every leaf of a network from named tensors.

    Args:
        tensors: as read from a file.
        origins: for every target its tensor.
        shapes: of every leaf of the network.
        ignored: tensors that are left out on purpose.
        source: what to call the file in an error.

    Returns:
        `params`, `batch_stats`: dicts by unit, layer, leaf; float32, C-contiguous.

    Raises:
        ValueError: tensors are missing, unused, of the wrong shape, or hold values that
            no trained network has; all are listed.
    """
    problems = [f"no place for {target}" for target in set(origins) - set(shapes)]
    params: Tree = {}
    batch_stats: Tree = {}
    for target, shape in shapes.items():
        if target not in origins:
            problems.append(f"no source for {'/'.join(target)}")
            continue
        origin = origins[target]
        if origin.name not in tensors:
            problems.append(f"missing {origin.name}")
            continue
        tensor = arrange(tensors[origin.name], origin, tuple(shape))
        if tensor is None:
            found = tensors[origin.name].shape
            problems.append(f"{origin.name} has shape {found}, not for {shape}")
            continue
        if (value := impossible(tensor)) is not None:
            problems.append(f"{origin.name} holds {value:g}, which no network has")
            continue
        tree = batch_stats if target.leaf in STATISTICS else params
        layer = tree.setdefault(target.unit, {}).setdefault(target.key, {})
        layer[target.leaf] = np.ascontiguousarray(tensor, np.float32)
    used = {origin.name for origin in origins.values()}
    problems += [
        f"unused {name}" for name in tensors if name not in used | set(ignored)
    ]
    if problems:
        shown = "; ".join(problems[:12]) + ("; ..." if len(problems) > 12 else "")
        raise ValueError(f"{source} does not fit: {len(problems)} problems: {shown}")
    return params, batch_stats


def impossible(tensor: np.ndarray) -> float | None:
    """A value that shows that a file is damaged or no network's, or None."""
    values = tensor.astype(np.float32, copy=False)
    bad = ~(np.abs(values) < LARGEST)  # nor is nan
    return float(values[bad].flat[0]) if bad.any() else None


def arrange(
    tensor: np.ndarray, origin: Origin, shape: tuple[int, ...]
) -> np.ndarray | None:
    """The tensor in our order of axes; None if it cannot have `shape`."""
    if origin.view:
        if tensor.size != math.prod(origin.view) or tensor.size != math.prod(shape):
            return None
        return tensor.reshape(origin.view).transpose(origin.axes).reshape(shape)
    if tensor.ndim != len(shape):
        return None
    tensor = tensor.transpose(origin.axes)
    return tensor if tensor.shape == shape else None


def torch_axes(ndim: int) -> tuple[int, ...]:
    """PyTorch's OIHW (or out, in) to HWIO (in, out); also right for depthwise."""
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(ndim, tuple(range(ndim)))


def torch_origin(
    name: str, target: Target, shapes: Mapping[Target, tuple[int, ...]]
) -> Origin:
    """Where a leaf comes from in the order of PyTorch, Caffe and ONNX.

    A dense kernel behind a map reads it as (height, width, channels) here, and as
    (channels, height, width) there.

    Args:
        name: of the tensor in the file.
        target: of the leaf.
        shapes: of every leaf of the network, in its order.
    """
    shape = shapes[target]
    if len(shape) == 2:
        order = list(shapes)
        before = [
            shapes[other]
            for other in order[: order.index(target)]
            if other.leaf == "kernel"
        ]
        channels = before[-1][-1]
        side = math.isqrt(shape[0] // channels)
        if len(before[-1]) == 4 and side > 1:
            return Origin(name, (2, 3, 1, 0), (shape[1], channels, side, side))
    return Origin(name, torch_axes(len(shape)))


def leaf_shapes(network: Backbone, size: int) -> dict[Target, tuple[int, ...]]:
    """Shape of every leaf of a network, by target.

    Args:
        network: a backbone, with or without its head.
        size: height and width of the images, in pixels.
    """
    shapes = {}
    for unit, tree in zip(
        network.units, variable_shapes(network.units, size), strict=True
    ):
        for collection in ("params", "batch_stats"):
            for key, leaves in tree.get(collection, {}).items():
                for leaf, spec in leaves.items():
                    shapes[Target(unit.name, key, leaf)] = spec.shape
    return shapes
