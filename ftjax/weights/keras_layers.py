"""The operations of a network (`graph`) as layers of a functional Keras model."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ftjax.weights.graph import Node, Shape

IMAGES = "images"  # the model's input
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "hard_sigmoid",
    "gelu": "gelu",
}
NO_PADS = ((0, 0), (0, 0))
POWER = "exponent"  # of `Power`, which is an operation and takes it when called


class KerasLayer(NamedTuple):
    """One layer of a functional model.

    Attributes:
        kind: its class.
        name: unique.
        inputs: names of the layers whose results it takes.
        shape: of its result, without the batch.
        config: its arguments, without the name.
        arrays: its weights by their path below the layer's in a file of weights.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    shape: Shape
    config: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}


class Model:
    """The layers of a model so far, each behind its inputs.

    Args:
        size: height and width of the images, in pixels.
    """

    def __init__(self, size: int):
        self.layers: dict[str, KerasLayer] = {}
        shape = (size, size, 3)
        self.put(
            "InputLayer",
            IMAGES,
            (),
            shape,
            {"batch_shape": [None, *shape], "dtype": "float32"},
        )

    def put(self, kind: str, name: str, inputs: tuple[str, ...], shape: Shape, *rest):
        """Adds a layer; arguments as of `KerasLayer`."""
        self.layers[name] = KerasLayer(kind, name, inputs, shape, *rest)


def keras_layers(nodes: Sequence[Node], size: int) -> list[KerasLayer]:
    """The layers of a network, the input first, the logits last.

    Args:
        nodes: of `make_graph`.
        size: height and width of the images, in pixels.
    """
    model = Model(size)
    for node in nodes:
        inputs = tuple(nodes[i].name for i in node.inputs) or (IMAGES,)
        if node.op in ACTIVATIONS:
            config = {"activation": ACTIVATIONS[node.op]}
            model.put("Activation", node.name, inputs, node.shape, config)
        elif node.op in MERGES:
            model.put(MERGES[node.op], node.name, inputs, node.shape)
        else:
            WRITERS[node.op](model, node, inputs)
    return list(model.layers.values())


MERGES = {"add": "Add", "multiply": "Multiply", "concat": "Concatenate"}


def weights(node: Node, *leaves: str) -> dict[str, np.ndarray]:
    """Those arrays of a node that it has, called as in a file."""
    found = [node.arrays[leaf] for leaf in leaves if leaf in node.arrays]
    return {f"vars/{i}": array for i, array in enumerate(found)}


