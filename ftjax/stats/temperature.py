"""One number that makes probabilities honest (Guo et al. 2017, section 4.2)."""

import numpy as np

LIMITS = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) has the lowest log loss.

    The right class counts 1 - 1 / (n + 2) and the others share the rest (Platt 1999,
    section 2.2, for two classes), so that images that are all right do not end in
    probabilities of 1.

    Args:
        logits: (n, classes), of images that were not trained on.
        labels: (n,) their classes.

    Returns:
        A number within `LIMITS`; above 1 the logits were too sure.
    """
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    count, classes = logits.shape
    rest = 1 / (count + 2)
    targets = np.full(logits.shape, rest / max(classes - 1, 1))
    targets[np.arange(count), labels] = 1 - rest

    def slope(inverse: float) -> float:
        # Of the loss over 1 / T, in which it is convex.
        odds = np.exp(inverse * logits)
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return float(np.sum((probabilities - targets) * logits))

    low, high = np.log(1 / LIMITS[1]), np.log(1 / LIMITS[0])
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))
