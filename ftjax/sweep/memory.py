"""What a plan will take before it is run: programs and memory."""

import os
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, boundary_shapes, variable_shapes
from ftjax.depth import Cut
from ftjax.frozen.placement import activation_struct
from ftjax.frozen.start import Start
from ftjax.sweep.trial import Trial, trial_network
from ftjax.training.optimizer import init_unit
from ftjax.training.programs import forward_program
from ftjax.training.suffix import make_suffix
from ftjax.trees import total_bytes

LEAST_CACHE = 4e9  # bytes for activations, where the machine is small or unknown


class Memory(NamedTuple):
    """Bytes that are certainly held at the same time in training, on one device.

    Attributes:
        params: pretrained ones of the whole network, and those that are trained.
        optimizer: its state.
        residuals: what the backward pass needs of every unit of the suffix.
        stored: activations of the data set, where they share the memory: on a CPU,
            or if they are kept on the device.
    """

    params: int
    optimizer: int
    residuals: int
    stored: int = 0


def count_programs(start: Start, trials: Iterable[Trial]) -> int:
    """How many distinct forward passes of single units the trials compile."""
    return len(programs_of(start, trials))


def programs_of(start: Start, trials: Iterable[Trial]) -> set[tuple[Any, ...]]:
    """What the distinct forward passes of single units depend on.

    Units of equal module, input and trainable layers share one; inference counts too.

    Args:
        start: the pretrained network.
        trials: that are planned.
    """
    programs: set[tuple] = set()
    for trial in trials:
        network = trial_network(start.network, trial.hyper.head)
        batch = trial.hyper.micro_batch
        shapes = boundary_shapes(network.units, start.image_size)
        begin, index = trial.placement.begin, trial.cut.unit
        suffix = make_suffix(network, trial.cut, trial.policy, begin)
        modules = [unit.module for unit in network.units]
        programs |= {(batch, *each) for each in zip(modules, shapes, strict=False)}
        if begin:
            before = network.units[index].before(begin).module
            programs |= {
                (batch, before, shapes[index]),
                (batch, suffix[0].unit.module, shapes[index]),
            }
        for (unit, *keys), shape in zip(suffix, shapes[index:], strict=False):
            programs.add((batch, unit.module, shape, *keys))
    return programs


@cache
def estimate_memory(
    network: Backbone,
    cut: Cut,
    policy: str,
    *,
    size: int,
    batch_size: int,
    optimizer: str,
) -> Memory:
    """What training at this cut holds, from the shapes alone; nothing is computed.

    Args:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        size: height and width of the images, in pixels.
        batch_size: images that pass through one device at a time.
        optimizer: a key of `OPTIMIZERS`.
    """
    variables = variable_shapes(network.units, size)
    params = total_bytes(variables)
    state, batch = 0, (batch_size,)
    held = {}  # an output is the next unit's input; each is counted once
    x = activation_struct(network, size, cut.unit, batch_size)
    scale = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    suffix = make_suffix(network, cut, policy)
    for part, shapes in zip(suffix, variables[cut.unit :], strict=True):
        unit = part.unit
        own, stats = shapes.get("params", {}), shapes.get("batch_stats", {})
        params += total_bytes([own[key] for key in part.trainable])
        make = partial(init_unit, name=optimizer, trainable=part.trainable)
        state += total_bytes(jax.eval_shape(make, own))
        run = partial(forward_program, unit.module, part.trainable, part.batch_norm)
        inputs = own, stats, x, scale if unit.drop_share or unit.dropout else None
        y, _, residuals = jax.eval_shape(run, inputs)
        leaves = jax.tree.leaves(residuals.complete((inputs, y)))
        held |= {id(leaf): leaf for leaf in leaves if leaf.shape[:1] == batch}
        x = y
    return Memory(params, state, total_bytes(list(held.values())))


def check_memory(
    memory: Memory,
    available: int | None,
    *,
    batch_size: int,
    micro_batch: int,
    devices: int = 1,
    at_once: int = 1,
) -> None:
    """Refuses what cannot fit.

    Args:
        memory: of all that are trained side by side, with `micro_batch` images at a
            time.
        available: bytes of one device; None if nobody knows.
        batch_size: images per optimizer step.
        micro_batch: images that pass through the network at a time.
        devices: that share them.
        at_once: trials that are trained side by side.

    Raises:
        ValueError: more is needed than there is; names the largest part of the batch
            that fits.
    """
    needed = sum(memory)
    if available is None or needed <= available:
        return
    room = available - (needed - memory.residuals)
    fitting = (
        size
        for size in range(micro_batch, 0, -1)
        if batch_size % size == 0
        and size % devices == 0
        and memory.residuals * size <= room * micro_batch
    )
    largest = next(fitting, 0)
    advice = (
        f"--micro-batch {largest} is the largest that fits"
        if largest
        else "no --micro-batch fits; unfreeze less, or choose a smaller --image-size"
    )
    if at_once > 1:
        advice += f"; or train fewer than {at_once} side by side (--trials-at-once)"
    raise ValueError(
        f"--micro-batch {micro_batch} needs at least {needed / 1e9:.2f} GB of memory "
        f"where {available / 1e9:.2f} GB are: {advice}"
    )


def available_bytes() -> int | None:
    """Memory of one device; on a CPU that of the host.

    Returns:
        None where nothing says so.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return host_bytes()


def host_bytes() -> int | None:
    """Memory of the machine or its control group; None where nothing says so."""
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        return None
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((Path("/sys/fs/cgroup") / path).read_text()))
        except (OSError, ValueError):  # no control group, or it says "max"
            continue
    return min(limits)


def host_room(host: int | None, *, cpu: bool) -> float:
    """Bytes of the host's memory for activations, unless --cache-gb says so.

    Beside an accelerator the host's memory has little else to hold; on a CPU the trials
    need it as well.

    Args:
        host: bytes of the machine; None if nobody knows.
        cpu: whether trials are trained there.
    """
    return max(LEAST_CACHE, (host or 0) * (0.25 if cpu else 0.5))


def device_room(available: int | None, needed: int) -> int:
    """Bytes of an accelerator for activations, unless --device-gb says so.

    What twice the least memory of the largest trial leaves: XLA needs more for a step
    than its residuals.

    Args:
        available: bytes of one device; None if nobody knows.
        needed: least bytes of a trial there, its activations aside.
    """
    return 0 if available is None else max(0, available - 2 * needed)
