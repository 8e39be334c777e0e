"""Seconds of trials that run side by side, and those of compilation.

While several threads work, each is charged an equal share of every second, so their
seconds add up to those that have passed.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_own = threading.local()


class _Clock:
    """Goes at full speed for one thread at work, at half speed for two, and so on."""

    def __init__(self):
        self.workers = 0
        self._lock = threading.Lock()
        self._read, self._total = time.perf_counter(), 0.0

    def read(self, joining: int = 0) -> float:
        with self._lock:
            now = time.perf_counter()
            self._total += (now - self._read) / max(1, self.workers)
            self._read = now
            self.workers += joining
            return self._total


_clock = _Clock()
_compilation = [0.0]  # of all threads
_lock = threading.Lock()


@contextmanager
def at_work() -> Iterator[None]:
    """Within it, this thread takes its share of every second."""
    _clock.read(joining=1)
    try:
        yield
    finally:
        _clock.read(joining=-1)


def seconds() -> float:
    """This thread's share of the time, if it is at work; take differences."""
    return _clock.read()


def compile_seconds() -> float:
    """Seconds of this process for tracing, lowering and compiling; take differences."""
    return _compilation[0]


def own_compile_seconds() -> float:
    """Those of this thread."""
    return getattr(_own, "compilation", 0.0)


class Stopwatch:
    """Seconds of this thread since it was made, and those of compilation among them."""

    def __init__(self):
        self._begun, self._compiled = seconds(), own_compile_seconds()

    def read(self, share: float = 1.0) -> tuple[float, float]:
        """Both, times `share`."""
        compiled = own_compile_seconds() - self._compiled
        return share * (seconds() - self._begun), share * compiled


def _listen(event: str, duration: float, **_) -> None:
    if event in _EVENTS:
        share = duration / max(1, _clock.workers)
        _own.compilation = own_compile_seconds() + share
        with _lock:
            _compilation[0] += share


jax.monitoring.register_event_duration_secs_listener(_listen)
