"""What a few trials say about one curve of accuracy over depth."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.effects import depth_effects
from ftjax.analysis.run_noise import estimate_run_noise
from ftjax.search.gaussian_process import CurvePosterior, fit_curve, rule_out

COLLAPSE = 0.08  # accuracy below the highest, from which a depth has collapsed
NOISE = 0.005  # accuracy; noise of the images where the table says nothing about it


class CurveBelief(NamedTuple):
    """One policy: what was tried and what is believed.

    Attributes:
        bn: policy.
        size: number m of candidate depths. Where there are several rates, an index is
            the rank of the depth plus m times the number of the rate.
        tried: indices of candidates with a trial, failed ones included.
        seen: indices with a finished trial that has not collapsed, increasing.
        best: the seen index with the highest expected accuracy.
        highest: the seen index with the highest measured accuracy.
        posterior: of the curve, on all candidates.
    """

    bn: str
    size: int
    tried: frozenset[int]
    seen: np.ndarray
    best: int
    highest: int
    posterior: CurvePosterior


def noise_before(
    rows: pd.DataFrame, correct: Mapping[str, np.ndarray] | None
) -> tuple[float, float]:
    """What is known about one trial's noise before depths are compared.

    With per-image results: half the variance of the difference between neighboring
    depths, paired over the images (McNemar 1947). Otherwise the binomial error of
    the validation set, which is unpaired and too large if anything.

    Args:
        rows: finished trials of one policy, with `trial` and `val_size` if known.
        correct: trial -> (n,) bool.

    Returns:
        Standard deviation, and the number of observations it is worth.
    """
    if correct and "trial" in rows:
        ordered = rows.sort_values(["seed", "depth_layers"])
        known = [
            (seed, np.asarray(correct[str(trial)], float))
            for seed, trial in zip(ordered["seed"], ordered["trial"], strict=True)
            if str(trial) in correct
        ]
        pairs = [
            np.var(after - before) / (2 * len(after))
            for (one, before), (other, after) in zip(known, known[1:], strict=False)
            if one == other and len(before) == len(after)
        ]
        if pairs and np.median(pairs) > 0:
            return float(np.sqrt(np.median(pairs))), 6.0
    sizes = rows["val_size"].dropna() if "val_size" in rows else []
    if len(sizes) and float(sizes.max()) > 0:
        share = float(np.clip(rows["val_accuracy"].max(), 0.02, 0.98))
        return float(np.sqrt(share * (1 - share) / sizes.max())), 3.0
    return NOISE, 6.0


def level_falls(values: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies with deep falls compressed; the order and the top stay.

    A curve that collapses at some depth says nothing about the shape near its top, but
    would set the amplitude of the whole process.

    Returns:
        (n,) values, and (n,) what became of each noise variance (delta method).
    """
    scale = max(4 * NOISE, 6 * noise)
    gap = values.max() - values
    slopes = 1.0 / (1.0 + gap / scale)
    return values.max() - scale * np.log1p(gap / scale), np.maximum(slopes**2, 0.05)


