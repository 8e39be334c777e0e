"""State dicts from torch files, legacy and zip, without torch and without execution.

Formats: torch/serialization.py, `_legacy_save` and `_save`. A legacy file is five
pickles (magic number, protocol version, system information, state dict, storage keys)
and then, per key, an int64 count and the raw little-endian elements. A zip file holds
`<root>/data.pkl`, `<root>/byteorder` and one `<root>/data/<key>` per storage.
"""

import io
from mmap import mmap
from typing import Any

import numpy as np

from ftjax.weights.archive import Member, read_member
from ftjax.weights.torch_globals import Storage, Tensor
from ftjax.weights.torch_pickle import run_pickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
MAX_WRAPPERS = 3  # dicts around a state dict


def read_torch_legacy(buffer: mmap) -> dict[str, np.ndarray]:
    """Reads a legacy (not zip) torch file mapped in `buffer`.

    Returns:
        Read-only arrays by name, in the order of the state dict.

    Raises:
        ValueError: not such a file, damaged, or more than tensors in it.
    """
    for expected in (MAGIC_NUMBER, PROTOCOL_VERSION):
        if run_pickle(buffer).value != expected:
            raise ValueError(
                "a pickle that torch.save did not write; nothing was executed; "
                "allowed is a state dict saved with torch.save"
            )
    run_pickle(buffer)  # byte order and type sizes of the writer; data is always little
    value, storages = run_pickle(buffer)
    tensors = _find_state_dict(value)
    keys = run_pickle(buffer).value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("damaged: it has no list of storage keys")
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        if key not in storages or key in arrays:
            raise ValueError(f"damaged: storage {key!r} is listed but not used once")
        storage = storages[key]
        count = int.from_bytes(buffer.read(8), "little")
        start = buffer.tell()
        stop = start + storage.numel * storage.dtype.itemsize
        if count != storage.numel or stop > len(buffer):
            raise ValueError(
                f"truncated or damaged: storage {key!r} should hold {storage.numel} "
                f"elements of {storage.dtype}"
            )
        arrays[key] = _view_elements(memoryview(buffer)[start:stop], storage)
        buffer.seek(stop)
    return _build_arrays(tensors, arrays, limit=len(buffer))


def read_torch_zip(buffer: mmap, members: dict[str, Member]) -> dict[str, np.ndarray]:
    """Reads a zip torch file mapped in `buffer`, its members located by `archive`.

    Returns:
        Read-only arrays by name, in the order of the state dict.

    Raises:
        ValueError: not such a file, damaged, or more than tensors in it.
    """
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError(
            "a zip archive that is neither a torch nor a Keras file: it should hold "
            "one <name>/data.pkl, or config.json and model.weights.h5"
        )
    root = pickles[0].split("/")[0]
    if f"{root}/constants.pkl" in members:
        raise ValueError(
            "a TorchScript program, not weights; allowed is a state dict: save "
            "model.state_dict() with torch.save"
        )
    order = "little"
    if f"{root}/byteorder" in members:
        record = bytes(read_member(buffer, members[f"{root}/byteorder"])[:16])
        order = record.decode("ascii", "replace")
    if order not in ("little", "big"):
        raise ValueError(f"damaged: byte order {order!r} is neither little nor big")
    program = io.BytesIO(read_member(buffer, members[pickles[0]]))
    value, storages = run_pickle(program)
    tensors = _find_state_dict(value)
    arrays: dict[str, np.ndarray] = {}
    for key, storage in storages.items():
        member = members.get(f"{root}/data/{key}")
        size = storage.numel * storage.dtype.itemsize
        if member is None or member.stop - member.start != size:
            raise ValueError(
                f"damaged: member {root + '/data/' + key!r} should be there with "
                f"{size} bytes"
            )
        arrays[key] = _view_elements(read_member(buffer, member), storage)
        if order == "big":
            arrays[key] = _swap_bytes(arrays[key])
    return _build_arrays(tensors, arrays, limit=len(buffer))


def _view_elements(data: memoryview, storage: Storage) -> np.ndarray:
    if not storage.numel:  # an empty buffer is an error to numpy
        return np.empty(0, storage.dtype)
    elements = np.frombuffer(data, storage.dtype)  # (numel,)
    # Legacy files align nothing; unaligned arrays are slow, and not zero-copy for JAX.
    return elements if elements.flags.aligned else elements.copy()


def _swap_bytes(elements: np.ndarray) -> np.ndarray:
    # as integers, because bfloat16 has no byte-swapped dtype
    integers = elements.view(np.dtype(f"u{elements.dtype.itemsize}"))
    return integers.byteswap().view(elements.dtype)


def _find_state_dict(value: Any) -> dict[str, Tensor]:
    """The state dict itself, or the only one inside a training checkpoint."""
    if not isinstance(value, dict):
        raise ValueError(
            f"it holds a {type(value).__name__}; allowed is a state dict: save "
            "model.state_dict()"
        )
    level, found = {"": value, **_inner_dicts({"": value})}, {}
    for _ in range(MAX_WRAPPERS):
        found = {
            path: tensors
            for path, inner in level.items()
            if (tensors := {k: v for k, v in inner.items() if isinstance(v, Tensor)})
        }
        if found:
            break
        level = _inner_dicts(level)
    if len(found) != 1:
        shown = ", ".join(path or "the top level" for path in found)
        raise ValueError(
            f"it holds tensors in several places ({shown}); save one of them alone: "
            f"torch.save(torch.load(FILE){[*found][-1]}, NEW_FILE)"
            if found
            else "it holds no tensors; allowed is a state dict: save model.state_dict()"
        )
    (tensors,) = found.values()
    if not all(isinstance(key, str) for key in tensors):
        raise ValueError("its tensors have numbers for names; save model.state_dict()")
    return tensors


def _inner_dicts(level: dict[str, dict]) -> dict[str, dict]:
    """The dicts one level below, by their path: `['state_dict']`."""
    return {
        f"{path}[{name!r}]": inner
        for path, outer in level.items()
        for name, inner in outer.items()
        if isinstance(inner, dict) and isinstance(name, str)  # optimizers have numbers
    }


def _build_arrays(
    tensors: dict[str, Tensor], storages: dict[str, np.ndarray], *, limit: int
) -> dict[str, np.ndarray]:
    """Strided views of the storages, copied to C order where needed.

    Args:
        tensors: records by name.
        storages: 1-d arrays by key.
        limit: the most bytes that the copies may take together.
    """
    result: dict[str, np.ndarray] = {}
    copied = 0
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage.key not in storages:
            raise ValueError(f"damaged: the data of tensor {name!r} is missing")
        elements = storages[storage.key][storage.start : storage.stop]
        view = np.lib.stride_tricks.as_strided(
            elements[tensor.offset :],
            tensor.shape,
            [stride * elements.itemsize for stride in tensor.stride],
            writeable=False,
        )
        if not view.flags.c_contiguous:
            copied += view.nbytes
            if copied > limit:
                raise ValueError("its tensors overlap to more bytes than the file has")
            view = np.asarray(view, order="C")
            view.flags.writeable = False
        result[name] = view
    return result
