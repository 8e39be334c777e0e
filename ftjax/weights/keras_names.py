"""Keras' names of layers and arrays, and what its files hold beside a network's leaves.

A legacy `.h5` file is read by layer name. Keras itself goes by order, which is a trap:
files of Keras 2.2 list `res2a_branch2c` before `res2a_branch1` where later ones have
`conv2_block1_0_conv` before `conv2_block1_3_conv`, both of shape (1, 1, 64, 256)
(https://github.com/tensorflow/tensorflow/issues/33459). Keras 3 files hold no layer
names; there the order within a class is all there is, and it is that of our layer
table.
"""

from collections.abc import Collection, Mapping

import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.weights.convert import Origin, Target
from ftjax.weights.keras_file import name_keras3_layers

# Order of a layer's arrays in Keras' files, in our names; by Keras class.
LEAVES = {
    "Conv2D": ("kernel", "bias"),
    "DepthwiseConv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("scale", "bias", "mean", "var"),
}
# Classifiers of keras.applications, in the order of their layers.
HEAD = ("fc1", "fc2", "predictions")
# What `predictions` was called in keras-applications 1.0.
OLD_HEAD = "probs"
IMAGENET_MEAN = np.float64([0.485, 0.456, 0.406])
IMAGENET_STD = np.float64([0.229, 0.224, 0.225])
NESTED = "layers/functional/"


def is_legacy(names: Collection[str]) -> bool:
    """Whether tensors are called `<layer>/<i>`, as in a legacy file."""
    return all(
        name.rpartition("/")[2].isdigit() and "/vars/" not in name for name in names
    )


def is_keras3(names: Collection[str]) -> bool:
    """Whether tensors are called `layers/<class>[_n]/vars/<i>`."""
    return all(name.startswith("layers/") and "/vars/" in name for name in names)


def name_layers(
    network: Backbone, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensors of either layout as `<layer>/<i>`.

    A Keras 3 file may be of the network itself or of a model that calls it as one
    layer and puts Dense layers on top.

    Raises:
        ValueError: a Keras 3 file has weights of layers the network does not have.
    """
    if is_keras3(tensors):
        plain = {
            name.replace(NESTED, "", 1) if name.startswith(NESTED) else name: tensor
            for name, tensor in tensors.items()
        }
        tensors = name_keras3_layers(plain, layer_table(network))
    named = {
        name.replace(OLD_HEAD, "predictions") if is_old_head(name) else name: tensor
        for name, tensor in tensors.items()
    }
    heads = own_heads(network, named)
    if network.head and len(heads) == 1 and "predictions/0" not in named:
        (own,) = heads
        return {
            f"predictions/{name.rpartition('/')[2]}"
            if name.rpartition("/")[0] == own
            else name: tensor
            for name, tensor in named.items()
        }
    return named


def own_heads(network: Backbone, named: Mapping[str, np.ndarray]) -> set[str]:
    """Layers that stand on top of the network in a fine-tuned model: Dense, and such.

    None of their arrays has more than two axes, so that no other network is taken for
    one that stands on top of this.
    """
    known = {layer.name for unit in network.units for layer in unit.layers}
    shapes: dict[str, list[int]] = {}
    for name, tensor in named.items():
        shapes.setdefault(name.rpartition("/")[0], []).append(tensor.ndim)
    return {
        layer
        for layer, ranks in shapes.items()
        if layer not in known
        and not layer.startswith("normalization")
        and max(ranks) <= 2
    }


def is_old_head(name: str) -> bool:
    """Whether the tensor belongs to a classifier called by its old name."""
    return name.rpartition("/")[0] == OLD_HEAD


def layer_table(network: Backbone) -> list[tuple[str, str]]:
    """(name, class) of all layers; a file may have a classifier where we have none."""
    table = [
        (layer.name, layer.kind) for unit in network.units for layer in unit.layers
    ]
    if not network.head:
        table += [(name, "Dense") for name in HEAD]
    return table


def fits(network: Backbone, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the file has the network's layers, by their names or their number."""
    try:
        named = name_layers(network, tensors)
    except ValueError:
        return False
    found = {name.rpartition("/")[0] for name in named}
    constants = {name for name in found if name.startswith("normalization")}
    has = {layer.name for layer in network.layers if layer.key}
    return found - constants - set(HEAD) - own_heads(network, named) == has


def origins(
    network: Backbone, shapes: Mapping[Target, tuple[int, ...]]
) -> dict[Target, Origin]:
    """Where every leaf of the network stands in a file, called `<layer>/<i>`."""
    layers = {
        (unit.name, layer.key): layer
        for unit in network.units
        for layer in unit.layers
        if layer.key
    }
    found = {}
    for target, shape in shapes.items():
        layer = layers[target.unit, target.key]
        number = LEAVES[layer.kind].index(target.leaf)
        axes = leaf_axes(layer.kind, len(shape))
        found[target] = Origin(f"{layer.name}/{number}", axes)
    return found


def leaf_axes(kind: str, ndim: int) -> tuple[int, ...]:
    """Permutation between Keras' array and ours, its own inverse.

    Only depthwise kernels differ: (height, width, channels, 1) in Keras.
    """
    if kind == "DepthwiseConv2D" and ndim == 4:
        return (0, 1, 3, 2)
    return tuple(range(ndim))


def ignored(network: Backbone, named: Mapping[str, np.ndarray]) -> set[str]:
    """Tensors left out on purpose: constants, and a classifier that is not wanted."""
    wanted = {layer.name for unit in network.units for layer in unit.layers}
    heads = {*HEAD, *own_heads(network, named)} - wanted
    return {
        name
        for name in named
        if name.startswith("normalization") or name.rpartition("/")[0] in heads
    }


def check_normalization(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """EfficientNet files hold the constants of the preprocessing; they must be ours.

    Keras' ImageNet files store the standard deviation as variance, and the graph that
    belongs to them divides by its root once more (keras/src/applications/
    efficientnet.py, "Restore the variance"). A file of the graph without that division
    must store the square.

    Args:
        tensors: called `<layer>/<i>`.
        source: what to call the file in an error.

    Raises:
        ValueError: the constants are others.
    """
    layer = next((name for name in tensors if name.startswith("normalization")), None)
    if layer is None:
        return
    layer = layer.rpartition("/")[0]
    mean = np.ravel(tensors.get(f"{layer}/0", np.nan))
    variance = np.ravel(tensors.get(f"{layer}/1", np.nan))
    known = (IMAGENET_STD, IMAGENET_STD**2)
    if (
        mean.shape == variance.shape == (3,)
        and np.allclose(mean, IMAGENET_MEAN, rtol=1e-5)
        and any(np.allclose(variance, value, rtol=1e-5) for value in known)
    ):
        return
    raise ValueError(
        f"{source} was made for other images: its Normalization has mean "
        f"{rounded(mean)} and variance {rounded(variance)}; allowed are ImageNet's, "
        f"mean {rounded(IMAGENET_MEAN)} and variance {rounded(IMAGENET_STD)} "
        f'(weights="imagenet") or {rounded(IMAGENET_STD**2)} (weights=None)'
    )


def rounded(values: np.ndarray) -> str:
    """Up to four numbers as text."""
    return "[" + ", ".join(f"{value:.6g}" for value in values[:4]) + "]"
