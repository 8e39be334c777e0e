"""Which of its two forms a layer takes.

Every function of `layers` and `pooling` has two lowerings: 'lax', the plain form that
GPU and TPU want, and 'cpu', equal to it in value and gradient but written so that
XLA:CPU runs it fast. `preferred_lowering` picks one by backend, here and nowhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp

_plain = ContextVar("plain", default=False)


@contextmanager
def plain_lowering() -> Iterator[None]:
    """Inside, every layer has its plain form: the one whose FLOPs people count."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def preferred_lowering(dtype: jax.typing.DTypeLike = jnp.float32) -> str:
    """Return 'cpu' on the CPU backend, 'lax' on every other one.

    The forms for the CPU add up in the type of their input: not for bfloat16.
    """
    precise = dtype in (jnp.float32, jnp.float64)
    cpu = jax.default_backend() == "cpu" and precise
    return "cpu" if cpu and not _plain.get() else "lax"


def resolve_lowering(lowering: str | None, dtype: jax.typing.DTypeLike) -> str:
    """The lowering that is asked for, or where none is the preferred one.

    Raises:
      ValueError: there is no such form.
    """
    if lowering is None:
        return preferred_lowering(dtype)
    if lowering not in ("lax", "cpu"):
        raise ValueError(
            f"lowering={lowering!r} is unknown; use 'lax', 'cpu' or None (by backend)"
        )
    return lowering
