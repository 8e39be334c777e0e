"""A network as a plain graph of operations, for files that other frameworks read.

Each kind of module is written once more here, as the operations that it applies in
inference mode; a test runs every graph against the network. Values are NHWC.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftjax.backbones.backbone import Backbone, Unit
from ftjax.backbones.efficientnet import EPSILON, ConvNorm, MBConv
from ftjax.backbones.heads import AveragePool, Classifier, Hidden
from ftjax.backbones.layers import Padding
from ftjax.backbones.preprocessing import Preprocessing
from ftjax.backbones.resnet import PAD, Bottleneck, Stem
from ftjax.backbones.vgg import MaxPool, PlainConv
from ftjax.kernels.depthwise import explicit_pads
from ftjax.trees import Tree

Shape = tuple[int, ...]  # height, width, channels; channels alone behind the pooling


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: scale, conv, norm, relu, relu6, swish, sigmoid, add, multiply, pool, mean or
            dense.
        name: of the layer in Keras, unique.
        inputs: indices of the nodes that it takes; none: the images.
        shape: of its result, without the batch.
        arrays: its parameters and statistics by leaf: conv (kernel HWIO, bias), norm
            (scale, bias, mean, var), dense (kernel, bias), scale (factor, shift, by
            channel of RGB images in 0..255).
        options: conv: strides, pads, depthwise; pool: size, strides, pads; norm:
            epsilon; mean: keep (height and width of 1).
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
        options = {"strides": strides, "pads": pads, "depthwise": depthwise}
        name = layer_name(unit, key)
        return self.add("conv", name, x, shape=shape, arrays=arrays, options=options)

    def norm(self, unit: Unit, key: str, x: int, epsilon: float) -> int:
        """BatchNorm by its running statistics."""
        name, arrays = layer_name(unit, key), self.arrays(unit, key)
        return self.add("norm", name, x, arrays=arrays, options={"epsilon": epsilon})

    def dense(self, unit: Unit, key: str, x: int) -> int:
        """A matrix product with its bias."""
        name, arrays = layer_name(unit, key), self.arrays(unit, key)
        return self.add("dense", name, x, shape=arrays["bias"].shape, arrays=arrays)

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


def conv_norm(graph: Graph, unit: Unit, x: int) -> int:
    """Stem and top of EfficientNet."""
    module: ConvNorm = unit.module
    if module.preprocessing is not None:
        x = graph.scale(module.preprocessing, f"{unit.name}_scale")
    x = graph.norm(unit, "bn", graph.conv(unit, "conv", x, module.strides), EPSILON)
    return graph.add(module.activation, f"{unit.name}_activation", x)


def mbconv(graph: Graph, unit: Unit, x: int) -> int:
    """A block of EfficientNet."""
    module: MBConv = unit.module
    name, shortcut = unit.name, x
    if module.expand != 1:
        x = graph.norm(unit, "expand_bn", graph.conv(unit, "expand_conv", x), EPSILON)
        x = graph.add(module.activation, f"{name}_expand_activation", x)
    half = module.kernel_size // 2
    padding = ((half, half),) * 2 if module.centered else "SAME"
    x = graph.conv(unit, "dwconv", x, module.strides, padding, depthwise=True)
    x = graph.norm(unit, "bn", x, EPSILON)
    x = graph.add(module.activation, f"{name}_activation", x)
    if module.se_features:
        shape = (1, 1, graph.shape(x)[-1])
        gates = graph.add(
            "mean", f"{name}_se_squeeze", x, shape=shape, options={"keep": True}
        )
        gates = graph.conv(unit, "se_reduce", gates)
        gates = graph.add("swish", f"{name}_se_activation", gates)
        gates = graph.conv(unit, "se_expand", gates)
        gates = graph.add("sigmoid", f"{name}_se_gates", gates)
        x = graph.add("multiply", f"{name}_se_excite", x, gates)
    x = graph.norm(unit, "project_bn", graph.conv(unit, "project_conv", x), EPSILON)
    return graph.add("add", f"{name}_add", x, shortcut) if module.residual else x


def resnet_stem(graph: Graph, unit: Unit, x: int) -> int:
    """The first unit of ResNet."""
    module: Stem = unit.module
    x = graph.scale(module.preprocessing, "conv1_scale")
    x = graph.conv(unit, "conv1_conv", x, 2, ((3, 3), (3, 3)))
    x = graph.norm(unit, "conv1_bn", x, module.variant.epsilon)
    return graph.pool("pool1_pool", graph.add("relu", "conv1_relu", x), 3, 2, PAD)


def bottleneck(graph: Graph, unit: Unit, x: int) -> int:
    """A block of ResNet50 and larger ones."""
    module: Bottleneck = unit.module
    epsilon, late = module.variant.epsilon, module.variant.late_stride
    strides = (1, module.strides, 1) if late else (module.strides, 1, 1)
    shortcut = x
    if module.projection:
        shortcut = graph.conv(unit, "0_conv", x, module.strides)
        shortcut = graph.norm(unit, "0_bn", shortcut, epsilon)
    for number, step in enumerate(strides, start=1):
        padding = PAD if number == 2 else "SAME"
        x = graph.conv(unit, f"{number}_conv", x, step, padding)
        x = graph.norm(unit, f"{number}_bn", x, epsilon)
        if number < 3:
            x = graph.add("relu", f"{unit.name}_{number}_relu", x)
    x = graph.add("add", f"{unit.name}_add", shortcut, x)
    return graph.add("relu", f"{unit.name}_out", x)


def plain_conv(graph: Graph, unit: Unit, x: int) -> int:
    """A convolution of VGG."""
    if unit.module.preprocessing is not None:
        x = graph.scale(unit.module.preprocessing, f"{unit.name}_scale")
    return graph.add("relu", f"{unit.name}_relu", graph.conv(unit, "conv", x))


def max_pool(graph: Graph, unit: Unit, x: int) -> int:
    """A pooling of VGG."""
    return graph.pool(unit.name, x, 2, 2, "VALID")


def average_pool(graph: Graph, unit: Unit, x: int) -> int:
    """The mean over height and width."""
    shape = graph.shape(x)[-1:]
    return graph.add("mean", unit.name, x, shape=shape, options={"keep": False})


def hidden(graph: Graph, unit: Unit, x: int) -> int:
    """A hidden layer of the head; dropout does nothing in inference mode."""
    return graph.add("relu", f"{unit.name}_relu", graph.dense(unit, "dense", x))


def classifier(graph: Graph, unit: Unit, x: int) -> int:
    """The linear classifier."""
    return graph.dense(unit, "predictions", x)


KINDS: dict[type, Callable[[Graph, Unit, int], int]] = {
    ConvNorm: conv_norm,
    MBConv: mbconv,
    Stem: resnet_stem,
    Bottleneck: bottleneck,
    PlainConv: plain_conv,
    MaxPool: max_pool,
    AveragePool: average_pool,
    Hidden: hidden,
    Classifier: classifier,
}


def make_graph(
    network: Backbone, params: Tree, batch_stats: Tree, size: int
) -> tuple[Node, ...]:
    """The operations of a network in inference mode, in order; the last: the logits.

    Args:
        network: a backbone with its head.
        params: by unit, layer, leaf.
        batch_stats: likewise.
        size: height and width of the images, in pixels.

    Raises:
        ValueError: it has a unit that is not known here, as one's own network may.
    """
    graph, x = Graph(network, params, batch_stats, size), -1
    for unit in network.units:
        kind = type(unit.module)
        if kind not in KINDS:
            raise ValueError(
                f"unit {unit.name} of {network.name} is a {kind.__name__}, which other "
                "frameworks' formats are not written for; export to safetensors"
            )
        x = KINDS[kind](graph, unit, x)
    return tuple(graph.nodes)
