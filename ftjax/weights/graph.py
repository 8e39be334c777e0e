"""A network as a plain graph of operations, for files that other frameworks read.

`graph_units` adds the operations of each kind of module. Values are NHWC.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftjax.backbones.backbone import Backbone, Unit
from ftjax.backbones.layers import LAYER_EPSILON, Padding
from ftjax.backbones.preprocessing import Preprocessing
from ftjax.kernels.depthwise import explicit_pads
from ftjax.trees import Tree

# Of a map: height, width, channels; tokens: their number, channels; a vector: channels.
Shape = tuple[int, ...]

# What there is, with the arrays and options of each.
OPERATIONS = {
    "scale": "factor times RGB images in 0..255, plus shift; by channel",
    "conv": "kernel (HWIO), bias or none; strides, pads, groups, depthwise",
    "local_response": "normalization across channels; numbers, a `LocalResponse`",
    "bins": "means along one axis: kernel (bins, pixels), their shares; axis, 0 or 1",
    "norm": "BatchNorm in inference mode: scale, bias, mean, var; epsilon",
    "layer_norm": "over the last axis: scale, bias; epsilon",
    "dense": "over the last axis: kernel, bias",
    "affine": "kernel (c) times x, if it has one, plus bias (tokens, c), if it has one",
    "attention": "query, key, value, output: kernel and bias of each; heads",
    "tokens": "the pixels of a map, row after row",
    "blank": "zeros as a token before the others",
    "first": "the first token alone",
    "flatten": "all values as one vector",
    "relu": "max(x, 0)",
    "relu6": "min(max(x, 0), 6)",
    "gelu": "x times the normal distribution's share below x",
    "swish": "x times its sigmoid",
    "sigmoid": "1 / (1 + exp(-x))",
    "hard_sigmoid": "0 below -3, 1 above 3, a line between",
    "add": "of two nodes",
    "multiply": "of two nodes",
    "concat": "channels of the second node behind those of the first",
    "pool": "maximum over windows; size, strides, pads",
    "average": "mean over windows that do not overlap, what is left is cut; size",
    "mean": "over height and width; keep (both of them, as 1)",
}


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: what it does; see `OPERATIONS`.
        name: of the layer in Keras, unique.
        inputs: indices of the nodes that it takes; none: the images.
        shape: of its result, without the batch.
        arrays: its parameters and statistics by leaf.
        options: of the operation.
    """

    op: str
    name: str
    inputs: tuple[int, ...]
    shape: Shape
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


