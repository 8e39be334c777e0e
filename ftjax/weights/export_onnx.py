"""Trained networks as ONNX files, written with the `onnx` package's own builders.

The graph is ours (`graph_units.make_graph`), so the file holds the operations that the
network has and nothing else: no tracer, no second framework, no transposes between
convolutions. Converters would need TensorFlow (tf2onnx) or PyTorch, or follow JAX's
primitives (jax2onnx), which differ between backends here.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ftjax.weights.graph import Node
from ftjax.weights.onnx_nodes import IMAGES, OnnxGraph, put_nodes

OPSET = 17  # of 2022: all that is needed, and what older runtimes read
IR_VERSION = 8  # of the same release
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
    graph = OnnxGraph(onnx)
    logits = graph.put("Identity", [put_nodes(graph, nodes)], "logits")
    divisor = graph.constant("temperature", np.float32(temperature).reshape(1))
    scaled = graph.put("Div", [logits, divisor], "scaled_logits")
    graph.put("Softmax", [scaled], "probabilities", axis=-1)
    (classes,) = nodes[-1].shape
    images = helper.make_tensor_value_info(
        IMAGES, TensorProto.FLOAT, ["n", size, size, 3]
    )
    outputs = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", classes])
        for each in ("logits", "probabilities")
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, [images], outputs, graph.arrays),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ftjax",
    )
    helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
