"""Trained networks as Keras 3 `.keras` files: one file, read by `load_model`.

The file is a zip of the functional model's configuration and its weights. Keras is not
imported. Every network can be written, also those that keras.applications does not
have; preprocessing is a layer of the model.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.weights.graph import Node
from ftjax.weights.keras_names import LEAVES, leaf_axes

KERAS_VERSION = "3.0.0"  # of the layout: any Keras 3 reads it
# Keras counts the layers of a class in a file under these names.
GROUPS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
    "Normalization": "normalization",
    "Dense": "dense",
}
ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "swish": "silu", "sigmoid": "sigmoid"}
NO_PADS = ((0, 0), (0, 0))
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: equal networks, equal files


def keras_bytes(
    network: Backbone, nodes: Sequence[Node], *, size: int, about: Mapping[str, str]
) -> bytes:
    """The content of a .keras file.

    The model takes RGB images in 0..255, (n, size, size, 3), and gives logits.

    Args:
        network: whose table has the order of the layers in Keras.
        nodes: of `make_graph`.
        size: height and width of the images, in pixels.
        about: metadata, text by name: the member `ftjax.json`, which Keras passes over.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = {
            "metadata.json": json.dumps({"keras_version": KERAS_VERSION}),
            "config.json": json.dumps(model_config(network.name, nodes, size)),
            "model.weights.h5": weights_file(network, nodes),
            "ftjax.json": json.dumps(dict(about), indent=2),
        }
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()


def weights_file(network: Backbone, nodes: Sequence[Node]) -> bytes:
    """The weights by class and number; Keras numbers layers in the table's order."""
    table = [layer.name for unit in network.units for layer in unit.layers]
    stored = [node for node in nodes if keras_class(node) in GROUPS]
    counts: dict[str, int] = {}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for node in sorted(stored, key=lambda node: table.index(node.name)):
            kind = keras_class(node)
            group = GROUPS[kind]
            number = counts[group] = counts.get(group, -1) + 1
            name = f"{group}_{number}" if number else group
            own = file.create_group(f"layers/{name}/vars")
            leaves = [leaf for leaf in LEAVES[kind] if leaf in node.arrays]
            for index, leaf in enumerate(leaves):
                array = node.arrays[leaf]
                array = array.transpose(leaf_axes(kind, array.ndim))
                own.create_dataset(str(index), data=np.ascontiguousarray(array))
    return buffer.getvalue()


def keras_class(node: Node) -> str:
    """Keras' class of a node's layer."""
    if node.op == "conv":
        return "DepthwiseConv2D" if node.options["depthwise"] else "Conv2D"
    return {
        "scale": "Rescaling",
        "norm": "BatchNormalization",
        "add": "Add",
        "multiply": "Multiply",
        "pool": "MaxPooling2D",
        "mean": "GlobalAveragePooling2D",
        "dense": "Dense",
    }.get(node.op, "Activation")


def model_config(name: str, nodes: Sequence[Node], size: int) -> dict[str, Any]:
    """The functional model as Keras' `get_config` has it."""
    images = {"batch_shape": [None, size, size, 3], "dtype": "float32"}
    layers = [layer_config("InputLayer", "images", images, [])]
    for node in nodes:
        sources = [(nodes[i].name, nodes[i].shape) for i in node.inputs]
        sources = sources or [("images", (size, size, 3))]
        config = node_config(node)
        if node.op in ("conv", "pool") and config["padding"] == "valid":
            pads = node.options["pads"]
            if pads != NO_PADS:
                padded = f"{node.name}_pad"
                padding = {"padding": [list(pad) for pad in pads]}
                layers.append(layer_config("ZeroPadding2D", padded, padding, sources))
                sources = [(padded, padded_shape(sources[0][1], pads))]
        layers.append(layer_config(keras_class(node), node.name, config, sources))
    config = {
        "name": name,
        "trainable": True,
        "layers": layers,
        "input_layers": ["images", 0, 0],
        "output_layers": [nodes[-1].name, 0, 0],
    }
    return {
        "module": "keras.src.models.functional",  # as Keras writes it
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


def padded_shape(shape: Sequence[int], pads) -> tuple[int, ...]:
    """Of an image with its padding."""
    height, width, channels = shape
    return height + sum(pads[0]), width + sum(pads[1]), channels


def node_config(node: Node) -> dict[str, Any]:
    """The arguments of a node's layer."""
    options, arrays = node.options, node.arrays
    if node.op == "scale":
        return {
            "scale": [float(value) for value in arrays["factor"]],
            "offset": [float(value) for value in arrays["shift"]],
        }
    if node.op == "conv":
        kernel = arrays["kernel"].shape
        config = {
            "kernel_size": list(kernel[:2]),
            "strides": [options["strides"]] * 2,
            "padding": "same" if keeps_size(node, kernel[0]) else "valid",
            "use_bias": "bias" in arrays,
        }
        return config if options["depthwise"] else {"filters": kernel[-1], **config}
    if node.op == "norm":
        return {"epsilon": options["epsilon"]}
    if node.op == "pool":
        # Zeros stand for minus infinity: what is pooled has passed a ReLU.
        sizes = [options["size"]] * 2, [options["strides"]] * 2
        return {"pool_size": sizes[0], "strides": sizes[1], "padding": "valid"}
    if node.op == "mean":
        return {"keepdims": options["keep"]}
    if node.op == "dense":
        return {"units": node.shape[0]}
    return {"activation": ACTIVATIONS[node.op]} if node.op in ACTIVATIONS else {}


def keeps_size(node: Node, kernel_size: int) -> bool:
    """Whether the padding is what Keras calls `same` at stride 1."""
    pad = (kernel_size // 2,) * 2
    return node.options["strides"] == 1 and node.options["pads"] == (pad, pad)


def layer_config(
    kind: str,
    name: str,
    config: Mapping[str, Any],
    sources: Sequence[tuple[str, Sequence[int]]],
) -> dict[str, Any]:
    """One layer and what it is called on: names and shapes of other layers' results."""
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, *shape],
                "dtype": "float32",
                "keras_history": [source, 0, 0],
            },
        }
        for source, shape in sources
    ]
    calls = [tensors] if len(tensors) > 1 else tensors
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [{"args": calls, "kwargs": {}}] if calls else [],
    }
