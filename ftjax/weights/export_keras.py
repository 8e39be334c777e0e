"""Trained networks as `.keras` files: one file, which Keras 3.4 and newer load.

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
from ftjax.weights.keras_layers import IMAGES, POWER, KerasLayer, keras_layers

KERAS_VERSION = "3.4.0"  # of the layout: older ones write a single input as a list
# Keras counts the layers of a class in a file under these names.
GROUPS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
    "Normalization": "normalization",
    "Dense": "dense",
    "LayerNormalization": "layer_normalization",
    "EinsumDense": "einsum_dense",
    "MultiHeadAttention": "multi_head_attention",
}
MERGING = ("Add", "Multiply", "Concatenate")  # take one list
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: equal networks, equal files


def keras_bytes(
    network: Backbone, nodes: Sequence[Node], *, size: int, about: Mapping[str, str]
) -> bytes:
    """The content of a .keras file.

    The model takes RGB images in 0..255, (n, size, size, 3), and gives logits.

    Args:
        network: whose name the model gets.
        nodes: of `make_graph`.
        size: height and width of the images, in pixels.
        about: metadata, text by name: the member `ftjax.json`, which Keras passes over.
    """
    layers = keras_layers(nodes, size)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = {
            "metadata.json": json.dumps({"keras_version": KERAS_VERSION}),
            "config.json": json.dumps(model_config(network.name, layers)),
            "model.weights.h5": weights_file(layers),
            "ftjax.json": json.dumps(dict(about), indent=2),
        }
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()


def weights_file(layers: Sequence[KerasLayer]) -> bytes:
    """The weights by class, and number in the order of Keras' `model.layers`."""
    counts: dict[str, int] = {}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for layer in in_keras_order(layers):
            if not layer.arrays:
                continue
            group = GROUPS[layer.kind]
            number = counts[group] = counts.get(group, -1) + 1
            name = f"{group}_{number}" if number else group
            own = file.create_group(f"layers/{name}")
            for path, array in layer.arrays.items():
                own.create_dataset(path, data=np.ascontiguousarray(array))
    return buffer.getvalue()


def in_keras_order(layers: Sequence[KerasLayer]) -> list[KerasLayer]:
    """Layers as Keras lists those of a functional model.

    Those farthest from the output come first; of equally far ones, that which a walk
    back from the output meets first, following one input to its end before the next.

    Args:
        layers: each behind its inputs, the output last.
    """
    named = {layer.name: layer for layer in layers}
    distances = dict.fromkeys(named, 0)
    for layer in reversed(layers):
        for source in layer.inputs:
            distances[source] = max(distances[source], distances[layer.name] + 1)
    met: dict[str, int] = {}
    waiting = [layers[-1].name]
    while waiting:
        name = waiting.pop()
        if name not in met:
            met[name] = len(met)
            waiting += reversed(named[name].inputs)
    return sorted(layers, key=lambda layer: (-distances[layer.name], met[layer.name]))


def model_config(name: str, layers: Sequence[KerasLayer]) -> dict[str, Any]:
    """The functional model as Keras' `get_config` has it."""
    shapes = {layer.name: layer.shape for layer in layers}
    config = {
        "name": name,
        "trainable": True,
        "layers": [layer_config(layer, shapes) for layer in layers],
        "input_layers": [IMAGES, 0, 0],
        "output_layers": [layers[-1].name, 0, 0],
    }
    return {
        "module": "keras.src.models.functional",  # as Keras writes it
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


def layer_config(
    layer: KerasLayer, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """One layer and what it is called on.

    Args:
        layer: of the model.
        shapes: of the results of all layers, without the batch.
    """
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, *shapes[source]],
                "dtype": "float32",
                "keras_history": [source, 0, 0],
            },
        }
        for source in layer.inputs
    ]
    calls: list[Any] = [tensors] if layer.kind in MERGING else tensors
    config, module = {"name": layer.name, **layer.config}, "keras.layers"
    if POWER in config:
        calls.append(config.pop(POWER))
        module = "keras.src.ops.numpy"
    return {
        "module": module,
        "class_name": layer.kind,
        "config": config,
        "registered_name": None if module == "keras.layers" else layer.kind,
        "name": layer.name,
        "inbound_nodes": [{"args": calls, "kwargs": {}}] if calls else [],
    }
