"""The frozen part's cache: activations are carried on from one cut to the next."""

import logging
from collections.abc import Sequence
from functools import cache, partial

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.data import Dataset
from ftjax.frozen.forward import Activations, advance, outputs
from ftjax.frozen.placement import (
    Placement,
    Room,
    activation_struct,
    choose_boundary,
)
from ftjax.frozen.start import Start
from ftjax.frozen.store import Recipe, Store, content_name, load_or_make
from ftjax.machine.caches import cache_folder


class ActivationCache:
    """The activations that trials train on, who come in the order of their cuts.

    Args:
        start: the pretrained network.
        data: its images.
        room: for activations.
        batch_size: images that pass through the network at a time.
        mesh: devices that share a batch.
        threads: that pass a batch each at the same time.
        needs_device: whether the trials count on activations on the device.
    """

    def __init__(
        self,
        start: Start,
        data: Dataset,
        room: Room,
        *,
        batch_size: int,
        mesh: Mesh | None = None,
        threads: int = 1,
        needs_device: bool = False,
    ):
        self._start, self._room, self._needs_device = start, room, needs_device
        self._content_hash = data.content_hash
        self._passes = {"batch_size": batch_size, "mesh": mesh, "threads": threads}
        self._newest = Activations(0, data.train.images, data.val.images)
        self._begun: Activations | None = None

    def at(self, placement: Placement) -> Activations:
        """Those at a boundary not before the last one that was asked for."""
        boundary, begin, _ = placement
        self._newest = self._put_on_device(self._move(self._newest, boundary))
        begun = self._begun
        if begun is None or (begun.boundary, begun.begin) != (boundary, begin):
            begun = self._begun = None  # its memory may be needed
        if not begin:
            return self._newest
        if begun is None:
            begun = self._begun = self._go_into(self._newest, begin)
        return begun

    def _move(self, activations: Activations, boundary: int) -> Activations:
        """Carries the stored activations on to a later boundary.

        Where the disk takes no more, they stay at an earlier one that the memory holds,
        and the units in between are run again in every step.
        """
        if boundary == activations.boundary:
            return activations
        room, network = self._room, self._start.network
        if room.on_disk(boundary):
            try:
                return self._move_on_disk(activations, boundary)
            except OSError as error:
                warn_once(
                    f"activations are not kept on disk ({error.strerror or error}); "
                    "units are run again in every step instead"
                )
            in_memory = room._replace(disk=0)
            boundary = choose_boundary(in_memory, boundary, activations.boundary)
        units = network[activations.boundary : boundary]
        return Activations(boundary, *self._pass_on(activations, units))

    def _go_into(self, activations: Activations, begin: str) -> Activations:
        """Carries stored activations on to a step within their unit."""
        boundary = activations.boundary
        units = [self._start.network.units[boundary].before(begin)]
        return Activations(boundary, *self._pass_on(activations, units), begin)

    def _pass_on(
        self, activations: Activations, units: Sequence[Unit]
    ) -> list[np.ndarray]:
        """What frozen units make of the activations of both splits, in memory."""
        params, batch_stats = self._start.params, self._start.batch_stats
        return [
            advance(units, params, batch_stats, split, **self._passes)
            for split in (activations.train, activations.val)
        ]

    def _put_on_device(self, activations: Activations) -> Activations:
        """The activations on the device if they fit; says if they do not but should."""
        if self._room.on_device(activations.boundary):
            splits = activations.train, activations.val
            return Activations(activations.boundary, *map(jax.device_put, splits))
        if self._needs_device:
            name = self._start.network.units[activations.boundary].name
            warn_once(
                f"the activations before {name} are not on the device, so depths there "
                "are not --fused; that takes a single device, and more of it by "
                "--device-gb"
            )
        return activations

    def _move_on_disk(self, activations: Activations, boundary: int) -> Activations:
        """Maps activations from disk; computes what is not there yet.

        Raises:
            OSError: there is no room, or the cache folder cannot be written.
        """
        start, mesh = self._start, self._passes["mesh"]
        network, size = start.network, start.image_size
        name_at = partial(
            content_name,
            network,
            start=start.digests,
            data_hash=self._content_hash,
            image_size=size,
            batch_size=self._passes["batch_size"],
            devices=mesh.size if mesh else 1,
        )
        compute = partial(
            outputs,
            network[activations.boundary : boundary],
            start.params,
            start.batch_stats,
            **self._passes,
        )
        struct_of = partial(activation_struct, network, size, boundary)
        train, val = load_or_make(
            Store(cache_folder() / "activations", self._room.disk),
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
