"""The cells that are not shown to be worse than the best: a set with a guarantee."""

import numpy as np

from ftjax.analysis.evidence import Evidence

CONFIDENCE = 0.95
# Share of the draws that gives that confidence: the run-to-run noise is estimated from
# few seeds and cells are dropped one after the other, which costs some of it
# (`experiments.simulate` prints how much).
MASS = {0.95: 0.985}
_CHUNK = 2_000_000  # differences held at a time: 16 MB
_LEAST = 1e-9  # accuracy; two cells that are one trial differ by no more


def largest_differences(noise: np.ndarray, stderr: np.ndarray) -> np.ndarray:
    """Largest standardized difference of two cells in each draw, (draws,).

    Args:
        noise: (draws, m), to be added to the means.
        stderr: (m, m) of the differences.
    """
    found = np.empty(len(noise))
    scale = np.maximum(stderr, _LEAST)
    step = max(1, _CHUNK // stderr.size)
    for start in range(0, len(noise), step):
        part = noise[start : start + step]
        apart = (part[:, :, None] - part[:, None, :]) / scale
        found[start : start + step] = apart.max(axis=(1, 2))
    return found


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
        largest = largest_differences(evidence.noise[:, inside], errors)
        mass = MASS.get(confidence, confidence)
        limit = np.quantile(largest, mass, method="higher")
        means = evidence.means[inside]
        lost = ((means - means[:, None] - margin) / errors).max(axis=1)
        worse = lost > limit
        if not worse.any():
            break
        left[inside[worse]] = False
    return left
