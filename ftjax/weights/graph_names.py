"""Caffe's and ONNX's chains of layers (`graph_file`) as AlexNet's weights.

CaffeNet has AlexNet's names and shapes, but pools before it normalizes: the order of
the layers and their settings are compared, not the names alone.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from ftjax.backbones.alexnet import ConvBlock, FullyConnected
from ftjax.backbones.backbone import Backbone
from ftjax.weights.convert import Origin, Target, torch_origin
from ftjax.weights.graph_file import CONV, DENSE, LEAVES, LRN, POOL

POOLING = (3.0, 2.0, 0.0)  # window, stride, padding
SETTINGS = {
    CONV: ("stride", "padding", "groups"),
    LRN: ("size", "alpha", "beta", "k"),
    POOL: ("window", "stride", "padding"),
}


class Step(NamedTuple):
    """A layer of a chain.

    Attributes:
        kind: as of `graph_file.Layer`.
        name: of the layer in the file, with its kind; of the network's unit.
        settings: likewise.
    """

    kind: str
    name: str
    settings: tuple[float, ...]


def is_graph(names: Collection[str]) -> bool:
    """Whether tensors are called as `graph_file.read_graph` calls them."""
    return all(":" in name and name.rpartition("/")[2] in LEAVES for name in names)


def steps_of(network: Backbone) -> list[Step]:
    """What a file of the network has, without its classifier; none but of AlexNet."""
    steps = []
    for unit in network.body:
        module = unit.module
        if isinstance(module, ConvBlock):
            _, _, stride, pad, groups = module.shape
            steps.append(Step(CONV, unit.name, (stride, pad, groups)))
            if module.norm is not None:
                steps.append(Step(LRN, unit.name, tuple(module.norm)))
            if module.pool:
                steps.append(Step(POOL, unit.name, POOLING))
        elif isinstance(module, FullyConnected):
            steps.append(Step(DENSE, unit.name, ()))
    return steps


def steps_in(tensors: Mapping[str, np.ndarray]) -> list[Step]:
    """What a file has, in its order."""
    steps = []
    for name, array in tensors.items():
        layer, _, leaf = name.rpartition("/")
        if leaf == "settings":
            settings = tuple(map(float, array))
            steps.append(Step(layer.partition(":")[0], layer, settings))
    return steps


def problem(network: Backbone, tensors: Mapping[str, np.ndarray]) -> str:
    """Why a file is not of a network, as the end of a sentence; empty if it is."""
    wanted, found = steps_of(network), steps_in(tensors)
    kinds, order = ([step.kind for step in steps] for steps in (wanted, found))
    dense = [DENSE] * (len(order) - len(kinds))  # a classifier
    # A dense layer may stand there as a convolution of the whole map.
    as_dense = [
        DENSE if here == CONV and wants == DENSE else here
        for here, wants in zip(order, [*kinds, *dense], strict=False)
    ]
    if len(dense) > 1 or as_dense != [*kinds, *dense]:
        if order[:3] == [CONV, POOL, LRN]:
            return (
                f"pools before it normalizes, as CaffeNet does, but {network.name} "
                "normalizes first: with these weights it would be another network"
            )
        return f"has the layers {', '.join(order[:16])}, not those of {network.name}"
    for here, wants in zip(found, wanted, strict=False):
        if here.kind == wants.kind and not np.allclose(
            here.settings, wants.settings, rtol=1e-5
        ):
            names = SETTINGS[here.kind]
            ours, theirs = (
                ", ".join(f"{n} {v:g}" for n, v in zip(names, values, strict=False))
                for values in (wants.settings, here.settings)
            )
            return f"has {here.name} with {theirs}, but {network.name} has {ours}"
    return ""


def fits(network: Backbone, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a file has the network's layers in its order, with its settings."""
    return bool(steps_of(network)) and not problem(network, tensors)


def origins(
    network: Backbone,
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[Target, tuple[int, ...]],
) -> dict[Target, Origin]:
    """Where every leaf of the network stands in a file that fits it."""
    layers = [step.name for step in steps_in(tensors) if step.kind in (CONV, DENSE)]
    units = [unit.name for unit in network.units if unit.parameter_keys]
    named = dict(zip(units, layers, strict=False))
    found = {}
    for target in shapes:
        if target.unit not in named:
            continue
        leaf = "weight" if target.leaf == "kernel" else "bias"
        name = f"{named[target.unit]}/{leaf}"
        found[target] = torch_origin(name, target, shapes)
    return found


def ignored(network: Backbone, tensors: Mapping[str, np.ndarray]) -> set[str]:
    """Settings, and a classifier that is not wanted."""
    layers = [step.name for step in steps_in(tensors) if step.kind in (CONV, DENSE)]
    extra = layers[sum(bool(unit.parameter_keys) for unit in network.units) :]
    return {
        name
        for name in tensors
        if name.endswith("/settings") or name.rpartition("/")[0] in extra
    }
