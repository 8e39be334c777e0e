"""Values that processes send each other: plain data, of which nothing is executed.

What `pickle` reads can call any function. These bytes hold what msgpack knows (None,
booleans, whole numbers, floats, text, bytes, lists, dicts), and tuples, sets, paths,
arrays and errors. A named tuple arrives as a plain one.
"""

from collections.abc import Set
from pathlib import Path, PurePath
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy bfloat16
import msgpack
import numpy as np

from ftjax.machine.files import Damaged

TUPLE, SET, FROZENSET, PATH, ARRAY, NUMBER, WHOLE, ERROR = range(8)
# Of another kind arrives as RuntimeError; these decide on the exit code.
ERRORS = {error.__name__: error for error in (ValueError, OSError, Damaged)}


def encode(value: Any) -> bytes:
    """A value as bytes.

    Raises:
        TypeError: it, or something in it, is not of the kinds above.
    """
    return msgpack.packb(value, default=_extend, strict_types=True)


def decode(data: bytes) -> Any:
    """The value that `encode` made bytes of.

    Raises:
        ValueError: the bytes are of no value.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_restore, strict_map_key=False)
    except Exception as error:  # msgpack and NumPy raise what they like
        raise ValueError(f"another process sent no value: {error}") from None


def _extend(value: Any) -> Any:
    """What msgpack does not know, as something that it does."""
    if isinstance(value, str):  # NumPy's
        return str(value)
    if isinstance(value, dict):  # one that counts, or keeps an order
        return dict(value)
    if isinstance(value, tuple):
        return msgpack.ExtType(TUPLE, encode([*value]))
    if isinstance(value, Set):
        kind = FROZENSET if isinstance(value, frozenset) else SET
        return msgpack.ExtType(kind, encode([*value]))
    if isinstance(value, PurePath):
        return msgpack.ExtType(PATH, str(value).encode("utf-8", "surrogateescape"))
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.fields:
            raise TypeError(f"arrays of {array.dtype} are not sent")
        kind = ARRAY if isinstance(value, np.ndarray) else NUMBER
        parts = [array.dtype.name, [*array.shape], array.tobytes()]
        return msgpack.ExtType(kind, encode(parts))
    if isinstance(value, int) and not isinstance(value, bool):  # beyond 64 bits
        return msgpack.ExtType(WHOLE, str(int(value)).encode())
    if isinstance(value, Exception):
        kinds = [kind.__name__ for kind in type(value).__mro__]
        name = next((kind for kind in kinds if kind in ERRORS), kinds[0])
        return msgpack.ExtType(ERROR, encode([name, str(value)]))
    raise TypeError(f"a {type(value).__name__} is not sent to other processes")


def _restore(kind: int, data: bytes) -> Any:
    """What `_extend` made."""
    if kind in (TUPLE, SET, FROZENSET):
        return (tuple, set, frozenset)[kind](decode(data))
    if kind == PATH:
        return Path(data.decode("utf-8", "surrogateescape"))
    if kind == WHOLE:
        return int(data)
    if kind == ERROR:
        name, text = decode(data)
        return ERRORS[name](text) if name in ERRORS else RuntimeError(f"{name}: {text}")
    if kind in (ARRAY, NUMBER):
        dtype, shape, content = decode(data)
        if not (isinstance(dtype, str) and dtype.isalnum()):  # NumPy parses the rest
            raise ValueError(f"{dtype!r} is no type of numbers")
        array = np.frombuffer(content, np.dtype(dtype)).reshape(shape).copy()
        return array if kind == ARRAY else array[()]
    raise ValueError(f"kind {kind} is unknown")
