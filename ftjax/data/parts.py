"""Which images of a source train, validate and test."""

from collections.abc import Collection
from functools import partial

import numpy as np

from ftjax.data.index import Source, Split
from ftjax.data.splits import balanced_order, hold_out, hold_out_test, take


def choose_parts(
    source: Source,
    *,
    train_sizes: Collection[int] = (),
    val_size: int | None,
    test_size: int | None,
    seed: int,
) -> dict[str, tuple[Split, np.ndarray]]:
    """Chooses the images to train, validate and test on, from sizes and a seed.

    Args:
        source: the data set.
        train_sizes: numbers of images, of which the largest is chosen and each must
            be allowed; empty: all, or the source's own share.
        val_size: number of images to validate on; None: all of a validation split, or
            the default of `hold_out`.
        test_size: the same for the test; None: all of a test split, or no test.
        seed: of the choice.

    Returns:
        train, val and perhaps test -> their split of the source and item numbers of it,
        every prefix class-balanced.

    Raises:
        ValueError: a size is out of range, or a class has too few images.
    """
    num_classes = len(source.class_names)
    order = partial(balanced_order, num_classes=num_classes, seed=seed)
    take_some = partial(take, num_classes=num_classes)
    chosen: dict[str, tuple[Split, np.ndarray]] = {}
    held_out = None
    if source.test is not None:
        items = take_some(
            order(source.test.labels),
            test_size,
            option="--test-size",
            limit="are there to test",
        )
        chosen["test"] = source.test, items
    elif test_size is not None:
        held_out = hold_out_test(
            source.train.labels, test_size, num_classes=num_classes, seed=seed
        )
        chosen["test"] = source.train, held_out
    if source.val is None:
        train, val = hold_out(
            source.train.labels,
            class_names=source.class_names,
            seed=seed,
            val_size=val_size,
            default_val_size=source.val_size,
            held_out=held_out,
        )
        limit = f"are left to train beside {len(val)} held out for validation"
    else:
        train = order(source.train.labels)
        if held_out is not None:
            train = train[~np.isin(train, held_out)]
        limit = "are there to train"
        val = take_some(
            order(source.val.labels),
            val_size,
            option="--val-size",
            limit="are there to validate",
        )
    sizes: list[int | None] = sorted(train_sizes, reverse=True) or [None]
    if sizes == [None] and source.train_share < 1:
        share = round(source.train_share * len(source.train.labels))
        sizes = [min(max(share, num_classes), len(train))]
    parts = [
        take_some(train, size, option="--train-size", limit=limit) for size in sizes
    ]
    return {
        "train": (source.train, parts[0]),
        "val": (source.val or source.train, val),
    } | (chosen)
