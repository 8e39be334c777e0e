"""Which device trains which trial: one each where there are trials enough.

Eight devices that share a batch of 32 images have four each, and add up gradients and
BatchNorm's moments over all of them some 165 times a step (EfficientNetB0); eight
trials, one on each, exchange nothing.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ftjax.frozen.start import Start
from ftjax.machine.devices import Device, copy_on
from ftjax.sweep.trial import Trial

FEWEST_IMAGES = 32  # of a batch on each device, below which sharing it does not pay


class Seat(NamedTuple):
    """Where a thread trains, and the pretrained network there.

    Attributes:
        device: None for the default one.
        start: its arrays are on that device.
    """

    device: Device | None
    start: Start


def make_seats(start: Start, devices: Sequence[Device], count: int) -> list[Seat]:
    """So many seats, on one device after the other.

    Args:
        start: the pretrained network, on the default device.
        devices: that train a trial each; none: the default one trains all.
        count: of threads.
    """
    own = [*devices[:count]] or [None]
    seats = [Seat(device, start_on(start, device)) for device in own]
    return [*itertools.islice(itertools.cycle(seats), count)]


def start_on(start: Start, device: Device | None) -> Start:
    """The pretrained network with its arrays on a device."""
    trees = copy_on((start.params, start.batch_stats), device)
    return start._replace(params=trees[0], batch_stats=trees[1])


class Spread(NamedTuple):
    """How trials and devices meet.

    Attributes:
        sharing: devices that share the batches of every trial; 1: each trains alone.
        why: in a sentence's part, for `--plan`.
    """

    sharing: int
    why: str


def choose_spread(
    *, devices: int, trials: int | None, images: int, fits: bool, cpu: bool
) -> Spread:
    """Whether devices train a trial each, or share every batch.

    Args:
        devices: of this process.
        trials: that are planned; None where a search has yet to choose them.
        images: of a batch, that pass through the network at a time.
        fits: whether a single device holds the largest trial.
        cpu: whether the devices are parts of one CPU, whose memory they share.
    """
    most = max(n for n in range(1, devices + 1) if images % n == 0)
    if not fits and most > 1 and not cpu:
        return Spread(most, "the largest trial does not fit one of them")
    few = trials is not None and trials < devices
    if few and not cpu and most == devices and images // devices >= FEWEST_IMAGES:
        each = images // devices
        return Spread(most, f"there are fewer trials, and {each} images for each")
    return Spread(1, "they exchange nothing")


def longest_first(
    trials: Iterable[Trial], epochs: Mapping[str, int]
) -> Iterable[Trial]:
    """The trials in an order in which devices that take the next one end together.

    Those that read the same activations are sorted by their FLOPs. Across them the
    order is that of the cuts, as the frozen part is passed once: from the earliest cut,
    whose trials take longest, to the latest.

    Args:
        trials: in the order of a plan.
        epochs: trial -> how many it is still to be trained.
    """

    def source(trial: Trial) -> tuple:
        return trial.hyper.view_set, trial.placement[:2]

    for _, own in itertools.groupby(trials, key=source):
        yield from sorted(own, key=lambda trial: -trial.flops.total(epochs[trial.id]))


def last_end(costs: Iterable[float], workers: int) -> float:
    """When the last of some workers ends who take the next when they are free."""
    ends = [0.0] * workers
    for cost in costs:
        ends[ends.index(min(ends))] += cost
    return max(ends)
