"""What processes send each other arrives as it was, and executes nothing."""

import pickle
from collections import Counter
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftjax.machine.exchange import ARRAY, decode, encode
from ftjax.machine.files import Damaged

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.integers() | st.text() | st.tuples(st.integers(), st.text())
values = st.recursive(
    plain | st.binary() | st.frozensets(keys) | st.sets(keys),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal in value and kind; a nan is one."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b or (a != a and b != b)


@given(values)
@settings(max_examples=50)
def test_every_value_comes_back(value):
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("dtype", "bool uint8 int32 float16 float32 bfloat16".split())
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_come_back_bit_for_bit(dtype, shape):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = decode(encode({"a": array[...]}))["a"]
    assert isinstance(found, np.ndarray) and found.dtype == dtype
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)
    if dtype == np.float32:
        minus, nan = decode(encode((np.float32(-0.0), np.float32("nan"))))
        assert type(minus) is np.float32 and np.signbit(minus) and np.isnan(nan)


def test_what_else_is_sent():
    path = Path("a/b\udcff")  # bytes that are no text
    assert decode(encode([path, np.str_("x"), Counter(a=2)])) == [path, "x", {"a": 2}]


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (ValueError("--out x"), ValueError, "--out x"),
        (Damaged("x is no record"), Damaged, "x is no record"),
        (PermissionError(13, "denied", "f"), OSError, "[Errno 13] denied: 'f'"),
        (KeyError("k"), RuntimeError, "KeyError: 'k'"),
    ],
)
def test_errors_decide_on_the_same_exit_code(error, kind, text):
    found = decode(encode(error))
    assert type(found) is kind and str(found) == text


def test_what_is_no_data_is_not_sent():
    with pytest.raises(TypeError, match="a function is not sent to other processes"):
        encode([lambda: None])
    with pytest.raises(TypeError, match="arrays of object are not sent"):
        encode(np.array([None]))


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("CANARY"),)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: encode([b]) + b))
def test_bytes_that_are_no_value_are_one_error(data):
    try:
        decode(data)
    except ValueError as error:
        assert str(error).startswith("another process sent no value")


def test_no_bytes_are_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = [
        pickle.dumps(Malicious()),
        msgpack.packb(msgpack.ExtType(ARRAY, encode(["object", [1], b"x" * 8]))),
        msgpack.packb(msgpack.ExtType(ARRAY, encode(["uint8", [2**40], b""]))),
        msgpack.packb(msgpack.ExtType(ARRAY, encode([",loat32", [1], b"x" * 8]))),
        msgpack.packb(msgpack.ExtType(99, b"")),
    ]
    for data in hostile:
        with pytest.raises(ValueError, match="another process sent no value"):
            decode(data)
    assert not Path("CANARY").exists()
