"""Penalties, momentum and rates of the optimizer, against the formulas step by step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.training.optimizer import Hyper, init_unit, update_unit

NUMBERS = {"learning_rate": 0.1, "head_lr_factor": 2.0, "weight_decay": 0.0}
KERNEL, BIAS = np.array([[1.0, -2.0]]), np.array([0.5, 0.0])
GRADS = [(np.array([[0.3, -0.1]]), np.array([0.2, 0.4])) for _ in range(3)]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def run(head=False, name="sgd", **more):
    """Kernel and bias after three steps."""
    hyper = Hyper(**{k: np.float64(v) for k, v in {**NUMBERS, **more}.items()})
    params = {"dense": {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}}
    options = {"name": name, "trainable": ("dense",), "head": head}
    state = init_unit(params, hyper, **options)
    state = jax.tree.map(lambda x: x.astype("float64") if x.ndim else x, state)
    for kernel, bias in GRADS:
        grads = {"dense": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
        params, state = update_unit(params, grads, state, hyper, **options)
    return params["dense"]["kernel"], params["dense"]["bias"]


def by_hand(lr=0.1, bias_lr=None, momentum=0.9, l2=0.0, l1=0.0):
    kernel, bias = KERNEL.copy(), BIAS.copy()
    speed, bias_speed = 0.0, 0.0
    for grad, bias_grad in GRADS:
        speed = momentum * speed + grad + l2 * kernel + l1 * np.sign(kernel)
        bias_speed = momentum * bias_speed + bias_grad
        kernel = kernel - lr * speed
        bias = bias - (lr if bias_lr is None else bias_lr) * bias_speed
    return kernel, bias


close = partial(np.testing.assert_allclose, rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.5}, {"momentum": 0.0}, {"l2": 0.3}, {"l1": 0.2}]
)
def test_sgd_adds_penalties_to_the_gradient_of_kernels_alone(options):
    for found, expected in zip(run(**options), by_hand(**options), strict=True):
        close(found, expected)


def test_the_heads_biases_have_a_factor_of_their_own():
    found = run(head=True, head_bias_lr_factor=20.0)
    for one, expected in zip(found, by_hand(lr=0.2, bias_lr=2.0), strict=True):
        close(one, expected)


def test_layer_decay_is_a_power_of_the_distance():
    found = run(layer_decay=0.5, distance=3)
    for one, expected in zip(found, by_hand(lr=0.1 / 8), strict=True):
        close(one, expected)


def test_adam_sees_the_penalty_too():
    plain, penalized = run(name="adam"), run(name="adam", l2=0.3)
    assert (plain[0] != penalized[0]).all()
    np.testing.assert_array_equal(plain[1], penalized[1])
