"""Calls that XLA:CPU makes one kernel of compute what the function computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.kernels.xla_calls import one_kernel
from ftjax.machine.threads import POOL_SIZE
from ftjax.training.optimizer import Hyper, init_unit, update_unit

KERNELS = 'xla_cpu_small_call="true"'

pytestmark = pytest.mark.numeric


def pair(x, y):
    return {"sum": x + y, "rows": (x * y).sum(-1)}


@pytest.mark.parametrize("threads", ["1", "2"])
def test_one_kernel_computes_the_same(threads, monkeypatch):
    monkeypatch.setenv(POOL_SIZE, threads)
    x, y = jnp.arange(12.0).reshape(3, 4), jnp.ones((3, 4))
    compiled = jax.jit(lambda x, y: one_kernel(pair)(x, y)).lower(x, y).compile()
    assert (KERNELS in compiled.as_text()) == (threads == "1")
    jax.tree.map(np.testing.assert_array_equal, compiled(x, y), pair(x, y))


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_update_is_the_same_as_one_kernel(name, monkeypatch):
    rng = np.random.default_rng(0)

    def draw(**shapes):
        return {key: jnp.asarray(rng.normal(size=s)) for key, s in shapes.items()}

    params = {"conv": draw(kernel=(3, 3, 2, 5)), "bn": draw(scale=5, bias=5)}
    grads = {"conv": draw(kernel=(3, 3, 2, 5))}
    state = init_unit(params, name=name, trainable=("conv",))
    hyper = Hyper(*map(jnp.float32, (1e-2, 10, 0.1)))

    def update():
        update_unit.clear_cache()
        return update_unit(
            params, grads, state, hyper, name=name, trainable=("conv",), head=False
        )

    plain = update()
    monkeypatch.setenv(POOL_SIZE, "1")
    joined = update()
    update_unit.clear_cache()
    assert jax.tree.structure(plain) == jax.tree.structure(joined)
    for one, other in zip(*map(jax.tree.leaves, (plain, joined)), strict=True):
        # Less than 16 operations on each number, the largest near 3.
        np.testing.assert_allclose(one, other, rtol=16 * 2.0**-24, atol=3 * 2.0**-24)
    np.testing.assert_array_equal(joined[0]["bn"]["scale"], params["bn"]["scale"])
    assert (joined[0]["conv"]["kernel"] != params["conv"]["kernel"]).all()
