"""Heat maps as numbers: how concentrated, how class-specific, how changed.

Every function takes maps of shape (n, h, w), 0 or more, and gives one number for each
image; NaN where a map is 0 everywhere and the number has no meaning.
"""

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

TOP_SHARE = 0.2  # of the pixels
GRID = 7  # side of the common grid: the last maps of ImageNet networks at 224 pixels


class Interval(NamedTuple):
    """A mean over images.

    Attributes:
        mean: of the images where the number is defined; NaN if there are none.
        low: lower end of the 95 % interval.
        high: upper end.
        images: where the number is defined.
    """

    mean: float
    low: float
    high: float
    images: int


def is_empty(maps: np.ndarray) -> np.ndarray:
    """Whether nothing speaks for the class: (n, h, w) -> bool (n,)."""
    return maps.reshape(len(maps), -1).max(1) <= 0


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps on another grid: pixel averages when shrinking, bilinear when enlarging.

    Returns:
        float32 (n, height, width).
    """
    shrinks = maps.shape[1] > height
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # OpenCV passes over numbers near the smallest float32 badly; the scale is free.
    scale = np.maximum(maps.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    scaled = np.asarray(maps / scale, np.float32)
    resized = [cv2.resize(one, (width, height), interpolation=rule) for one in scaled]
    return np.stack(resized) * scale


def on_grid(maps: np.ndarray) -> np.ndarray:
    """Maps on the common grid, so that stages of any resolution can be compared.

    A map of 56 x 56 pixels looks more concentrated than one of 7 x 7 merely because
    its pixels are smaller.
    """
    return resize(maps, GRID, GRID)


def top_energy(maps: np.ndarray) -> np.ndarray:
    """Share of a map's sum that lies in its strongest pixels.

    From TOP_SHARE (even) to 1 (all in few pixels). Fractions of a pixel count in part.

    Args:
        maps: (n, h, w).
    """
    flat = _flat(maps)
    ordered = -np.sort(-flat, axis=1)
    sums = np.hstack([np.zeros((len(flat), 1)), np.cumsum(ordered, axis=1)])
    place = TOP_SHARE * flat.shape[1]
    whole = int(place)
    found = sums[:, whole].copy()
    if whole < flat.shape[1]:
        found += (place - whole) * ordered[:, whole]
    return _divide(found, sums[:, -1])


def entropy(maps: np.ndarray) -> np.ndarray:
    """Shannon entropy of a map that sums to 1, over log(pixels): 0 (a point) to 1."""
    flat = _flat(maps)
    shares = _divide(flat, flat.sum(1, keepdims=True))
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0)
    found = -terms.sum(1) / np.log(flat.shape[1])
    return np.where(is_empty(maps), np.nan, found)


def energy_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of a map's sum inside the object, the "energy-based pointing game".

    Source: Wang et al. 2020, Score-CAM, arXiv:1910.01279, section 4.3. An even map has
    the object's share of the image, `area_inside`. NaN where no object is known.

    Args:
        maps: (n, h, w).
        masks: bool (n, height, width) at the images' size.
    """
    flat = _flat(resize(maps, *masks.shape[1:]))
    share = _divide((flat * _flat(masks)).sum(1), flat.sum(1))
    return np.where(masks.any((1, 2)), share, np.nan)


def area_inside(masks: np.ndarray) -> np.ndarray:
    """The object's share of the image: (n, height, width) -> (n,), NaN for none."""
    return np.where(masks.any((1, 2)), masks.mean((1, 2)), np.nan)


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """1 where the strongest pixel is inside the object, else 0.

    Source: Zhang et al. 2018, arXiv:1608.00507, section 4.1, without its tolerance of
    15 pixels. NaN where the map is empty or no object is known.

    Args:
        maps: (n, h, w).
        masks: bool (n, height, width) at the images' size.
    """
    flat = _flat(resize(maps, *masks.shape[1:]))
    hit = _flat(masks)[np.arange(len(flat)), flat.argmax(1)]
    unknown = is_empty(maps) | ~masks.any((1, 2))
    return np.where(unknown, np.nan, hit.astype(float))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps, equal values sharing their mean rank.

    Args:
        a: (n, h, w).
        b: (n, h, w) of the same images.
    """
    return correlation(_ranks(a), _ranks(b))


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of two maps, -1..1; NaN where one of them is constant."""
    a, b = _flat(a), _flat(b)
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return _divide((a * b).sum(1), scale)


def top_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of the strongest pixels of two maps.

    Two random maps have TOP_SHARE / (2 - TOP_SHARE), 0.11 at 20 %.

    Args:
        a: (n, h, w).
        b: (n, h, w) of the same images.
    """
    count = max(1, round(TOP_SHARE * a[0].size))
    masks = []
    for maps in (a, b):
        flat = _flat(maps)
        mask = np.zeros(flat.shape, bool)
        order = np.argsort(-flat, axis=1, kind="stable")[:, :count]
        np.put_along_axis(mask, order, True, axis=1)
        masks.append(mask & (flat > 0))  # pixels of 0 are never the strongest
    found = _divide((masks[0] & masks[1]).sum(1), (masks[0] | masks[1]).sum(1))
    return np.where(is_empty(a) | is_empty(b), np.nan, found)


def class_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much the maps of two classes differ: 1 - their correlation on a common grid.

    0: the same map for both classes; 1: unrelated; above 1: where one is strong the
    other is weak. NaN where one of them is empty.

    Args:
        a: (n, h, w) for the true class.
        b: (n, h, w) for the strongest other class of the same images.
    """
    return 1 - correlation(on_grid(a), on_grid(b))


def bootstrap_mean(
    values: np.ndarray, labels: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Mean with a 95 % percentile interval, images drawn anew within every class.

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        values: (n,) one number for each image; NaN where it is not defined.
        labels: (n,) classes.
        draws: of the bootstrap.
        seed: of the draws.
    """
    known = np.isfinite(values)
    values, labels = values[known], labels[known]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    sums = np.zeros(draws)
    for label in np.unique(labels):
        own = values[labels == label]
        sums += own[rng.integers(len(own), size=(draws, len(own)))].sum(1)
    low, high = np.quantile(sums / len(values), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def _flat(maps: np.ndarray) -> np.ndarray:
    """(n, h, w) -> float64 (n, h * w)."""
    return np.asarray(maps, np.float64).reshape(len(maps), -1)


def _ranks(maps: np.ndarray) -> np.ndarray:
    ranks = pd.DataFrame(_flat(maps)).rank(axis=1).to_numpy()
    return ranks.reshape(maps.shape)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A / b, NaN where b is 0."""
    zero = b == 0
    return np.where(zero, np.nan, a / np.where(zero, 1, b))
