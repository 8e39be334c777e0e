"""The one way to write a file: readers see the old or the new one, never a part."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"  # ends the names of files that are being written


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write into, which takes its name when all has been written.

    If the block raises, `path` is as it was.

    Args:
        path: of the file; replaced if it is there. Its folder must exist.
        durable: whether its content is on the disk before its name is; not needed
            where a checksum tells (it takes seconds for gigabytes).

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
