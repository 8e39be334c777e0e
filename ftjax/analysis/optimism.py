"""What the named accuracy is worth once it is corrected for having been chosen.

The highest of several noisy accuracies is too high. Bootstrap bias correction
(BBC-CV; Tsamardinos, Greasidou and Borboudakis 2018) chooses again on every bootstrap
sample of the validation images and judges that choice on the images left out of it.
The luck of the runs is removed in the same way by a coupled bootstrap (Oliveira, Lei
and Tibshirani 2021): a draw of the run noise is added where the cell is chosen and
subtracted where it is judged, which makes the two independent.

Both choose under twice the noise that the real choice had, so they find too much
optimism; how much it grows with the noise is measured by coupled bootstraps of two
sizes, and the figure is brought back to the noise that there was.
"""

from typing import NamedTuple

import numpy as np

from ftjax.analysis.evidence import Evidence

SAMPLES = 500  # bootstrap samples of the images
TAIL = 0.025
SMALLER = 0.6  # size of the smaller coupled bootstrap, of the noise
JITTER = 1e-14  # variance; lets a singular covariance be factored


class Corrected(NamedTuple):
    """Expected accuracy of the chosen cell and its 95 % interval.

    With replicates that of a new run on new images; with one run of each cell that of
    this very run on new images, because its luck cannot be told from its merit.
    """

    value: float
    low: float
    high: float


def corrected_accuracy(
    evidence: Evidence,
    chosen: int,
    scores: np.ndarray | None = None,
    *,
    eligible: np.ndarray | None = None,
    seed: int = 0,
) -> Corrected:
    """Accuracy to expect of the chosen cell, over every choice that was made.

    Args:
        evidence: of `weigh_evidence`.
        chosen: index of the named cell.
        scores: (m, n) as for `weigh_evidence`; without them the sampling of the images
            is drawn from `evidence.images`.
        eligible: (m,) cells that the choice was made among; all of them by default.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    inside = np.arange(len(evidence.means))
    if eligible is not None:
        inside = np.flatnonzero(eligible)
    runs = np.zeros_like(evidence.images)
    if evidence.replicated:
        # From few seeds the one errs low and the other, with its tails, high.
        noise = evidence.runs
        middle = 0.6 * noise.expected_spread**2 + 0.4 * noise.variance
        runs = evidence.effects.covariance(middle)
    optimism = 0.0
    if len(inside) > 1:
        optimism = _optimism(evidence, runs, scores, inside, rng)
    value = float(evidence.means[chosen]) - optimism
    # Half of what is taken off counts as an error of its own.
    variance = evidence.images[chosen, chosen] + runs[chosen, chosen]
    size = float(np.sqrt(variance + (0.5 * optimism) ** 2))
    shape = rng.standard_normal(4000)
    if evidence.replicated:
        shape = evidence.noise[:, chosen]
        shape = shape / max(float(np.std(shape)), 1e-12)
    low, high = value + size * np.quantile(shape, [TAIL, 1 - TAIL])
    low, value, high = (float(x) for x in np.clip((low, value, high), 0.0, 1.0))
    return Corrected(value, min(low, value), max(high, value))


def _optimism(
    evidence: Evidence,
    runs: np.ndarray,
    scores: np.ndarray | None,
    inside: np.ndarray,
    rng: np.random.Generator,
) -> float:
    """By how much the highest mean is expected to be too high."""
    means = evidence.means[inside]
    part = np.ix_(inside, inside)
    moved = _draw(runs[part], rng)
    drawn = _draw(evidence.images[part], rng)
    if scores is None:
        seen, left = drawn + moved, -drawn - moved
    else:
        seen, left = _resample(scores[inside], rng)
        seen, left = seen - means + moved, left - means - moved
    whole = drawn + moved
    power = _growth(
        _gain(means, SMALLER * whole, -whole / SMALLER), _gain(means, whole, -whole)
    )
    return max(_gain(means, seen, left), 0.0) / 2**power


def _draw(covariance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lower = np.linalg.cholesky(covariance + JITTER * np.eye(len(covariance)))
    return rng.standard_normal((SAMPLES, len(covariance))) @ lower.T


def _gain(means: np.ndarray, seen: np.ndarray, left: np.ndarray) -> float:
    """What the choice has more where it is made than where it is judged, on average.

    Args:
        means: (m,).
        seen: (samples, m) noise where the choice is made.
        left: (samples, m) noise where it is judged, independent of `seen`.
    """
    which = np.argmax(means + seen, axis=1)
    return float((seen - left)[np.arange(len(seen)), which].mean())


def _growth(less: float, more: float) -> float:
    """Exponent with which the optimism grows with the variance of the noise.

    0.5 where all cells are equal, more where the better ones stand apart.
    """
    if less <= 0 or more <= 0:
        return 0.5
    return float(np.clip(np.log(more / less) / np.log(2 / (1 + SMALLER**2)), 0.5, 1.0))


def _resample(
    scores: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Means (samples, m) on bootstrap samples of the images, and on those left out."""
    n = scores.shape[1]
    places = rng.integers(0, n, (SAMPLES, n)) + n * np.arange(SAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=SAMPLES * n)
    counts = counts.reshape(SAMPLES, n).astype(float)
    out = (counts == 0).astype(float)
    seen = counts @ scores.T / n
    left = out @ scores.T / np.maximum(out.sum(axis=1, keepdims=True), 1.0)
    return seen, left
