"""Made sweeps of which the truth is known: curves, run-to-run noise, images.

NumPy alone. A made sweep has what a real one has: accuracies that differ from run to
run, the more the deeper the cut, and validation images that are hard for all depths
alike, so that their errors are correlated.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

SHAPES = ("plateau", "unimodal", "monotone", "steps", "collapse")
NARROWEST = 0.12  # share of the depth axis that a planted step takes at least
HEAD_NOISE = 0.005  # accuracy; standard deviation of a run of the head alone
HIGHEST = 0.995  # accuracy of a run
# Shares of an image's difficulty: common to all runs, to neighboring depths, to a run.
COMMON, NEAR, OWN = 0.7, 0.15, 0.15
NEIGHBOR = 0.7  # correlation of the second between neighboring depths


class Planted(NamedTuple):
    """A made sweep.

    Attributes:
        truth: (m,) expected accuracy by depth.
        runs: (m, s) accuracy of each run on all images there could be.
        correct: (m, s, n) on the validation images.
    """

    truth: np.ndarray
    runs: np.ndarray
    correct: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """(m,) which depths are truly best."""
        return self.truth >= self.truth.max() - 1e-9


def planted_curve(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """True accuracies (size,) of a shape, of random height and place.

    Heights are 3 to 8 points; the plateau begins, and the peak lies, between 15 and 85
    percent of the axis; monotone curves saturate, upwards or downwards; steps are of
    random order, the highest never first; a collapse rises to a plateau and falls by 10
    to 40 points behind it.

    Raises:
        ValueError: unknown shape.
    """
    x = np.linspace(0, 1, size)
    height, place = rng.uniform(0.03, 0.08), rng.uniform(0.15, 0.85)
    if shape == "plateau":
        return 0.85 + height * np.minimum(x / place, 1)
    if shape == "unimodal":
        sides = np.where(x < place, place, 1 - place)
        steep = np.where(x < place, 1, rng.uniform(0.3, 1))
        return 0.85 + height * (1 - steep * ((x - place) / sides) ** 2)
    if shape == "monotone":
        rise = 0.85 + height * (1 - np.exp(-3 * x))
        return rise if rng.random() < 0.5 else rise[::-1]
    if shape == "steps":
        spare = np.sort(rng.uniform(0, 1 - 4 * NARROWEST, 3))
        edges = spare + NARROWEST * np.arange(1, 4)
        levels = np.concatenate([[0], rng.permutation([0.35, 0.6, 1])])
        return 0.85 + height * levels[np.searchsorted(edges, x)]
    if shape == "collapse":
        last = int(rng.integers(size // 3, max(size - 1, size // 3 + 1)))
        rise = 0.85 + height * np.minimum(x / max(x[last], 1e-9), 1)
        return np.where(np.arange(size) > last, rise - rng.uniform(0.1, 0.4), rise)
    raise ValueError(f"unknown shape {shape!r}: choose from {', '.join(SHAPES)}")


def planted_surface(
    size: int, rates: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """True accuracies (rates, size) whose best depth moves with the learning rate.

    At the lowest rate it lies in the deeper half of the axis, at the highest in the
    shallower one, evenly in between over the logarithm of the rate. Heights are 3 to 8
    points; a rate loses 1 to 4 points per squared decade from the best one.

    Args:
        size: number of depths.
        rates: increasing.
        rng: source of all draws.
    """
    x, decades = np.linspace(0, 1, size), np.log10(rates)
    height, loss = rng.uniform(0.03, 0.08), rng.uniform(0.01, 0.04)
    share = (decades - decades[0]) / np.ptp(decades)
    deep, shallow = rng.uniform(0.5, 1), rng.uniform(0, 0.5)
    place = (deep + (shallow - deep) * share)[:, None]
    off = decades - rng.uniform(decades[0], decades[-1])
    curves = height * (1 - ((x - place) / np.maximum(place, 1 - place)) ** 2)
    return 0.85 + curves - loss * off[:, None] ** 2


def run_spread(size: int, deepest: float) -> np.ndarray:
    """Standard deviation of a run, (size,), from HEAD_NOISE to `deepest`."""
    return HEAD_NOISE * (deepest / HEAD_NOISE) ** np.linspace(0, 1, size)


def planted_sweep(
    shape: str,
    *,
    size: int,
    deepest: float,
    seeds: int,
    images: int,
    rng: np.random.Generator,
) -> Planted:
    """A sweep over `size` depths with `seeds` runs of each.

    Args:
        shape: one of `SHAPES`.
        size: number of depths.
        deepest: standard deviation of a run at the deepest cut.
        seeds: runs of each depth.
        images: number of validation images.
        rng: source of all draws.
    """
    truth = planted_curve(shape, size, rng)
    return made_sweep(truth, run_spread(size, deepest), seeds, images, rng)


def made_sweep(
    truth: np.ndarray,
    spread: np.ndarray,
    seeds: int,
    images: int,
    rng: np.random.Generator,
) -> Planted:
    """A sweep of known truth.

    Args:
        truth: (m,) expected accuracy; neighbors have more errors in common.
        spread: (m,) standard deviation of a run.
        seeds: runs of each.
        images: number of validation images.
        rng: source of all draws.
    """
    size = len(truth)
    noise = spread[:, None] * rng.standard_normal((size, seeds))
    runs = np.clip(truth[:, None] + noise, 0.01, HIGHEST)
    quantile = NormalDist().inv_cdf
    limits = np.array([[quantile(p) for p in row] for row in runs])
    common = np.sqrt(COMMON) * rng.standard_normal(images)
    near = rng.standard_normal(images)
    correct = np.empty((size, seeds, images), dtype=bool)
    for depth in range(size):
        fresh = rng.standard_normal(images)
        near = NEIGHBOR * near + np.sqrt(1 - NEIGHBOR**2) * fresh
        own = np.sqrt(OWN) * rng.standard_normal((seeds, images))
        hardness = common + np.sqrt(NEAR) * near + own
        correct[depth] = hardness < limits[depth][:, None]
    return Planted(truth, runs, correct)
