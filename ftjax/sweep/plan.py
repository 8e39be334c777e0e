"""The grid becomes trials, each distinct one once, ordered by cut."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from ftjax.backbones.backbone import Backbone
from ftjax.batch_norm import FROZEN, POLICIES
from ftjax.block_sets import make_set_cut
from ftjax.data import Dataset
from ftjax.data.augment import ViewSet
from ftjax.depth import Cut, make_cut
from ftjax.frozen.placement import Placement
from ftjax.frozen.placement import place as place_activations
from ftjax.frozen.start import Start
from ftjax.sweep.cost import begun_flops, measure_cost, trial_flops
from ftjax.sweep.resources import Budget
from ftjax.sweep.trial import Hyperparameters, Subject, Trial, trial_network
from ftjax.training.suffix import make_suffix


class Point(NamedTuple):
    """One point of the grid.

    Attributes:
        depth_layers: layers unfrozen.
        policy: of BatchNorm.
        seed: of head, data order and drop-connect.
        hyper: how it is trained.
        blocks: that are trained, in the place of the top layers; empty: these.
    """

    depth_layers: int
    policy: str
    seed: int
    hyper: Hyperparameters
    blocks: tuple[str, ...] = ()


class Request(NamedTuple):
    """One row that the user asked for, and the id of the trial that answers it.

    Several rows may share one: depths that unfreeze the same parameters, and policies
    that are equal where no BatchNorm is trainable.
    """

    cut: Cut
    policy: str
    seed: int
    hyper: Hyperparameters
    trial: str
    blocks: tuple[str, ...] = ()


class Plan(NamedTuple):
    """Rows in the order of depth, trials in the order of their cut."""

    requests: tuple[Request, ...]
    trials: tuple[Trial, ...]

    @property
    def goals(self) -> dict[str, int]:
        """Every trial to its last epoch."""
        return {trial.id: trial.hyper.epochs for trial in self.trials}

    @property
    def points(self) -> list[Point]:
        """The points that the rows are of."""
        return [
            Point(request.cut.depth_layers, *request[1:4], request.blocks)
            for request in self.requests
        ]


def make_plan(
    start: Start,
    data: Dataset,
    budget: Budget,
    points: Iterable[Point],
) -> Plan:
    """One row per point of the grid, and the trials that answer them.

    Args:
        start: the pretrained network.
        data: that it is fine-tuned on.
        budget: of the machine.
        points: of the grid.
    """
    size, val = start.image_size, len(data.val.labels)
    num_images = len(data.train.labels) + val
    networks: dict[str, Backbone] = {}  # by head
    cuts: dict[tuple, Cut] = {}
    wanted = []
    for point in sorted(dict.fromkeys(points), key=place_of):
        key = depth, head, blocks = point.depth_layers, point.hyper.head, point.blocks
        if head not in networks:
            networks[head] = trial_network(start.network, head)
        if key not in cuts:
            network = networks[head]
            cuts[key] = (
                make_set_cut(network, blocks) if blocks else make_cut(network, depth)
            )
        cut = cuts[key]
        suffix = make_suffix(networks[head], cut, point.policy)
        norms = any(part.batch_norm for part in suffix)
        begin = networks[head].units[cut.unit].step_of(cut.trainable[0][0])
        if point.hyper.fresh:  # its steps begin with the images
            begin = ""
        wanted.append((cut, begin, point, point.policy if norms else FROZEN.name))
    placements: dict[tuple, Placement] = {}
    boundaries: dict[ViewSet | None, int] = {}
    for cut, begin, point, _ in sorted(wanted, key=lambda own: (own[0].unit, own[1])):
        views = point.hyper.view_set
        if (cut.unit, begin, views) in placements:
            continue
        placements[cut.unit, begin, views] = placed = place_activations(
            budget.room.with_views(point.hyper.stored_views),
            start.network,
            size,
            num_images,
            cut.unit,
            begin,
            boundaries.get(views, 0),
        )
        boundaries[views] = placed.boundary
    requests, trials = [], {}
    sets: dict[tuple, Dataset] = {}
    for cut, begin, point, policy in wanted:
        hyper = point.hyper.at(cut)
        placement = placements[cut.unit, begin, hyper.view_set]
        network = networks[hyper.head]
        own = sets[hyper.images] = sets.get(hyper.images) or data.chosen(*hyper.images)
        train, cost = len(own.rows), measure_cost(network, size)
        subject = Subject(
            network.name, start.weights, own.content_hash, size, network.dtype
        )
        flops = trial_flops(
            cut,
            cost,
            boundary=placement.boundary,
            train_boundary=0 if hyper.fresh else placement.boundary,
            steps=train // hyper.batch_size,
            batch_size=hyper.batch_size,
            evaluated=val,
            evaluated_last=train,
            recalibrated=train if POLICIES[policy].recalibrates else 0,
            passed=begun_flops(network, size, placement),
        )
        trial = Trial(subject, cut, policy, point.seed, hyper, placement, flops)
        known = trials.setdefault(trial.id, trial)
        if hyper.epochs > known.hyper.epochs:  # fewer epochs are read off its way
            trials[trial.id] = replace(known, hyper=hyper)
        requests.append(Request(cut, *point[1:4], trial.id, point.blocks))
    return Plan(tuple(requests), tuple(in_order(trials.values())))


def place_of(point: Point) -> tuple[bool, int]:
    """Depths in their order, then sets of blocks in that of the network."""
    return bool(point.blocks), 0 if point.blocks else point.depth_layers


def in_order(trials: Iterable[Trial]) -> list[Trial]:
    """From the earliest cut on; those of a cut that share programs are neighbors.

    Those that read the same activations come together, then those that share the
    programs of units, then those that can be stacked; each in the order of its first.
    Sets of stored views are passed through the frozen part one after the other.
    """

    def kinds(trial: Trial) -> tuple:
        hyper = trial.hyper
        return trial.placement.begin, hyper.unit_programs, hyper.program

    trials = list(trials)
    first: dict[tuple, int] = {}
    sets: dict[ViewSet | None, int] = {}
    for trial in trials:
        sets.setdefault(trial.hyper.view_set, len(sets))
        for kind in enumerate(kinds(trial)):
            first.setdefault(kind, len(first))

    def place(trial: Trial) -> tuple[int, ...]:
        order = (first[kind] for kind in enumerate(kinds(trial)))
        return sets[trial.hyper.view_set], trial.cut.unit, *order

    return sorted(trials, key=place)
