"""What the pickle inside a torch file may name, call and refer to.

`GLOBALS` lists every callable with the function that stands for it here; storage
classes are mere dtypes. All arguments come from the file, so each is checked before it
is used, and nothing is formatted, compared or copied that could be nested without end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

MAX_RANK = 32
MAX_EXTENT = 2**40

STORAGE_DTYPES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class Global:
    """A name from `GLOBALS` that the program has put on the stack."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A flat array of the file: `numel` elements, of which [start, stop) are used."""

    key: str
    dtype: np.dtype
    numel: int
    start: int
    stop: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def set_items(target: dict, items: list[Any]) -> None:
    """Stores `items` (key, value, key, value, ...) in `target`."""
    if len(items) % 2:
        raise ValueError("damaged pickle: a dictionary key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):
            raise ValueError(
                f"its pickle has a {type(key).__name__} as a dictionary key; only "
                "text and integers are allowed"
            )
        target[key] = value


def find_global(module: Any, name: Any) -> Global:
    """The allowed global of that name; raises `ValueError` for every other."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("damaged pickle: a global whose name is not text")
    full_name = f"{module}.{name}"
    if full_name not in GLOBALS and full_name not in STORAGE_DTYPES:
        raise ValueError(
            f"its pickle asks for {full_name[:100]!r}, which is not needed to read "
            f"tensors; allowed are {', '.join(GLOBALS)} and the torch.*Storage "
            "classes; nothing was executed; save model.state_dict() alone"
        )
    return Global(full_name)


def call_global(function: Any, arguments: Any) -> Any:
    """What an allowed `function` makes of an argument tuple."""
    if not isinstance(function, Global) or function.name not in GLOBALS:
        what = getattr(function, "name", f"a {type(function).__name__}")
        raise ValueError(
            f"its pickle calls {what}; only {', '.join(GLOBALS)} may be called; "
            "nothing was executed"
        )
    if not isinstance(arguments, tuple):
        raise ValueError(f"damaged pickle: {function.name} without an argument tuple")
    return GLOBALS[function.name](arguments)


def make_storage(identity: Any) -> Storage:
    """Reads ('storage', class, key, device, numel[, (view key, offset, size)])."""
    match identity:
        case ("storage", Global(name), str(key), _, int(numel), *view) if (
            name in STORAGE_DTYPES and 0 <= numel <= MAX_EXTENT and len(view) <= 1
        ):
            start, stop = 0, numel
            if view and view[0] is not None:
                match view[0]:
                    case (_, int(offset), int(size)) if (
                        0 <= offset and 0 <= size and offset + size <= numel
                    ):
                        start, stop = offset, offset + size
                    case _:
                        raise ValueError(f"storage {key!r} has a damaged view")
            return Storage(key, STORAGE_DTYPES[name], numel, start, stop)
    raise ValueError(
        "its pickle refers to something outside itself that is not a torch storage"
    )


def _make_ordered_dict(arguments: tuple) -> dict:
    result: dict = {}
    match arguments:
        case ():
            return result
        case (list(pairs),) if all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
        ):
            for pair in pairs:
                set_items(result, list(pair))
            # Python 2 writes this list for one use; a program that calls for it again
            # and again could make us fill memory with copies.
            pairs.clear()
            return result
    raise ValueError("damaged pickle: OrderedDict with wrong arguments")


def _make_size(arguments: tuple) -> tuple:
    match arguments:
        case (tuple(sizes),):
            return sizes
    raise ValueError("damaged pickle: torch.Size with wrong arguments")


def _rebuild_parameter(arguments: tuple) -> Tensor:
    match arguments:
        case (Tensor() as tensor, bool(), _):
            return tensor
    raise ValueError("damaged pickle: _rebuild_parameter with wrong arguments")


def _rebuild_tensor(arguments: tuple) -> Tensor:
    """From (storage, offset, size, stride) and, in version 2, facts for autograd."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *rest):
            pass
        case _:
            raise ValueError("damaged pickle: _rebuild_tensor with wrong arguments")
    extents = (offset, *shape, *stride)
    if (
        len(rest) > 3
        or len(shape) != len(stride)
        or len(shape) > MAX_RANK
        or not all(type(n) is int and 0 <= n <= MAX_EXTENT for n in extents)
    ):
        raise ValueError("damaged pickle: a tensor with an impossible size or stride")
    elements = 1
    for n in shape:
        elements *= n
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    available = storage.stop - storage.start
    # A stride of zero could repeat one stored element without limit.
    if elements and (last >= available or elements > available):
        raise ValueError(
            f"a tensor of shape {shape}, stride {stride} and offset {offset} does not "
            f"fit into its storage of {available} elements"
        )
    return Tensor(storage, offset, shape, stride)


GLOBALS: dict[str, Callable[[tuple], Any]] = {
    "collections.OrderedDict": _make_ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,  # before torch 0.4
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _make_size,
}
