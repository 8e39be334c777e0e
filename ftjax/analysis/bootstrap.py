"""Bootstrap of the best depth: over seeds, over validation images, or both.

All depths share seeds (data order, head start) and validation images, so only the
noise that is *not* shared can change the ranking. Seed noise is therefore taken after
removing the mean of every depth and of every seed, and images are resampled for all
depths at once (common random numbers).
"""

from typing import NamedTuple

import numpy as np

from ftjax.stats.least_squares import check_points, least_squares

PRIOR_DOF = 4.0  # weight of the pooled variance against one depth's own
_CHUNK_ELEMENTS = 4_000_000  # image weights held at a time: 32 MB


class DepthEffects(NamedTuple):
    """Additive model accuracy = depth effect + seed effect + noise, by least squares.

    means: (d,) accuracy of each depth with the seed effects removed. weights: (d, k)
    of the k measurements in the means, by depth, then seed. residuals: (d, s) noise,
    nan where a seed is missing. dof: degrees of freedom of the noise; 0 when there is
    nothing to estimate it from.
    """

    means: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray
    dof: int


class CurveBootstrap(NamedTuple):
    """A curve with draws of its noise.

    means: (d,). noise: (draws, d), to be added to the means, with the tails that its
    size being estimated gives it. covariance: (d, d) of the means without those tails,
    whose variance has no bound with few seeds. Both None when the table holds no
    information on the noise. source: 'seeds and images', 'seeds', 'images',
    'binomial' or 'none'. named: index of the depth that a search names, if one chose
    the depths.
    """

    means: np.ndarray
    noise: np.ndarray | None
    covariance: np.ndarray | None
    source: str
    named: int | None = None

    @property
    def best(self) -> int:
        """Index of the best depth: the search's, else that of the highest mean."""
        return int(np.argmax(self.means)) if self.named is None else self.named


def depth_effects(values: np.ndarray) -> DepthEffects:
    """Split a table of replicates into depth effects, seed effects and noise.

    With every seed present at every depth the depth effects are the plain means. With
    gaps the additive two-way model (Scheffe 1959, chapter 4) keeps a depth from
    looking good because a lucky seed ran only there. If no seed connects the depths
    the plain means are used.

    Args:
        values: (d, s) accuracy by depth and seed, nan where missing; at least one
            value per depth.
    """
    values = np.asarray(values, dtype=float)
    present = np.isfinite(values)
    if values.ndim != 2 or not present.any(axis=1).all():
        raise ValueError("every depth needs at least one accuracy")
    d, s = values.shape
    which_depth, which_seed = np.nonzero(present)
    design = np.zeros((len(which_depth), d + s - 1))
    rows = np.arange(len(which_depth))
    design[rows, which_depth] = 1.0
    for column in range(s - 1):  # seed effects sum to zero
        design[which_seed == column, d + column] = 1.0
        design[which_seed == s - 1, d + column] = -1.0
    if np.linalg.matrix_rank(design) < design.shape[1]:
        design = design[:, :d]
    inverse = np.linalg.pinv(design)
    coef = inverse @ values[present]
    residuals = np.full(values.shape, np.nan)
    residuals[present] = values[present] - design @ coef
    return DepthEffects(coef[:d], inverse[:d], residuals, len(rows) - design.shape[1])


def seed_variance(effects: DepthEffects) -> np.ndarray:
    """Noise variance of one measurement at each depth, (d,).

    The depth's own, moderated by that of all: (PRIOR_DOF * pooled + own_dof * own) /
    (PRIOR_DOF + own_dof) (Smyth 2004, eq. 3), because two or three seeds alone say
    little about one depth.

    Args:
        effects: of `depth_effects`, with dof >= 1.
    """
    if effects.dof < 1:
        raise ValueError("seed noise needs at least two seeds at two depths")
    present = np.isfinite(effects.residuals)
    squares = np.where(present, effects.residuals, 0.0) ** 2
    # The share of the dof that each depth's own residuals carry.
    spare = np.maximum(present.sum(axis=1) - 1, 0)
    own_dof = effects.dof * spare / max(spare.sum(), 1)
    pooled = squares.sum() / effects.dof
    return (PRIOR_DOF * pooled + squares.sum(axis=1)) / (PRIOR_DOF + own_dof)


