"""All numbers of one network's maps, as a tidy table."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.backbones.backbone import Unit
from ftjax.gradcam import numbers
from ftjax.gradcam.checks import Logits, deletion_insertion, margin_effect
from ftjax.gradcam.maps import Maps, Stage, explain, runner_up
from ftjax.trees import Tree

CHECKED = 12  # images for deletion and insertion, the first ones
COLUMNS = (
    "unit",
    "stage",
    "stage_end",
    "height",
    "width",
    "number",
    "mean",
    "low",
    "high",
    "images",
)


class Explained(NamedTuple):
    """A network and a class-balanced set of images.

    Attributes:
        units: of a backbone with its head.
        params: by unit.
        batch_stats: by unit.
        logits: the same network as a function of uint8 images.
        images: uint8 (n, size, size, 3).
        labels: (n,) true classes.
        masks: bool (n, size, size) of the object, or None.
    """

    units: tuple[Unit, ...]
    params: Tree
    batch_stats: Tree
    logits: Logits
    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


def measure(
    network: Explained,
    stages: tuple[Stage, ...],
    *,
    method: str = "gradcam",
    before: Maps | None = None,
) -> tuple[Maps, pd.DataFrame]:
    """Maps of the true classes, and their numbers for every unit.

    What needs the network run again is measured at the end of every stage only.

    Args:
        network: and its images.
        stages: of the network.
        method: a key of `gradcam.METHODS`.
        before: maps of the same images before fine-tuning, or None.

    Returns:
        The maps, and a table with `COLUMNS`: mean and 95 % interval over the images.
        `number` is one of

        * `top20_energy`, `entropy`: concentration, on a common grid;
        * `empty`: share of images where nothing speaks for the class;
        * `class_difference`: 1 - correlation with the map of the strongest other class;
        * `class_hit`, `margin_effect`: see `gradcam_checks.margin_effect`; the hit is
          1 where the effect is above 0;
        * `deletion_auc`, `insertion_auc`, and the same of random maps;
        * `area_inside`, `energy_inside`, `pointing_game`: with masks;
        * `before_rank_correlation`, `before_top20_iou`: against `before`.
    """
    maps = explain(
        network.units,
        network.params,
        network.batch_stats,
        network.images,
        classes=network.labels,
        method=method,
    )
    others = runner_up(maps.logits, maps.classes)
    rivals = explain(
        network.units,
        network.params,
        network.batch_stats,
        network.images,
        classes=others,
        method=method,
    )
    stage_of = {
        name: number
        for number, stage in enumerate(stages, start=1)
        for name in stage.units
    }
    rows = []
    for name, own in maps.maps.items():
        if name not in stage_of:
            continue
        found = cheap_numbers(own, rivals.maps[name], network.masks)
        if before is not None:
            old = before.maps[name]
            found["before_rank_correlation"] = numbers.rank_correlation(own, old)
            found["before_top20_iou"] = numbers.top_iou(own, old)
        is_end = name == stages[stage_of[name] - 1].end
        if is_end:
            found |= tested_numbers(network, own, rivals.maps[name], others)
        for number, values in found.items():
            labels = network.labels[: len(values)]
            interval = numbers.bootstrap_mean(values, labels)
            rows.append(
                (name, stage_of[name], is_end, *own.shape[1:], number, *interval)
            )
    return maps, pd.DataFrame(rows, columns=list(COLUMNS))


def cheap_numbers(
    own: np.ndarray, rival: np.ndarray, masks: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Numbers that need the maps alone; (n,) each."""
    grid = numbers.on_grid(own)
    found = {
        "top20_energy": numbers.top_energy(grid),
        "entropy": numbers.entropy(grid),
        "empty": numbers.is_empty(own).astype(float),
        "class_difference": numbers.class_difference(own, rival),
    }
    if masks is not None:
        found["area_inside"] = numbers.area_inside(masks)
        found["energy_inside"] = numbers.energy_inside(own, masks)
        found["pointing_game"] = numbers.pointing_game(own, masks)
    return found


def tested_numbers(
    network: Explained,
    own: np.ndarray,
    rival: np.ndarray,
    others: np.ndarray,
) -> dict[str, np.ndarray]:
    """Numbers that need the network run on images with hidden pixels."""
    effect = margin_effect(
        network.logits,
        network.images,
        classes=network.labels,
        others=others,
        class_maps=own,
        other_maps=rival,
    )
    images, labels = network.images[:CHECKED], network.labels[:CHECKED]
    areas = deletion_insertion(network.logits, images, labels, own[:CHECKED])
    noise = np.random.default_rng(0).random((len(images), *own.shape[1:]), np.float32)
    chance = deletion_insertion(network.logits, images, labels, noise)
    return {
        "class_hit": np.where(np.isnan(effect), np.nan, (effect > 0).astype(float)),
        "margin_effect": effect,
        "deletion_auc": areas.deletion,
        "insertion_auc": areas.insertion,
        "random_deletion_auc": chance.deletion,
        "random_insertion_auc": chance.insertion,
    }


def stage_values(
    table: pd.DataFrame, stages: tuple[Stage, ...], number: str
) -> list[float]:
    """The mean of one number at the end of every stage, input first."""
    ends = table[table["stage_end"] & (table["number"] == number)]
    means = ends.set_index("unit")["mean"]
    return [float(means.get(stage.end, np.nan)) for stage in stages]
