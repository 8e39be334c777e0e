"""A Gaussian process over depth: the curve, where its maximum lies, what to measure.

Rasmussen and Williams 2006, chapter 2, with everything that is unknown integrated out:
the noise in closed form (a conjugate scaled inverse chi-square prior, Gelman et al.
2013, section 14.8), length scale and amplitude on a grid. A handful of trials cannot
pin these down, and a maximum of the likelihood would be far too sure of itself. Rough
and smooth curves are mixed: smooth ones alone miss steps, rough ones alone never stop.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np

# Length scales as shares of the depth axis; amplitudes in units of the noise.
LENGTH_SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)
DECADES = (0.5, 1.5)  # length scales over the logarithm of the rate
AMPLITUDES = (0.5, 1.5, 5.0, 15.0, 50.0)
SMOOTHNESS = (0.5, 1.5)  # 1/2: curves with steps and kinks; 3/2: smooth ones
OFFSET = 100.0  # standard deviation of the level, in units of the noise: unknown
SEED_EFFECT = 1.0  # of what one seed does to all depths alike, in units of the noise
RULED_OUT = -10.0  # accuracy of a rank that cannot be the highest
LEAST_WEIGHT = 0.02  # of the likeliest pair of length scale and amplitude
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class CurvePosterior(NamedTuple):
    """What is believed about a curve on m depths: a mixture of h Student processes.

    Attributes:
        weights: (h,), sums to 1.
        means: (h, m).
        covariances: (h, m, m) in units of the noise variance.
        noise: (h,) noise variance of one trial.
        dof: degrees of freedom of each component.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    noise: np.ndarray
    dof: float

    @property
    def mean(self) -> np.ndarray:
        """(m,) expected curve."""
        return self.weights @ self.means

    @property
    def noise_stderr(self) -> float:
        """Expected standard deviation of one trial's accuracy."""
        return float(self.weights @ np.sqrt(self.noise))


