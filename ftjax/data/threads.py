"""A function of many small items, by a thread per core."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

CHUNK = 16  # items a thread takes at a time: handing them over costs 50 us


def map_ordered(
    function: Callable[[Item], Value], items: Sequence[Item]
) -> Iterator[Value]:
    """`function` of every item, in order, a few chunks ahead of what was asked for."""

    def run(start: int) -> list[Value]:
        return [function(item) for item in items[start : start + CHUNK]]

    threads = os.cpu_count() or 1
    starts = iter(range(0, len(items), CHUNK))
    with ThreadPoolExecutor(threads) as pool:
        first = itertools.islice(starts, 2 * threads)
        coming = deque(pool.submit(run, start) for start in first)
        while coming:
            values = coming.popleft().result()
            coming.extend(pool.submit(run, s) for s in itertools.islice(starts, 1))
            yield from values
