"""What depth, seed and noise add to a table of replicates."""

from typing import NamedTuple

import numpy as np


class DepthEffects(NamedTuple):
    """Additive model accuracy = depth effect + seed effect + noise, by least squares.

    Attributes:
        means: (d,) accuracy of each depth with the seed effects removed.
        weights: (d, k) of the k measurements in the means, by depth, then seed.
        residuals: (d, s) noise, nan where a seed is missing; what a seed does to all
            depths is taken out as far as it shows, because taking out a mere guess
            would carry the noise of the deep cuts into the shallow ones.
        dof: degrees of freedom of the noise; 0 when there is nothing to estimate it
            from.
        seed_variance: of the seed effects.
    """

    means: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray
    dof: float
    seed_variance: float

    @property
    def counts(self) -> np.ndarray:
        """(d,) runs of each depth."""
        return np.isfinite(self.residuals).sum(axis=1)

    @property
    def squares(self) -> np.ndarray:
        """(d,) sums of the squared residuals."""
        return np.nansum(self.residuals**2, axis=1)

    @property
    def own_dof(self) -> np.ndarray:
        """(d,) share of the degrees of freedom that each depth's residuals carry."""
        spare = np.maximum(self.counts - 1, 0)
        return self.dof * spare / max(spare.sum(), 1)

    def covariance(self, variances: np.ndarray) -> np.ndarray:
        """Covariance of the means, (d, d), what a seed moves alike included.

        Args:
            variances: (d,) noise variance of one measurement at each depth.
        """
        which, seeds = np.nonzero(np.isfinite(self.residuals))
        between = self.seed_variance * np.equal.outer(seeds, seeds)
        return self.weights @ (np.diag(variances[which]) + between) @ self.weights.T


class GroupedEffects(NamedTuple):
    """As `DepthEffects`, where kinds of cells have seed effects of their own.

    A seed that is lucky for trials on batch statistics need not be so for others, whose
    noise is several times smaller.

    Attributes:
        parts: of each kind.
        cells: (k,) indices of each kind's cells among all.
        means: of all cells, as of `DepthEffects`.
        weights: of all cells, as of `DepthEffects`.
        residuals: of all cells, as of `DepthEffects`.
    """

    parts: tuple[DepthEffects, ...]
    cells: tuple[np.ndarray, ...]
    means: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(d,) runs of each depth."""
        return np.isfinite(self.residuals).sum(axis=1)

    @property
    def squares(self) -> np.ndarray:
        """(d,) sums of the squared residuals."""
        return np.nansum(self.residuals**2, axis=1)

    @property
    def own_dof(self) -> np.ndarray:
        """(d,) share of the degrees of freedom that each depth's residuals carry."""
        dof = np.zeros(len(self.means))
        for part, own in zip(self.parts, self.cells, strict=True):
            dof[own] = part.own_dof
        return dof

    def covariance(self, variances: np.ndarray) -> np.ndarray:
        """Covariance of the means, (d, d), what a seed moves alike included.

        Args:
            variances: (d,) noise variance of one measurement at each depth.
        """
        found = np.zeros((len(self.means),) * 2)
        for part, own in zip(self.parts, self.cells, strict=True):
            found[np.ix_(own, own)] = part.covariance(variances[own])
        return found


def grouped_effects(values: np.ndarray, groups: np.ndarray) -> GroupedEffects:
    """`depth_effects` of each kind of cell by itself.

    Args:
        values: (d, s) accuracy by depth and seed, nan where missing.
        groups: (d,) kind of each.
    """
    values = np.asarray(values, dtype=float)
    which, _ = np.nonzero(np.isfinite(values))
    means, residuals = np.zeros(len(values)), np.full(values.shape, np.nan)
    weights = np.zeros((len(values), len(which)))
    parts, cells = [], []
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        part = depth_effects(values[own])
        means[own], residuals[own] = part.means, part.residuals
        columns = np.flatnonzero(np.isin(which, own))
        weights[np.ix_(own, columns)] = part.weights
        parts.append(part)
        cells.append(own)
    return GroupedEffects(tuple(parts), tuple(cells), means, weights, residuals)


def depth_effects(values: np.ndarray) -> DepthEffects:
    """Split a table of replicates into depth effects, seed effects and noise.

    With every seed present at every depth the depth effects are the plain means. With
    gaps a seed that ran only at some depths is compared by the two-way model with
    random seed effects (Henderson's BLUE; Searle, Casella and McCulloch 1992, chapter
    7), their variance by moments: a depth does not look good because a lucky seed ran
    only there, and where seeds have no effect of their own nothing is corrected.

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
    dof = len(rows) - design.shape[1]
    noise = float(np.nansum(residuals**2)) / dof if dof else 0.0
    between, effective = 0.0, float(dof)
    if design.shape[1] > d:
        seeds = np.append(coef[d:], -coef[d:].sum())
        # Squares of the effects, less what the noise alone gives them.
        within = noise * np.mean(np.sum(inverse[d:] ** 2, axis=1))
        between = max(float(np.mean(seeds**2)) * s / (s - 1) - within, 0.0)
        share = between / (between + within) if between > 0 else 0.0
        moved = values - share * seeds
        residuals = moved - np.nanmean(moved, axis=1, keepdims=True)
        effective = len(rows) - d - share * (s - 1)
    weights = _blue(which_depth, which_seed, d, noise, between)
    if weights is None:
        weights = inverse[:d]
    means = weights @ values[present]
    return DepthEffects(means, weights, residuals, effective, between)


def _blue(
    which_depth: np.ndarray,
    which_seed: np.ndarray,
    d: int,
    noise: float,
    between: float,
) -> np.ndarray | None:
    """Weights (d, k) of the best linear unbiased depth effects.

    None where the noise has no variance, so that seed effects are known exactly.
    """
    if between > 0 and noise <= 1e-9 * between:
        return None
    cells = np.equal.outer(np.arange(d), which_depth).astype(float)  # (d, k)
    ratio = between / noise if noise > 0 else 0.0
    covariance = np.eye(len(which_seed))
    covariance += ratio * np.equal.outer(which_seed, which_seed)
    solved = np.linalg.solve(covariance, cells.T)  # (k, d)
    return np.linalg.solve(cells @ solved, solved.T)
