"""The operations of a network (`graph`) as ONNX has them.

Maps are NCHW there, tokens (n, tokens, channels) as here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ftjax.weights.graph import Node

IMAGES = "images"  # the graph's input
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
SIMPLE = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "add": ("Add", {}),
    "multiply": ("Mul", {}),
    "concat": ("Concat", {"axis": 1}),
}


class OnnxGraph:
    """Nodes and arrays so far.

    Args:
        onnx: the package.
    """

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """Adds an array: of integers int64, else float32. Returns its name."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        made = self._onnx.helper.make_tensor(
            name, kind, array.shape, array.tobytes(), raw=True
        )
        self.arrays.append(made)
        return name

    def put(self, op: str, inputs: Sequence[str], output: str, **attributes) -> str:
        """Adds an operation; returns the name of its result."""
        make = self._onnx.helper.make_node
        self.nodes.append(make(op, inputs, [output], name=output, **attributes))
        return output


def put_nodes(graph: OnnxGraph, nodes: Sequence[Node]) -> str:
    """Adds all operations of a network; returns the name of the last one's result."""
    first = graph.put("Transpose", [IMAGES], f"{IMAGES}_nchw", perm=TO_NCHW)
    names: list[str] = []
    for node in nodes:
        inputs = [names[index] for index in node.inputs] or [first]
        if node.op in SIMPLE:
            op, attributes = SIMPLE[node.op]
            names.append(graph.put(op, inputs, node.name, **attributes))
        else:
            names.append(WRITERS[node.op](graph, node, *inputs))
    return names[-1]


def put_swish(graph: OnnxGraph, node: Node, x: str) -> str:
    """Swish."""
    gates = graph.put("Sigmoid", [x], f"{node.name}/sigmoid")
    return graph.put("Mul", [x, gates], node.name)


def put_relu6(graph: OnnxGraph, node: Node, x: str) -> str:
    """ReLU6."""
    limits = [graph.constant(f"{node.name}/{v}", np.float32(v)) for v in (0, 6)]
    return graph.put("Clip", [x, *limits], node.name)


def put_gelu(graph: OnnxGraph, node: Node, x: str) -> str:
    """GELU, in the form that onnxruntime knows as one operation."""
    name = node.name
    root, one, half = (
        graph.constant(f"{name}/{label}", np.float32(value))
        for label, value in (("root", np.sqrt(2)), ("one", 1), ("half", 0.5))
    )
    y = graph.put("Erf", [graph.put("Div", [x, root], f"{name}/div")], f"{name}/erf")
    y = graph.put("Mul", [x, graph.put("Add", [y, one], f"{name}/add")], f"{name}/mul")
    return graph.put("Mul", [y, half], name)


def put_scale(graph: OnnxGraph, node: Node, x: str) -> str:
    """Preprocessing."""
    name = node.name
    factor, shift = (
        graph.constant(f"{name}/{leaf}", node.arrays[leaf].reshape(1, 3, 1, 1))
        for leaf in ("factor", "shift")
    )
    return graph.put("Add", [graph.put("Mul", [x, factor], f"{name}/mul"), shift], name)


def put_conv(graph: OnnxGraph, node: Node, x: str) -> str:
    """A convolution."""
    kernel, options = node.arrays["kernel"], node.options
    weights = [graph.constant(f"{node.name}/kernel", kernel.transpose(3, 2, 0, 1))]
    if "bias" in node.arrays:
        weights.append(graph.constant(f"{node.name}/bias", node.arrays["bias"]))
    return graph.put(
        "Conv",
        [x, *weights],
        node.name,
        kernel_shape=kernel.shape[:2],
        strides=[options["strides"]] * 2,
        pads=onnx_pads(options["pads"]),
        group=options["groups"],
    )


def put_pool(graph: OnnxGraph, node: Node, x: str) -> str:
    """Max pooling."""
    return graph.put(
        "MaxPool",
        [x],
        node.name,
        kernel_shape=[node.options["size"]] * 2,
        strides=[node.options["strides"]] * 2,
        pads=onnx_pads(node.options["pads"]),
    )


