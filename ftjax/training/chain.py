"""A chain of units forward and backward, in inference mode.

Grad-CAM wants the gradient at every boundary, probes that of every parameter. Units
of equal shape share compiled programs, so a new depth or class compiles nothing. The
step of training (`step`) goes another way: batch statistics, and updates on the way.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax

from ftjax.backbones.backbone import Unit, variables
from ftjax.frozen.forward import infer_unit
from ftjax.training.residuals import leave_out
from ftjax.trees import Tree


class Tape(NamedTuple):
    """A forward pass that can be run backward any number of times.

    Attributes:
        outputs: of every unit, by its name; input first.
        pullbacks: by unit; None where there is nothing to differentiate.
    """

    outputs: dict[str, jax.Array]
    pullbacks: dict[str, Callable | None]

    @property
    def logits(self) -> jax.Array:
        """Output of the last unit."""
        return self.outputs[next(reversed(self.outputs))]


class Step(NamedTuple):
    """What going backward through one unit gives.

    Attributes:
        unit: its name.
        params: gradients of its parameters; empty if they were not asked for.
        input: gradient of its input; None for the first unit.
    """

    unit: str
    params: Tree
    input: jax.Array | None


def record(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: jax.Array,
    *,
    with_params: bool = False,
) -> Tape:
    """Runs units in inference mode and keeps what the backward pass needs.

    Args:
        units: e.g. of a backbone with its head.
        params: by unit.
        batch_stats: running statistics by unit.
        x: input of the first unit, which is not differentiated: images are integers.
        with_params: whether parameters are differentiated, or activations alone.
    """
    outputs, pullbacks = {}, {}
    for index, unit in enumerate(units):
        own = variables(params, batch_stats, unit.name)
        if index or with_params:
            wanted = with_params, index > 0
            x, pullbacks[unit.name] = forward_unit(unit.module, wanted, own, x)
        else:
            x, pullbacks[unit.name] = infer_unit(unit.module, own, x), None
        outputs[unit.name] = x
    return Tape(outputs, pullbacks)


def backward(tape: Tape, gradient: jax.Array) -> Iterator[Step]:
    """Goes from the output to the input of a chain, a unit at a time.

    Args:
        tape: of `record`.
        gradient: with respect to the last output.

    Yields:
        The last unit's step first.
    """
    for name, pullback in reversed(tape.pullbacks.items()):
        if pullback is None:
            return
        grads, dx = backward_unit(pullback, gradient)
        yield Step(name, grads, dx)
        gradient = dx


def forward_unit(module, wanted: tuple[bool, bool], unit_variables: Tree, x: jax.Array):
    """One unit in inference mode, and its pullback.

    Args:
        module: of the unit.
        wanted: whether to differentiate its parameters, and its input.
        unit_variables: parameters and running statistics.
        x: its input.
    """
    inputs = unit_variables, x
    y, residuals = forward_program(module, wanted, inputs)
    return y, residuals.complete((inputs, y))


@partial(jax.jit, static_argnums=(0, 1))
def forward_program(module, wanted, inputs):
    """As `forward_unit`, of its arrays as a tuple; `Residuals` for the pullback."""
    unit_variables, x = inputs
    of_params, of_input = wanted
    learned = unit_variables["params"] if of_params else {}

    def run(learned, x):
        own = {**unit_variables, "params": learned} if of_params else unit_variables
        return module.apply(own, x)

    if of_input:
        y, pullback = jax.vjp(run, learned, x)
    else:
        y, pullback = jax.vjp(partial(run, x=x), learned)
    return y, leave_out(pullback, (inputs, y))


@jax.jit
def backward_unit(pullback: Callable, dy: jax.Array) -> tuple[Tree, jax.Array | None]:
    """Gradients of one unit's parameters and of its input, as far as recorded."""
    grads, *dx = pullback(dy)
    return grads, dx[0] if dx else None