def put_scale(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Preprocessing."""
    config = {
        "scale": [float(value) for value in node.arrays["factor"]],
        "offset": [float(value) for value in node.arrays["shift"]],
    }
    model.put("Rescaling", node.name, inputs, node.shape, config)


def put_conv(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """A convolution, behind a layer of padding if it has one that Keras lacks."""
    strides, kernel = node.options["strides"], node.arrays["kernel"]
    same = strides == 1 and node.options["pads"] == ((kernel.shape[0] // 2,) * 2,) * 2
    config = {
        "kernel_size": list(kernel.shape[:2]),
        "strides": [strides] * 2,
        "padding": "same" if same else "valid",
        "use_bias": "bias" in node.arrays,
    }
    if not same:
        inputs = put_pads(model, node, inputs)
    arrays = weights(node, "kernel", "bias")
    if node.options["depthwise"]:
        arrays["vars/0"] = kernel.transpose(0, 1, 3, 2)
        kind = "DepthwiseConv2D"
    else:
        config |= {"filters": kernel.shape[-1], "groups": node.options["groups"]}
        kind = "Conv2D"
    model.put(kind, node.name, inputs, node.shape, config, arrays)


def put_pool(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Max pooling. Zeros pad for minus infinity: what is pooled has passed a ReLU."""
    config = {
        "pool_size": [node.options["size"]] * 2,
        "strides": [node.options["strides"]] * 2,
        "padding": "valid",
    }
    inputs = put_pads(model, node, inputs)
    model.put("MaxPooling2D", node.name, inputs, node.shape, config)


def put_pads(model: Model, node: Node, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Zeros around a map, if a node asks for some; returns what the node then takes."""
    pads = node.options["pads"]
    if pads == NO_PADS:
        return inputs
    height, width, channels = model.layers[inputs[0]].shape
    shape = height + sum(pads[0]), width + sum(pads[1]), channels
    config = {"padding": [list(pad) for pad in pads]}
    model.put("ZeroPadding2D", f"{node.name}_pad", inputs, shape, config)
    return (f"{node.name}_pad",)


def put_average(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Average pooling."""
    config = {"pool_size": [node.options["size"]] * 2, "padding": "valid"}
    model.put("AveragePooling2D", node.name, inputs, node.shape, config)


def put_bins(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Means along one axis, by a matrix that training leaves alone."""
    config = {
        "equation": "abcd,ce->abed" if node.options["axis"] else "abcd,be->aecd",
        "output_shape": list(node.shape),
        "trainable": False,
    }
    arrays = {"vars/0": node.arrays["kernel"].T}
    model.put("EinsumDense", node.name, inputs, node.shape, config, arrays)


def put_local_response(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Local response normalization, for which Keras has no layer.

    The sums over neighbouring channels are a 1x1 convolution that training leaves
    alone.
    """
    name, channels = node.name, node.shape[-1]
    size, alpha, beta, k = node.options["numbers"]
    position = np.arange(channels)
    near = abs(position[:, None] - position) <= size // 2
    kernel = np.where(near, np.float32(alpha / size), np.float32(0))[None, None]
    config = {"filters": channels, "kernel_size": [1, 1], "trainable": False}
    arrays = {"vars/0": kernel, "vars/1": np.full(channels, k, np.float32)}
    squares, sums, factors = (f"{name}_{part}" for part in ("squares", "sums", "power"))
    model.put("Multiply", squares, inputs * 2, node.shape)
    model.put("Conv2D", sums, (squares,), node.shape, config, arrays)
    model.put("Power", factors, (sums,), node.shape, {POWER: -beta})
    model.put("Multiply", name, (*inputs, factors), node.shape)


def put_mean(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """The mean of a map."""
    config = {"keepdims": node.options["keep"]}
    model.put("GlobalAveragePooling2D", node.name, inputs, node.shape, config)


def put_norm(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """BatchNorm."""
    config = {"epsilon": node.options["epsilon"]}
    arrays = weights(node, "scale", "bias", "mean", "var")
    model.put("BatchNormalization", node.name, inputs, node.shape, config, arrays)


def put_dense(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """A matrix product over the last axis."""
    config = {"units": node.shape[-1]}
    arrays = weights(node, "kernel", "bias")
    model.put("Dense", node.name, inputs, node.shape, config, arrays)


def put_layer_norm(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """LayerNorm."""
    config, arrays = (
        {"epsilon": node.options["epsilon"]},
        weights(node, "scale", "bias"),
    )
    model.put("LayerNormalization", node.name, inputs, node.shape, config, arrays)


def put_affine(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Factors by channel, and what is added by token and channel.

    The layer of Keras that learns both is an `EinsumDense` that sums over nothing.
    """
    axes = "abcd"[: 1 + len(node.shape)]
    config = {
        "equation": f"{axes},{axes[-1]}->{axes}",
        "output_shape": list(node.shape),
        "bias_axes": axes[1:] if "bias" in node.arrays else None,
    }
    ones = np.ones(node.shape[-1], np.float32)
    arrays = {"vars/0": node.arrays.get("kernel", ones)}
    if "bias" in node.arrays:
        arrays["vars/1"] = node.arrays["bias"]
    model.put("EinsumDense", node.name, inputs, node.shape, config, arrays)


def put_attention(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """Attention of all tokens to all."""
    channels, heads = node.shape[-1], node.options["heads"]
    split = heads, channels // heads
    config = {"num_heads": heads, "key_dim": split[1]}
    arrays = {}
    for name in ("query", "key", "value", "output"):
        kernel, bias = (node.arrays[f"{name}_{leaf}"] for leaf in ("kernel", "bias"))
        if name == "output":
            kernel = kernel.reshape(*split, channels)
        else:
            kernel, bias = kernel.reshape(channels, *split), bias.reshape(split)
        arrays[f"{name}_dense/vars/0"] = kernel
        arrays[f"{name}_dense/vars/1"] = bias
    inputs = inputs * 2  # queries, and what keys and values are made of
    model.put("MultiHeadAttention", node.name, inputs, node.shape, config, arrays)


def put_tokens(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """A map as tokens."""
    config = {"target_shape": list(node.shape)}
    model.put("Reshape", node.name, inputs, node.shape, config)


def put_blank(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """A token of zeros before the others."""
    model.put("ZeroPadding1D", node.name, inputs, node.shape, {"padding": [1, 0]})


def put_first(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """The first token."""
    others = model.layers[inputs[0]].shape[0] - 1
    model.put("Cropping1D", node.name, inputs, node.shape, {"cropping": [0, others]})


def put_flatten(model: Model, node: Node, inputs: tuple[str, ...]) -> None:
    """All values as one vector."""
    model.put("Flatten", node.name, inputs, node.shape)


WRITERS: dict[str, Callable[[Model, Node, tuple[str, ...]], None]] = {
    "scale": put_scale,
    "conv": put_conv,
    "pool": put_pool,
    "average": put_average,
    "bins": put_bins,
    "local_response": put_local_response,
    "mean": put_mean,
    "norm": put_norm,
    "dense": put_dense,
    "layer_norm": put_layer_norm,
    "affine": put_affine,
    "attention": put_attention,
    "tokens": put_tokens,
    "blank": put_blank,
    "first": put_first,
    "flatten": put_flatten,
}
