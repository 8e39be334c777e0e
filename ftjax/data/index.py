"""The index of a data set: labels, names and contents of images not yet decoded."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ftjax.data.scan import Scan
from ftjax.data.splits import quote_some


@dataclass(frozen=True)
class Split:
    """An index of n undecoded images.

    Attributes:
        labels: int32 (n,).
        read: item number -> bytes of an image file, or uint8 pixels: (h, w), grey, or
            (h, w, 3), RGB.
        name_of: item number -> name for error messages.
        digests: item numbers (m,) -> SHA-256 of each item's content, uint8 (m, 32).
        boxes: item number -> where its objects are, (k, 4) top, left, bottom, right as
            shares 0..1 of height and width; None if the data set does not say.
        published: the images are those of a published data set, and used as they are,
            even where a decoder finds something odd about them.
    """

    labels: np.ndarray
    read: Callable[[int], bytes | np.ndarray]
    name_of: Callable[[int], str]
    digests: Callable[[np.ndarray], np.ndarray]
    boxes: Callable[[int], np.ndarray] | None = None
    published: bool = False


@dataclass(frozen=True)
class Source:
    """The splits of one data set.

    Attributes:
        val: None if validation images are to be held out of `train`.
        test: None if there is none, or it was not asked for.
        note: what a reader of the results must know about the images.
        train_share: part of `train` used where no size is asked for.
        val_size: images held out where no size is asked for; None: the rule of
            `splits.hold_out`.
        scan: what became of every file, if it is a folder.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None
    note: str
    train_share: float = 1.0
    val_size: int | None = None
    scan: Scan | None = None


def digest_content(content: bytes | np.ndarray) -> bytes:
    """SHA-256 of an image file, or of pixels; those of an RGB array with its shape."""
    digest = hashlib.sha256()
    if isinstance(content, np.ndarray) and content.ndim == 3:
        digest.update(f"{content.shape} ".encode())
    digest.update(content)
    return digest.digest()


def digest_items(items: np.ndarray, *, read: Callable[[int], bytes | np.ndarray]):
    """SHA-256 of each item, uint8 (n, 32).

    Content, not path and time: a copied or freshly unpacked folder keeps its cache, and
    an exchanged image is never overlooked. It costs little: 0.03-0.07 ms an image of
    24 kB where decoding takes 0.5-1 ms (2 cores).

    Args:
        items: int (n,), item numbers.
        read: gives the content of an item.
    """

    def digest(item: int) -> bytes:
        try:
            return digest_content(read(item))
        except OSError:  # Decoding reads it again and reports it with its name.
            return bytes(32)

    with ThreadPoolExecutor() as pool:  # Threads hide the latency of network folders.
        content = b"".join(pool.map(digest, items.tolist()))
    return np.frombuffer(content, np.uint8).reshape(-1, 32)


def refuse_empty_classes(source: Source, name: str) -> None:
    """Raises ValueError if a class has no images in a split."""
    for split_name in ("train", "val", "test"):
        split = getattr(source, split_name)
        if split is None:
            continue
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        if not counts.all():
            empty = [source.class_names[i] for i in np.flatnonzero(counts == 0)]
            raise ValueError(
                f"data {name!r}: no images of class {quote_some(empty)} in "
                f"{split_name}; every class needs some: add them or remove the class"
            )
