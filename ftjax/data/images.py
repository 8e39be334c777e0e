"""Images as uint8 arrays at the network's size: decoded once, kept on disk.

Scaling to what the weights expect happens on the device; here an image stays 0..255.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax.data.boxes import object_masks
from ftjax.data.cache import StoredArray, load_or_build
from ftjax.data.classes import choose_classes
from ftjax.data.decode import RULE, decoder_versions
from ftjax.data.flaws import flawed_hash, imbalanced_rows, noisy_labels
from ftjax.data.index import Source, Split
from ftjax.data.parts import choose_parts
from ftjax.data.rows import Spool, decode_items
from ftjax.data.scan import scan_folder
from ftjax.data.scan_report import ScanReport, make_report
from ftjax.data.sources import open_source
from ftjax.machine.caches import cache_folder
from ftjax.machine.paths import expand_user

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
        test: the official test images, or those that `test_size` cut off; None if there
            are none or not asked for. Nothing trains or validates on them.
        content_hash: SHA-256 (hex) over pixels and labels of train and val.
        smaller: likewise with the first n of the training images alone, by n.
        note: what a reader of the results must know about the images.
        shared: number of image files with the same content in train and in val.
        report: what became of every file; None if it is not a folder.
        kept: (k,) the training images that are trained on; None: all of them.
        bits: of the values of 16-bit images, which `decode_image` needs to read others
            in the same way; None if there are none.
    """

    name: str
    class_names: tuple[str, ...]
    train: Arrays
    val: Arrays
    test: Arrays | None
    content_hash: str
    note: str
    shared: int
    report: ScanReport | None = None
    bits: int | None = None
    smaller: Mapping[int, str] = field(default_factory=dict)
    kept: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """(k,) the training images that are trained on."""
        return np.arange(len(self.train.labels)) if self.kept is None else self.kept

    def first(self, train_size: int | None) -> "Dataset":
        """With the first of the training images: the set of that size by itself.

        Args:
            train_size: one that was loaded; None: all of them.
        """
        if train_size in (None, len(self.train.labels)):
            return self
        images, labels = (array[:train_size] for array in self.train)
        return replace(
            self,
            train=Arrays(images, labels),
            content_hash=self.smaller[train_size],
            smaller={},
        )

    def chosen(
        self, train_size: int | None, imbalance: float = 1.0, label_noise: float = 0.0
    ) -> "Dataset":
        """What a trial trains on: the first images, of which some may be made worse.

        The images themselves stay where they are, so that all trials share the
        activations of one pass; `rows` tells which of them are trained on.

        Args:
            train_size: as of `first`.
            imbalance: as of `imbalanced_rows`.
            label_noise: as of `noisy_labels`, of the images that are left.
        """
        data, classes = self.first(train_size), len(self.class_names)
        if imbalance == 1 and not label_noise:
            return data
        kept = imbalanced_rows(data.train.labels, classes, imbalance)
        labels = data.train.labels.copy()
        labels[kept] = noisy_labels(
            labels[kept], classes, label_noise, data.content_hash
        )
        return replace(
            data,
            train=Arrays(data.train.images, labels),
            content_hash=flawed_hash(data.content_hash, imbalance, label_noise),
            smaller={},
            kept=None if imbalance == 1 else kept,
        )

    def describe(self) -> str:
        """One line for logs and reports: sizes, classes and what to know."""
        size = self.train.images.shape[1]
        line = (
            f"{self.name}: {len(self.train.labels):,} training and "
            f"{len(self.val.labels):,} validation images of {len(self.class_names)} "
            f"classes at {size} px ({self.note})"
        )
        line = "; ".join([line, *self.warnings])
        return line if self.report is None else f"{line}; {self.report.summary()}"

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
    source: Source | None = None,
    data_dir: str | Path | None = None,
    image_size: int,
    train_size: int | Collection[int] | None = None,
    val_size: int | None = None,
    test_size: int | None = None,
    split_seed: int = 0,
    cache_dir: str | Path | None = None,
    with_test: bool = False,
    strict: bool = False,
    classes: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Decodes the chosen images of a source to one size.

    Where a source has no validation split, one is held out of its training split: by
    default a stratified 20 %, at most 5,000 (digits: 397 of 1,797). Official test
    splits are never used for it. The same arguments give the same arrays, whatever the
    order of directory listings or of threads.

    Args:
        name: digits, cifar10, food101, stanford_dogs or the path of a folder.
        source: the images themselves (`arrays.open_arrays`), instead of a name's.
        data_dir: where TFDS data sets lie prepared (see `sources.open_source`).
        image_size: pixels a side, at least 8.
        train_size: number of training images; a smaller set is a prefix of a larger
            one and classes are as balanced as the data allows. Of several the largest
            is loaded, and `Dataset.first` gives the others. None, or empty: all
            (food101: the study's 10 %).
        val_size: number of validation images.
        test_size: the same for a test set, which is decoded then. Where the source has
            none, it is cut off the training images before validation is. None: no test
            set, unless `with_test` asks for the official one.
        split_seed: decides which images are chosen and held out.
        cache_dir: for decoded images; None: `caches.cache_folder`. Files are
            named by content (digests of the images, size, rule), so one that fits
            is the right one; they can be deleted at any time.
        with_test: also decode the official test split (food101: 25,250 images).
        strict: refuse a folder of which any file is skipped, refused, or in two parts;
            otherwise such files are left out, and `Dataset.report` names them.
        classes: as of `choose_classes`; the images of all others are left out.
        progress: called with (decoded, total) while files are scanned and while a split
            is being decoded.

    Raises:
        ValueError: bad source or size; images of a named source that cannot be read.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(
            f"--image-size {image_size} is too small; allowed: {MIN_IMAGE_SIZE} or more"
        )
    cache = expand_user(cache_dir) if cache_dir else cache_folder()
    with closing(Spool(cache / "images", image_size)) as spool:
        source = source or open_source(
            name,
            data_dir=data_dir,
            cache_dir=cache,
            with_test=with_test or test_size is not None,
            scan=partial(
                scan_folder, size=image_size, keep=spool.put, progress=progress
            ),
        )
        source = choose_classes(source, classes)
        chosen = choose_parts(
            source,
            train_sizes=_sizes(train_size),
            val_size=val_size,
            test_size=test_size,
            seed=split_seed,
        )
        report = None if source.scan is None else _report(source, chosen)
        if strict and report is not None:
            report.refuse()
        decode = partial(
            _decode_split,
            image_size=image_size,
            bits=None if report is None else report.bits,
            cache=cache,
            spool=spool,
            progress=progress,
        )
        train, val = decode(*chosen["train"]), decode(*chosen["val"])
        test = None
        if "test" in chosen and (with_test or test_size is not None):
            test = decode(*chosen["test"]).arrays
    return Dataset(
        name=source.name,
        class_names=source.class_names,
        train=train.arrays,
        val=val.arrays,
        test=test,
        content_hash=_hash_content(train, val),
        note=source.note,
        shared=len(set(train.contents) & set(val.contents)),
        report=report,
        bits=None if report is None else report.bits,
        smaller={
            size: _hash_content(_first(train, size), val)
            for size in _sizes(train_size)
            if size < len(train.arrays.labels)
        },
    )


def load_object_masks(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int,
    train_size: int | Collection[int] | None = None,
    val_size: int | None = None,
    test_size: int | None = None,
    classes: Sequence[str] = (),
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
    source = choose_classes(source, classes)
    if (source.val or source.train).boxes is None:
        return None
    chosen = choose_parts(
        source,
        train_sizes=_sizes(train_size),
        val_size=val_size,
        test_size=test_size,
        seed=0,
    )
    split, items = chosen["val"]
    return object_masks(split, items[:count], image_size)


def _sizes(train_size: int | Collection[int] | None) -> tuple[int, ...]:
    if train_size is None:
        return ()
    return (train_size,) if isinstance(train_size, int) else tuple(train_size)


def _report(source: Source, chosen: dict[str, tuple[Split, np.ndarray]]) -> ScanReport:
    assert source.scan is not None
    parts = {
        split.name_of(item): part
        for part, (split, items) in chosen.items()
        for item in items.tolist()
    }
    return make_report(source.scan, parts)


class _Decoded(NamedTuple):
    arrays: Arrays
    pixel_digest: str
    contents: list[bytes]  # SHA-256 of each image file


def _first(split: _Decoded, size: int) -> _Decoded:
    images, labels = (array[:size] for array in split.arrays)
    digest = hashlib.sha256(images.data).hexdigest()
    return _Decoded(Arrays(images, labels), digest, split.contents[:size])


def _decode_split(
    split: Split,
    items: np.ndarray,
    *,
    image_size: int,
    bits: int | None,
    cache: Path,
    spool: Spool,
    progress: Callable[[int, int], None] | None,
) -> _Decoded:
    digests = split.digests(items)
    recipe = f"{RULE}; {image_size}; {bits} bits; {decoder_versions()}"
    key = hashlib.sha256(recipe.encode() + digests.tobytes()).hexdigest()[:32]
    stored: StoredArray = load_or_build(
        cache / "images" / f"{key}.npy",
        dtype="|u1",
        shape=(len(items), image_size, image_size, 3),
        build_rows=partial(
            decode_items,
            split,
            items,
            digests,
            image_size=image_size,
            bits=bits,
            spool=spool,
            progress=progress,
        ),
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
