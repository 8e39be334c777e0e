"""Images that are in memory already: arrays, or pairs of image and label."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ftjax.data.index import Source, Split, digest_items, refuse_empty_classes
from ftjax.data.splits import quote_some

NAME = "arrays"  # of such data, where the path of a folder stands else
TAKEN = (
    "allowed: (images, labels), two sequences of one length, or an iterable of "
    "(image, label) pairs"
)


def open_arrays(data: Any, val: Any = None) -> Source:
    """Images and labels in memory as a data set.

    An image is uint8, or any number in 0..255, which is rounded: (h, w, 3) RGB, or grey
    (h, w) or (h, w, 1). Sizes may differ from image to image. Labels are integers or
    names of classes; classes are in the order of their sorted labels.

    Args:
        data: `(images, labels)`, or an iterable of `(image, label)` pairs, which is
            read once.
        val: the validation images likewise; None: they are held out of `data`.

    Raises:
        ValueError: says which image or label is wrong, and what is allowed.
    """
    images, labels = as_lists(data, "data")
    classes = sorted_classes(labels)
    if len(classes) < 2:
        raise ValueError(f"data has one class, {classes[0]!r}: at least two are needed")
    parts = {"train": as_split(images, labels, classes, "image")}
    if val is not None:
        images, labels = as_lists(val, "val")
        unknown = [str(label) for label in set(labels) - set(classes)]
        if unknown:
            raise ValueError(
                f"val has labels that data does not have: {quote_some(sorted(unknown))}"
            )
        parts["val"] = as_split(images, labels, classes, "val image")
    source = Source(
        name=NAME,
        class_names=tuple(map(str, classes)),
        train=parts["train"],
        val=parts.get("val"),
        test=None,
        note="images given as arrays",
    )
    refuse_empty_classes(source, NAME)
    return source


def as_lists(data: Any, name: str) -> tuple[list[np.ndarray], list]:
    """Images as uint8 (h, w, 3), and their labels."""
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ValueError(f"{name} is of type {type(data).__name__}; {TAKEN}")
    if isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if len(images) != len(labels):
            raise ValueError(
                f"{name} has {len(images)} images and {len(labels)} labels; {TAKEN}"
            )
    else:
        pairs = list(data)
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"{name} does not hold pairs; {TAKEN}")
        images, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not len(images):
        raise ValueError(f"{name} is empty; {TAKEN}")
    arrays = [np.asarray(image) for image in images]
    floats = [image for image in arrays if image.dtype.kind == "f" and image.size]
    if len(floats) == len(arrays) and 0 < max(image.max() for image in floats) <= 1:
        raise ValueError(
            f"{name}: all pixels lie in 0..1, as if divided by 255; give 0..255"
        )
    pixels = [as_pixels(image, f"{name}: image {i}") for i, image in enumerate(arrays)]
    return pixels, [as_label(label, name) for label in labels]


def as_pixels(image: np.ndarray, name: str) -> np.ndarray:
    """One image as uint8 (h, w, 3)."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        raise ValueError(
            f"{name} has shape {image.shape}; allowed: (height, width, 3), RGB, or "
            "(height, width), grey"
        )
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        if image.dtype.kind not in "iuf" or not 0 <= low <= high <= 255:
            raise ValueError(
                f"{name} has values {low:g} to {high:g} of type {image.dtype}; "
                "allowed: 0..255, the pixels as they are in a file"
            )
        image = np.round(image).astype(np.uint8)
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return np.ascontiguousarray(image)


def as_label(label: Any, name: str) -> int | str:
    """A whole number or a name, as Python's own type."""
    label = label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(
            f"{name}: label {label!r} is of type {type(label).__name__}; allowed: "
            "whole numbers, or names of classes"
        )
    return label


def sorted_classes(labels: Sequence[int | str]) -> list:
    """The distinct labels in order: numbers by value, names by letters."""
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise ValueError("labels are numbers and names mixed; give one kind")
    return sorted(set(labels))


def as_split(
    images: Sequence[np.ndarray], labels: Sequence, classes: Sequence, name: str
) -> Split:
    """Images and labels as the index of a split; `name` is for messages."""
    number = {label: index for index, label in enumerate(classes)}
    return Split(
        labels=np.array([number[label] for label in labels], np.int32),
        read=images.__getitem__,
        name_of=f"{name} {{}}".format,
        digests=partial(digest_items, read=images.__getitem__),
    )
