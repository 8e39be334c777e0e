"""Images as uint8 arrays at the network's size: decoded once, kept on disk.

Scaling to what the weights expect happens on the device; here an image stays 0..255.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax.data.boxes import object_masks
from ftjax.data.cache import StoredArray, load_or_build
from ftjax.data.decode import RULE, decode_items
from ftjax.data.index import Source, Split
from ftjax.data.sources import open_source
from ftjax.data.splits import balanced_order, hold_out, take
from ftjax.machine.caches import cache_folder

MIN_IMAGE_SIZE = 8


class Arrays(NamedTuple):
    """Decoded images of one split, in an order whose prefixes are class-balanced.

    Attributes:
        images: uint8 (n, size, size, 3), RGB; read-only, mapped from disk.
        labels: int32 (n,), index into `Dataset.class_names`.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A data set ready for the device.

    Attributes:
        test: the official test images; None if there are none or not asked for.
        content_hash: SHA-256 (hex) over pixels and labels of train and val.
        note: what a reader of the results must know about the images.
        shared: number of image files with the same content in train and in val.
    """

    name: str
    class_names: tuple[str, ...]
    train: Arrays
    val: Arrays
    test: Arrays | None
    content_hash: str
    note: str
    shared: int

    def describe(self) -> str:
        """One line for logs and reports: sizes, classes and what to know."""
        size = self.train.images.shape[1]
        line = (
            f"{self.name}: {len(self.train.labels):,} training and "
            f"{len(self.val.labels):,} validation images of {len(self.class_names)} "
            f"classes at {size} px ({self.note})"
        )
        return "; ".join([line, *self.warnings])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the results on it better than they are; plain sentences."""
        if not self.shared:
            return ()
        images, are = ("images", "are") if self.shared > 1 else ("image", "is")
        return (
            f"{self.shared} validation {images} {are} also training {images}, so "
            "validation accuracy is too good",
        )


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int,
    train_size: int | None = None,
    val_size: int | None = None,
    split_seed: int = 0,
    cache_dir: str | Path | None = None,
    offline: bool = False,
    with_test: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Decodes the chosen images of a source to one size.

    Where a source has no validation split, one is held out of its training split: by
    default a stratified 20 %, at most 5,000 (digits: 397 of 1,797). Official test
    splits are never used for it. The same arguments give the same arrays, whatever the
    order of directory listings or of threads.

    Args:
        name: digits, cifar10, food101, stanford_dogs or the path of a folder.
        data_dir: where TFDS data sets lie prepared (see `sources.open_source`).
        image_size: pixels a side, at least 8.
        train_size: number of training images; a smaller set is a prefix of a larger
            one and classes are as balanced as the data allows. None: all (food101: the
            study's 10 %).
        val_size: the same for validation.
        split_seed: decides which images are chosen and held out.
        cache_dir: for decoded images; None: `caches.cache_folder`. Files are
            named by content (digests of the images, size, rule), so one that fits
            is the right one; they can be deleted at any time.
        offline: kept beside the same option of the weights; data are never downloaded
            and no socket is opened, with or without it.
        with_test: also decode the official test split (food101: 25,250 images).
        progress: called with (decoded, total) while a split is being decoded.

    Raises:
        ValueError: bad source, size or image; unreadable images are named.
    """
    del offline
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(
            f"--image-size {image_size} is too small; allowed: {MIN_IMAGE_SIZE} or more"
        )
    cache = Path(cache_dir).expanduser() if cache_dir else cache_folder()
    source = open_source(name, data_dir=data_dir, cache_dir=cache, with_test=with_test)
    decode = partial(
        _decode_split, image_size=image_size, cache=cache, progress=progress
    )
    train_items, val_items = _choose(
        source, train_size=train_size, val_size=val_size, seed=split_seed
    )
    train = decode(source.train, train_items)
    val = decode(source.val or source.train, val_items)
    test = None
    if source.test is not None:
        test = decode(source.test, np.arange(len(source.test.labels))).arrays
    return Dataset(
        name=source.name,
        class_names=source.class_names,
        train=train.arrays,
        val=val.arrays,
        test=test,
        content_hash=_hash_content(train, val),
        note=source.note,
        shared=len(set(train.contents) & set(val.contents)),
    )


def load_object_masks(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int,
    train_size: int | None = None,
    val_size: int | None = None,
    count: int,
) -> np.ndarray | None:
    """Where the objects are in the first validation images that `load` gives.

    Arguments as in `load`, with its default split and cache; `count` is how many
    images.

    Returns:
        bool (count, image_size, image_size), fewer if there are fewer images; None if
        the data set has no boxes.

    Raises:
        ValueError: bad source or unreadable image.
    """
    source = open_source(name, data_dir=data_dir, cache_dir=cache_folder())
    split = source.val or source.train
    if split.boxes is None:
        return None
    _, items = _choose(source, train_size=train_size, val_size=val_size, seed=0)
    return object_masks(split, items[:count], image_size)


def _choose(
    source: Source, *, train_size: int | None, val_size: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Item numbers of the training and of the validation images."""
    num_classes = len(source.class_names)
    if source.val is None:
        train, val = hold_out(
            source.train.labels,
            class_names=source.class_names,
            seed=seed,
            val_size=val_size,
            default_val_size=source.val_size,
        )
        limit = f"are left to train beside {len(val)} held out for validation"
    else:
        train, val = (
            balanced_order(split.labels, num_classes=num_classes, seed=seed)
            for split in (source.train, source.val)
        )
        limit = "are there to train"
        val = take(
            val,
            val_size,
            option="--val-size",
            num_classes=num_classes,
            limit="are there to validate",
        )
    if train_size is None and source.train_share < 1:
        train_size = round(source.train_share * len(source.train.labels))
        train_size = min(max(train_size, num_classes), len(train))
    train = take(
        train, train_size, option="--train-size", num_classes=num_classes, limit=limit
    )
    return train, val


class _Decoded(NamedTuple):
    arrays: Arrays
    pixel_digest: str
    contents: list[bytes]  # SHA-256 of each image file


def _decode_split(
    split: Split,
    items: np.ndarray,
    *,
    image_size: int,
    cache: Path,
    progress: Callable[[int, int], None] | None,
) -> _Decoded:
    import cv2

    digests = split.digests(items)
    # OpenCV's version belongs to the key: its JPEG decoder and filters make the pixels.
    recipe = f"{RULE}; {image_size}; opencv {cv2.__version__}"
    key = hashlib.sha256(recipe.encode() + digests.tobytes()).hexdigest()[:32]
    stored: StoredArray = load_or_build(
        cache / "images" / f"{key}.npy",
        dtype="|u1",
        shape=(len(items), image_size, image_size, 3),
        build_rows=partial(decode_items, split, items, image_size, progress),
    )
    return _Decoded(
        Arrays(stored.array, split.labels[items]),
        stored.digest,
        [digest.tobytes() for digest in digests],
    )


def _hash_content(*splits: _Decoded) -> str:
    digest = hashlib.sha256()
    for split in splits:
        labels = split.arrays.labels.astype("<i4").tobytes()
        digest.update(f"{split.arrays.images.shape} {split.pixel_digest} ".encode())
        digest.update(hashlib.sha256(labels).digest())
    return digest.hexdigest()
