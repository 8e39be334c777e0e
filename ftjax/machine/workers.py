"""Generators that run side by side, each in a thread of its own.

One trial leaves the cores of a CPU idle now and then: while a small layer is not
worth sharing, while Python prepares the next program, while XLA compiles. A second one
takes these gaps.
"""

import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar

import jax

Item = TypeVar("Item")
Value = TypeVar("Value")

_own = threading.local()


class Stopped(BaseException):
    """Raised in a worker whose work is not wanted any more."""


def stop_point() -> None:
    """Ends the worker that comes here if it is to stop; elsewhere does nothing."""
    stop = getattr(_own, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


def side_by_side(
    workers: Sequence[Generator[Value, None, None]],
) -> Iterator[Value]:
    """What all workers yield, as it comes.

    An error in one of them, Ctrl-C, or a caller that takes no more stops the others at
    their next `stop_point`, and is raised when they have ended.

    Args:
        workers: generators; a single one needs no thread.
    """
    if len(workers) == 1:
        yield from workers[0]
        return
    events: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()

    def run(worker):
        _own.stop = stop
        error = None
        try:
            with closing(worker):  # or it would keep the locks that it holds
                for value in worker:
                    events.put((False, value))
                    stop_point()
        except Stopped:
            pass
        except BaseException as raised:  # the caller's thread raises it
            error = raised
        events.put((True, error))

    # A caller that is stopped twice does not wait for a last step.
    threads = [
        threading.Thread(target=run, args=[worker], daemon=True) for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            ended, value = events.get()
            if not ended:
                yield value
            elif value is not None:
                raise value
            else:
                running -= 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def map_ahead(
    function: Callable[[Item], Value], items: Iterable[Item], threads: int
) -> Iterator[Value]:
    """`function` of every item, in order, some of them at the same time.

    Args:
        function: compiles its programs at the first item, which it gets alone.
        items: taken in this thread, not many more than were asked for.
        threads: that call it; one is this thread.
    """
    items = iter(items)
    if threads == 1:
        yield from map(function, items)
        return
    yield from map(function, itertools.islice(items, 1))
    coming: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            coming.append(pool.submit(function, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@contextmanager
def in_background(every: float = 0.0) -> Iterator[Callable[..., None]]:
    """Within it, functions are called one after the other by a thread of their own.

    Of several processes, which must do all in one order, the caller's own.

    Args:
        every: least seconds from the start of one call to that of the next. What comes
            before waits; something newer takes its place. At the end, whatever ends
            it, what still waits is called.

    Yields:
        Takes a function and its arguments. It waits for the call before, and raises
        what that one raised; so does the end, for the last.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Callable[[], None] | None = None
        last, begun = None, -math.inf

        def start() -> None:
            nonlocal waiting, last, begun
            if last is not None:
                last.result()
            begun = time.monotonic()
            last, waiting = pool.submit(waiting), None

        def call(function, *arguments) -> None:
            nonlocal waiting
            if jax.process_count() > 1:
                function(*arguments)
                return
            waiting = partial(function, *arguments)
            if time.monotonic() >= begun + every:
                start()

        try:
            yield call
        finally:
            if waiting is not None:
                start()
        if last is not None:
            last.result()
