"""The devices of this process: each may train a trial of its own.

What a thread computes goes to its default device, unless its arrays are committed to
another one. None stands for the default device of the process.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax

from ftjax.trees import Tree

Device = Any  # jax.Device, which type checkers take for a variable


def local_devices() -> tuple[Device, ...]:
    """Those of the default backend that this process reaches."""
    return tuple(jax.local_devices())


def on(device: Device | None) -> AbstractContextManager:
    """Within it, this thread puts arrays on that device."""
    return nullcontext() if device is None else jax.default_device(device)


def own_device() -> Device | None:
    """The one that this thread is `on`."""
    return jax.config.jax_default_device


def copy_on(tree: Tree, device: Device | None) -> Tree:
    """A tree's arrays on a device; those that are there are not copied."""
    return tree if device is None else jax.device_put(tree, device)
