"""How much two runs of one depth differ, from few replicates or from none.

Model: log sd = level + slope * rank of the depth, because deeper cuts train more
parameters and differ more from run to run. A cell's own variance scatters around that
line (scaled inverse chi-square with OWN_DOF degrees of freedom, the moderation of
Smyth 2004), so that two or three seeds at one depth borrow from all the others. Level
and slope are integrated out on a grid, with a prior around a reference: the default
command repeated (its difference between two deep cuts had a standard deviation of 2.1
points, so 1.5 points a run), and half a point at the head. Without any replicate the
prior is all there is, and whoever prints a number from it has to say so.

Trials whose BatchNorms use batch statistics differ several times as much from run to
run as those in inference mode, so each kind of cell has a line of its own
(`GroupedNoise`); a kind without replicates takes the line of all.

Two runs also disagree about single images. That part averages out over images, the
image sampling knows it already, and where per-image results exist it is taken out of
the replicates' scatter (`flips`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HEAD_SPREAD = 0.005  # accuracy; reference standard deviation of a run at the head
DEEP_SPREAD = 0.015  # and at the deepest cut
# Accuracy at which the reference was measured; closer to 1 runs can differ less.
REFERENCE_ERROR = 0.01
OWN_DOF = 12.0  # how closely a cell follows the line
# Scales of the prior of log sd at the head (normal above the reference, Student's t
# below it, because runs may well repeat almost exactly) and of its growth to the
# deepest cut (normal): wide where both are estimated, narrower where they are assumed.
LEVEL_SCALE, SLOPE_SCALE = 0.6, 1.0
ASSUMED_LEVEL_SCALE, ASSUMED_SLOPE_SCALE = 0.25, 0.2
LEVEL_DOF = 3.0
_LEVELS = np.linspace(np.log(1e-5), np.log(0.2), 45)
_SLOPES = np.linspace(-1.0, 3.2, 15)


class RunNoise(NamedTuple):
    """What is believed about the run-to-run variance of m cells.

    Attributes:
        weights: (g,) of the grid of level and slope.
        lines: (g, m) variance on the line.
        squares: (m,) sum of squared residuals of each cell.
        dof: (m,) degrees of freedom of `squares`.
        flips: (m,) part of a run's variance that is single images changing sides.
        measured: degrees of freedom in all; 0 means that the spread is assumed.
    """

    weights: np.ndarray
    lines: np.ndarray
    squares: np.ndarray
    dof: np.ndarray
    flips: np.ndarray
    measured: float

    @property
    def variance(self) -> np.ndarray:
        """(m,) expected variance of one run."""
        return self.weights @ self._own(-2.0)

    @property
    def spread(self) -> np.ndarray:
        """(m,) median standard deviation of one run."""
        mixed = self._own()
        order = np.argsort(mixed, axis=0)
        sums = np.cumsum(self.weights[order], axis=0)
        middle = np.argmax(sums >= 0.5 * sums[-1], axis=0)
        cells = np.arange(mixed.shape[1])
        return np.sqrt(mixed[order[middle, cells], cells])

    @property
    def expected_spread(self) -> np.ndarray:
        """(m,) expected standard deviation of one run."""
        return self.weights @ np.sqrt(self._own())

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Variances of one run, (draws, m), from the posterior."""
        which = rng.choice(len(self.weights), size=draws, p=self.weights)
        dof = OWN_DOF + self.dof
        chi2 = rng.chisquare(dof, size=(draws, len(dof)))
        drawn = self._sums()[which] / chi2
        return np.maximum(drawn - self.flips, 0.0)

    def _sums(self) -> np.ndarray:
        return OWN_DOF * (self.lines + self.flips) + self.squares

    def _own(self, more: float = 0.0) -> np.ndarray:
        """Variance of each cell's runs by grid point, (g, m)."""
        mixed = self._sums() / (OWN_DOF + self.dof + more)
        return np.maximum(mixed - self.flips, 0.0)


