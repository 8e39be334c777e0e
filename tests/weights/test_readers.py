"""Keras HDF5 and safetensors files, and the recognition of formats by content.

torch files have their own tests in test_torch_files.py.
"""

import io
import json
import os
import re
import struct
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ftjax.weights.keras_file import name_keras3_layers, natural_key
from ftjax.weights.readers import read_tensors

# keras 3.15 variables warn about themselves when numpy 2 reads them
KERAS = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")


def refusal(path) -> str:
    with pytest.raises(ValueError, match="cannot read weights from") as caught:
        read_tensors(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 1000
    return line


def write_legacy(path, layers, *, group=None, attribute_type=None):
    """A legacy Keras file from {layer: {weight name: array}}."""
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = as_names(layers, attribute_type)
        for layer, weights in layers.items():
            part = root.create_group(layer)
            part.attrs["weight_names"] = as_names(weights, attribute_type)
            for name, array in weights.items():
                part.create_dataset(name, data=array)


def as_names(names, attribute_type):
    encoded = [
        name.encode() for name in names
    ]  # a list, which h5py stores as Keras does
    return np.array(encoded, attribute_type) if attribute_type else encoded


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    return {
        "z_conv": {
            "block1_conv1_W_1:0": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "block1_conv1_b_1:0": rng.normal(size=4).astype(np.float32),
        },
        "pool": {},
        "a_norm": {
            "a_norm/mean:0": rng.normal(size=3),
            "a_norm/count:0": np.int64(7),
        },
    }


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def model(keras):
    """Every class with weights that the networks use; convolutions past number 10."""
    layers = keras.layers
    zeros = {"kernel_initializer": "zeros"}  # spares the compilation of random ones
    images = x = keras.Input((8, 8, 3))
    x = layers.Normalization(name="normalization")(x)
    for i in range(12):
        x = layers.Conv2D(3 + i % 2, 1, name=f"conv_{chr(ord('z') - i)}", **zeros)(x)
    x = layers.DepthwiseConv2D(3, depthwise_initializer="zeros", name="dwconv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(images, layers.Dense(5, name="predictions", **zeros)(x))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def expected_weights(model):
    return {
        f"{layer.name}/{i}": np.asarray(weight)
        for layer in model.layers
        for i, weight in enumerate(layer.get_weights())
    }


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype
        assert tensors[name].shape == array.shape
        assert not tensors[name].flags.writeable


@pytest.mark.parametrize("group", [None, "model_weights"])
@pytest.mark.parametrize("attribute_type", [None, "S"], ids=["variable", "fixed"])
def test_legacy_weights_are_named_by_layer_and_place(
    layers, group, attribute_type, tmp_path
):
    path = tmp_path / "no_suffix"
    write_legacy(path, layers, group=group, attribute_type=attribute_type)
    expected = {
        f"{layer}/{i}": np.asarray(array)
        for layer, weights in layers.items()
        for i, array in enumerate(weights.values())
    }
    assert_same(read_tensors(path), expected)


def test_layers_of_a_nested_model_are_called_as_in_its_own_file(tmp_path):
    """Keras 2 and 3, all trained or some: first what is trained, then the rest."""
    arrays = {
        "bn/gamma": np.float32([1]),
        "conv/kernel": np.ones((1, 1, 1, 1)),
        "conv/bias": np.float32([2]),
        "dw/bias": np.float32([3]),
        "dw/depthwise_kernel": np.ones((1, 1, 1, 1)),
        "bn/moving_variance": np.float32([4]),
        "bn/beta": np.float32([5]),
        "bn/moving_mean": np.float32([6]),
    }
    path = tmp_path / "a.h5"
    for prefix, suffix in (("", ""), ("", ":0"), ("base/", "")):
        named = {f"{prefix}{name}{suffix}": array for name, array in arrays.items()}
        write_legacy(path, {"base": named, "dense": {"dense/kernel:0": np.ones(2)}})
        found = read_tensors(path)
        assert {name: float(array.flat[0]) for name, array in found.items()} == {
            **{"bn/0": 1, "bn/1": 5, "bn/2": 6, "bn/3": 4},
            **{"conv/0": 1, "conv/1": 2, "dw/0": 1, "dw/1": 3, "dense/0": 1},
        }
    write_legacy(path, {"one": named, "two": named})
    assert "two layers called 'bn'" in refusal(path)


def test_legacy_name_lists_split_over_attributes(layers, tmp_path):
    path = tmp_path / "a.h5"
    write_legacy(path, layers)
    whole = read_tensors(path)
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = as_names(["z_conv"], None)
        file.attrs["layer_names1"] = as_names(["pool", "a_norm"], None)
    assert_same(read_tensors(path), whole)


@KERAS
def test_keras_writes_the_same_weights_in_every_format(model, tmp_path):
    expected = expected_weights(model)
    legacy_format = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    weights, whole = tmp_path / "weights.h5", tmp_path / "whole.h5"
    with h5py.File(weights, "w") as file:
        legacy_format.save_weights_to_hdf5_group(file, model)
    legacy_format.save_model_to_hdf5(model, whole)
    for path in (weights, whole):
        assert_same(read_tensors(path), expected)
    classes = [(layer.name, type(layer).__name__) for layer in model.layers]
    for path in (tmp_path / "a.weights.h5", tmp_path / "a.keras"):
        model.save_weights(path) if path.suffix == ".h5" else model.save(path)
        stored = read_tensors(path)
        assert list(stored) == sorted(stored, key=natural_key)
        assert "layers/conv2d_11/vars/0" in stored
        assert not any("seed_generator" in name for name in stored)
        assert_same(name_keras3_layers(stored, classes), expected)
    with pytest.raises(ValueError, match=r"2 weights .* layers/conv2d_11/vars/0"):
        name_keras3_layers(stored, [c for c in classes if c[0] != "conv_o"])


@KERAS
def test_optimizer_state_is_not_weights(keras, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "a.keras")
    names = list(read_tensors(tmp_path / "a.keras"))
    assert names == ["layers/dense/vars/0", "layers/dense/vars/1"]


@KERAS
def test_bfloat16_as_keras_writes_it(keras, tmp_path):
    dense = keras.layers.Dense(2, dtype="bfloat16")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.save_weights(tmp_path / "a.weights.h5")
    tensors = read_tensors(tmp_path / "a.weights.h5")
    assert tensors["layers/dense/vars/0"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        tensors["layers/dense/vars/0"], dense.get_weights()[0]
    )


def test_natural_order():
    names = ["conv2d_10", "conv2d", "conv2d_2", "conv2d_1"]
    ordered = ["conv2d", "conv2d_1", "conv2d_2", "conv2d_10"]
    assert sorted(names, key=natural_key) == ordered


def test_big_endian_arrays_become_native(tmp_path):
    array = np.arange(4, dtype=">f4")
    write_legacy(tmp_path / "a.h5", {"a": {"w": array}})
    tensor = read_tensors(tmp_path / "a.h5")["a/0"]
    assert tensor.dtype == np.float32 and tensor.dtype.isnative
    np.testing.assert_array_equal(tensor, array)


def add_external_link(part, tmp_path):
    write_legacy(tmp_path / "other.h5", {"a": {"w": np.ones(3)}})
    part["w"] = h5py.ExternalLink("other.h5", "/a/w")


def add_soft_link(part, tmp_path):
    part["real"] = np.ones(3)
    part["w"] = h5py.SoftLink("/a/real")


def add_external_storage(part, tmp_path):
    (tmp_path / "secret").write_bytes(b"password" * 3)
    part.create_dataset("w", (3,), "f8", external=[(tmp_path / "secret", 0, 24)])


def add_virtual(part, tmp_path):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "w", (3,))
    part.create_virtual_dataset("w", layout)


HDF5_TRICKS = {
    "external link": (add_external_link, "soft or external link"),
    "soft link": (add_soft_link, "soft or external link"),
    "external storage": (add_external_storage, "stored in another file"),
    "virtual": (add_virtual, "stored in another file"),
    "compressed": (
        lambda part, _: part.create_dataset("w", data=np.zeros(10**6), compression=9),
        "compressed",
    ),
    "huge": (lambda part, _: part.create_dataset("w", (2**40,), "f4"), "stores 0"),
    "huge chunks": (
        lambda part, _: part.create_dataset("w", (2**40,), "f4", chunks=(1024,)),
        "stores 0",
    ),
    "text": (lambda part, _: part.create_dataset("w", data="hello"), "is of type"),
    "complex": (lambda part, _: part.create_dataset("w", data=1j), "is of type"),
    "null": (lambda part, _: part.create_dataset("w", data=h5py.Empty("f4")), "array"),
    "missing": (lambda part, _: None, "'w' is missing"),
    "group": (lambda part, _: part.create_group("w"), "is not an HDF5 array"),
}


@pytest.mark.parametrize("trick", HDF5_TRICKS)
def test_hdf5_may_not_point_outside_or_declare_too_much(trick, tmp_path):
    add, message = HDF5_TRICKS[trick]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = as_names(["a"], None)
        part = file.create_group("a")
        part.attrs["weight_names"] = as_names(["w"], None)
        add(part, tmp_path)
    assert message in refusal(tmp_path / "a.h5")


def test_hdf5_repetitions_and_circles(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file.attrs["layer_names"] = as_names(["a"], None)
        part = file.create_group("a")
        part.attrs["weight_names"] = as_names(["w"] * 1000, None)
        part["w"] = np.ones(10_000)
    assert "declares 80000000 bytes" in refusal(tmp_path / "many.h5")
    write_legacy(tmp_path / "twice.h5", {"a": {"w": np.ones(3)}})
    with h5py.File(tmp_path / "twice.h5", "a") as file:
        file.attrs["layer_names"] = as_names(["a", "a"], None)
    assert "occurs twice" in refusal(tmp_path / "twice.h5")
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        part = file.create_group("layers/dense")
        part["again"] = file["layers"]
    assert "circle" in refusal(tmp_path / "circle.h5")
    with h5py.File(tmp_path / "new.h5", "w", libver="latest") as file:
        file.attrs["layer_names"] = as_names(["a"], None)
    assert "newer layout" in refusal(tmp_path / "new.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(3)
    assert "without Keras weights" in refusal(tmp_path / "other.h5")


def test_a_lying_text_length_is_not_believed(layers, tmp_path):
    path = tmp_path / "a.h5"
    write_legacy(path, layers)
    content = path.read_bytes()
    heap = struct.pack("<Q", content.index(b"GCOL"))
    pattern = struct.pack("<I", len("z_conv")) + heap
    assert pattern in content
    for length in (7, 5000, 2**32 - 1):  # the library would allocate 4 GB for the last
        path.write_bytes(content.replace(pattern, struct.pack("<I", length) + heap))
        assert "bad length of a text" in refusal(path)
    path.write_bytes(content.replace(heap, struct.pack("<Q", 2**63)))
    assert "behind its end" in refusal(path)


def test_truncated_hdf5_and_keras_archives(layers, tmp_path):
    path = tmp_path / "a.h5"
    write_legacy(path, layers)
    content = path.read_bytes()
    archive_file = io.BytesIO()
    with zipfile.ZipFile(archive_file, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", content)
    for whole in (content, archive_file.getvalue()):
        path.write_bytes(whole)
        assert len(read_tensors(path)) == 4
        for length in range(0, len(whole), 397):
            path.write_bytes(whole[:length])
            refusal(path)


def test_safetensors(tmp_path):
    arrays = {
        "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "count": np.array(5),
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
    }
    save_file(arrays, tmp_path / "weights.bin")
    assert_same(read_tensors(tmp_path / "weights.bin"), arrays)
    content = (tmp_path / "weights.bin").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "cut").write_bytes(content[:length])
        refusal(tmp_path / "cut")


@pytest.mark.parametrize(
    ("dtype", "shape", "offsets", "message"),
    [
        ("F32", [2**40], [0, 2**42], "damaged or truncated"),
        ("F32", [2**40, 2**40], [0, 8], "damaged or truncated"),
        ("F32", [3], [0, 8], "damaged or truncated"),
        ("F32", [1], [0, 4], "damaged or truncated"),
        ("F8_E4M3", [8], [0, 8], "of type F8_E4M3; allowed are F64"),
        ("Q77", [8], [0, 8], "damaged or truncated"),
    ],
)
def test_hostile_safetensors_headers(dtype, shape, offsets, message, tmp_path):
    header = {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    assert message in refusal(path)


def test_safetensors_without_tensors_or_with_a_huge_header(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "holds no tensors" in refusal(path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "header too large" in refusal(path)
    path.write_bytes(struct.pack("<Q", 10**6) + b"{" + b"[" * 10**6)
    assert "damaged" in refusal(path)


def test_what_is_no_weight_file(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "missing.h5")
    assert "is not a file" in refusal(tmp_path)
    for content, message in [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", r"unknown format \(it begins with b'<!DOCTYP'\)"),
        (b"\x89HDF\r\n\x1a\n", "damaged or truncated HDF5"),
        (b"PK\x03\x04rest", "damaged or truncated zip"),
    ]:
        path = tmp_path / "a.h5"
        path.write_bytes(content)
        line = refusal(path)
        assert re.search(message, line), line
    assert "allowed are Keras .h5" in refusal(tmp_path)
