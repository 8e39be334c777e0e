"""Where the activations of the frozen part are kept, and what they take."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, boundary_shapes, trace_shapes
from ftjax.trees import total_bytes

# FLOPs of inference in the time in which a byte is read from disk: rules of thumb for
# 1 GB/s beside 20 GFLOP/s on a few cores, and beside 2 TFLOP/s on an accelerator.
FLOPS_PER_BYTE = {"cpu": 20.0}
ACCELERATOR_FLOPS_PER_BYTE = 2000.0
BEGUN_SHARE = 1 / 8  # of the memory for activations, at most, within a block


class Room(NamedTuple):
    """What the activations of a data set take before each unit, and what there is.

    Attributes:
        sizes: bytes before each unit.
        flops: of each unit's forward pass over the data set.
        memory: bytes for activations.
        disk: bytes for those that the memory does not hold.
        flops_per_byte: FLOPs in the time in which a byte is read from disk.
        device: bytes of the device for those that are trained on.
        train_share: of the images, those that are trained on.
        copies: times that what `sizes` says is stored, where there are views.
    """

    sizes: tuple[int, ...]
    flops: tuple[float, ...]
    memory: int
    disk: int = 0
    flops_per_byte: float = 0.0
    device: int = 0
    train_share: float = 0.0
    copies: float = 1.0

    def with_views(self, views: int) -> "Room":
        """With so many stored views of every training image beside the image itself."""
        return self._replace(copies=1 + views * self.train_share)

    def stored(self, boundary: int) -> int:
        """Bytes of what is stored there; views of the images themselves are not."""
        return round(self.sizes[boundary] * (self.copies if boundary else 1))

    def on_device(self, boundary: int) -> bool:
        """Whether a trial that trains from there has them on the device."""
        return self.stored(boundary) <= self.device

    def on_disk(self, boundary: int) -> bool:
        """Whether the memory does not hold them; the images take none of it."""
        return boundary > 0 and self.stored(boundary) > self.memory


def boundary_bytes(network: Backbone, size: int) -> tuple[int, ...]:
    """Bytes of one image's activation before each unit.

    The images are uint8; maps are of the network's type, vectors (small) float32.
    """
    structs = (
        activation_struct(network, size, boundary, 1)
        for boundary in range(len(network.units))
    )
    return tuple(struct.size * struct.dtype.itemsize for struct in structs)


def activation_struct(
    network: Backbone, size: int, boundary: int, batch_size: int, begin: str = ""
) -> jax.ShapeDtypeStruct:
    """Shape and type of what is handed to unit `boundary`, or to its step `begin`."""
    shape = boundary_shapes(network.units, size)[boundary]
    if begin:
        module = network.units[boundary].before(begin).module
        (_, *shape), _ = trace_shapes(module, (1, *shape))
    dtype = network.dtype if len(shape) > 1 else "float32"
    if boundary == 0:
        dtype = "uint8"
    return jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype))


def choose_boundary(room: Room, cut: int, previous: int = 0) -> int:
    """The boundary not after `cut` from which a pass over the data costs least.

    The units between it and the cut are run again in every step, and what the memory
    does not hold is read from disk. The images (boundary 0) are there anyway.

    Args:
        room: sizes and budgets.
        cut: index of the first unit that is trained.
        previous: where the stored activations are before; they are read while the new
            ones are written, so the disk must hold both.
    """
    held = room.stored(previous) if room.on_disk(previous) else 0

    def fits(boundary: int) -> bool:
        if boundary == previous or not room.on_disk(boundary):
            return True
        return held + room.stored(boundary) <= room.disk

    def cost(boundary: int) -> float:
        read = room.sizes[boundary] if room.on_disk(boundary) else 0
        return sum(room.flops[boundary:cut]) + room.flops_per_byte * read

    return min(filter(fits, range(cut, previous - 1, -1)), key=cost)


class Placement(NamedTuple):
    """Where the activations are that a trial trains on.

    Attributes:
        boundary: index of the unit whose inputs are stored; 0 holds the images.
        begin: the step of that unit whose inputs they are (`Unit.before`); empty: the
            unit's own.
        where: `memory`, `disk` or `device`.
    """

    boundary: int
    begin: str = ""
    where: str = "memory"


def make_room(
    network: Backbone,
    image_size: int,
    num_images: int,
    forward_flops: Sequence[float],
    *,
    memory: float,
    disk: float = 0.0,
    device: float = 0.0,
    train_share: float = 0.0,
) -> Room:
    """What the activations of a data set take, and the room that there is for them.

    Args:
        network: backbone with head.
        image_size: height and width, in pixels.
        num_images: of both splits.
        forward_flops: per unit, of one image.
        memory: bytes for activations.
        disk: bytes for those that the memory does not hold.
        device: bytes of the device for those that are trained on.
        train_share: of the images, those that are trained on.
    """
    backend = jax.default_backend()
    return Room(
        sizes=tuple(size * num_images for size in boundary_bytes(network, image_size)),
        flops=tuple(flops * num_images for flops in forward_flops),
        memory=int(memory),
        disk=int(disk),
        flops_per_byte=FLOPS_PER_BYTE.get(backend, ACCELERATOR_FLOPS_PER_BYTE),
        device=int(device),
        train_share=train_share,
    )


def place(
    room: Room,
    network: Backbone,
    image_size: int,
    num_images: int,
    unit: int,
    begin: str = "",
    previous: int = 0,
) -> Placement:
    """Where a trial at a cut finds its activations.

    A cut within a block leaves its first steps frozen. On a CPU passing those once, and
    not with every batch, saves 4 to 10 % of a shallow trial of EfficientNetB0. What
    is stored is several times as large as the block's input, so elsewhere, where
    reading costs as much as computing, and without the memory, it is not done.

    Args:
        room: sizes and budgets.
        network: backbone with head.
        image_size: height and width, in pixels.
        num_images: of both splits.
        unit: index of the first unit that is trained.
        begin: its first step that is trained; empty: all of it.
        previous: boundary of the trial before, whose cut is not later.
    """
    boundary = choose_boundary(room, unit, previous)
    where = "disk" if room.on_disk(boundary) else "memory"
    where = "device" if room.on_device(boundary) else where
    divided = begin and boundary == unit and where == "memory"
    if jax.default_backend() == "cpu" and divided:
        stored = round(num_images * room.copies)
        size = begun_bytes(network, image_size, stored, boundary, begin)
        if size <= room.memory * BEGUN_SHARE:
            return Placement(boundary, begin, where)
    return Placement(boundary, "", where)


def begun_bytes(
    network: Backbone, image_size: int, num_images: int, boundary: int, begin: str
) -> int:
    """What the inputs of a step of a unit take for the whole data set."""
    struct = activation_struct(network, image_size, boundary, num_images, begin)
    return total_bytes(struct)
