"""Metrics of a classifier from its logits, and what each image adds to them.

`image_scores` gives (n,) values whose mean is the metric, so that images can be
resampled, paired and left out whatever the metric is. All are higher-is-better: the
log loss with its sign turned. The majority class, the answer of a network that learned
nothing but the shares of the classes, is the baseline.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss")
# Ratio of the largest to the smallest class from which accuracy rewards the majority.
UNEVEN = 1.5


class Metric(NamedTuple):
    """A metric's value and that of the majority class."""

    name: str
    value: float
    baseline: float


def check_metric(metric: str) -> None:
    """Raises ValueError if there is no such metric."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")


def class_counts(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Number of images of each class, (classes,)."""
    labels = np.asarray(labels)
    if (
        labels.ndim != 1
        or not len(labels)
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise ValueError(
            f"labels must be (n,) whole numbers, got {labels.dtype} {labels.shape}"
        )
    return np.bincount(labels, minlength=num_classes or 0)


def is_uneven(labels: np.ndarray) -> bool:
    """Whether the classes are so uneven that accuracy is the wrong metric."""
    counts = class_counts(labels)
    counts = counts[counts > 0]
    return bool(len(counts) > 1 and counts.max() >= UNEVEN * counts.min())


def default_metric(labels: np.ndarray | None) -> str:
    """Balanced accuracy where the classes are uneven, else accuracy."""
    return (
        "balanced_accuracy"
        if labels is not None and is_uneven(labels)
        else ("accuracy")
    )


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-softmax of (n, classes)."""
    logits = np.asarray(logits, float)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts (classes, classes): rows are the true classes, columns the answers."""
    pairs = np.asarray(labels) * num_classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, -1)


def accuracy_scores(
    correct: np.ndarray, labels: np.ndarray | None, metric: str
) -> np.ndarray:
    """Scores (n,) of accuracy or balanced accuracy from correctness alone."""
    right = np.asarray(correct, float)
    if metric == "accuracy":
        return right
    if metric != "balanced_accuracy" or labels is None:
        raise ValueError(
            f"{metric} needs the labels"
            + ("" if metric == "balanced_accuracy" else " and logits")
            + " of the validation images, which this table does not have"
        )
    counts = class_counts(labels)
    recall = np.bincount(labels, weights=right) / np.maximum(counts, 1)
    classes = np.count_nonzero(counts)
    # Its influence function: the class sizes are no part of the noise.
    own = (right - recall[labels]) * len(right) / (classes * counts[labels])
    return own + recall.sum() / classes


def image_scores(logits: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """What each image adds, (n,): their mean is the metric (log loss: minus it).

    Macro F1 by the jackknife's pseudo-values (Efron 1982), exact in their mean only to
    order 1 / n, which is put right; AUROC, one class against the rest and averaged over
    the classes, by its placements (DeLong et al. 1988).

    Args:
        logits: (n, classes).
        labels: (n,).
        metric: one of `METRICS`.
    """
    check_metric(metric)
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"logits must be (n, classes) with n = {len(labels)} labels, got "
            f"{logits.shape}"
        )
    n, classes = logits.shape
    if labels.max() >= classes or labels.min() < 0:
        raise ValueError(
            f"labels go to {labels.max()}, but the logits have {classes} classes"
        )
    if metric in ("accuracy", "balanced_accuracy"):
        return accuracy_scores(logits.argmax(axis=1) == labels, labels, metric)
    if metric == "log_loss":
        return log_probabilities(logits)[np.arange(n), labels]
    if metric == "macro_f1":
        return _f1_scores(logits.argmax(axis=1), labels, classes)
    return _auroc_scores(log_probabilities(logits), labels)


def _macro_f1(matrix: np.ndarray) -> float:
    right = np.diag(matrix).astype(float)
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    seen = sizes > 0
    return float(np.mean(2 * right[seen] / sizes[seen]))


def _f1_scores(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    matrix, n = confusion_matrix(predicted, labels, classes), len(labels)
    whole = _macro_f1(matrix)
    without = np.zeros(matrix.shape)
    for place in np.argwhere(matrix > 0):
        less = matrix.copy()
        less[tuple(place)] -= 1
        without[tuple(place)] = _macro_f1(less)
    scores = n * whole - (n - 1) * without[labels, predicted]
    return scores - scores.mean() + whole


def _auroc_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    n = len(labels)
    found = np.zeros(n)
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError("auroc needs images of two classes or more")
    for one in present:
        inside = labels == one
        positive, negative = scores[inside, one], scores[~inside, one]
        above = _placement(positive, negative)  # (positives,)
        below = 1 - _placement(negative, positive)
        area = above.mean()
        found += area / len(present)
        found[inside] += (above - area) * n / inside.sum() / len(present)
        found[~inside] += (below - area) * n / (~inside).sum() / len(present)
    return found


def _placement(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each value, ties half."""
    ordered = np.sort(others)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high) / (2 * len(others))


def baseline(labels: np.ndarray, metric: str) -> float:
    """The metric of always answering the majority class (log loss: the shares)."""
    check_metric(metric)
    counts = class_counts(labels)
    share = counts[counts > 0] / counts.sum()
    if metric == "accuracy":
        return float(share.max())
    if metric == "balanced_accuracy":
        return 1 / len(share)
    if metric == "macro_f1":
        return float(2 * share.max() / (1 + share.max()) / len(share))
    if metric == "auroc":
        return 0.5
    return float(-np.sum(share * np.log(share)))


def measure(logits: np.ndarray, labels: np.ndarray, metric: str) -> Metric:
    """A metric with its baseline; the log loss as it is, lower is better.

    Args:
        logits: (n, classes).
        labels: (n,).
        metric: one of `METRICS`.
    """
    value = float(image_scores(logits, labels, metric).mean())
    value = -value if metric == "log_loss" else value
    return Metric(metric, value, baseline(labels, metric))


def class_table(
    predicted: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """One row a class: images, recall, precision, F1, and what it is taken for most."""
    matrix = confusion_matrix(predicted, labels, len(class_names))
    right = np.diag(matrix).astype(float)
    images, answers = matrix.sum(axis=1), matrix.sum(axis=0)
    wrong = matrix - np.diag(np.diag(matrix))
    most = wrong.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "class": class_names,
                "images": images,
                "recall": right / images,
                "precision": right / answers,
                "f1": 2 * right / (images + answers),
                "taken_for": [
                    class_names[m] if wrong[k, m] else "" for k, m in enumerate(most)
                ],
                "taken_count": wrong.max(axis=1),
            }
        )


def class_changes(
    scores: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], chosen: int
) -> pd.DataFrame:
    """Recall of each class by depth, less that at the chosen depth, (classes, d).

    Args:
        scores: (d, n) correctness (0..1), means over the seeds.
        labels: (n,).
        class_names: by label.
        chosen: row of the chosen depth in `scores`.
    """
    rows = []
    for number, name in enumerate(class_names):
        inside = np.asarray(labels) == number
        if inside.any():
            recall = scores[:, inside].mean(axis=1)
            rows.append([name, *(recall - recall[chosen])])
    return pd.DataFrame(rows, columns=["class", *range(len(scores))])


def last_logits(logits: np.ndarray) -> np.ndarray:
    """(n, classes) of a trial's file: of its last epoch where it holds several."""
    logits = np.asarray(logits)
    if logits.ndim == 3:
        logits = logits[-1]
    if logits.ndim != 2:
        raise ValueError(
            f"logits must be (epochs, n, classes) or (n, classes), got {logits.shape}"
        )
    return logits.astype(np.float32)