def believe(
    bn: str,
    rows: pd.DataFrame,
    tried: Collection[int],
    depths: Sequence[int],
    correct: Mapping[str, np.ndarray] | None,
    rates: tuple[float, ...] = (),
) -> CurveBelief:
    """Fit one policy's curve over the ranks of the candidate depths.

    Args:
        bn: policy.
        rows: its finished trials.
        tried: indices with a trial, failed ones included.
        depths: (m,) candidates in layers, increasing.
        correct: as for `noise_before`.
        rates: learning rates, where these are searched as well.
    """
    size = len(depths)
    index = np.searchsorted(depths, rows["depth_layers"].to_numpy())
    if rates:
        index = index + size * np.searchsorted(rates, rows["lr"].to_numpy(float))
    images, dof = noise_before(rows, correct)
    accuracies = rows["val_accuracy"].to_numpy(float)
    run = run_spread(index, accuracies, rows["seed"].to_numpy(), size)
    own = images**2 + run**2  # deeper cuts differ more from run to run
    noise = float(np.sqrt(own.mean()))
    fell = accuracies < accuracies.max() - max(COLLAPSE, 6 * noise)
    row = index // size
    gone = np.concatenate(
        [n * size + collapsed(index[row == n] % size, fell[row == n]) for n in set(row)]
    )
    index, accuracies, own = index[~fell], accuracies[~fell], own[~fell]
    values, variances = level_falls(accuracies, noise)
    posterior = fit_curve(
        index,
        values,
        rows["seed"].to_numpy()[~fell],
        size=size,
        noise=noise,
        noise_dof=dof,
        variances=variances * own / own.mean(),
        rates=rates,
    )
    posterior = rule_out(posterior, gone)
    seen = np.unique(index)
    best = int(seen[np.argmax(posterior.mean[seen])])
    means = np.bincount(index, weights=values)[seen] / np.bincount(index)[seen]
    highest = int(seen[np.argmax(means)])
    return CurveBelief(bn, size, frozenset(tried), seen, best, highest, posterior)


def run_spread(
    index: np.ndarray, accuracies: np.ndarray, seeds: np.ndarray, size: int
) -> np.ndarray:
    """Expected run-to-run standard deviation of each trial, (n,); see `run_noise`."""
    ranks, row = np.unique(index, return_inverse=True)
    _, column = np.unique(seeds, return_inverse=True)
    values = np.full((len(ranks), column.max() + 1), np.nan)
    values[row, column] = accuracies
    effects = depth_effects(values)
    noise = estimate_run_noise(
        ranks % size / max(size - 1, 1),
        effects.squares,
        effects.own_dof,
        accuracy=float(accuracies.max()),
    )
    return noise.expected_spread[row]


def collapsed(index: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """Ranks that are ruled out: those that collapsed, and those between two of them.

    Where a curve collapses it is not smooth: a depth that fell says nothing about its
    neighbors, which may be the best of all.

    Args:
        index: (n,) ranks of trials.
        fell: (n,) which of them collapsed.
    """
    down = set(index[fell].tolist()) - set(index[~fell].tolist())
    ranks = sorted(set(index.tolist()))
    gone = set(down)
    for first, second in zip(ranks, ranks[1:], strict=False):
        if first in down and second in down:
            gone |= set(range(first, second))
    return np.array(sorted(gone), dtype=int)


def shortest_interval(
    winners: np.ndarray, size: int, inside: int, mass: float
) -> tuple[int, int]:
    """Shortest run of ranks that holds the optimum with the given mass of the draws.

    Args:
        winners: (draws,) rank of the optimum.
        size: number of ranks.
        inside: a rank that the interval is widened to hold.
        mass: 0..1.
    """
    counts = np.bincount(winners, minlength=size)
    total = np.concatenate([[0], np.cumsum(counts)])
    needed = int(np.ceil(mass * len(winners)))
    low = np.arange(size)
    high = np.searchsorted(total, total[:-1] + needed) - 1
    width = np.where(high < size, high - low, size)
    start = int(np.argmin(width))
    return min(start, inside), max(int(high[start]), inside)


def open_ends(
    seen: np.ndarray, best: int, low: int, high: int, size: int
) -> tuple[int, int]:
    """The interval with the depths next to the best one that no trial has seen.

    A curve may go on rising up to the depth where it collapses, and a smooth process
    does not expect that: between the best depth and the next one that was trained
    nothing is excluded.

    Args:
        seen: (k,) ranks with a finished trial, increasing.
        best: one of them.
        low: first rank of the interval.
        high: last rank of the interval.
        size: number of ranks.
    """
    place = int(np.searchsorted(seen, best))
    before = seen[place - 1] + 1 if place > 0 else 0
    after = seen[place + 1] - 1 if place + 1 < len(seen) else size - 1
    return min(low, int(before)), max(high, int(after))
