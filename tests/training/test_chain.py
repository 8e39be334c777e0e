"""A chain of units backward equals autodiff of the whole network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import apply, init
from ftjax.backbones.heads import with_head
from ftjax.training import chain

NETWORK = with_head(make_backbone("tiny"), 3)
SIZE = 16


@pytest.fixture(scope="module")
def weights():
    return init(NETWORK.units, 0, SIZE)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def dy():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)


def close(found, expected):
    scale = max(float(jnp.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)


def test_gradients_of_all_parameters(weights, images, dy):
    params, batch_stats = weights
    tape = chain.record(NETWORK.units, *weights, jnp.asarray(images), with_params=True)
    found = {step.unit: step.params for step in chain.backward(tape, dy)}
    assert list(found) == [unit.name for unit in reversed(NETWORK.units)]

    @jax.jit
    def score(params):
        return (apply(NETWORK.units, params, batch_stats, images) * dy).sum()

    jax.tree.map(close, found, jax.grad(score)(params))


@pytest.mark.parametrize("with_params", [False, True])
def test_gradients_of_all_inputs(weights, images, dy, with_params):
    tape = chain.record(
        NETWORK.units, *weights, jnp.asarray(images), with_params=with_params
    )
    steps = {step.unit: step for step in chain.backward(tape, dy)}
    first, *others = NETWORK.units
    assert with_params == (first.name in steps)  # images are integers
    if with_params:
        assert steps[first.name].input is None
    for index, unit in enumerate(others, start=1):
        x = tape.outputs[NETWORK.units[index - 1].name]

        @jax.jit
        def score(x, index=index):
            return (apply(NETWORK.units[index:], *weights, x) * dy).sum()

        close(steps[unit.name].input, jax.grad(score)(x))
        assert bool(jax.tree.leaves(steps[unit.name].params)) == (
            with_params and bool(unit.parameter_keys)
        )


def test_a_tape_can_be_run_again(weights, images, dy):
    tape = chain.record(NETWORK.units, *weights, jnp.asarray(images))
    once, twice = (
        [step.input for step in chain.backward(tape, factor * dy)] for factor in (1, 2)
    )
    for one, two in zip(once, twice, strict=True):
        close(two, 2 * one)
