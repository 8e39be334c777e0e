"""All that is known about the accuracies of some cells, with its noise.

A cell is a depth under one BatchNorm policy (and one setting, where a table holds
several). Two noises add: the sampling of the validation images, which all cells share
and which is therefore paired, and that of the runs, which differ even where nothing
but the seed was changed.
"""

from typing import NamedTuple

import numpy as np

from ftjax.analysis.effects import GroupedEffects, grouped_effects
from ftjax.analysis.run_noise import GroupedNoise, estimate_grouped_noise


class Evidence(NamedTuple):
    """Accuracies of m cells and what may be wrong with them.

    Attributes:
        means: (m,).
        covariance: (m, m) of the means, images and runs.
        noise: (draws, m) to be added to the means; its tails hold that the run-to-run
            spread is estimated.
        images: (m, m) part of the covariance that is sampling of images.
        runs: run-to-run noise.
        effects: of cells and seeds.
        source: 'images and seeds', 'seeds', 'images', 'binomial' or 'none': what was
            measured.
    """

    means: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    images: np.ndarray
    runs: GroupedNoise
    effects: GroupedEffects
    source: str

    @property
    def counts(self) -> np.ndarray:
        """(m,) runs of each cell."""
        return self.effects.counts

    @property
    def replicated(self) -> bool:
        """Whether run-to-run noise was measured at all."""
        return self.runs.measured > 0

    @property
    def stderr(self) -> np.ndarray:
        """(m, m) standard error of every difference."""
        own = np.diag(self.covariance)
        squares = own[:, None] + own - 2 * self.covariance
        return np.sqrt(np.maximum(squares, 0.0))

    def part(self, cells: np.ndarray) -> "Evidence":
        """The same of some cells, for comparing them.

        Args:
            cells: (m,) bool.
        """
        inside = np.ix_(cells, cells)
        return self._replace(
            means=self.means[cells],
            covariance=self.covariance[inside],
            noise=self.noise[:, cells],
            images=self.images[inside],
        )


def image_covariance(scores: np.ndarray) -> np.ndarray:
    """Covariance of the means over images, (m, m), paired, with a doubt of one image.

    The doubt is a pseudo-count: every cell may be wrong about one more image than is
    seen, independently of the others, so that a difference between two cells has two
    discordant images more (Agresti and Min 2005, for paired proportions). Without it
    1:0, 5:0 or 6:1 discordant images would be a difference for certain; the exact
    sign test says p = 1, 0.06 and 0.12.

    Args:
        scores: (m, n) contribution of each image to each cell's mean: for accuracy
            the share of seeds that were right (0..1).
    """
    n = scores.shape[1]
    centered = scores - scores.mean(axis=1, keepdims=True)
    one = float(np.mean(np.max(np.abs(scores), axis=0) ** 2))
    return centered @ centered.T / n**2 + np.eye(len(scores)) * max(one, 1e-4) / n**2


def binomial_covariance(means: np.ndarray, size: float) -> np.ndarray:
    """Variances of accuracies on `size` images, unpaired, on the diagonal (m, m).

    Two right and two wrong images are added to each (Agresti and Coull 1998), so that
    100 % is not free of doubt.
    """
    share = (np.clip(means, 0.0, 1.0) * size + 2) / (size + 4)
    return np.diag(share * (1 - share) / size)


def weigh_evidence(
    values: np.ndarray,
    rank: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    flips: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    val_size: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Evidence:
    """Collect what a table knows about its cells and draw its noise.

    Run-to-run noise is that of `run_noise`: measured where there are replicates,
    pooled over depths, and assumed where there are none.

    Args:
        values: (m, s) accuracy by cell and seed, nan where missing.
        rank: (m,) of the depths, 0 (head) to 1 (deepest).
        scores: (m, n) as for `image_covariance`, or None.
        flips: (m,) as for `estimate_run_noise`.
        groups: (m,) kind of each cell, of which each has seed effects and run-to-run
            noise of its own.
        val_size: number of validation images, used only without `scores`.
        draws: of the noise.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    kinds = np.zeros(len(values), int) if groups is None else np.asarray(groups)
    effects = grouped_effects(values, kinds)
    means = effects.means
    runs = estimate_grouped_noise(
        kinds,
        np.asarray(rank, float),
        np.asarray(effects.squares, float),
        np.asarray(effects.own_dof, float),
        accuracy=float(means.max()),
        flips=flips,
    )
    images, sources = np.zeros((len(means), len(means))), []
    if scores is not None and scores.shape[1] > 1:
        images = image_covariance(np.asarray(scores, float))
        sources.append("images")
    elif val_size is not None and val_size > 0:
        images = binomial_covariance(means, float(val_size))
        sources.append("binomial")
    if runs.measured:
        sources.append("seeds")
    lower = np.linalg.cholesky(images + 1e-14 * np.eye(len(means)))
    noise = rng.standard_normal((draws, len(means))) @ lower.T
    which, _ = np.nonzero(np.isfinite(effects.residuals))
    spread = np.sqrt(runs.draw(draws, rng))[:, which]
    noise += spread * rng.standard_normal(spread.shape) @ effects.weights.T
    return Evidence(
        means,
        images + effects.covariance(runs.variance),
        noise,
        images,
        runs,
        effects,
        " and ".join(sources) or "none",
    )
