"""How many cores there are, and how many threads XLA:CPU computes with."""

import os

POOL_SIZE = "NPROC"  # how many threads XLA:CPU starts, read when JAX starts


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_thread() -> bool:
    """Whether XLA:CPU's pool has one thread (`cores.py`), so that no loop is split."""
    return os.environ.get(POOL_SIZE, str(usable_cores())) == "1"
