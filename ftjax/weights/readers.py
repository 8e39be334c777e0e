"""Read the tensors of a weight file, whatever its format, executing nothing from it."""

import io
import math
import mmap
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ftjax.weights.archive import list_members, read_member
from ftjax.weights.graph_file import FIRST_BYTES, read_graph
from ftjax.weights.keras_file import read_keras_h5
from ftjax.weights.torch_file import read_torch_legacy, read_torch_zip

FORMATS = (
    "Keras .h5, .weights.h5 and .keras, .safetensors, PyTorch .pth / .pt with a state "
    "dict, .caffemodel and .onnx"
)
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
PICKLE_SIGNATURE = b"\x80"  # protocol 2 and above
# numpy has no 8-bit floats, and complex numbers are no weights
SAFETENSORS_DTYPES = (
    *("F64", "F32", "F16", "BF16", "BOOL"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"),
)
MAX_MESSAGE = 600


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a weight file by its name in that file.

    The format is recognized by content, not by suffix. Arrays have the file's shapes,
    axis order and dtypes (bfloat16 as `ml_dtypes.bfloat16`), are in C order, and
    are read-only: torch arrays are views of the mapped file, which must not be
    overwritten in place while they are in use.

    Names, in file order unless said otherwise:
        torch legacy and zip: the keys of the state dict, `conv1.weight`; a checkpoint
            with one state dict inside is opened. What is not a tensor is left out.
        safetensors: as stored, sorted.
        Keras legacy .h5: `<layer>/<i>`, i counting the weights of the layer.
        Keras 3 .weights.h5 and .keras: `layers/<class>[_n]/vars/<i>`;
            `keras_file.name_keras3_layers` turns them into `<layer>/<i>`.
        .caffemodel and .onnx: `<kind>:<layer>/<weight, bias or settings>`
            (`graph_file`).

    Args:
        path: a local file.

    Raises:
        ValueError: one line, with the path: no such file, unknown format, damaged, or
            content that is not allowed.
    """
    path = Path(path)
    try:
        tensors = _read_file(path)
        if not tensors:
            raise ValueError("it holds no tensors")
    except (ValueError, OSError, MemoryError) as error:
        # Names from a hostile file end up in messages: keep them to one short line.
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        if len(reason) > MAX_MESSAGE:
            reason = f"{reason[:MAX_MESSAGE]}..."
        raise ValueError(f"cannot read weights from {path}: {reason}") from error
    return tensors


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ValueError(f"there is no such file; allowed are {FORMATS}")
    if not path.is_file():
        raise ValueError(f"it is not a file; allowed are {FORMATS}")
    with path.open("rb") as file:
        head = file.read(9)
        if not head:
            raise ValueError(f"the file is empty; allowed are {FORMATS}")
        # Stays mapped as long as arrays refer to it, also when the file is closed.
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if head.startswith(HDF5_SIGNATURE):
        return read_keras_h5(path, buffer)
    if head.startswith(ZIP_SIGNATURE):
        members = list_members(path, buffer)
        if "model.weights.h5" in members:  # .keras
            content = bytes(read_member(buffer, members["model.weights.h5"]))
            return read_keras_h5(io.BytesIO(content), content)
        return read_torch_zip(buffer, members)
    if head[8:9] == b"{":  # behind the length of the header; before pickle, whose
        return _read_safetensors(path)  # signature may be a byte of that length
    if head.startswith(PICKLE_SIGNATURE):
        return read_torch_legacy(buffer)
    if head[0] in FIRST_BYTES:
        tensors = read_graph(buffer)
        if tensors is not None:
            return tensors
    raise ValueError(
        f"unknown format (it begins with {head[:8]!r}); allowed are {FORMATS}"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a .safetensors file; the library checks header, offsets and coverage."""
    tensors: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                stored = file.get_slice(name)
                dtype = stored.get_dtype()
                if dtype not in SAFETENSORS_DTYPES:
                    raise ValueError(
                        f"tensor {name!r} is of type {dtype}; allowed are "
                        f"{', '.join(SAFETENSORS_DTYPES)}"
                    )
                if math.prod(stored.get_shape()) == 0:
                    raise ValueError(f"tensor {name!r} has no elements")
                tensors[name] = file.get_tensor(name)
                tensors[name].flags.writeable = False
    except SafetensorError as error:
        raise ValueError(f"damaged or truncated safetensors ({error})") from error
    return tensors
