"""Which images train and which validate: stratified, nested, fixed by a seed.

Every class is put in a random order of its own. Validation takes from the front of
each class, training from the back, and both go round the classes in turn. Hence a
smaller set is always a prefix of a larger one, classes are as balanced as the data
allows, and the training images stay the same when the validation set grows (until
the two meet). Where a test set is asked for, it is taken from the front first, and
validation from what is left.
"""

from collections.abc import Sequence

import numpy as np

DEFAULT_VAL_SHARE = 0.2
DEFAULT_VAL_MAX = 5_000


def balanced_order(labels: np.ndarray, *, num_classes: int, seed: int) -> np.ndarray:
    """Orders images so that every prefix is balanced over the classes.

    Args:
        labels: int (n,), values 0 .. num_classes - 1.
        num_classes: number of classes.
        seed: of the order.

    Returns:
        int64 (n,), a permutation. Where a class runs out the others go on.
    """
    return _interleave(_class_queues(labels, num_classes=num_classes, seed=seed))


def hold_out(
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    seed: int,
    val_size: int | None = None,
    default_val_size: int | None = None,
    held_out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits one set of labelled images into training and validation.

    Args:
        labels: int (n,), values 0 .. len(class_names) - 1.
        class_names: by label.
        seed: of the choice.
        val_size: number of validation images, the same from every class as far as the
            data allows; never more than half of a class, so that a rare class stays in
            the training set.
        default_val_size: used where `val_size` is None, in proportion to the class
            frequencies; None: 20 % of the images, at most 5,000.
        held_out: indices that `hold_out_test` gave, used for neither.

    Returns:
        (train, val): disjoint int64 index arrays, every prefix class-balanced.

    Raises:
        ValueError: a class has fewer than two images, or `val_size` is out of range.
    """
    num_classes = len(class_names)
    queues = _class_queues(labels, num_classes=num_classes, seed=seed)
    if held_out is not None:
        queues = [queue[~np.isin(queue, held_out)] for queue in queues]
    sizes = np.array([len(queue) for queue in queues])
    if sizes.min() < 2:
        rare = [class_names[i] for i in np.flatnonzero(sizes < 2)]
        raise ValueError(
            f"{quote_some(rare)}: fewer than 2 images; every class needs at least "
            "one to train and one to validate: add images or remove the class"
        )
    if val_size is None:
        target = default_val_size or min(
            round(DEFAULT_VAL_SHARE * sizes.sum()), DEFAULT_VAL_MAX
        )
        counts = np.clip(_proportional(sizes, target), 1, sizes // 2)
    else:
        halves = [queue[: len(queue) // 2] for queue in queues]
        chosen = take(
            _interleave(halves),
            val_size,
            option="--val-size",
            num_classes=num_classes,
            limit="may be held out of the training images (half of each class)",
        )
        counts = np.bincount(labels[chosen], minlength=num_classes)
    val = [queue[:count] for queue, count in zip(queues, counts, strict=True)]
    train = [queue[count:][::-1] for queue, count in zip(queues, counts, strict=True)]
    return _interleave(train), _interleave(val)


def hold_out_test(
    labels: np.ndarray, size: int, *, num_classes: int, seed: int
) -> np.ndarray:
    """Cuts a test set off a set of labelled images, before anything else is chosen.

    Args:
        labels: int (n,), values 0 .. num_classes - 1.
        size: number of test images, the same from every class as far as the data
            allows; never more than half of a class, nor so many that fewer than 2 of it
            are left.
        num_classes: number of classes.
        seed: of the choice.

    Returns:
        int64 (size,), every prefix class-balanced.

    Raises:
        ValueError: `size` is out of range.
    """
    queues = _class_queues(labels, num_classes=num_classes, seed=seed)
    most = [max(0, min(len(queue) // 2, len(queue) - 2)) for queue in queues]
    return take(
        _interleave([queue[:count] for queue, count in zip(queues, most, strict=True)]),
        size,
        option="--test-size",
        num_classes=num_classes,
        limit="may be held out for the test (half of each class)",
    )


def take(
    order: np.ndarray, size: int | None, *, option: str, num_classes: int, limit: str
) -> np.ndarray:
    """First `size` entries of a balanced order; all of them if `size` is None.

    Args:
        order: (n,) of `balanced_order`.
        size: number of entries, num_classes .. n; None: all.
        option: command-line option named in the error.
        num_classes: least size.
        limit: what bounds the size, to complete "only 400 images ...".

    Raises:
        ValueError: `size` is below the number of classes or beyond the order.
    """
    if size is None:
        return order
    allowed = f"allowed: {num_classes} to {len(order)}"
    if size < num_classes:
        raise ValueError(
            f"{option} {size} is fewer than one image for each of the {num_classes} "
            f"classes; {allowed}"
        )
    if size > len(order):
        raise ValueError(
            f"{option} {size}: only {len(order)} images {limit}; {allowed}"
        )
    return order[:size]


def quote_some(names: Sequence[str], most: int = 5) -> str:
    """Quotes up to `most` names in one line and counts the rest."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = len(names) - most
    return shown + (f" and {more} more" if more > 0 else "")


def _class_queues(
    labels: np.ndarray, *, num_classes: int, seed: int
) -> list[np.ndarray]:
    # A generator per class: adding a class does not reorder the others.
    return [
        np.random.default_rng([seed, index]).permutation(
            np.flatnonzero(labels == index)
        )
        for index in range(num_classes)
    ]


def _interleave(queues: Sequence[np.ndarray]) -> np.ndarray:
    """One of each class, then the second of each class, and so on."""
    turn = np.concatenate([np.arange(len(queue)) for queue in queues])
    owner = np.repeat(np.arange(len(queues)), [len(queue) for queue in queues])
    return np.concatenate(queues)[np.lexsort((owner, turn))]


def _proportional(sizes: np.ndarray, total: int) -> np.ndarray:
    """Shares `total` out by largest remainder; ties go to the earlier class."""
    exact = sizes * (total / sizes.sum())
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts
