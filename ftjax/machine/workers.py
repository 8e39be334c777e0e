"""Work that runs side by side, each in a thread of its own.

One trial leaves the cores of a CPU idle now and then: while a small layer is not
worth sharing, while Python prepares the next program, while XLA compiles. A second one
takes these gaps.
"""

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def in_threads(
    call: Callable[[], object], count: int, seconds: float | None = None
) -> Iterator[None]:
    """Within it, `count` threads run `call`; its end waits for them.

    An error in one of them, or within (Ctrl-C), stops the others at their next
    `stop_point`, and is raised when they have ended.

    Args:
        call: what each thread runs.
        count: how many.
        seconds: after which all of them are stopped; None: never.

    Raises:
        Stopped: the caller came to a `stop_point` after that time.
    """
    stop = threading.Event()
    timer = None if seconds is None else threading.Timer(seconds, stop.set)
    errors: list[BaseException] = []

    def run() -> None:
        _own.stop = stop
        try:
            call()
        except Stopped:
            pass
        except BaseException as error:  # the caller's thread raises it
            errors.append(error)
            stop.set()

    # A caller that is stopped twice does not wait for a last step.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    if timer is not None:
        timer.daemon = True
        timer.start()
    before, _own.stop = getattr(_own, "stop", None), stop
    try:
        yield
    except Stopped:
        if not errors:
            raise
    except BaseException:
        stop.set()
        raise
    finally:
        _own.stop = before
        for thread in threads:
            thread.join()
        if timer is not None:
            timer.cancel()
    if errors:
        raise errors[0]


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
