"""Heat maps put to the test: by hiding pixels, and by destroying weights.

A map can look convincing and say nothing about the network (Adebayo et al. 2018), so
these run the network again. Where a map is 0 everywhere the answer is NaN.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import jax
import numpy as np

from ftjax.backbones.backbone import Unit, draw_variables, variable_shapes
from ftjax.gradcam.maps import Stage, explain
from ftjax.gradcam.numbers import TOP_SHARE, is_empty, rank_correlation, resize
from ftjax.trees import Tree

HIDDEN = 127  # grey level of hidden pixels: about 0 after ImageNet preprocessing
STEPS = 6  # parts of equal size in which deletion and insertion take the pixels

Logits = Callable[[np.ndarray], np.ndarray]  # uint8 (n, h, w, 3) -> (n, classes)


class Faithfulness(NamedTuple):
    """Areas under the curves of deletion and insertion, by image, 0..1.

    Attributes:
        deletion: (n,) low if hiding the strongest pixels soon destroys the class.
        insertion: (n,) high if showing the strongest pixels soon restores it.
    """

    deletion: np.ndarray
    insertion: np.ndarray


def pixel_order(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels from the strongest to the weakest; equal ones in random order.

    Args:
        maps: (n, h, w).
        size: height and width of the images.

    Returns:
        (n, height * width) pixel numbers.
    """
    flat = resize(maps, *size).reshape(len(maps), -1)
    shuffled = np.random.default_rng(0).permutation(flat.shape[1])
    return shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]


def replace_pixels(
    images: np.ndarray, others: np.ndarray, pixels: np.ndarray
) -> np.ndarray:
    """Images with the given pixels from others.

    Args:
        images: uint8 (n, h, w, 3).
        others: likewise, what the pixels become.
        pixels: (n, count) pixel numbers, row by row.
    """
    flat = images.reshape(len(images), -1, 3).copy()
    source = others.reshape(len(images), -1, 3)
    rows = np.arange(len(images))[:, None]
    flat[rows, pixels] = source[rows, pixels]
    return flat.reshape(images.shape)


def hide_top(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images with the map's strongest pixels grey."""
    order = pixel_order(maps, images.shape[1:3])
    count = round(TOP_SHARE * order.shape[1])
    return replace_pixels(images, np.full_like(images, HIDDEN), order[:, :count])


def margin_effect(
    logits: Logits,
    images: np.ndarray,
    *,
    classes: np.ndarray,
    others: np.ndarray,
    class_maps: np.ndarray,
    other_maps: np.ndarray,
) -> np.ndarray:
    """How much more its own map's pixels matter to a class than its rival's do.

    The margin is the logit of the class minus the rival's. Once the strongest 20 % of
    pixels of the class's map are hidden, once those of the rival's map. Where both maps
    know nothing of the two classes the margins differ by chance, in either direction.

    Args:
        logits: the network.
        images: uint8 (n, h, w, 3).
        classes: (n,) true classes.
        others: (n,) the strongest other class.
        class_maps: (n, ...) for `classes`.
        other_maps: (n, ...) for `others`.

    Returns:
        (n,) margin with the rival's pixels hidden minus with its own; above 0 if the
        maps are right about the class.
    """
    rows = np.arange(len(images))
    margins = []
    for maps in (other_maps, class_maps):
        found = logits(hide_top(images, maps))
        margins.append(found[rows, classes] - found[rows, others])
    empty = is_empty(class_maps) | is_empty(other_maps)
    return np.where(empty, np.nan, margins[0] - margins[1])


def deletion_insertion(
    logits: Logits,
    images: np.ndarray,
    classes: np.ndarray,
    maps: np.ndarray,
) -> Faithfulness:
    """Deletion and insertion (Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4).

    Deletion makes the strongest pixels grey, more and more; insertion gives a blurred
    image its strongest pixels back. Followed is the probability of the class.

    Args:
        logits: the network.
        images: uint8 (n, h, w, 3).
        classes: (n,) classes of the maps.
        maps: (n, height, width).
    """
    height, width = images.shape[1:3]
    order = pixel_order(maps, (height, width))
    blurred = np.stack(
        [cv2.GaussianBlur(image, (0, 0), max(1.0, height / 20)) for image in images]
    )
    grey = np.full_like(images, HIDDEN)
    counts = np.linspace(0, order.shape[1], STEPS + 1).round().astype(int)
    areas = []
    for start, end in ((images, grey), (blurred, images)):
        frames = [replace_pixels(start, end, order[:, :count]) for count in counts]
        shown = logits(np.concatenate(frames))
        curve = _probability(shown, np.tile(classes, len(counts)))
        curve = curve.reshape(len(counts), -1)  # (steps + 1, n)
        area = np.trapezoid(curve, dx=1 / STEPS, axis=0)
        areas.append(np.where(is_empty(maps), np.nan, area))
    return Faithfulness(*areas)


def _probability(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True))[np.arange(len(classes)), classes]


def randomization(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    images: np.ndarray,
    *,
    classes: np.ndarray,
    stages: Sequence[Stage],
    method: str = "gradcam",
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Cascading randomization (Adebayo et al. 2018, arXiv:1810.03292, section 3).

    From the classifier downward, stage after stage gets random weights and fresh
    BatchNorm statistics. A map that stays the same shows edges of the image, not
    what the network has learned.

    Args:
        units: of a backbone with its head.
        params: by unit.
        batch_stats: by unit.
        images: uint8 (n, size, size, 3).
        classes: (n,) classes of the maps.
        stages: of the network, input first.
        method: a key of `gradcam.METHODS`.
        seed: of the random weights.

    Returns:
        Per last stage that was randomized (`classifier` first, then named by the
        stage's end) and per stage's end: Spearman's rank correlation of the map with
        the map of the intact network, (n,).
    """
    shapes = variable_shapes(units, images.shape[1])
    staged = {name for stage in stages for name in stage.units}
    head = tuple(unit.name for unit in units if unit.name not in staged)
    groups = [("classifier", head)]
    groups += [(stage.end, stage.units) for stage in reversed(stages)]
    intact = explain(units, params, batch_stats, images, classes=classes, method=method)
    params, batch_stats = dict(params), dict(batch_stats)
    index = {unit.name: number for number, unit in enumerate(units)}
    found = {}
    for title, names in groups:
        for name in names:
            fresh = draw_variables(shapes[index[name]], (seed, index[name]))
            params[name] = jax.device_put(fresh.get("params", {}))
            batch_stats[name] = jax.device_put(fresh.get("batch_stats", {}))
        other = explain(
            units, params, batch_stats, images, classes=classes, method=method
        )
        found[title] = {
            stage.end: rank_correlation(intact.maps[stage.end], other.maps[stage.end])
            for stage in stages
        }
    return found
