"""The modules of ConvNeXt and vision transformers as operations (`graph_units`)."""

import jax.numpy as jnp
import numpy as np

from ftjax.backbones.backbone import Unit
from ftjax.backbones.vit import PATCH, Block, Patches, positions_for
from ftjax.weights.graph import Graph, layer_name

PROJECTIONS = ("query", "key", "value")


def convnext_stem(graph: Graph, unit: Unit, x: int) -> int:
    """The first unit of ConvNeXt."""
    x = graph.scale(unit.module.preprocessing, f"{unit.name}_preprocessing")
    return graph.layer_norm(unit, "norm", graph.conv(unit, "conv", x, 4, "VALID"))


def downsample(graph: Graph, unit: Unit, x: int) -> int:
    """What stands between ConvNeXt's stages."""
    return graph.conv(unit, "conv", graph.layer_norm(unit, "norm", x), 2, "VALID")


def convnext_block(graph: Graph, unit: Unit, x: int) -> int:
    """A block of ConvNeXt."""
    shortcut = x
    x = graph.conv(unit, "dwconv", x, 1, ((3, 3), (3, 3)), depthwise=True)
    x = perceptron(graph, unit, graph.layer_norm(unit, "norm", x))
    arrays = {"kernel": graph.arrays(unit, "scale")["gamma"]}
    x = graph.add("affine", layer_name(unit, "scale"), x, arrays=arrays)
    return graph.add("add", f"{unit.name}_add", x, shortcut)


def perceptron(graph: Graph, unit: Unit, x: int) -> int:
    """Two dense layers with GELU between them."""
    x = graph.add("gelu", f"{unit.name}_gelu", graph.dense(unit, "fc1", x))
    return graph.dense(unit, "fc2", x)


def pooled_norm(graph: Graph, unit: Unit, x: int) -> int:
    """The last unit of ConvNeXt's body."""
    return graph.layer_norm(unit, "norm", graph.mean(f"{unit.name}_pool", x))


def patches(graph: Graph, unit: Unit, x: int) -> int:
    """The first unit of a vision transformer.

    A token of zeros comes first; what is added to it is the class token and its
    position. Positions are those of the graph's size of images.
    """
    module: Patches = unit.module
    x = graph.scale(module.preprocessing, f"{unit.name}_preprocessing")
    x = graph.conv(unit, "proj", x, PATCH, "VALID")
    rows, columns, channels = graph.shape(x)
    count = rows * columns
    x = graph.add("tokens", f"{unit.name}_tokens", x, shape=(count, channels))
    x = graph.add("blank", f"{unit.name}_blank", x, shape=(1 + count, channels))
    learned, first = (graph.arrays(unit, key)["embedding"] for key in ("pos", "cls"))
    positions = np.array(positions_for(jnp.asarray(learned), rows, columns)[0])
    positions[0] += first[0, 0]
    name = layer_name(unit, "pos")
    return graph.add("affine", name, x, arrays={"bias": positions})


def transformer_block(graph: Graph, unit: Unit, x: int) -> int:
    """A block of a vision transformer."""
    module: Block = unit.module
    together, last = graph.arrays(unit, "qkv"), graph.arrays(unit, "proj")
    arrays = {}
    for leaf, array in together.items():
        for name, part in zip(PROJECTIONS, np.split(array, 3, -1), strict=True):
            arrays[f"{name}_{leaf}"] = part
        arrays[f"output_{leaf}"] = last[leaf]
    attended = graph.add(
        "attention",
        f"{unit.name}_attention",
        graph.layer_norm(unit, "norm1", x),
        arrays=arrays,
        options={"heads": module.heads},
    )
    x = graph.add("add", f"{unit.name}_add1", x, attended)
    hidden = perceptron(graph, unit, graph.layer_norm(unit, "norm2", x))
    return graph.add("add", f"{unit.name}_add2", x, hidden)


def class_token(graph: Graph, unit: Unit, x: int) -> int:
    """The last unit of a vision transformer's body."""
    x = graph.add("first", f"{unit.name}_token", x, shape=(1, graph.shape(x)[-1]))
    return graph.layer_norm(unit, "norm", graph.flatten(f"{unit.name}_flat", x))