class GroupedNoise(NamedTuple):
    """The run-to-run noise of several kinds of cells, each believed by itself.

    Attributes:
        parts: one for each kind.
        cells: (k,) indices of each kind's cells among all m.
    """

    parts: tuple[RunNoise, ...]
    cells: tuple[np.ndarray, ...]

    @property
    def measured(self) -> float:
        """Degrees of freedom in all; 0 means that the spread is assumed."""
        return max(part.measured for part in self.parts)

    @property
    def variance(self) -> np.ndarray:
        """(m,) expected variance of one run."""
        return self._join([part.variance for part in self.parts])

    @property
    def spread(self) -> np.ndarray:
        """(m,) median standard deviation of one run."""
        return self._join([part.spread for part in self.parts])

    @property
    def expected_spread(self) -> np.ndarray:
        """(m,) expected standard deviation of one run."""
        return self._join([part.expected_spread for part in self.parts])

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Variances of one run, (draws, m), from the posterior."""
        return self._join([part.draw(draws, rng) for part in self.parts])

    def _join(self, values: Sequence[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(values, axis=-1)
        order = np.argsort(np.concatenate(self.cells))
        return whole[..., order]


def estimate_grouped_noise(
    groups: np.ndarray,
    rank: np.ndarray,
    squares: np.ndarray,
    dof: np.ndarray,
    *,
    accuracy: float = 0.5,
    flips: np.ndarray | None = None,
) -> GroupedNoise:
    """As `estimate_run_noise`, for each kind of cell by itself.

    Args:
        groups: (m,) kind of each cell.
        rank: (m,) as for `estimate_run_noise`, likewise all that follow.
        squares: (m,).
        dof: (m,).
        accuracy: best mean.
        flips: (m,).
    """
    flips = np.zeros(len(squares)) if flips is None else np.asarray(flips, float)
    whole = estimate_run_noise(rank, squares, dof, accuracy=accuracy, flips=flips)
    parts, cells = [], []
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        if dof[own].sum() > 0 and len(own) < len(groups):
            part = estimate_run_noise(
                rank[own], squares[own], dof[own], accuracy=accuracy, flips=flips[own]
            )
        else:
            part = whole._replace(
                lines=whole.lines[:, own],
                squares=squares[own],
                dof=dof[own],
                flips=flips[own],
            )
        parts.append(part)
        cells.append(own)
    return GroupedNoise(tuple(parts), tuple(cells))


def reference_spread(rank: np.ndarray, accuracy: float = 0.5) -> np.ndarray:
    """Assumed standard deviation of one run where nothing was replicated, (m,).

    Args:
        rank: (m,) of the depth, 0 (head) to 1 (deepest).
        accuracy: best mean; above 1 - REFERENCE_ERROR it shrinks with the binomial
            standard deviation.
    """
    share = np.clip(accuracy, 0.5, 1 - 1e-4)
    most = np.sqrt(REFERENCE_ERROR * (1 - REFERENCE_ERROR))
    near_one = min(1.0, float(np.sqrt(share * (1 - share)) / most))
    return near_one * HEAD_SPREAD * (DEEP_SPREAD / HEAD_SPREAD) ** np.asarray(rank)


def estimate_run_noise(
    rank: np.ndarray,
    squares: np.ndarray,
    dof: np.ndarray,
    *,
    accuracy: float = 0.5,
    flips: np.ndarray | None = None,
) -> RunNoise:
    """The posterior of the run-to-run variance.

    Args:
        rank: (m,) of the depths, 0 (head) to 1 (deepest).
        squares: (m,) sum of squared residuals of each cell; 0 without replicates.
        dof: (m,) degrees of freedom of each; may be fractions.
        accuracy: best mean, for `reference_spread`.
        flips: (m,) variance of one run's accuracy from single images changing sides,
            known from per-image results; 0 where it is not.
    """
    flips = np.zeros(len(squares)) if flips is None else np.asarray(flips, float)
    rank = np.asarray(rank, float)
    center = float(np.log(reference_spread(np.zeros(1), accuracy)[0]))
    growth = np.log(DEEP_SPREAD / HEAD_SPREAD)
    level, slope = (part.ravel() for part in np.meshgrid(_LEVELS, _SLOPES))
    measured = bool(np.any(np.asarray(dof) > 0))
    scales = ASSUMED_LEVEL_SCALE, ASSUMED_SLOPE_SCALE
    if measured:
        scales = LEVEL_SCALE, SLOPE_SCALE
    off = (level - center) / scales[0]
    below = -0.5 * (LEVEL_DOF + 1) * np.log1p(off**2 / LEVEL_DOF)
    log_weights = np.where(off < 0, below, -0.5 * off**2)
    log_weights -= 0.5 * ((slope - growth) / scales[1]) ** 2
    lines = np.exp(2 * (level[:, None] + slope[:, None] * rank))
    own = np.asarray(dof, float) > 0
    # The sum of squares over its variance is chi-square, the variance a scaled inverse
    # chi-square around the line: F, up to what does not depend on the line.
    whole = lines[:, own] + flips[own]
    mixed = np.log(OWN_DOF * whole + squares[own])
    log_likelihood = 0.5 * OWN_DOF * np.log(whole)
    log_likelihood = log_likelihood - 0.5 * (OWN_DOF + dof[own]) * mixed
    log_weights += log_likelihood.sum(axis=1)
    weights = np.exp(log_weights - log_weights.max())
    kept = weights > 1e-6
    weights = weights[kept] / weights[kept].sum()
    return RunNoise(weights, lines[kept], squares, dof, flips, float(np.sum(dof)))
