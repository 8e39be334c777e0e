"""A process that trains: how JAX compiles and runs in it."""

import os
from functools import partial

import jax

from ftjax.config import Config
from ftjax.machine import autotune, peers, xla
from ftjax.machine.heap import keep_freed_memory
from ftjax.machine.mesh import from_first_process, is_first_process


def start_jax(config: Config, *, own_process: bool = False) -> None:
    """Chooses how JAX compiles and runs; comes before all other use of it.

    Args:
        config: what to train.
        own_process: whether nobody else has objects in this process.

    Raises:
        ValueError: the processes of --distributed cannot be joined.
    """
    if config.engine != "local":  # the workers need the memory of the device
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    alone = own_process and not config.distributed
    xla.tune_xla(autotune.gpu_flags() if alone else autotune.UNTUNED)
    if config.mesh != "auto" or config.distributed:  # then they share batches
        xla.give_devices_threads()
    if config.distributed:
        xla.join_processes()
    keep_freed_memory()
    if own_process:
        xla.collect_garbage_rarely()
    xla.use_compilation_cache()
    if config.distributed:
        watch_peers()


def watch_peers() -> None:
    """From here on processes that train together end together."""
    address = from_first_process(partial(peers.listen, jax.process_count()))
    if not is_first_process():
        peers.join(jax.process_index(), peers.Address(*address))
