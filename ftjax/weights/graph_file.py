"""Layers of a chain from `.caffemodel` and `.onnx` files, in one form.

Numbers of fields: caffe/src/caffe/proto/caffe.proto and onnx/onnx/onnx.proto3. The
settings of a layer stand beside its weights, because networks of equal shapes differ in
them: `conv:conv1/settings` has stride, padding and groups, `lrn:norm1/settings` size,
alpha, beta and k, `pool:pool1/settings` window, stride and padding. Weights are in the
order (out, in, height, width) and (out, in).
"""

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

import numpy as np

from ftjax.weights.protobuf import Message, read_message

FIRST_BYTES = b"\x08\x0a\x12\xa2"  # of the fields that such files begin with
LEAVES = ("weight", "bias", "settings")
CONV, DENSE, LRN, POOL = "conv", "dense", "lrn", "pool"


class Layer(NamedTuple):
    """One layer of a file.

    Attributes:
        kind: `conv`, `dense`, `lrn`, `pool`, or the file's own word for another one.
        name: in the file.
        settings: numbers, as the module says.
        weight: if it has one.
        bias: likewise.
    """

    kind: str
    name: str
    settings: tuple[float, ...] = ()
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None


def read_graph(buffer: mmap) -> dict[str, np.ndarray] | None:
    """Reads a Caffe or ONNX file mapped in `buffer`.

    Returns:
        Arrays by `<kind>:<layer>/<weight, bias or settings>`, in the order of the
        layers; None if it is a protocol buffer of another kind.

    Raises:
        ValueError: truncated or damaged.
    """
    model = read_message(memoryview(buffer))
    if model.views(7):  # ModelProto.graph
        layers = list(onnx_layers(model))
    elif model.views(2) or model.views(100):  # NetParameter.layers, .layer
        layers = list(caffe_layers(model))
    else:
        return None
    arrays: dict[str, np.ndarray] = {}
    for layer in layers:
        own = f"{layer.kind}:{layer.name}"
        if f"{own}/settings" in arrays:
            raise ValueError(f"damaged: two layers are called {layer.name!r}")
        arrays[f"{own}/settings"] = np.array(layer.settings, np.float64)
        if layer.weight is not None:
            arrays[f"{own}/weight"] = layer.weight
        if layer.bias is not None:
            arrays[f"{own}/bias"] = layer.bias
    return arrays


# Layers without weights that change nothing that a network's modules do not do.
CAFFE_SILENT = {1, 5, 6, 12, 18, 20, 21, 22, 24, 29, 9, 8, 36, 32}
CAFFE_KINDS = {4: CONV, 14: DENSE, 15: LRN, 17: POOL}
CAFFE_SILENT_NAMES = (
    "Accuracy Data Dropout DummyData Flatten HDF5Data ImageData Input MemoryData ReLU "
    "Silence Softmax SoftmaxWithLoss Split WindowData"
).split()
CAFFE_NAMES = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17}
# Fields of convolution, LRN and pooling parameters: old files, new ones.
CAFFE_PARAMETERS = {4: (10, 106), 15: (18, 118), 17: (19, 121)}


def caffe_layers(model: Message) -> Iterator[Layer]:
    """The layers of a Caffe model, of files from 2014 on."""
    new = bool(model.views(100))
    for layer in model.messages(100 if new else 2):
        if new:
            word = layer.text(2)
            number = CAFFE_NAMES.get(word)
            name, blobs = layer.text(1), layer.views(7)
            silent = word in CAFFE_SILENT_NAMES
        else:
            number = layer.integer(5)
            word, name, blobs = f"layer type {number}", layer.text(4), layer.views(6)
            silent = number in CAFFE_SILENT
        if silent and not blobs:
            continue
        weights = [read_blob(read_message(blob), name) for blob in blobs[:2]]
        if number not in CAFFE_KINDS:
            yield Layer(word, name, (), *weights)
            continue
        kind, settings = CAFFE_KINDS[number], ()
        if number in CAFFE_PARAMETERS:
            own = layer.message(CAFFE_PARAMETERS[number][new])
            kind, settings = caffe_settings(kind, own)
        if weights and kind == DENSE:  # (1, 1, out, in) in old files
            weights[0] = weights[0].reshape(weights[0].shape[-2:])
        weights[1:] = [bias.reshape(-1) for bias in weights[1:]]
        yield Layer(kind, name, settings, *weights)


def caffe_settings(kind: str, own: Message) -> tuple[str, tuple[float, ...]]:
    """A layer's kind and settings; a variant that no network here has is another kind.

    Args:
        kind: `conv`, `lrn` or `pool`.
        own: its ConvolutionParameter, LRNParameter or PoolingParameter.
    """
    if kind == CONV:
        return kind, (own.integer(6, 1), own.integer(3), own.integer(5, 1))
    if kind == LRN:
        numbers = own.number(2, 1.0), own.number(3, 0.75), own.number(5, 1.0)
        within = own.integer(4)
        return "lrn within channels" if within else kind, (own.integer(1, 5), *numbers)
    average = own.integer(1)
    shape = own.integer(2), own.integer(3, 1), own.integer(4)
    return "average pool" if average else kind, shape