def put_average(graph: OnnxGraph, node: Node, x: str) -> str:
    """Average pooling."""
    window = [node.options["size"]] * 2
    return graph.put("AveragePool", [x], node.name, kernel_shape=window, strides=window)


def put_bins(graph: OnnxGraph, node: Node, x: str) -> str:
    """Means along one axis of a map."""
    shares = node.arrays["kernel"]
    if node.options["axis"] == 0:
        inputs = [graph.constant(f"{node.name}/kernel", shares), x]
    else:
        inputs = [x, graph.constant(f"{node.name}/kernel", shares.T)]
    return graph.put("MatMul", inputs, node.name)


def put_local_response(graph: OnnxGraph, node: Node, x: str) -> str:
    """Local response normalization."""
    size, alpha, beta, k = node.options["numbers"]
    numbers = {"size": size, "alpha": alpha, "beta": beta, "bias": k}
    return graph.put("LRN", [x], node.name, **numbers)


def put_mean(graph: OnnxGraph, node: Node, x: str) -> str:
    """The mean of a map."""
    if node.options["keep"]:
        return graph.put("GlobalAveragePool", [x], node.name)
    mean = graph.put("GlobalAveragePool", [x], f"{node.name}/mean")
    return graph.put("Flatten", [mean], node.name, axis=1)


def put_norm(graph: OnnxGraph, node: Node, x: str) -> str:
    """BatchNorm."""
    leaves = [
        graph.constant(f"{node.name}/{leaf}", node.arrays[leaf])
        for leaf in ("scale", "bias", "mean", "var")
    ]
    epsilon = node.options["epsilon"]
    return graph.put("BatchNormalization", [x, *leaves], node.name, epsilon=epsilon)


def put_layer_norm(graph: OnnxGraph, node: Node, x: str) -> str:
    """LayerNorm, for which a map's channels come last in between."""
    name, is_map = node.name, len(node.shape) == 3
    leaves = [
        graph.constant(f"{name}/{leaf}", node.arrays[leaf])
        for leaf in ("scale", "bias")
    ]
    if is_map:
        x = graph.put("Transpose", [x], f"{name}/nhwc", perm=TO_NHWC)
    output = f"{name}/norm" if is_map else name
    epsilon = node.options["epsilon"]
    y = graph.put("LayerNormalization", [x, *leaves], output, axis=-1, epsilon=epsilon)
    return graph.put("Transpose", [y], name, perm=TO_NCHW) if is_map else y


def put_dense(graph: OnnxGraph, node: Node, x: str) -> str:
    """A matrix product; over the channels of a map it is a 1x1 convolution."""
    kernel, bias = node.arrays["kernel"], node.arrays["bias"]
    if len(node.shape) == 2:
        return put_product(graph, node.name, x, kernel, bias)
    is_map = len(node.shape) == 3
    kernel = kernel.T[..., None, None] if is_map else kernel
    arrays = {"kernel": kernel, "bias": bias}
    leaves = [graph.constant(f"{node.name}/{leaf}", arrays[leaf]) for leaf in arrays]
    return graph.put("Conv" if is_map else "Gemm", [x, *leaves], node.name)


def put_product(
    graph: OnnxGraph, name: str, x: str, kernel: np.ndarray, bias: np.ndarray
) -> str:
    """A matrix product over the channels of tokens."""
    weight = graph.constant(f"{name}/kernel", kernel)
    y = graph.put("MatMul", [x, weight], f"{name}/product")
    return graph.put("Add", [y, graph.constant(f"{name}/bias", bias)], name)


