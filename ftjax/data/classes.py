"""A data set with some of its classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ftjax.data.index import Source, Split
from ftjax.data.splits import quote_some

LEAST = 2  # classes that can be told apart


def choose_classes(source: Source, chosen: Sequence[str]) -> Source:
    """The images of the chosen classes, which keep the order of the data set.

    Args:
        source: the data set.
        chosen: names of classes; or a single number, how many of the first ones; empty:
            all.

    Raises:
        ValueError: a class is unknown, or fewer than two are chosen.
    """
    if not chosen:
        return source
    names, chosen = source.class_names, tuple(dict.fromkeys(chosen))
    if len(chosen) == 1 and chosen[0].lstrip("-").isdigit():
        if not LEAST <= int(chosen[0]) <= len(names):
            raise ValueError(
                f"--classes {chosen[0]} is out of range: {LEAST} to {len(names)} "
                f"classes of {source.name}"
            )
        chosen = names[: int(chosen[0])]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ValueError(
            f"--classes: {source.name} has no class {quote_some(unknown)}; it has "
            f"{quote_some(names, 20)}"
        )
    if len(chosen) < LEAST:
        raise ValueError(
            f"--classes {chosen[0]} is a single class; give {LEAST} or more names, or "
            "how many of the first classes"
        )
    kept = [label for label, name in enumerate(names) if name in chosen]
    train, val, test = (
        None if split is None else keep_labels(split, kept)
        for split in (source.train, source.val, source.test)
    )
    assert train is not None
    val_size = source.val_size
    if val_size is not None:
        share = len(train.labels) / len(source.train.labels)
        val_size = max(1, round(val_size * share))
    return replace(
        source,
        class_names=tuple(names[label] for label in kept),
        train=train,
        val=val,
        test=test,
        val_size=val_size,
    )


def keep_labels(split: Split, kept: Sequence[int]) -> Split:
    """The images of some labels, which are counted anew.

    Args:
        split: of a data set.
        kept: labels, in rising order.
    """
    items = np.flatnonzero(np.isin(split.labels, kept))
    boxes = split.boxes
    return replace(
        split,
        labels=np.searchsorted(kept, split.labels[items]).astype(np.int32),
        read=lambda item: split.read(int(items[item])),
        name_of=lambda item: split.name_of(int(items[item])),
        digests=lambda own: split.digests(items[own]),
        boxes=None if boxes is None else lambda item: boxes(int(items[item])),
    )
