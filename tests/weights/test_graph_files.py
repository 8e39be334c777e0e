"""Caffe and ONNX files of AlexNet: written here by hand, read back, or refused."""

import struct
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.weights import own_names
from ftjax.weights.pretrained import convert_tensors, load_pretrained
from ftjax.weights.readers import read_tensors

NARROW = ((4, 11, 4, 0, 1), (6, 5, 1, 2, 2), (4, 3, 1, 1, 1))
NARROW += ((6, 3, 1, 1, 2), (4, 3, 1, 1, 2))
KSH = (5, 5e-4, 0.75, 2.0)
CAFFE = (5, 1e-4, 0.75, 1.0)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """AlexNet with a few channels: its layers, sizes and names are the real ones."""
    alexnet = import_module("ftjax.backbones.alexnet")  # not the function
    monkeypatch.setattr(alexnet, "GROUPED", NARROW)
    one_column = [(*shape[:4], 1) for shape in NARROW]
    one_column[0] = (4, 11, 4, 2, 1)
    monkeypatch.setattr(alexnet, "ONE_COLUMN", tuple(one_column))
    monkeypatch.setattr(alexnet, "WIDTH", 8)


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """A field of a message: an integer, a float32, text, bytes or an array."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, np.ndarray):
        value = value.astype("<f4").tobytes()
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def chw(params, unit, side):
    """A dense kernel as the other frameworks store it, (out, c * h * w)."""
    kernel = params[unit]["fc" if "fc" in params[unit] else "predictions"]["kernel"]
    if unit == "fc6":
        kernel = kernel.reshape(side, side, 4, -1).transpose(2, 0, 1, 3)
    return kernel.reshape(-1, kernel.shape[-1]).T


def layers_of(params, *, side=6, caffenet=False, numbers=CAFFE):
    """(kind, name, numbers, arrays) of the chain, in the order of the file."""
    for number, shape in enumerate(NARROW, start=1):
        own = params[f"conv{number}"]["conv"]
        arrays = own["kernel"].transpose(3, 2, 0, 1), own["bias"]
        yield "conv", f"conv{number}", shape, arrays
        yield "relu", f"relu{number}", (), ()
        norm = ("lrn", f"norm{number}", numbers, ())
        pool = ("pool", f"pool{number}", (), ())
        if number in (1, 2):
            yield from (pool, norm) if caffenet else (norm, pool)
        elif number == 5:
            yield pool
    for unit in ("fc6", "fc7", "predictions"):
        key = "fc" if unit != "predictions" else unit
        name = "fc8" if unit == "predictions" else unit
        yield "dense", name, (), (chw(params, unit, side), params[unit][key]["bias"])
        if unit != "predictions":
            yield "relu", f"relu{name[-1]}", (), ()
            yield "drop", f"drop{name[-1]}", (), ()


def blob(array, old):
    shape = (1,) * (4 - array.ndim) + array.shape if old else array.shape
    if old:
        dims = b"".join(field(i, n) for i, n in enumerate(shape, start=1))
    else:
        dims = field(7, field(1, b"".join(map(varint, shape))))
    return dims + field(5, array)


def write_caffe(path, layers, old=True):
    words = "conv relu lrn pool dense drop".split()
    kinds = dict(zip(words, (4, 18, 15, 17, 14, 6), strict=True))
    names = "Convolution ReLU LRN Pooling InnerProduct Dropout".split()
    names = dict(zip(words, names, strict=True))
    places = {"conv": (10, 106), "lrn": (18, 118), "pool": (19, 121)}
    content = field(1, "AlexNet")
    for kind, name, numbers, arrays in layers:
        own = b""
        if kind == "conv":
            _, _, stride, pad, groups = numbers
            own = field(3, pad) + field(6, stride) + field(5, groups)
        elif kind == "lrn":
            size, alpha, beta, k = numbers
            own = field(1, size) + field(2, alpha) + field(3, beta) + field(5, k)
        elif kind == "pool":
            own = field(2, 3) + field(3, 2)
        own = field(places[kind][not old], own) if own else b""
        blobs = b"".join(field(6 if old else 7, blob(a, old)) for a in arrays)
        if old:
            layer = field(4, name) + field(5, kinds[kind])
        else:
            layer = field(1, name) + field(2, names[kind])
        content += field(2 if old else 100, layer + blobs + own)
    path.write_bytes(content)
    return str(path)


def attribute(name, value):
    if isinstance(value, list):
        value = b"".join(field(8, n) for n in value)
    else:
        value = field(3 if isinstance(value, int) else 2, value)
    return field(5, field(1, name) + value)


def write_onnx(path, layers, producer="MATLAB Deep Learning Toolbox Converter"):
    """As MATLAB does: red first, fc6 as a convolution of the whole map."""
    matlab = producer.startswith("MATLAB")
    nodes, tensors = b"", b""
    words = {"conv": "Conv", "relu": "Relu", "lrn": "LRN", "pool": "MaxPool"}
    for kind, name, numbers, arrays in layers:
        own, word = b"", words.get(kind, "Dropout")
        inputs = ["x"]
        if kind == "conv":
            _, _, stride, pad, groups = numbers
            own = attribute("strides", [stride] * 2) + attribute("pads", [pad] * 4)
            own += attribute("group", groups)
            if name == "conv1" and matlab:
                arrays = arrays[0][:, ::-1], arrays[1]
        elif kind == "lrn":
            size, alpha, beta, k = numbers
            own = attribute("size", size) + attribute("alpha", alpha)
            own += attribute("beta", beta) + attribute("bias", k)
        elif kind == "pool":
            own = attribute("kernel_shape", [3, 3]) + attribute("strides", [2, 2])
        elif kind == "dense" and name == "fc6" and matlab:
            word, arrays = "Conv", (arrays[0].reshape(-1, 4, 6, 6), arrays[1])
        elif kind == "dense" and name == "fc8":
            word, arrays = "MatMul", (arrays[0].T, arrays[1])
        elif kind == "dense":
            word, own = "Gemm", attribute("transB", 1)
        for leaf, array in zip("WB", arrays, strict=False):
            dims = b"".join(field(1, n) for n in array.shape)
            values = field(9 if leaf == "W" else 4, np.ascontiguousarray(array))
            tensors += field(
                5, dims + field(2, 1) + field(8, f"{name}_{leaf}") + values
            )
            inputs.append(f"{name}_{leaf}")
        later = [inputs.pop()] if word == "MatMul" else []
        for op, names in ((word, inputs), ("Add", ["x", *later])):
            if op != "Add" or later:
                node = b"".join(field(1, n) for n in names) + field(3, f"{name}_{op}")
                nodes += field(1, node + field(4, op) + (own if op == word else b""))
    graph = field(7, nodes + tensors)
    path.write_bytes(field(1, 8) + field(2, producer) + graph)
    return str(path)


@pytest.fixture
def weights():
    network = with_head(make_backbone("alexnet"), 5)
    params, _ = init(network.units, 0, 227)
    rng = np.random.default_rng(0)
    for own in params.values():
        for leaves in own.values():
            leaves["bias"] = rng.normal(size=leaves["bias"].shape).astype(np.float32)
    return network, params


@pytest.mark.parametrize(
    "write",
    [
        partial(write_caffe, old=True),
        partial(write_caffe, old=False),
        write_onnx,
        partial(write_onnx, producer="caffe2"),
    ],
)
def test_files_are_read_back(weights, tmp_path, write):
    network, params = weights
    path = write(tmp_path / "w.file", layers_of(params))
    found = load_pretrained(network, path, size=227)
    np.testing.assert_equal(found.params, params)
    body = load_pretrained(make_backbone("alexnet"), path, size=258).params
    np.testing.assert_equal(body, {k: params[k] for k in params if k != "predictions"})


def test_the_mean_tells_the_order_of_colours(weights, tmp_path):
    """It does where the program that wrote the file is no help."""
    _, params = weights
    path = tmp_path / "w.onnx"
    write_onnx(path, layers_of(params), producer="caffe2")
    mean = np.float32([122.679, 116.669, 104.007]).reshape(1, 3, 1, 1)
    dims = b"".join(field(1, n) for n in mean.shape)
    tensor = field(5, dims + field(2, 1) + field(8, "mean") + field(9, mean))
    node = field(1, "data") + field(1, "mean") + field(4, "Sub")
    content = path.read_bytes()
    at = content.index(field(2, "caffe2")) + len(field(2, "caffe2")) + 1
    size = 0
    while content[at + size] > 127:
        size += 1
    graph = content[at + size + 1 :]
    path.write_bytes(content[: at - 1] + field(7, field(1, node) + tensor + graph))
    found = load_pretrained(make_backbone("alexnet"), str(path), size=227).params
    kernel = params["conv1"]["conv"]["kernel"]
    np.testing.assert_array_equal(found["conv1"]["conv"]["kernel"], kernel[:, :, ::-1])


def test_other_networks_files_are_refused(weights, tmp_path):
    _, params = weights
    network = make_backbone("alexnet")
    path = write_caffe(tmp_path / "net.caffemodel", layers_of(params, caffenet=True))
    with pytest.raises(ValueError, match="net.caffemodel pools before it normalizes"):
        load_pretrained(network, path, size=227)
    path = write_onnx(tmp_path / "ksh.onnx", layers_of(params, numbers=KSH))
    with pytest.raises(ValueError, match="of alexnet_ksh, not of alexnet: use --model"):
        load_pretrained(network, path, size=227)
    load_pretrained(make_backbone("alexnet_ksh"), path, size=227)
    odd = write_onnx(
        tmp_path / "odd.onnx", layers_of(params, numbers=(3, 1.0, 0.5, 1.0))
    )
    line = (
        "odd.onnx has lrn:norm1_LRN with size 3, alpha 1, beta 0.5, k 1, but alexnet "
    )
    with pytest.raises(ValueError, match=line):
        load_pretrained(network, odd, size=227)
    with pytest.raises(ValueError, match="weights of alexnet_ksh, not of vgg16"):
        load_pretrained(make_backbone("vgg16"), path, size=224)


def test_images_of_another_size_are_refused(weights, tmp_path):
    _, params = weights
    path = write_caffe(tmp_path / "a.caffemodel", layers_of(params))
    line = "a.caffemodel holds weights for images of 227 to 258 pixels, not of 96: use "
    with pytest.raises(ValueError, match=line):
        load_pretrained(make_backbone("alexnet"), path, size=96)
    own = init(make_backbone("alexnet").units, 0, 67)
    tensors = own_names.flatten("alexnet", *own)
    with pytest.raises(ValueError, match="own.* 67 to 98 pixels, not of 227"):
        convert_tensors(make_backbone("alexnet"), tensors, size=227, source="own")


def test_torchvisions_file_is_for_its_own_network(weights):
    network = with_head(make_backbone("alexnet_torch"), 5)
    params, _ = init(network.units, 0, 224)
    modules = {
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "predictions": "classifier.6",
    }
    for number, place in enumerate((0, 3, 6, 8, 10), start=1):
        modules[f"conv{number}"] = f"features.{place}"
    tensors = {}
    for unit, module in modules.items():
        ((_, leaves),) = params[unit].items()
        kernel = leaves["kernel"]
        dense = kernel.ndim == 2
        turned = chw(params, unit, 6) if dense else kernel.transpose(3, 2, 0, 1)
        tensors |= {f"{module}.weight": turned, f"{module}.bias": leaves["bias"]}
    for size in (63, 224):
        found, _ = convert_tensors(network, tensors, size=size, source="a.pth")
        np.testing.assert_equal(found, params)
    backbone = make_backbone("alexnet_torch")
    body, _ = convert_tensors(backbone, tensors, size=63, source="a.pth")
    assert "predictions" not in body
    line = r"a.pth \(PyTorch\) holds weights of alexnet_torch, not of alexnet: use"
    with pytest.raises(ValueError, match=line):
        convert_tensors(make_backbone("alexnet"), tensors, size=227, source="a.pth")


def test_damage_is_one_line_and_takes_no_memory(weights, tmp_path):
    _, params = weights
    whole = (
        write_caffe(tmp_path / "w", layers_of(params)),
        write_onnx(tmp_path / "o", layers_of(params)),
    )
    rng = np.random.default_rng(0)
    for source in whole:
        content = bytearray(Path(source).read_bytes())
        path = tmp_path / "damaged"
        for stop in rng.integers(1, len(content), 20):
            path.write_bytes(content[:stop])
            with pytest.raises(ValueError, match="^cannot read weights from [^\n]*$"):
                read_tensors(path)
        for _ in range(60):  # refused, or numbers that are others
            other = bytearray(content)
            other[rng.integers(len(content) // 20)] = rng.integers(256)
            path.write_bytes(other)
            try:
                read_tensors(path)
            except ValueError as error:
                assert "\n" not in str(error)
    huge = field(5, np.zeros(4)) + field(7, field(1, varint(2**40) * 2))
    path.write_bytes(field(1, "a") + field(2, field(4, "c") + field(6, huge)))
    with pytest.raises(
        ValueError, match="16 bytes for values in the shape .1099511627"
    ):
        read_tensors(path)
    outside = field(1, 4) + field(2, 1) + field(8, "W") + field(13, b"")
    node = field(1, "W") + field(4, "Conv")
    path.write_bytes(field(1, 8) + field(7, field(1, node) + field(5, outside)))
    with pytest.raises(ValueError, match="is kept in another file; export the model"):
        read_tensors(path)
