"""How many cores there are, and how many threads XLA:CPU computes with."""

import os

POOL_SIZE = "NPROC"  # how many threads XLA:CPU starts, read when JAX starts


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool_size() -> int:
    """Threads of XLA:CPU's pool."""
    return int(os.environ.get(POOL_SIZE) or usable_cores())


def one_thread() -> bool:
    """Whether XLA:CPU's pool has one thread (`cores.py`), so that no loop is split."""
    return pool_size() == 1
