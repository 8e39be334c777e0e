"""Two closed forms that say how well a linear classifier on given features does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STRENGTHS = tuple(float(10.0**power) for power in range(-6, 7))
LEAST_RATIO = 1e-7  # of a singular value to the largest; smaller ones are noise


class RidgeProbe(NamedTuple):
    """Closed-form ridge regression on +-1 class indicators.

    Attributes:
        kernel: (c, classes).
        bias: (classes,).
        strength: chosen penalty.
        loo_error: (strengths,) mean squared leave-one-out error of each strength.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    loo_error: np.ndarray


def decompose(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin singular value decomposition without the directions that are only noise.

    With many more images than channels it is taken from the channels' products,
    which costs as much as one pass over the features.

    Args:
        features: (n, c) float64.

    Returns:
        (n, k), (k,) decreasing, (k, c).
    """
    n, c = features.shape
    if n <= 2 * c:
        left, values, right = np.linalg.svd(features, full_matrices=False)
    else:
        squares, vectors = np.linalg.eigh(features.T @ features)
        values = np.sqrt(np.maximum(squares[::-1], 0.0))
        right = vectors[:, ::-1].T
        left = features @ right.T / np.maximum(values, 1e-300)
    kept = values > LEAST_RATIO * max(float(values[0]), 1e-300)
    return left[:, kept], values[kept], right[kept]


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> RidgeProbe:
    """Ridge regression with the strength of the least leave-one-out error.

    All strengths and all leave-one-out residuals come from one singular value
    decomposition: residual / (1 - leverage) (Golub, Heath and Wahba 1979; Hastie,
    Tibshirani and Friedman 2009, equation 7.64). The bias is not penalized.

    Args:
        features: (n, c).
        labels: (n,) class indices.
        num_classes: of the labels.
        strengths: penalties on the squared norm of the kernel.

    Raises:
        ValueError: fewer than two images, or a strength that is not positive.
    """
    features = np.asarray(features, np.float64)
    if len(features) < 2 or min(strengths, default=0) <= 0:
        raise ValueError("a ridge probe needs two images and strengths above zero")
    targets = 2.0 * np.eye(num_classes)[np.asarray(labels)] - 1.0
    center, level = features.mean(axis=0), targets.mean(axis=0)
    left, values, right = decompose(features - center)
    projected = left.T @ (targets - level)
    errors = []
    for strength in strengths:
        shrink = values**2 / (values**2 + strength)
        residual = targets - level - (left * shrink) @ projected
        leverage = (left**2) @ shrink + 1 / len(features)  # the mean has leverage too
        free = np.maximum(1 - leverage, 1e-12)
        errors.append(np.mean((residual / free[:, None]) ** 2))
    strength = float(strengths[int(np.argmin(errors))])
    kernel = right.T @ ((values / (values**2 + strength))[:, None] * projected)
    return RidgeProbe(kernel, level - center @ kernel, strength, np.array(errors))


def log_evidence(features: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """LogME: log evidence per image of Bayesian linear regression, mean over classes.

    You, Liu, Wang and Long 2021, "LogME: Practical Assessment of Pre-trained Models
    for Transfer Learning", algorithm 1, with the fixed point of MacKay 1992 for the
    precisions alpha (weights) and beta (noise); targets are 0 and 1.

    Args:
        features: (n, c).
        labels: (n,) class indices.
        num_classes: classes that no image has are left out of the mean.
    """
    features = np.asarray(features, np.float64)
    n, c = features.shape
    left, values, _ = decompose(features)
    squares = values**2
    evidences = []
    for label in range(num_classes):
        target = (np.asarray(labels) == label).astype(np.float64)
        if target.any():
            projected = left.T @ target
            outside = max(float(target @ target - projected @ projected), 0.0)
            evidences.append(_evidence(squares, projected**2, outside, n, c) / n)
    return float(np.mean(evidences))


def _evidence(
    squares: np.ndarray, projected: np.ndarray, outside: float, n: int, c: int
) -> float:
    """Log evidence of one target at the fixed point of alpha and beta.

    Args:
        squares: (k,) squared singular values of the features.
        projected: (k,) squared coordinates of the target on them.
        outside: the rest of its square.
        n: images.
        c: channels.
    """
    alpha, beta = 1.0, 1.0
    for _ in range(100):
        precision = alpha + beta * squares
        gamma = np.sum(beta * squares / precision)
        weights = np.sum(beta**2 * squares * projected / precision**2)  # m' m
        residual = np.sum(projected * (alpha / precision) ** 2) + outside
        ratio = alpha / beta
        alpha = max(gamma, 1e-12) / max(weights, 1e-12)
        beta = max(n - gamma, 1e-12) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= 1e-6 * ratio:
            break
    precision = alpha + beta * squares
    weights = np.sum(beta**2 * squares * projected / precision**2)
    residual = np.sum(projected * (alpha / precision) ** 2) + outside
    log_det = np.sum(np.log(precision)) + (c - len(squares)) * np.log(alpha)
    return 0.5 * float(
        c * np.log(alpha)
        + n * np.log(beta)
        - n * np.log(2 * np.pi)
        - beta * residual
        - alpha * weights
        - log_det
    )
