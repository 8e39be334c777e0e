"""Of the training images, those that a trial trains on."""

import jax
import numpy as np

from ftjax.data import Dataset


def kept_rows(x: np.ndarray | jax.Array, data: Dataset) -> np.ndarray | jax.Array:
    """Of an array over all training images, the rows of those that are trained on.

    Where these are the first ones, whoever reads the array counts the labels.
    """
    return x if data.kept is None else x[data.kept]


def balanced_weights(data: Dataset) -> np.ndarray:
    """(classes,) float32 weights that give every class the same share of the loss."""
    labels = data.train.labels[data.rows]
    counts = np.bincount(labels, minlength=len(data.class_names))
    present = max(np.count_nonzero(counts), 1)
    return (counts.sum() / present / np.maximum(counts, 1)).astype(np.float32)
