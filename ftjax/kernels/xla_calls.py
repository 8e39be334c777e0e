"""Functions as calls within a program, where XLA:CPU would make worse of them inlined.

Other backends do not need them: there XLA fuses what belongs together.
"""

import functools

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from ftjax.machine.threads import one_thread


def standalone(function):
    """`function` as a call that XLA does not inline.

    Its operands are computed before it. Inlined, XLA:CPU computes what they come from
    (normalization, activation) again in each of the shifted reads; it drops
    `optimization_barrier` before it decides, and a loop runs on one thread.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*arguments):
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call


def in_new_array(function):
    """`function` of arrays (..., c), the first as large as the result, not in place.

    Where nobody reads an operand later, XLA:CPU writes the result over it. LLVM then
    sees two addresses that may overlap and runs the loop value by value: 0.87 ns each
    instead of 0.2. An operand of another shape is left alone, so the result is rows.
    """

    @standalone
    def rows(*arrays):
        y = function(*arrays)
        return y.reshape(-1, y.shape[-1])

    return lambda *arrays: rows(*arrays).reshape(arrays[0].shape)


def one_kernel(function):
    """`function` as a single kernel, where XLA:CPU's pool has one thread.

    A program of many small loops that do not depend on each other gives some of them to
    the pool and waits. Where each trial has a core of its own, the pool's thread has
    none: it takes that of another trial, and both wait.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*arguments):
        if jax.default_backend() != "cpu" or not one_thread():
            return function(*arguments)
        with set_xla_metadata(inlineable="false", xla_cpu_small_call="true"):
            return compiled(*arguments)

    return call
