"""The grid becomes trials, each distinct one once, ordered by cut."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from ftjax.batch_norm import FROZEN, POLICIES
from ftjax.data import Dataset
from ftjax.depth import Cut, make_cut
from ftjax.frozen.placement import place as place_activations
from ftjax.frozen.start import Start
from ftjax.sweep.cost import begun_flops, measure_cost, trial_flops
from ftjax.sweep.resources import Budget
from ftjax.sweep.trial import Hyperparameters, Subject, Trial
from ftjax.training.suffix import make_suffix


class Point(NamedTuple):
    """One point of the grid.

    Attributes:
        depth_layers: layers unfrozen.
        policy: of BatchNorm.
        seed: of head, data order and drop-connect.
        hyper: how it is trained.
    """

    depth_layers: int
    policy: str
    seed: int
    hyper: Hyperparameters


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
            Point(request.cut.depth_layers, *request[1:4]) for request in self.requests
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
    network, size = start.network, start.image_size
    subject = Subject(
        network.name, start.weights, data.content_hash, size, network.dtype
    )
    cost = measure_cost(network, size)
    train, val = len(data.train.labels), len(data.val.labels)
    cuts: dict[int, Cut] = {}
    wanted = []
    for point in sorted(dict.fromkeys(points), key=lambda point: point.depth_layers):
        depth = point.depth_layers
        cuts[depth] = cut = cuts.get(depth) or make_cut(network, depth)
        suffix = make_suffix(network, cut, point.policy)
        norms = any(part.batch_norm for part in suffix)
        wanted.append((cut, point, point.policy if norms else FROZEN.name))
    placements, boundaries = {}, {}
    for cut, point, _ in sorted(wanted, key=lambda own: own[0].unit):
        hyper = point.hyper
        place = cut, hyper.view_set, hyper.fresh
        if place in placements:
            continue
        begin = network.units[cut.unit].step_of(cut.trainable[0][0])
        placements[place] = place_activations(
            budget.room.with_views(hyper.stored_views),
            network,
            size,
            train + val,
            cut.unit,
            "" if hyper.fresh else begin,  # its steps begin with the images
            boundaries.get(hyper.view_set, 0),
        )
        boundaries[hyper.view_set] = placements[place].boundary
    requests, trials = [], {}
    for cut, point, policy in wanted:
        hyper = point.hyper
        placement = placements[cut, hyper.view_set, hyper.fresh]
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
        requests.append(Request(cut, *point[1:], trial.id))
    return Plan(tuple(requests), tuple(in_order(trials.values())))


def in_order(trials: Iterable[Trial]) -> list[Trial]:
    """From the earliest cut on; those of a cut that share programs are neighbors.

    Stored views are passed through the frozen part one set after the other.
    """
    trials = list(trials)
    first: dict[tuple, int] = {}
    sets: dict[tuple | None, int] = {}
    for trial in trials:
        first.setdefault(trial.hyper.program, len(first))
        sets.setdefault(trial.hyper.view_set, len(sets))

    def place(trial: Trial) -> tuple[int, int, int]:
        hyper = trial.hyper
        return sets[hyper.view_set], trial.cut.unit, first[hyper.program]

    return sorted(trials, key=place)
