"""The images of a split as rows of square pixels, made from what was hashed."""

import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ftjax.data.decode import decode_image, finish, quiet, resize_square
from ftjax.data.image_files import Refused, read_pixels
from ftjax.data.index import Split, digest_content
from ftjax.data.splits import quote_some
from ftjax.data.threads import map_ordered

SPOOL_BYTES = 8 * 2**30
SPOOL_MEMORY = 2**29  # of which are kept in memory before a file is made


class Spool:
    """Square images of the scan, by the digest of their files, in a temporary file.

    So the first run decodes every file once. Where the disk is full or the images are
    more than `SPOOL_BYTES` the rest is decoded again.
    """

    def __init__(self, folder: Path, size: int):
        self.shape = (size, size, 3)
        self._rows: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._file = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.SpooledTemporaryFile(SPOOL_MEMORY, dir=folder)
        except OSError:  # whoever writes the cache next says so
            pass

    def put(self, digest: bytes, square: np.ndarray) -> None:
        """Keeps uint8 (size, size, 3), if there is room."""
        start = len(self._rows) * square.nbytes
        full = start + square.nbytes > SPOOL_BYTES
        if self._file is None or full or digest in self._rows:
            return
        try:
            self._file.seek(start)
            self._file.write(square.data)
            self._file.flush()
        except OSError:
            return
        self._rows[digest] = len(self._rows)

    def get(self, digest: bytes) -> np.ndarray | None:
        """What was kept under a digest."""
        row = self._rows.get(digest)
        if row is None or self._file is None:
            return None
        count = math.prod(self.shape)
        with self._lock:
            self._file.seek(row * count)
            data = self._file.read(count)
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    def close(self) -> None:
        """Gives the disk space back."""
        if self._file is not None:
            self._file.close()


def decode_items(
    split: Split,
    items: np.ndarray,
    digests: np.ndarray,
    *,
    image_size: int,
    bits: int | None = None,
    spool: Spool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yields the images in the order of `items`, decoded by a thread per core.

    The bytes that are decoded are hashed again: an image that was exchanged since it
    was hashed, even if it is put back later, ends this with an error.

    Args:
        split: holds the images.
        items: int (n,), item numbers of `split`.
        digests: uint8 (n, 32), what `split.digests(items)` gave.
        image_size: pixels a side.
        bits: of the values of 16-bit images.
        spool: holds some of the images already.
        progress: called with (decoded, n) after every image.

    Yields:
        uint8 (image_size, image_size, 3), RGB.

    Raises:
        ValueError: after the last image, if some cannot be read or have changed; names
            up to five.
    """

    def decode(row: int) -> np.ndarray | str:
        digest = digests[row].tobytes()
        square = spool.get(digest) if spool is not None else None
        if square is not None:
            return square
        try:
            raw = split.read(int(items[row]))
            if digest_content(raw) != digest:
                return "changed"
            if isinstance(raw, np.ndarray):
                return resize_square(decode_image(raw), image_size)
            strict = not split.published
            decoded = read_pixels(raw, warnings_are_errors=strict)
            return resize_square(finish(decoded, bits), image_size)
        except (OSError, Refused):
            return "unreadable"

    # Threads, not processes: decoders release the interpreter lock.
    images = map_ordered(decode, range(len(items)))
    wrong: dict[str, list[str]] = {"changed": [], "unreadable": []}
    with quiet():
        for done, (item, image) in enumerate(zip(items, images, strict=True), start=1):
            if progress is not None:
                progress(done, len(items))
            if isinstance(image, str):
                wrong[image].append(split.name_of(int(item)))
            else:
                yield image
    if wrong["changed"]:
        raise ValueError(
            f"{len(wrong['changed'])} of {len(items)} images changed while they were "
            f"being read: {quote_some(sorted(wrong['changed']))}; start again when "
            "nothing writes to them"
        )
    if wrong["unreadable"]:
        raise ValueError(
            f"{len(wrong['unreadable'])} of {len(items)} images cannot be read: "
            f"{quote_some(sorted(wrong['unreadable']))}; replace or remove them"
        )