class Graph:
    """The operations of a network so far.

    Args:
        network: a backbone with its head.
        params: by unit, layer, leaf.
        batch_stats: likewise.
        size: height and width of the images, in pixels.
    """

    def __init__(self, network: Backbone, params: Tree, batch_stats: Tree, size: int):
        self.nodes: list[Node] = []
        self._params, self._stats, self._size = params, batch_stats, size
        self._bgr = network.body[0].module.preprocessing.bgr

    def shape(self, node: int) -> Shape:
        """Of a node's result; -1: of the images."""
        return self.nodes[node].shape if node >= 0 else (self._size, self._size, 3)

    def add(self, op: str, name: str, *inputs: int, shape: Shape = (), **kwargs) -> int:
        """Adds an operation on earlier nodes; its shape is the input's by default."""
        shape = shape or self.shape(inputs[0])
        inputs = tuple(node for node in inputs if node >= 0)
        self.nodes.append(Node(op, name, inputs, shape, **kwargs))
        return len(self.nodes) - 1

    def arrays(self, unit: Unit, key: str) -> dict[str, np.ndarray]:
        """Parameters and statistics of a layer, float32."""
        trees = self._params, self._stats
        leaves = [tree.get(unit.name, {}).get(key, {}) for tree in trees]
        return {k: np.asarray(v, np.float32) for own in leaves for k, v in own.items()}

    def scale(self, preprocessing: Preprocessing, name: str) -> int:
        """Preprocessing of RGB images; for BGR, `conv` turns the first kernel."""
        mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
        if self._bgr:
            mean, std = mean[::-1], std[::-1]
        arrays = {"factor": 1 / std, "shift": -mean / std}
        return self.add("scale", name, -1, arrays=arrays)

    def conv(
        self,
        unit: Unit,
        key: str,
        x: int,
        strides: int = 1,
        padding: Padding = "SAME",
        *,
        groups: int = 1,
        depthwise: bool = False,
    ) -> int:
        """A convolution with its bias, if it has one."""
        arrays = self.arrays(unit, key)
        if self.nodes[x].op == "scale" and self._bgr:
            arrays["kernel"] = arrays["kernel"][:, :, ::-1]
        height, width, channels = self.shape(x)
        kernel = arrays["kernel"].shape
        pads = explicit_pads((height, width), kernel[:2], (strides, strides), padding)
        shape = (*windows((height, width), kernel[:2], strides, pads), kernel[-1])
        options = {"strides": strides, "pads": pads}
        options |= {"depthwise": depthwise, "groups": channels if depthwise else groups}
        name = layer_name(unit, key)
        return self.add("conv", name, x, shape=shape, arrays=arrays, options=options)

    def norm(self, unit: Unit, key: str, x: int, epsilon: float) -> int:
        """BatchNorm by its running statistics."""
        name, arrays = layer_name(unit, key), self.arrays(unit, key)
        return self.add("norm", name, x, arrays=arrays, options={"epsilon": epsilon})

    def layer_norm(self, unit: Unit, key: str, x: int) -> int:
        """LayerNorm over the channels."""
        name, arrays = layer_name(unit, key), self.arrays(unit, key)
        options = {"epsilon": LAYER_EPSILON}
        return self.add("layer_norm", name, x, arrays=arrays, options=options)

    def dense(self, unit: Unit, key: str, x: int) -> int:
        """A matrix product over the channels with its bias."""
        name, arrays = layer_name(unit, key), self.arrays(unit, key)
        shape = *self.shape(x)[:-1], *arrays["bias"].shape
        return self.add("dense", name, x, shape=shape, arrays=arrays)

    def flatten(self, name: str, x: int) -> int:
        """All values as one vector, of a map row after row, channels last."""
        shape = self.shape(x)
        if len(shape) == 1:
            return x
        options, size = {"map": len(shape) == 3}, int(np.prod(shape))
        return self.add("flatten", name, x, shape=(size,), options=options)

    def mean(self, name: str, x: int, *, keep: bool = False) -> int:
        """The mean over height and width, with them, as 1, or without."""
        channels = self.shape(x)[-1:]
        shape = (1, 1, *channels) if keep else channels
        return self.add("mean", name, x, shape=shape, options={"keep": keep})

    def activate(self, activation: str, name: str, x: int) -> int:
        """An activation by its name; `hswish` is x times the hard sigmoid of x."""
        if activation != "hswish":
            return self.add(activation, name, x)
        return self.add(
            "multiply", name, x, self.add("hard_sigmoid", f"{name}_gate", x)
        )

    def pool(self, name: str, x: int, size: int, strides: int, padding: Padding) -> int:
        """Maximum over windows; padding counts as minus infinity."""
        height, width, channels = self.shape(x)
        pads = explicit_pads((height, width), (size, size), (strides, strides), padding)
        shape = (*windows((height, width), (size, size), strides, pads), channels)
        options = {"size": size, "strides": strides, "pads": pads}
        return self.add("pool", name, x, shape=shape, options=options)


def windows(image: Shape, size: Shape, strides: int, pads) -> Shape:
    """How many windows there are, down and across."""
    return tuple(
        (pixels + sum(pad) - window) // strides + 1
        for pixels, window, pad in zip(image, size, pads, strict=True)
    )


def layer_name(unit: Unit, key: str) -> str:
    """Keras' name of the layer that has its parameters under `key`."""
    return next(layer.name for layer in unit.layers if layer.key == key)
