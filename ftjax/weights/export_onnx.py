"""Trained networks as ONNX files, written with the `onnx` package's own builders.

The graph is ours (`graph.make_graph`), so the file holds the operations that the
network has and nothing else: no tracer, no second framework, no transposes between
convolutions. Converters would need TensorFlow (tf2onnx) or PyTorch, or follow JAX's
primitives (jax2onnx), which differ between backends here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ftjax.weights.graph import Node

OPSET = 17  # of 2022: all that is needed, and what older runtimes read
IR_VERSION = 8  # of the same release
SIMPLE = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "add": ("Add", {}),
    "multiply": ("Mul", {}),
    "concat": ("Concat", {"axis": 1}),
}
HOW_TO_INSTALL = 'ONNX files are written by the package onnx: pip install "ftjax[onnx]"'


def onnx_bytes(
    nodes: Sequence[Node],
    *,
    name: str,
    size: int,
    temperature: float,
    about: Mapping[str, str],
) -> bytes:
    """The content of an .onnx file.

    Its input `images` is float32 (n, size, size, 3), RGB in 0..255, any n; its outputs
    are `logits` (n, classes), and `probabilities`: softmax(logits / temperature).

    Args:
        nodes: of `make_graph`.
        name: of the graph.
        size: height and width of the images, in pixels.
        temperature: of the probabilities.
        about: metadata, text by name.

    Raises:
        ValueError: the package onnx is not installed.
    """
    try:
        import onnx  # pyright: ignore[reportMissingImports]
        from onnx import TensorProto, helper  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(HOW_TO_INSTALL) from None
    made, initializers = [], []

    def constant(label: str, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array, np.float32)
        initializers.append(
            helper.make_tensor(
                label, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True
            )
        )
        return label

    def put(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    names: list[str] = []
    put("Transpose", ["images"], "images_nchw", perm=[0, 3, 1, 2])
    for node in nodes:
        inputs = [names[index] for index in node.inputs] or ["images_nchw"]
        names.append(put_node(node, inputs, put, constant))
    logits = put("Identity", [names[-1]], "logits")
    divisor = constant("temperature", np.float32(temperature).reshape(1))
    scaled = put("Div", [logits, divisor], "scaled_logits")
    put("Softmax", [scaled], "probabilities", axis=-1)
    (classes,) = nodes[-1].shape
    images = helper.make_tensor_value_info(
        "images", TensorProto.FLOAT, ["n", size, size, 3]
    )
    outputs = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", classes])
        for each in ("logits", "probabilities")
    ]
    graph = helper.make_graph(made, name, [images], outputs, initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ftjax",
    )
    helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def put_node(node: Node, inputs: list[str], put, constant) -> str:
    """Adds what a node is in ONNX; returns the name of its result.

    Args:
        node: of the graph.
        inputs: names of what it takes, NCHW.
        put: adds an operation.
        constant: adds an array.
    """
    name, options, arrays = node.name, node.options, node.arrays
    if node.op in SIMPLE:
        op, attributes = SIMPLE[node.op]
        return put(op, inputs, name, **attributes)
    if node.op == "swish":
        gates = put("Sigmoid", inputs, f"{name}/sigmoid")
        return put("Mul", [*inputs, gates], name)
    if node.op == "relu6":
        limits = [constant(f"{name}/{v}", np.float32(v).reshape(())) for v in (0, 6)]
        return put("Clip", [*inputs, *limits], name)
    if node.op == "scale":
        factor, shift = (
            constant(f"{name}/{leaf}", arrays[leaf].reshape(1, 3, 1, 1))
            for leaf in ("factor", "shift")
        )
        return put("Add", [put("Mul", [*inputs, factor], f"{name}/mul"), shift], name)
    if node.op == "conv":
        kernel = arrays["kernel"]
        weights = [constant(f"{name}/kernel", kernel.transpose(3, 2, 0, 1))]
        if "bias" in arrays:
            weights.append(constant(f"{name}/bias", arrays["bias"]))
        return put(
            "Conv",
            [*inputs, *weights],
            name,
            kernel_shape=kernel.shape[:2],
            strides=[options["strides"]] * 2,
            pads=onnx_pads(options["pads"]),
            group=kernel.shape[-1] if options["depthwise"] else 1,
        )
    if node.op == "norm":
        leaves = [constant(f"{name}/{k}", arrays[k]) for k in NORM_LEAVES]
        epsilon = options["epsilon"]
        return put("BatchNormalization", [*inputs, *leaves], name, epsilon=epsilon)
    if node.op == "pool":
        return put(
            "MaxPool",
            inputs,
            name,
            kernel_shape=[options["size"]] * 2,
            strides=[options["strides"]] * 2,
            pads=onnx_pads(options["pads"]),
        )
    if node.op == "average":
        window = [options["size"]] * 2
        return put("AveragePool", inputs, name, kernel_shape=window, strides=window)
    if node.op == "mean":
        if options["keep"]:
            return put("GlobalAveragePool", inputs, name)
        return put(
            "Flatten", [put("GlobalAveragePool", inputs, f"{name}/mean")], name, axis=1
        )
    assert node.op == "dense", node.op
    leaves = [constant(f"{name}/{leaf}", arrays[leaf]) for leaf in ("kernel", "bias")]
    return put("Gemm", [*inputs, *leaves], name)


NORM_LEAVES = ("scale", "bias", "mean", "var")


def onnx_pads(pads) -> list[int]:
    """((top, bottom), (left, right)) as top, left, bottom, right."""
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]
