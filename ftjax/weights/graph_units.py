"""Each kind of module once more: the operations that it applies in inference mode.

`tests/weights/test_exports.py` runs the files of every family against the network.
"""

from collections.abc import Callable

from ftjax.backbones import densenet, mobilenet
from ftjax.backbones.alexnet import ConvBlock, FullyConnected
from ftjax.backbones.backbone import Backbone, Unit
from ftjax.backbones.convnext import Block as ConvNextBlock
from ftjax.backbones.convnext import Downsample, PooledNorm
from ftjax.backbones.convnext import Stem as ConvNextStem
from ftjax.backbones.efficientnet import EPSILON, ConvNorm, MBConv
from ftjax.backbones.efficientnet_v2 import FusedMBConv
from ftjax.backbones.heads import AveragePool, Classifier, Hidden
from ftjax.backbones.pooling import bin_shares
from ftjax.backbones.resnet import PAD, V1_5, BasicBlock, Bottleneck, Stem
from ftjax.backbones.vgg import MaxPool, PlainConv
from ftjax.backbones.vit import Block as TransformerBlock
from ftjax.backbones.vit import ClassToken, Patches
from ftjax.trees import Tree
from ftjax.weights import graph_layer_norm
from ftjax.weights.graph import Graph, Node


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
    padding = "SAME"
    if module.centered:
        padding = ((module.kernel_size // 2,) * 2,) * 2
    x = graph.conv(unit, "dwconv", x, module.strides, padding, depthwise=True)
    x = graph.norm(unit, "bn", x, EPSILON)
    x = graph.add(module.activation, f"{name}_activation", x)
    if module.se_features:
        x = excite(graph, unit, x, "swish", "sigmoid")
    x = graph.norm(unit, "project_bn", graph.conv(unit, "project_conv", x), EPSILON)
    return graph.add("add", f"{name}_add", x, shortcut) if module.residual else x


def excite(graph: Graph, unit: Unit, x: int, activation: str, gate: str) -> int:
    """Squeeze-and-excitation: channel gates from the channel means."""
    name = f"{unit.name}_se"
    gates = graph.mean(f"{name}_squeeze", x, keep=True)
    gates = graph.conv(unit, "se_reduce", gates)
    gates = graph.add(activation, f"{name}_activation", gates)
    gates = graph.conv(unit, "se_expand", gates)
    gates = graph.add(gate, f"{name}_gates", gates)
    return graph.add("multiply", f"{name}_excite", x, gates)


def fused_mbconv(graph: Graph, unit: Unit, x: int) -> int:
    """A block of EfficientNetV2's first stages."""
    module: FusedMBConv = unit.module
    name, shortcut, strides = unit.name, x, module.strides
    if module.expand != 1:
        x = graph.conv(unit, "expand_conv", x, strides)
        x = graph.norm(unit, "expand_bn", x, EPSILON)
        x = graph.add("swish", f"{name}_expand_activation", x)
        strides = 1
    x = graph.conv(unit, "project_conv", x, strides)
    x = graph.norm(unit, "project_bn", x, EPSILON)
    if module.expand == 1:
        x = graph.add("swish", f"{name}_project_activation", x)
    return graph.add("add", f"{name}_add", x, shortcut) if module.residual else x


def resnet_stem(graph: Graph, unit: Unit, x: int) -> int:
    """The first unit of ResNet."""
    module: Stem = unit.module
    return stem(graph, unit, module.preprocessing, module.variant.epsilon)


def densenet_stem(graph: Graph, unit: Unit, x: int) -> int:
    """The first unit of DenseNet."""
    return stem(graph, unit, unit.module.preprocessing, densenet.EPSILON)


def stem(graph: Graph, unit: Unit, preprocessing, epsilon: float) -> int:
    """7x7 convolution and 3x3 max pooling, both of stride 2."""
    x = graph.scale(preprocessing, "conv1_scale")
    x = graph.conv(unit, "conv1_conv", x, 2, ((3, 3), (3, 3)))
    x = graph.norm(unit, "conv1_bn", x, epsilon)
    return graph.pool("pool1_pool", graph.add("relu", "conv1_relu", x), 3, 2, PAD)


def bottleneck(graph: Graph, unit: Unit, x: int) -> int:
    """A block of ResNet50 and larger ones."""
    module: Bottleneck = unit.module
    late = module.variant.late_stride
    strides = (1, module.strides, 1) if late else (module.strides, 1, 1)
    return residual(graph, unit, x, strides, (1, 3, 1), module.variant.epsilon)


def basic_block(graph: Graph, unit: Unit, x: int) -> int:
    """A block of ResNet18 and 34."""
    return residual(graph, unit, x, (unit.module.strides, 1), (3, 3), V1_5.epsilon)


def residual(
    graph: Graph,
    unit: Unit,
    x: int,
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    epsilon: float,
) -> int:
    """A block of ResNet.

    Args:
        graph: that gets it.
        unit: of the block.
        x: its input.
        strides: of its convolutions, without the shortcut's.
        sizes: of their kernels.
        epsilon: of BatchNorm.
    """
    shortcut = x
    if unit.module.projection:
        shortcut = graph.conv(unit, "0_conv", x, unit.module.strides)
        shortcut = graph.norm(unit, "0_bn", shortcut, epsilon)
    for number, (step, size) in enumerate(zip(strides, sizes, strict=True), start=1):
        padding = PAD if size == 3 else "SAME"
        x = graph.conv(unit, f"{number}_conv", x, step, padding)
        x = graph.norm(unit, f"{number}_bn", x, epsilon)
        if number < len(sizes):
            x = graph.add("relu", f"{unit.name}_{number}_relu", x)
    x = graph.add("add", f"{unit.name}_add", shortcut, x)
    return graph.add("relu", f"{unit.name}_out", x)


def dense_layer(graph: Graph, unit: Unit, x: int) -> int:
    """A unit of a dense block."""
    new = x
    for number in (0, 1):
        new = graph.norm(unit, f"{number}_bn", new, densenet.EPSILON)
        new = graph.add("relu", f"{unit.name}_{number}_relu", new)
        new = graph.conv(unit, f"{number + 1}_conv", new)
    height, width, channels = graph.shape(new)
    shape = height, width, graph.shape(x)[-1] + channels
    return graph.add("concat", f"{unit.name}_concat", x, new, shape=shape)


def transition(graph: Graph, unit: Unit, x: int) -> int:
    """What stands between dense blocks."""
    x = graph.conv(unit, "conv", last_norm(graph, unit, x))
    height, width, channels = graph.shape(x)
    shape, options = (height // 2, width // 2, channels), {"size": 2}
    return graph.add("average", f"{unit.name}_pool", x, shape=shape, options=options)


def last_norm(graph: Graph, unit: Unit, x: int) -> int:
    """BatchNorm and ReLU of DenseNet."""
    x = graph.norm(unit, "bn", x, densenet.EPSILON)
    return graph.add("relu", f"{unit.name}_relu", x)


def mobilenet_conv_norm(graph: Graph, unit: Unit, x: int) -> int:
    """Stem and top of MobileNetV3."""
    module: mobilenet.ConvNorm = unit.module
    if module.preprocessing is not None:
        x = graph.scale(module.preprocessing, f"{unit.name}_scale")
    pads = ((module.kernel_size // 2,) * 2,) * 2
    x = graph.conv(unit, "conv", x, module.strides, pads)
    x = graph.norm(unit, "bn", x, mobilenet.EPSILON)
    return graph.activate("hswish", f"{unit.name}_activation", x)


def inverted_bottleneck(graph: Graph, unit: Unit, x: int) -> int:
    """A block of MobileNetV3."""
    module: mobilenet.InvertedBottleneck = unit.module
    name, own, shortcut = unit.name, module.shape, x
    if module.expands:
        x = graph.conv(unit, "expand_conv", x)
        x = graph.norm(unit, "expand_bn", x, mobilenet.EPSILON)
        x = graph.activate(own.activation, f"{name}_expand_activation", x)
    pads = ((own.kernel_size // 2,) * 2,) * 2
    x = graph.conv(unit, "dwconv", x, own.strides, pads, depthwise=True)
    x = graph.norm(unit, "bn", x, mobilenet.EPSILON)
    x = graph.activate(own.activation, f"{name}_activation", x)
    if own.excite:
        x = excite(graph, unit, x, "relu", "hard_sigmoid")
    x = graph.conv(unit, "project_conv", x)
    x = graph.norm(unit, "project_bn", x, mobilenet.EPSILON)
    return graph.add("add", f"{name}_add", x, shortcut) if module.residual else x


def pooled_dense(graph: Graph, unit: Unit, x: int) -> int:
    """The dense layer of MobileNetV3's body."""
    x = graph.dense(unit, "fc", graph.mean(f"{unit.name}_squeeze", x))
    return graph.activate("hswish", f"{unit.name}_activation", x)


def conv_block(graph: Graph, unit: Unit, x: int) -> int:
    """A convolution of AlexNet and what follows it."""
    module: ConvBlock = unit.module
    if module.preprocessing is not None:
        x = graph.scale(module.preprocessing, f"{unit.name}_scale")
    _, _, strides, pad, groups = module.shape
    x = graph.conv(unit, "conv", x, strides, ((pad, pad),) * 2, groups=groups)
    x = graph.add("relu", f"{unit.name}_relu", x)
    if module.norm is not None:
        options = {"numbers": module.norm}
        x = graph.add("local_response", f"{unit.name}_norm", x, options=options)
    if module.pool:
        x = graph.pool(f"{unit.name}_pool", x, 3, 2, "VALID")
    return binned(graph, unit, x, module.side) if module.side else x


def binned(graph: Graph, unit: Unit, x: int, side: int) -> int:
    """The means that bring a map to side x side, if it has another size."""
    height, width, channels = graph.shape(x)
    if (height, width) == (side, side):
        return x
    for axis, pixels in enumerate((height, width)):
        arrays, options = {"kernel": bin_shares(pixels, side)}, {"axis": axis}
        shape = (side, side if axis else width, channels)
        name = f"{unit.name}_{'columns' if axis else 'rows'}"
        x = graph.add("bins", name, x, shape=shape, arrays=arrays, options=options)
    return x


def fully_connected(graph: Graph, unit: Unit, x: int) -> int:
    """A hidden dense layer of AlexNet."""
    x = graph.dense(unit, "fc", graph.flatten(f"{unit.name}_flat", x))
    return graph.add("relu", f"{unit.name}_relu", x)


def plain_conv(graph: Graph, unit: Unit, x: int) -> int:
    """A convolution of VGG."""
    if unit.module.preprocessing is not None:
        x = graph.scale(unit.module.preprocessing, f"{unit.name}_scale")
    return graph.add("relu", f"{unit.name}_relu", graph.conv(unit, "conv", x))


def max_pool(graph: Graph, unit: Unit, x: int) -> int:
    """A pooling of VGG."""
    return graph.pool(unit.name, x, 2, 2, "VALID")


def average_pool(graph: Graph, unit: Unit, x: int) -> int:
    """The pooling of a head."""
    return graph.mean(unit.name, x)


def hidden(graph: Graph, unit: Unit, x: int) -> int:
    """A hidden layer of the head; dropout does nothing in inference mode."""
    return graph.add("relu", f"{unit.name}_relu", graph.dense(unit, "dense", x))


def classifier(graph: Graph, unit: Unit, x: int) -> int:
    """The linear classifier."""
    return graph.dense(unit, "predictions", x)


KINDS: dict[type, Callable[[Graph, Unit, int], int]] = {
    ConvNorm: conv_norm,
    MBConv: mbconv,
    FusedMBConv: fused_mbconv,
    Stem: resnet_stem,
    Bottleneck: bottleneck,
    BasicBlock: basic_block,
    densenet.Stem: densenet_stem,
    densenet.DenseLayer: dense_layer,
    densenet.Transition: transition,
    densenet.LastNorm: last_norm,
    mobilenet.ConvNorm: mobilenet_conv_norm,
    mobilenet.InvertedBottleneck: inverted_bottleneck,
    mobilenet.PooledDense: pooled_dense,
    ConvNextStem: graph_layer_norm.convnext_stem,
    ConvNextBlock: graph_layer_norm.convnext_block,
    Downsample: graph_layer_norm.downsample,
    PooledNorm: graph_layer_norm.pooled_norm,
    Patches: graph_layer_norm.patches,
    TransformerBlock: graph_layer_norm.transformer_block,
    ClassToken: graph_layer_norm.class_token,
    ConvBlock: conv_block,
    FullyConnected: fully_connected,
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
