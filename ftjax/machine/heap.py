"""glibc's malloc, told to keep what is freed.

Nothing is done with another C library, nor beside an accelerator.

XLA:CPU allocates every intermediate anew, and mapping its pages again is slow.
"""

import ctypes
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def accelerator_installed() -> bool:
    """Whether JAX comes with a GPU or TPU, whose memory malloc has nothing to do with.

    JAX is not started for that.
    """
    plugins = any(entry_points(group="jax_plugins")) or find_spec("libtpu")
    return bool(plugins) and os.environ.get("JAX_PLATFORMS") != "cpu"


def use_one_arena() -> None:
    """All threads allocate from the main arena, which alone grows without limit.

    Others hold 64 MB at a time; what is larger is mapped anew whenever it is asked for.
    An arena that is there stays and takes its turn, so this comes before the import of
    packages that start threads: pyarrow is one, which pandas imports where it finds it.
    Two trials side by side took 1.42 s a step instead of 1.09 (EfficientNet-Lite0,
    224 pixels, batch 32, 2 cores). With arrays of less than 64 MB an arena each would
    do better: sweeps of EfficientNetB0 at 96 pixels take 3 to 7 % longer with one.
    """
    _set({M_ARENA_MAX: 1})


def keep_freed_memory() -> None:
    """What is freed stays with the process, for the next step.

    With mapping, a block with large activations took 90 ms instead of 51
    (EfficientNet-Lite0's block2a, 64 pixels, batch 32, 2 cores).
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28})


def _set(options: dict[int, int]) -> None:
    if platform.libc_ver()[0] == "glibc" and not accelerator_installed():
        libc = ctypes.CDLL(None)
        for option, value in options.items():
            libc.mallopt(option, value)
