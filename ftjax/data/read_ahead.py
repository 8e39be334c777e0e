"""Rows of an array that is mapped from disk, read while the network is busy.

Grain is imported where it is used: a command that only prints its help does not wait
for it.
"""

import mmap
from collections.abc import Iterator, Sequence

import numpy as np

# A smaller array is in the system's page cache after the first pass.
MIN_BYTES = 2**30
THREADS = 8  # reads under way at a time, and batches held


def is_mapped(x: np.ndarray) -> bool:
    """Whether an array, or the one that it is a view of, lies in a mapped file."""
    while isinstance(x, np.ndarray) and not isinstance(x, np.memmap):
        x = x.base
    return isinstance(x, np.memmap | mmap.mmap)


def read_ahead(x: np.ndarray, batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields x[rows] for every `rows` of `batches`, in order.

    Of a large mapped array, Grain's threads read the next batches from disk meanwhile;
    what is in memory is copied when it is asked for.

    Args:
        x: (n, ...).
        batches: (size,) indices each.
    """
    if x.nbytes < MIN_BYTES or not is_mapped(x):
        yield from (x[rows] for rows in batches)
        return
    import grain

    def read(rows):
        return x[rows]

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    yield from grain.MapDataset.source(batches).map(read).to_iter_dataset(options)
