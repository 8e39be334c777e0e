"""Plans of networks with random weights on data that nobody looks at."""

import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.data import Arrays, Dataset
from ftjax.frozen.placement import make_room
from ftjax.frozen.start import make_start
from ftjax.sweep.plan import Point, make_plan
from ftjax.sweep.resources import Budget
from ftjax.sweep.trial import Hyperparameters, Trial

HYPER = Hyperparameters(
    lr=1e-4,
    head_lr_factor=10.0,
    weight_decay=0.0,
    drop_connect=0.2,
    optimizer="adam",
    batch_size=8,
    micro_batch=8,
    epochs=5,
)


def make_trials(
    network: Backbone,
    *points: Point,
    hyper: Hyperparameters = HYPER,
    weights: str = "random",
    data_hash: str = "0",
    image_size: int = 16,
) -> tuple[Trial, ...]:
    """The trials of some points."""
    start = make_start(network, image_size, {}, {}, weights=weights)
    split = Arrays(np.zeros((16, 1), np.uint8), np.zeros(16, np.int32))
    data = Dataset("made", ("a", "b", "c"), split, split, None, data_hash, "", 0)
    forward = (1.0,) * len(network.units)
    room = make_room(network, image_size, 32, forward, memory=1e9)
    points = [Point(*point[:3], point[3] or hyper) for point in points]
    return make_plan(start, data, Budget(room), points).trials


def at(depth_layers: int, policy: str, seed: int = 0) -> Point:
    """A point of no hyperparameters in particular: those of `make_trials`."""
    return Point(depth_layers, policy, seed, None)
