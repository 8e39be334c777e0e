"""The grid becomes trials, each distinct training once, ordered by cut."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ftjax.backbones.backbone import (
    Backbone,
)
from ftjax.batch_norm import FROZEN
from ftjax.config import Config
from ftjax.depth import Cut, make_cut
from ftjax.training.suffix import make_suffix


class Trial(NamedTuple):
    """One trial.

    Attributes:
        id: hash of all that determines its result, except the number of epochs.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        seed: of head, data order and drop-connect.
        canonical: what the hash is of; plain values.
    """

    id: str
    cut: Cut
    policy: str
    seed: int
    canonical: dict[str, Any]


class Request(NamedTuple):
    """One row that the user asked for, and the trial that answers it.

    Several rows may share one: depths that unfreeze the same parameters, and policies
    that are equal where no BatchNorm is trainable.
    """

    cut: Cut
    policy: str
    seed: int
    trial: str


class Point(NamedTuple):
    """One point of the grid: depth in layers, BatchNorm policy, seed."""

    depth_layers: int
    policy: str
    seed: int


class Plan(NamedTuple):
    """Rows in the order of depth, trials in the order of their cut."""

    requests: tuple[Request, ...]
    trials: tuple[Trial, ...]


def _depth(point: Point) -> int:
    return point.depth_layers


def make_plan(
    config: Config,
    network: Backbone,
    grid: Iterable[Point],
    *,
    weights: str,
    data_hash: str,
) -> Plan:
    """One row per point of the grid, and the trials that answer them.

    Args:
        config: completed.
        network: backbone with head.
        grid: depths in layers, BatchNorm policies and seeds.
        weights: source of the pretrained parameters.
        data_hash: of images and labels.
    """
    requests, trials = [], {}
    for depth, policy, seed in sorted(dict.fromkeys(grid), key=_depth):
        cut = make_cut(network, depth)
        norms = any(part.batch_norm for part in make_suffix(network, cut, policy))
        canonical = {
            "model": config.model,
            "weights": weights,
            "data": data_hash,
            "depth": cut.same_set,
            "batch_norm": policy if norms else FROZEN.name,
            "seed": seed,
            "image_size": config.image_size,
            "batch_size": config.batch_size,
            "optimizer": config.optimizer,
            "lr": config.lr,
            "head_lr_factor": config.head_lr_factor,
            "weight_decay": config.weight_decay,
            "drop_connect": config.drop_connect,
            "draws": "numpy",  # order of images; JAX's made other orders of a seed
        }
        # Only where they change a result, so that older results keep their ids.
        if config.dtype != "float32":
            canonical["dtype"] = config.dtype
        if norms:
            if config.micro_batch != config.batch_size:
                canonical["micro_batch"] = config.micro_batch
        text = json.dumps(canonical, sort_keys=True)
        trial_id = hashlib.sha256(text.encode()).hexdigest()[:12]
        trial = Trial(trial_id, cut, canonical["batch_norm"], seed, canonical)
        trials.setdefault(trial_id, trial)
        requests.append(Request(cut, policy, seed, trial_id))
    ordered = sorted(trials.values(), key=lambda trial: trial.cut.unit)
    return Plan(tuple(requests), tuple(ordered))