def matern(distance: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """Matern correlation of smoothness 1/2 or 3/2 (Rasmussen and Williams, eq. 4.17).

    Args:
        distance: in length scales.
        smoothness: 1/2 or 3/2; broadcasts against `distance`.
    """
    scaled = np.sqrt(2.0 * smoothness) * np.abs(distance)
    return (1.0 + (smoothness > 1) * scaled) * np.exp(-scaled)


@cache
def correlations(size: int) -> np.ndarray:
    """Of `size` places evenly spread over [0, 1], (lengths, smoothnesses, m, m)."""
    places = np.linspace(0, 1, size)
    lengths = np.array(LENGTH_SCALES).reshape(-1, 1, 1, 1)
    smoothness = np.array(SMOOTHNESS).reshape(-1, 1, 1)
    return matern(np.subtract.outer(places, places) / lengths, smoothness)


@cache
def surface_correlations(size: int, rates: tuple[float, ...]) -> np.ndarray:
    """Of depths times learning rates, (h, k * m, k * m), depth running fastest.

    A product of a Matern process over the rank of the depth, as of `correlations`, and
    one over the logarithm of the rate.

    Args:
        size: number m of depths, evenly spread over the axis.
        rates: k learning rates.
    """
    depths = correlations(size).reshape(-1, size, size)
    decades = np.log10(rates)
    apart = np.subtract.outer(decades, decades) / np.reshape(DECADES, (-1, 1, 1))
    several = matern(apart, np.array(max(SMOOTHNESS)))
    pairs = itertools.product(several, depths)
    return np.stack([np.kron(rate, depth) for rate, depth in pairs])


def fit_curve(
    index: np.ndarray,
    values: np.ndarray,
    seeds: np.ndarray,
    *,
    size: int,
    noise: float,
    noise_dof: float,
    variances: np.ndarray | None = None,
    rates: tuple[float, ...] = (),
) -> CurvePosterior:
    """The posterior of a curve, given noisy measurements of it.

    Args:
        index: (n,) ranks of the measured depths, 0..size-1; repeats are replicates.
            Where there are rates, plus size times the number of the rate.
        values: (n,) measurements.
        seeds: (n,) a seed moves all its depths together (common random numbers).
        size: number m of depths, evenly spread over the axis.
        noise: standard deviation of one measurement as far as it is known before.
        noise_dof: how many observations that knowledge is worth.
        variances: (n,) noise variance of each measurement relative to the others'.
        rates: learning rates, where the curve is a surface over these as well.

    Raises:
        ValueError: no measurement, or the noise is not positive.
    """
    if len(values) == 0:
        raise ValueError("a curve needs at least one measurement")
    if not noise > 0 or not noise_dof > 0:
        raise ValueError(
            f"noise and noise_dof must be positive, got {noise} and {noise_dof}"
        )
    values = np.asarray(values, float)
    level = values.mean()
    n = len(values)
    own = np.ones(n) if variances is None else np.asarray(variances, float)
    shared = OFFSET**2 + SEED_EFFECT**2 * np.equal.outer(seeds, seeds) + np.diag(own)
    tables = correlations(size).reshape(-1, size, size)
    if len(rates) > 1:
        tables = surface_correlations(size, rates)
    shape, amplitude = (
        part.ravel() for part in np.indices((len(tables), len(AMPLITUDES)))
    )
    squares_of = np.square(AMPLITUDES)[amplitude].reshape(-1, 1, 1)
    kernels = squares_of * tables[:, index][:, :, index][shape] + shared  # (h, n, n)
    lower = np.linalg.cholesky(kernels)
    residual = (values - level).reshape(1, -1, 1)
    white = np.linalg.solve(lower, np.broadcast_to(residual, (len(shape), n, 1)))
    dof = noise_dof + n - 1  # the level is estimated as well
    squares = noise_dof * noise**2 + np.sum(white**2, axis=(1, 2))
    log_det = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    log_weights = -0.5 * log_det - 0.5 * dof * np.log(squares)
    weights = np.exp(log_weights - log_weights.max())
    kept = np.flatnonzero(weights >= LEAST_WEIGHT)
    prior = squares_of[kept] * tables[shape[kept]] + OFFSET**2  # (h, m, m)
    solved = np.linalg.solve(lower[kept], prior[:, index])  # (h, n, m)
    return CurvePosterior(
        weights=weights[kept] / weights[kept].sum(),
        means=level + np.sum(solved * white[kept], axis=1),
        covariances=prior - np.swapaxes(solved, 1, 2) @ solved,
        noise=squares[kept] / dof,
        dof=dof,
    )


def rule_out(posterior: CurvePosterior, ranks: np.ndarray) -> CurvePosterior:
    """The same with some ranks that cannot be the highest and that nothing moves."""
    if not len(ranks):
        return posterior
    means, covariances = posterior.means.copy(), posterior.covariances.copy()
    means[:, ranks] = RULED_OUT
    covariances[:, ranks, :] = 0.0
    covariances[:, :, ranks] = 0.0
    return posterior._replace(means=means, covariances=covariances)


def draw_curves(
    posterior: CurvePosterior, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Curves from the posterior, (draws, m)."""
    counts = rng.multinomial(draws, posterior.weights)
    m = posterior.means.shape[1]
    parts = []
    for count, mean, covariance, noise in zip(
        counts,
        posterior.means,
        posterior.covariances,
        posterior.noise,
        strict=True,
    ):
        jitter = 1e-9 * np.trace(covariance) / m + 1e-9
        lower = np.linalg.cholesky(covariance + jitter * np.eye(m))
        tails = rng.chisquare(posterior.dof, size=(count, 1)) / posterior.dof
        noise_draws = np.sqrt(noise / tails)
        parts.append(mean + noise_draws * (rng.standard_normal((count, m)) @ lower.T))
    return np.concatenate(parts)


def knowledge_gradient(
    posterior: CurvePosterior, other_best: float = -np.inf
) -> np.ndarray:
    """What one more trial at each of the m depths is expected to gain, (m,).

    The expected rise of the highest posterior mean (Frazier, Powell and Dayanik 2009,
    "The knowledge-gradient policy for correlated normal beliefs"), by Gauss-Hermite
    quadrature with 9 nodes.

    Args:
        posterior: of the curve the trial would be on.
        other_best: highest posterior mean of the other curves in the choice.
    """
    gains = np.zeros(posterior.means.shape[1])
    node_weights = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
    for weight, covariance, noise in zip(
        posterior.weights, posterior.covariances, posterior.noise, strict=True
    ):
        # Column j: by how much every mean moves if depth j turns out one sigma higher.
        spread = np.sqrt(np.maximum(np.diag(covariance), 0.0) + 1.0)
        moves = np.sqrt(noise) * covariance / spread
        mean = posterior.mean
        now = max(float(mean.max()), other_best)
        for node, node_weight in zip(_NODES, node_weights, strict=True):
            highest = np.maximum((mean[:, None] + node * moves).max(axis=0), other_best)
            gains += weight * node_weight * (highest - now)
    return gains
