"""The cells that are not shown to be worse than the best: a set with a guarantee."""

import numpy as np

from ftjax.analysis.evidence import Evidence

CONFIDENCE = 0.95
# Share of the draws that gives that confidence: the run-to-run noise is estimated from
# few seeds and cells are dropped one after the other, which costs some of it
# (`experiments.simulate` prints how much).
MASS = {0.95: 0.99}
_CHUNK = 2_000_000  # differences held at a time: 16 MB
_LEAST = 1e-9  # accuracy; two cells that are one trial differ by no more


def largest_differences(
    noise: np.ndarray, stderr: np.ndarray, dof: np.ndarray
) -> np.ndarray:
    """Largest difference of two cells in each draw, as a normal deviate, (draws,).

    Args:
        noise: (draws, m).
        stderr: (m, m) of the differences.
        dof: (m, m) as of `tail_dof`.
    """
    found = np.empty(len(noise))
    step = max(1, _CHUNK // stderr.size)
    for start in range(0, len(noise), step):
        part = noise[start : start + step]
        apart = part[:, :, None] - part[:, None, :]
        found[start : start + step] = deviates(apart, stderr, dof).max(axis=(1, 2))
    return found


def tail_dof(noise: np.ndarray, stderr: np.ndarray) -> np.ndarray:
    """Degrees of freedom of Student's t that has the tails of each difference, (m, m).

    Where the sampling of images is most of an error it is nearly normal; where
    run-to-run noise is, which is known from few seeds, its tails are long. One limit
    for both would ask far too much of the former. Of independent errors fourth
    cumulants add up; Student's t has an excess kurtosis of 6 / (dof - 4).

    Args:
        noise: (draws, m).
        stderr: (m, m) of the differences.
    """
    centered = noise - noise.mean(axis=0)
    variance = np.mean(centered**2, axis=0)
    cumulant = np.maximum(np.mean(centered**4, axis=0) - 3 * variance**2, 0.0)
    both = cumulant[:, None] + cumulant
    return 4 + 6 * stderr**4 / np.maximum(both, 1e-300)


def deviates(
    differences: np.ndarray, stderr: np.ndarray, dof: np.ndarray
) -> np.ndarray:
    """Differences over their errors, as normal deviates of the same tail probability.

    Wallace 1959, Bounds on Normal Approximations to Student's and the Chi-Square
    Distributions, equation 3.1; negative ones, of which none is the largest, are 0.

    Args:
        differences: (..., m, m).
        stderr: (m, m), standard deviations.
        dof: (m, m) of Student's t.
    """
    t = np.maximum(differences, 0.0) / stderr
    squares = t**2 * (dof / (dof - 2))
    return np.sqrt(dof * np.log1p(squares / dof)) * ((8 * dof + 1) / (8 * dof + 3))


def best_set(
    evidence: Evidence, *, confidence: float = CONFIDENCE, margin: float = 0.0
) -> np.ndarray:
    """Which cells (m,) may be the best: a model confidence set.

    Cells are dropped, step by step, that lose to another one by more standard errors
    than any two of those left differ by chance in MASS of the draws (Hansen,
    Lunde and Nason 2011; a step-down form of the multiple comparisons with the best of
    Hsu 1984). With that probability all cells that are truly best are in the set, so
    that no statement "worse than the best" about a cell outside is wrong. Differences
    are paired over images and hold run-to-run noise.

    Args:
        evidence: of `weigh_evidence`.
        confidence: 0..1.
        margin: accuracy by which a cell has to be worse to be dropped.
    """
    left = np.ones(len(evidence.means), dtype=bool)
    stderr = np.maximum(evidence.stderr, _LEAST)
    while left.sum() > 1:
        inside = np.flatnonzero(left)
        errors = stderr[np.ix_(inside, inside)]
        noise = evidence.noise[:, inside]
        dof = tail_dof(noise, errors)
        largest = largest_differences(noise, errors, dof)
        mass = MASS.get(confidence, confidence)
        limit = np.quantile(largest, mass, method="higher")
        means = evidence.means[inside]
        lost = deviates(means - means[:, None] - margin, errors, dof).max(axis=1)
        worse = lost > limit
        if not worse.any():
            break
        left[inside[worse]] = False
    return left