def read_blob(blob: Message, layer: str) -> np.ndarray:
    """The array of a BlobProto.

    Raises:
        ValueError: damaged, or without values.
    """
    shape = blob.message(7).integers(1)
    if not shape:  # files before 2015
        shape = [blob.integer(number) for number in (1, 2, 3, 4)]
    values = blob.array(5, "<f4", shape)
    if values is None:
        values = blob.array(8, "<f8", shape)
    if values is None:
        raise ValueError(f"layer {layer!r} has weights without values")
    return values


ONNX_SILENT = (
    "Constant Dropout Flatten Identity Relu Reshape Softmax LogSoftmax Cast".split()
)
ONNX_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
ONNX_FIELDS = {1: 4, 11: 10}  # of values that are not raw


def onnx_layers(model: Message) -> Iterator[Layer]:
    """The layers of an ONNX model, of which the first convolution takes blue first.

    MATLAB's networks take red first, Caffe's blue; the mean that the file subtracts
    tells, or else the program that wrote it.
    """
    graph = model.message(7)
    tensors = {tensor.text(8): tensor for tensor in graph.messages(5)}
    red_first = model.text(2).upper().startswith("MATLAB")
    seen_conv = False
    pending: Layer | None = None  # without a bias, which may come as an addition
    for node in graph.messages(1):
        word = node.text(4)
        inputs = [bytes(view).decode("utf-8", "replace") for view in node.views(1)]
        # Each is used once, so that no file makes us copy one again and again.
        held = [
            read_tensor(tensors.pop(name), name) for name in inputs if name in tensors
        ]
        name = node.text(3) or (inputs[1] if len(inputs) > 1 else inputs[0])
        if word == "Add" and pending is not None and held:
            yield pending._replace(bias=held[0].reshape(-1))
            pending = None
            continue
        if pending is not None:
            yield pending
            pending = None
        if word == "Sub" and held and not seen_conv:
            if held[0].size % 3 == 0:
                first, _, last = held[0].reshape(3, -1).mean(axis=-1)  # (1, 3, h, w)
                red_first = bool(first > last)
            continue
        if word in ONNX_SILENT:
            continue
        kind, settings = onnx_settings(word, onnx_attributes(node))
        weights = held[:2]
        if weights and (kind == DENSE and not settings):  # (in, out)
            weights[0] = np.ascontiguousarray(weights[0].T)
        if kind == CONV and weights and not seen_conv:
            seen_conv = True
            if red_first:
                weights[0] = np.ascontiguousarray(weights[0][:, ::-1])
        weights[1:] = [bias.reshape(-1) for bias in weights[1:]]
        layer = Layer(kind, name, () if kind == DENSE else settings, *weights)
        if kind in (CONV, DENSE) and len(weights) == 1:
            pending = layer
        else:
            yield layer
    if pending is not None:
        yield pending


def onnx_attributes(node: Message) -> dict[str, Message]:
    """A node's attributes by name."""
    return {attribute.text(1): attribute for attribute in node.messages(5)}


def onnx_settings(
    word: str, attributes: dict[str, Message]
) -> tuple[str, tuple[float, ...]]:
    """A node's kind and settings; of a dense one, whether its weights are (out, in)."""

    def same(name: str, default: int) -> float:
        """The value of all axes; nan if they differ."""
        values = set(attributes[name].integers(8)) if name in attributes else {default}
        return values.pop() if len(values) == 1 else float("nan")

    def number(name: str, default: float) -> float:
        return attributes[name].number(2, default) if name in attributes else default

    if word == "Conv":
        group = attributes["group"].integer(3, 1) if "group" in attributes else 1
        return CONV, (same("strides", 1), same("pads", 0), group)
    if word in ("Gemm", "MatMul"):
        turned = "transB" in attributes and attributes["transB"].integer(3)
        return DENSE, (1.0,) if turned else ()
    if word == "LRN":
        size = attributes["size"].integer(3) if "size" in attributes else 0
        numbers = number("alpha", 1e-4), number("beta", 0.75), number("bias", 1.0)
        return LRN, (size, *numbers)
    if word == "MaxPool":
        shape = same("kernel_shape", 0), same("strides", 1), same("pads", 0)
        return POOL, shape
    return word, ()


def read_tensor(tensor: Message, name: str) -> np.ndarray:
    """The array of a TensorProto.

    Raises:
        ValueError: damaged, of integers, or kept in another file.
    """
    if tensor.views(13):
        raise ValueError(
            f"tensor {name!r} is kept in another file; export the model with its "
            "weights inside"
        )
    kind, shape = tensor.integer(2), tensor.integers(1)
    if kind == 7:  # shapes of Reshape, which nothing here needs
        return np.zeros(0)
    if kind not in ONNX_DTYPES:
        raise ValueError(f"tensor {name!r} is of type {kind}; allowed are floats")
    values = tensor.array(9, ONNX_DTYPES[kind], shape)
    if values is None and kind in ONNX_FIELDS:
        values = tensor.array(ONNX_FIELDS[kind], ONNX_DTYPES[kind], shape)
    if values is None:
        raise ValueError(f"tensor {name!r} has no values")
    return values
