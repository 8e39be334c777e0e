"""Arrays on disk: built once, checked at every reading, rebuilt when damaged.

A file is a valid .npy file followed by the SHA-256 of its array, so that one atomic
rename publishes array and checksum together and `numpy.load` still opens the file.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax.machine.atomic import atomic_file

DIGEST_BYTES = 32


class StoredArray(NamedTuple):
    """A read-only memory-mapped array and the SHA-256 (hex) of its bytes."""

    array: np.ndarray
    digest: str


def load_or_build(
    path: Path,
    *,
    dtype: str,
    shape: tuple[int, ...],
    build_rows: Callable[[], Iterable[np.ndarray]],
) -> StoredArray:
    """Reads the array at `path`, or builds it row by row and stores it.

    A missing, truncated or altered file is rebuilt. Rows are streamed to disk, so the
    array may be larger than the memory. Of several processes building at once each
    renames a complete file; the last one stays.

    Args:
        path: the file; folders above it are made.
        dtype: NumPy name, with byte order where there is one, e.g. '|u1'.
        shape: of the whole array, first axis = rows, at least one.
        build_rows: called only if needed; yields shape[0] arrays of shape[1:].

    Raises:
        ValueError: the cache cannot be written, or whatever `build_rows` raises.
    """
    stored = read_array(path, dtype, shape)
    if stored is not None:
        return stored
    try:
        write_array(path, dtype, shape, build_rows())
    except OSError as error:
        raise _unwritable(path, error) from error
    stored = read_array(path, dtype, shape)
    if stored is None:
        raise ValueError(
            f"{path} was written but does not read back as written: the disk or "
            "file system is at fault; set FTJAX_CACHE to a folder on another one"
        )
    return stored


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"cannot write to the cache folder {path.parent} ({error.strerror or error}): "
        "make room there, or set FTJAX_CACHE to a folder that can be written"
    )


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def write_array(
    path: Path, dtype: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]
) -> None:
    """Stores an array row by row; `path` is as it was until all of it is on disk.

    Args:
        path: the file; folders above it are made.
        dtype: NumPy name, with byte order where there is one, e.g. '|u1'.
        shape: of the whole array, first axis = rows, at least one.
        rows: shape[0] arrays of shape[1:].

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=False) as file:
        _write(file, dtype, shape, rows)


def _write(file, dtype: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]):
    file.write(_header(dtype, shape))
    digest = hashlib.sha256()
    count = 0
    for row in rows:
        assert row.shape == shape[1:] and row.dtype == np.dtype(dtype)
        data = np.ascontiguousarray(row).data
        digest.update(data)
        file.write(data)
        count += 1
    assert count == shape[0]
    file.write(digest.digest())


def read_array(path: Path, dtype: str, shape: tuple[int, ...]) -> StoredArray | None:
    """Maps what `write_array` wrote; None if it is missing, truncated or altered."""
    # The header is known beforehand: comparing it is safer than parsing a damaged one.
    header = _header(dtype, shape)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != len(header) + size + DIGEST_BYTES:
                return None
            if file.read(len(header)) != header:
                return None
            file.seek(len(header) + size)
            expected = file.read(DIGEST_BYTES)
            mapped = np.memmap(file, dtype, "r", offset=len(header), shape=shape)
    except OSError:
        return None
    array = mapped.view(np.ndarray)
    digest = hashlib.sha256(array.data)
    if digest.digest() != expected:
        return None
    return StoredArray(array, digest.hexdigest())
