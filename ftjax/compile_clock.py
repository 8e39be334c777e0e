"""Seconds this process has spent tracing, lowering and compiling."""

import jax

_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_total = [0.0]


def _listen(event: str, duration: float, **_) -> None:
    if event in _EVENTS:
        _total[0] += duration


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_seconds() -> float:
    """Seconds since the start of the process; take differences."""
    return _total[0]