def seed_noise(
    effects: DepthEffects, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Bootstrap noise of the depth effects, (draws, d), from the seed residuals.

    Residuals are standardized by `seed_variance`, drawn with replacement over all
    depths and seeds, and weighted as the measurements are. Dividing by
    sqrt(chi2 / dof) gives the draws Student tails (studentized bootstrap, Efron and
    Tibshirani 1993, chapter 12).

    Args:
        effects: of `depth_effects`, with dof >= 1.
    """
    scale = np.sqrt(seed_variance(effects))
    if not scale.any():
        return np.zeros((draws, len(scale)))
    present = np.isfinite(effects.residuals)
    pool = (effects.residuals / scale[:, None])[present]
    pool = pool / np.sqrt(np.mean(pool**2))
    scales = scale[np.nonzero(present)[0]]
    noise = rng.choice(pool, size=(draws, len(pool))) * scales @ effects.weights.T
    tails = np.sqrt(rng.chisquare(effects.dof, size=(draws, 1)) / effects.dof)
    return noise / tails


def seed_covariance(effects: DepthEffects) -> np.ndarray:
    """Covariance of the depth effects, (d, d), from the seeds.

    Args:
        effects: of `depth_effects`, with dof >= 1.
    """
    which_depth = np.nonzero(np.isfinite(effects.residuals))[0]
    return effects.weights * seed_variance(effects)[which_depth] @ effects.weights.T


def image_noise(
    correct: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Bootstrap noise of the accuracies, (draws, d), over validation images.

    The same exponential weights for all depths: the Bayesian bootstrap (Rubin 1981),
    which has the covariance of resampling images and is one matrix product.

    Args:
        correct: (d, n) share of seeds that were right on each image (0..1).
    """
    d, n = correct.shape
    centered = (correct - correct.mean(axis=1, keepdims=True)).T
    noise = np.empty((draws, d))
    step = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        weights = rng.standard_exponential((stop - start, n))
        noise[start:stop] = weights @ centered / weights.sum(axis=1, keepdims=True)
    return noise


def image_covariance(correct: np.ndarray) -> np.ndarray:
    """Covariance of `image_noise`, (d, d).

    Args:
        correct: (d, n) share of seeds that were right on each image (0..1).
    """
    n = correct.shape[1]
    centered = correct - correct.mean(axis=1, keepdims=True)
    return centered @ centered.T / (n * (n + 1))


def bootstrap_curve(
    values: np.ndarray,
    *,
    correct: np.ndarray | None = None,
    val_size: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> CurveBootstrap:
    """Draw the noise of a depth curve from all that the table knows about it.

    Seeds give run-to-run noise, images the sampling of the validation set; both add.
    With neither, the binomial error of each accuracy is used, unpaired and therefore
    too wide if anything, but blind to run-to-run noise.

    Args:
        values: (d, s) validation accuracy, nan where missing.
        correct: (d, n) mean correctness of each validation image, or None.
        val_size: number of validation images, used only without seeds and images.
        draws: number of bootstrap draws. seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    effects = depth_effects(values)
    parts, sources = [], []
    if effects.dof >= 1:
        parts.append((seed_noise(effects, draws, rng), seed_covariance(effects)))
        sources.append("seeds")
    if correct is not None and correct.shape[1] > 1:
        right = np.asarray(correct, float)
        parts.append((image_noise(right, draws, rng), image_covariance(right)))
        sources.append("images")
    if not parts and val_size is not None and val_size > 0:
        share = np.clip(effects.means, 0.0, 1.0)
        size = int(val_size)
        noise = rng.binomial(size, share, size=(draws, len(share))) / size - share
        parts.append((noise, np.diag(share * (1 - share) / size)))
        sources.append("binomial")
    if not parts:
        return CurveBootstrap(effects.means, None, None, "none")
    noise, covariance = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return CurveBootstrap(effects.means, noise, covariance, " and ".join(sources))


def best_depth_interval(
    depths: np.ndarray, curve: CurveBootstrap, *, confidence: float = 0.95
) -> tuple[int, int] | None:
    """Percentile interval of the depth that is best, over the tested depths.

    Every draw adds noise to the curve and asks which depth wins; the interval goes
    from the lower to the upper quantile of the winners and always holds the best
    depth. None without noise draws.

    Args:
        depths: (d,) in increasing order. confidence: two-sided.
    """
    if curve.noise is None:
        return None
    winners = np.argmax(curve.means + curve.noise, axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(winners, [tail, 1 - tail], method="inverted_cdf")
    low, high = min(int(low), curve.best), max(int(high), curve.best)
    return int(depths[low]), int(depths[high])


def difference_stderr(curve: CurveBootstrap, first: int, second: int) -> float:
    """Paired standard error of means[first] - means[second]; nan if nothing is known.

    Not that of the draws: with one or two degrees of freedom Student's distribution has
    no variance.
    """
    if curve.covariance is None:
        return float("nan")
    depths = np.eye(len(curve.means))
    contrast = depths[first] - depths[second]
    return float(np.sqrt(max(contrast @ curve.covariance @ contrast, 0.0)))


def bootstrap_quadratic_optimum(
    depth, accuracy, *, total_layers: int, draws: int = 20000, seed: int = 0
) -> np.ndarray:
    """Bootstrap the optimum of a fitted parabola over the integers 0..N.

    Residuals of the fit are resampled with replacement, scaled by sqrt(n / (n - 3))
    to make up for the three fitted coefficients (Efron and Tibshirani 1993, section
    9.4), and the parabola is fitted again.

    Args:
        depth: (n,) unfrozen layers. accuracy: (n,).
        total_layers: N. draws: number of draws. seed: of the draws.

    Returns:
        (draws,) optimum of each draw.
    """
    x, y = check_points(depth, accuracy, least=3)
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    ols = least_squares(design, y)
    if ols.dof < 1:
        raise ValueError("a residual bootstrap of a parabola needs at least 4 points")
    residuals = ols.residuals * np.sqrt(len(x) / ols.dof)
    rng = np.random.default_rng(seed)
    drawn = design @ ols.coef + rng.choice(residuals, size=(draws, len(x)))
    scale = np.linalg.norm(design, axis=0)
    coefs = drawn @ (np.linalg.pinv(design / scale) / scale[:, None]).T
    grid = np.arange(total_layers + 1, dtype=float)
    powers = np.stack([np.ones_like(grid), grid, grid * grid])
    return np.concatenate(
        [np.argmax(part @ powers, axis=1) for part in np.array_split(coefs, 20)]
    )
