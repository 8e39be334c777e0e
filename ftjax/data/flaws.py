"""Training sets made worse on purpose: uneven classes, wrong labels.

Which images and labels that concerns follows from the data alone, so that all trials
and all commands mean the same ones.
"""

import hashlib

import numpy as np


def imbalanced_rows(labels: np.ndarray, num_classes: int, factor: float) -> np.ndarray:
    """The images that are left when classes are made uneven, increasing.

    Of the k-th of K classes the first factor^(-k / (K - 1)) of its images stay, at
    least one: all of the first class, and 1 / factor of the last. This is the long tail
    of Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples".

    Args:
        labels: (n,) of the training images.
        num_classes: K.
        factor: 1 or more.
    """
    kept = []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        share = factor ** (-label / max(num_classes - 1, 1))
        kept.append(rows[: max(1, round(len(rows) * share))])
    return np.sort(np.concatenate(kept))


def noisy_labels(
    labels: np.ndarray, num_classes: int, share: float, content: str
) -> np.ndarray:
    """Labels of which a share is replaced by another class, any of them equally often.

    The labels that are wrong at a share are wrong in the same way at a larger one.

    Args:
        labels: (n,) of the training images.
        num_classes: two or more.
        share: in [0, 1); the number of wrong labels is rounded.
        content: text that the draws follow from.
    """
    seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    shift = rng.integers(1, num_classes, size=len(labels)).astype(labels.dtype)
    wrong = order[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + shift[wrong]) % num_classes
    return noisy


def flawed_hash(content: str, imbalance: float, label_noise: float) -> str:
    """SHA-256 (hex) of a data set whose training images were made worse.

    Args:
        content: hash of the data set as it is.
        imbalance: of `imbalanced_rows`.
        label_noise: of `noisy_labels`.
    """
    text = f"{content} imbalance {imbalance:g} label noise {label_noise:g}"
    return hashlib.sha256(text.encode()).hexdigest()
