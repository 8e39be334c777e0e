"""The frozen part's cache: activations are carried on from one cut to the next."""

import logging
from collections.abc import Sequence
from functools import cache, partial

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.data import Dataset
from ftjax.data.augment import Views, ViewSet, stored_views
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
from ftjax.machine.devices import Device, own_device


class ActivationCache:
    """The activations that trials train on, who come in the order of their cuts.

    Those that train on other stored views come after these, from their first cut on.

    Args:
        start: the pretrained network.
        data: its images.
        room: for activations.
        batch_size: images that pass through the network at a time.
        mesh: devices that share a batch.
        threads: that pass a batch each at the same time.
        needs_device: whether the trials count on activations on the device.
        devices: that pass a batch each; none: the default one, or the mesh.
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
        devices: Sequence[Device] = (),
    ):
        self._start, self._data, self._needs_device = start, data, needs_device
        self._all_room = room
        self._passes = {"batch_size": batch_size, "mesh": mesh, "threads": threads}
        self._passes["devices"] = tuple(devices)
        self._restart(None)

    def _restart(self, view_set: ViewSet | None) -> None:
        """Back to the images, and these views of them."""
        train, val = self._data.train.images, self._data.val.images
        self._view_set, self._room, views = view_set, self._all_room, None
        if view_set is not None:
            views = stored_views(train, *view_set)
            self._room = self._all_room.with_views(view_set[1])
        self._newest = Activations(0, train, val, views=views)
        self._begun: Activations | None = None
        self._placed: dict[Device | None, Activations] = {}  # by device

    def at(self, placement: Placement, view_set: ViewSet | None = None) -> Activations:
        """Those at a boundary not before the last one of the same views.

        Args:
            placement: where.
            view_set: augmentation and number of views of each training image that are
                wanted as well.
        """
        boundary, begin, _ = placement
        if view_set != self._view_set:
            self._restart(view_set)
        if self._newest.boundary != boundary:
            self._placed = {}  # the memory is needed
            self._newest = self._move(self._newest, boundary)
        begun = self._begun
        if begun is None or (begun.boundary, begun.begin) != (boundary, begin):
            begun = self._begun = None  # its memory may be needed
        if not begin:
            return self._put_on_device(self._newest)
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
        return self._pass_on(activations, units)._replace(boundary=boundary)

    def _go_into(self, activations: Activations, begin: str) -> Activations:
        """Carries stored activations on to a step within their unit."""
        units = [self._start.network.units[activations.boundary].before(begin)]
        return self._pass_on(activations, units)._replace(begin=begin)

    def _pass_on(self, activations: Activations, units: Sequence[Unit]) -> Activations:
        """What frozen units make of the activations, in memory."""
        params, batch_stats = self._start.params, self._start.batch_stats
        passed = {
            name: advance(units, params, batch_stats, split, **self._passes)
            for name, split in splits_of(activations)
        }
        return activations._replace(**passed)

    def _put_on_device(self, activations: Activations) -> Activations:
        """Activations on this thread's device if they fit; says if they should but not.

        They are on the host as well, from where the frozen part goes on.
        """
        if self._room.on_device(activations.boundary):
            device = own_device()
            if device not in self._placed:
                placed = {
                    name: split if isinstance(split, Views) else jax.device_put(split)
                    for name, split in splits_of(activations)
                }
                self._placed[device] = activations._replace(**placed)
            return self._placed[device]
        if self._needs_device:
            name = self._start.network.units[activations.boundary].name
            warn_once(
                f"the activations before {name} do not fit the device, so depths there "
                "train by small programs, and each step's images are sent to it: use "
                "fewer images, a smaller --image-size, or more memory by --device-gb"
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
            data_hash=self._data.content_hash,
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
        splits = splits_of(activations)
        words, count = self._view_set or ((), 0)
        ends = {"views": "-".join([*words, str(count)])}
        arrays = load_or_make(
            Store(cache_folder() / "activations", self._room.disk),
            name_at(boundary),
            [
                Recipe(ends.get(name, name), struct_of(len(x)), partial(compute, x))
                for name, x in splits
            ],
            in_use=name_at(activations.boundary),
        )
        names = (name for name, _ in splits)
        return Activations(boundary, **dict(zip(names, arrays, strict=True)))


def splits_of(activations: Activations) -> list[tuple[str, np.ndarray]]:
    """The arrays that there are, by their field."""
    names = ("train", "val", "views")
    found = ((name, getattr(activations, name)) for name in names)
    return [(name, split) for name, split in found if split is not None]


@cache
def warn_once(message: str) -> None:
    """A line on stderr, the first time that it is said."""
    logging.getLogger(__name__).warning(message)
