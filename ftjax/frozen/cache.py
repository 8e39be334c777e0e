"""The rolling cache: stored activations are carried on from one cut to the next."""

import logging
from collections.abc import Sequence
from functools import cache, partial

import jax
import numpy as np

from ftjax.backbones.backbone import Unit
from ftjax.frozen.forward import Activations, advance, outputs
from ftjax.frozen.placement import activation_struct, choose_boundary
from ftjax.frozen.store import Recipe, Store, content_name, load_or_make
from ftjax.machine.caches import cache_folder
from ftjax.sweep.setup import Setup, measure_room


class RollingCache:
    """The activations that trials train on, who come in the order of their cuts."""

    def __init__(self, setup: Setup, threads: int = 1):
        train, val = setup.dataset.train, setup.dataset.val
        self._setup, self._threads = setup, threads
        self._newest = Activations(0, train.images, val.images)
        self._begun: Activations | None = None

    def at(self, boundary: int, begin: str = "") -> Activations:
        """Those at a boundary not before the last one that was asked for.

        Args:
            boundary: index of a unit.
            begin: a step of that unit whose inputs are asked for; empty: the unit's.
        """
        self._newest = move(self._setup, self._newest, boundary, self._threads)
        self._newest = put_on_device(self._setup, self._newest)
        begun = self._begun
        if begun is None or (begun.boundary, begun.begin) != (boundary, begin):
            begun = self._begun = None  # its memory may be needed
        if not begin:
            return self._newest
        if begun is None:
            begun = go_into(self._setup, self._newest, begin, self._threads)
            self._begun = begun
        return begun


def move(
    setup: Setup, activations: Activations, boundary: int, threads: int = 1
) -> Activations:
    """Carries the stored activations on to a later boundary.

    Where the disk takes no more, they stay at an earlier one that the memory holds, and
    the units in between are run again in every step.
    """
    if boundary == activations.boundary:
        return activations
    room = measure_room(setup)
    if room.on_disk(boundary):
        try:
            return move_on_disk(setup, activations, boundary, threads)
        except OSError as error:
            warn_once(
                f"activations are not kept on disk ({error.strerror or error}); units "
                "are run again in every step instead"
            )
        in_memory = room._replace(disk=0)
        boundary = choose_boundary(in_memory, boundary, activations.boundary)
    units = setup.network[activations.boundary : boundary]
    return Activations(boundary, *pass_on(setup, activations, units, threads))


def go_into(
    setup: Setup, activations: Activations, begin: str, threads: int = 1
) -> Activations:
    """Carries stored activations on to a step within their unit."""
    boundary = activations.boundary
    units = [setup.network.units[boundary].before(begin)]
    return Activations(boundary, *pass_on(setup, activations, units, threads), begin)


def pass_on(
    setup: Setup, activations: Activations, units: Sequence[Unit], threads: int
) -> list[np.ndarray]:
    """What frozen units make of the activations of both splits, in memory."""
    return [
        advance(
            units,
            setup.params,
            setup.batch_stats,
            split,
            batch_size=setup.config.micro_batch,
            mesh=setup.mesh,
            threads=threads,
        )
        for split in (activations.train, activations.val)
    ]


def put_on_device(setup: Setup, activations: Activations) -> Activations:
    """The activations on the device if they fit; says so if they do not but should."""
    if measure_room(setup).on_device(activations.boundary):
        splits = activations.train, activations.val
        return Activations(activations.boundary, *map(jax.device_put, splits))
    if setup.config.fused:
        name = setup.network.units[activations.boundary].name
        warn_once(
            f"the activations before {name} are not on the device, so depths there are "
            "not --fused; that takes a single device, and more of it by --device-gb"
        )
    return activations


def move_on_disk(
    setup: Setup, activations: Activations, boundary: int, threads: int
) -> Activations:
    """Maps activations from disk; computes what is not there yet.

    Raises:
        OSError: there is no room, or the cache folder cannot be written.
    """
    config = setup.config
    name_at = partial(
        content_name,
        setup.network,
        start=setup.start,
        data_hash=setup.dataset.content_hash,
        image_size=config.image_size,
        batch_size=config.micro_batch,
        devices=setup.mesh.size if setup.mesh else 1,
    )
    compute = partial(
        outputs,
        setup.network[activations.boundary : boundary],
        setup.params,
        setup.batch_stats,
        batch_size=config.micro_batch,
        mesh=setup.mesh,
        threads=threads,
    )
    struct_of = partial(activation_struct, setup.network, config.image_size, boundary)
    train, val = load_or_make(
        Store(cache_folder() / "activations", measure_room(setup).disk),
        name_at(boundary),
        [
            Recipe(split, struct_of(len(x)), partial(compute, x))
            for split, x in (("train", activations.train), ("val", activations.val))
        ],
        in_use=name_at(activations.boundary),
    )
    return Activations(boundary, train, val)


@cache
def warn_once(message: str) -> None:
    """A line on stderr, the first time that it is said."""
    logging.getLogger(__name__).warning(message)