def put_affine(graph: OnnxGraph, node: Node, x: str) -> str:
    """Factors by channel, and what is added by token and channel."""
    name, steps = (
        node.name,
        [leaf for leaf in ("kernel", "bias") if leaf in node.arrays],
    )
    for leaf in steps:
        array = node.arrays[leaf]
        if len(node.shape) == 3:  # a map, channels first
            array = array[:, None, None]
        output = name if leaf == steps[-1] else f"{name}/scaled"
        inputs = [x, graph.constant(f"{name}/{leaf}", array)]
        x = graph.put("Mul" if leaf == "kernel" else "Add", inputs, output)
    return x


def put_attention(graph: OnnxGraph, node: Node, x: str) -> str:
    """Attention of all tokens to all."""
    name, (tokens, channels), heads = node.name, node.shape, node.options["heads"]
    split = graph.constant(f"{name}/split", [0, tokens, heads, channels // heads])
    parts = []
    # Keys come as columns.
    for part, order in (("query", 1), ("key", -1), ("value", 1)):
        own = f"{name}/{part}"
        leaves = node.arrays[f"{part}_kernel"], node.arrays[f"{part}_bias"]
        y = put_product(graph, own, x, *leaves)
        y = graph.put("Reshape", [y, split], f"{own}/heads")
        perm = [0, 2, 1, 3] if order == 1 else [0, 2, 3, 1]
        parts.append(graph.put("Transpose", [y], f"{own}/turned", perm=perm))
    query, key, value = parts
    scores = graph.put("MatMul", [query, key], f"{name}/scores")
    root = graph.constant(f"{name}/root", np.sqrt(channels / heads))
    scores = graph.put("Div", [scores, root], f"{name}/scaled")
    shares = graph.put("Softmax", [scores], f"{name}/shares", axis=-1)
    y = graph.put("MatMul", [shares, value], f"{name}/mixed")
    y = graph.put("Transpose", [y], f"{name}/back", perm=[0, 2, 1, 3])
    joined = graph.constant(f"{name}/joined", [0, tokens, channels])
    y = graph.put("Reshape", [y, joined], f"{name}/tokens")
    leaves = node.arrays["output_kernel"], node.arrays["output_bias"]
    return put_product(graph, name, y, *leaves)


def put_tokens(graph: OnnxGraph, node: Node, x: str) -> str:
    """A map as tokens."""
    shape = graph.constant(f"{node.name}/shape", [0, node.shape[1], node.shape[0]])
    y = graph.put("Reshape", [x, shape], f"{node.name}/flat")
    return graph.put("Transpose", [y], node.name, perm=[0, 2, 1])


def put_blank(graph: OnnxGraph, node: Node, x: str) -> str:
    """A token of zeros before the others."""
    pads = graph.constant(f"{node.name}/pads", [0, 1, 0, 0, 0, 0])
    return graph.put("Pad", [x, pads], node.name)


def put_first(graph: OnnxGraph, node: Node, x: str) -> str:
    """The first token."""
    index = graph.constant(f"{node.name}/index", [0])
    return graph.put("Gather", [x, index], node.name, axis=1)


def put_flatten(graph: OnnxGraph, node: Node, x: str) -> str:
    """All values as one vector, channels last."""
    if node.options["map"]:
        x = graph.put("Transpose", [x], f"{node.name}/nhwc", perm=TO_NHWC)
    return graph.put("Flatten", [x], node.name, axis=1)


def onnx_pads(pads) -> list[int]:
    """((top, bottom), (left, right)) as top, left, bottom, right."""
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]


WRITERS: dict[str, Callable[..., str]] = {
    "swish": put_swish,
    "relu6": put_relu6,
    "gelu": put_gelu,
    "scale": put_scale,
    "conv": put_conv,
    "pool": put_pool,
    "average": put_average,
    "bins": put_bins,
    "local_response": put_local_response,
    "mean": put_mean,
    "norm": put_norm,
    "layer_norm": put_layer_norm,
    "dense": put_dense,
    "affine": put_affine,
    "attention": put_attention,
    "tokens": put_tokens,
    "blank": put_blank,
    "first": put_first,
    "flatten": put_flatten,
}
