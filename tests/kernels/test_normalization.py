"""BatchNorm: its written gradients equal the derived ones, its training Keras'."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rounding import rounding
from same_gradients import assert_same_with_gradients, normal

from ftjax.backbones import layers
from ftjax.kernels import normalization

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
@pytest.mark.parametrize(
    ("shape", "center", "activation"),
    [
        ((4, 5, 3, 6), 0.0, layers.identity),
        ((4, 5, 3, 6), 100.0, layers.identity),
        ((8, 6), 0.0, layers.identity),
        ((4, 5, 3, 6), 0.0, layers.swish),
        ((2, 3, 53, 6), 0.0, layers.swish),  # too many pixels to be added in one loop
        ((2, 3, 64, 6), 0.0, layers.swish),
        ((8, 6), 0.0, layers.relu6),
    ],
)
def test_normalize_equals_derived_gradient(shape, center, activation, lowering):
    x = center + normal(0, shape)
    scale, bias = 1 + normal(1, (6,)) / 4, normal(2, (6,))
    assert_same_with_gradients(
        lambda *a: normalization.normalize_batch(*a, 1e-3, activation, lowering),
        lambda *a: normalization.normalize_reference(*a, 1e-3, activation),
        x,
        scale,
        bias,
        # The mean's error weighs as often as the mean has deviations.
        scale=(1 + center) * rounding(math.prod(shape[:-1])),
    )


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
def test_scale_and_shift_equals_derived_gradient(lowering):
    x, factor, shift = normal(0, (4, 5, 3, 6)), 1 + normal(1, (6,)), normal(2, (6,))

    def derived(x, factor, shift):
        return layers.swish(x * factor.reshape(1, 1, 1, 6) + shift.reshape(1, 1, 1, 6))

    assert_same_with_gradients(
        lambda *a: normalization.scale_and_shift(*a, layers.swish, lowering),
        derived,
        x,
        factor,
        shift,
    )


class Widened(nn.Module):
    """A convolution and the BatchNorm behind it, as blocks have them."""

    use_bias: bool
    activation: Callable
    lowering: str

    @nn.compact
    def __call__(self, x, use_batch_stats):
        conv = layers.Conv(8, use_bias=self.use_bias, lowering=self.lowering)
        # Without momentum, lest the gradient of the bias be rounding alone.
        norm = layers.BatchNorm(1e-3, 0.0, self.activation, self.lowering)
        return norm(x, use_batch_stats=use_batch_stats, conv=conv)


@pytest.mark.parametrize("use_batch_stats", [True, False])
@pytest.mark.parametrize(
    ("size", "center", "use_bias", "activation"),
    [
        (8, 0.0, False, layers.swish),
        (8, 3.0, False, layers.identity),
        (7, 3.0, True, layers.relu6),
        (2, 3.0, True, layers.swish),  # few pixels: two layers as ever
    ],
)
def test_product_norm_equals_convolution_and_norm(
    size, center, use_bias, activation, use_batch_stats
):
    x = center + normal(0, (4, size, size, 3))
    modules = {form: Widened(use_bias, activation, form) for form in ("cpu", "lax")}
    start = modules["lax"].init(jax.random.key(1), x, True)
    leaves, tree = jax.tree.flatten(start)
    moved = [leaf + normal(n, leaf.shape) ** 2 / 4 for n, leaf in enumerate(leaves)]
    variables = jax.tree.unflatten(tree, moved)
    for own in variables["params"].values():
        if "kernel" in own:
            own["kernel"] = normal(9, own["kernel"].shape)

    def form(lowering):
        def run(params, batch_stats, x):
            y, updated = modules[lowering].apply(
                {"params": params, "batch_stats": batch_stats},
                x,
                use_batch_stats,
                mutable=["batch_stats"],
            )
            return y, updated

        return run

    own = variables["params"], variables["batch_stats"], x
    assert jax.tree.structure(modules["cpu"].init(jax.random.key(1), x, True)) == tree
    assert_same_with_gradients(form("cpu"), form("lax"), *own)


def test_product_norm_keeps_one_array_of_what_is_wide():
    x, module = normal(0, (4, 8, 8, 3)), Widened(False, layers.swish, "cpu")
    variables = module.init(jax.random.key(0), x, True)

    def run(params, x):
        return module.apply({**variables, "params": params}, x, True)

    _, pull = jax.vjp(run, variables["params"], x)
    wide = (*x.shape[:-1], 8)
    sizes = [leaf.size for leaf in jax.tree.leaves(pull)]
    assert sizes.count(math.prod(wide)) == 1


@pytest.mark.parametrize("use_batch_stats", [True, False])
def test_norm_and_activation_keep_one_array_of_activations(use_batch_stats):
    x = normal(0, (4, 5, 3, 6))
    module = layers.BatchNorm(activation=layers.swish)
    variables = module.init(jax.random.key(0), x, use_batch_stats=True)

    def run(params, x):
        own = {**variables, "params": params}
        return module.apply(own, x, use_batch_stats=use_batch_stats)

    _, pull = jax.vjp(run, variables["params"], x)
    assert sum(leaf.shape == x.shape for leaf in jax.tree.leaves(pull)) == 1


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
def test_moments_survive_a_large_mean(lowering):
    x = np.asarray(100 + normal(0, (8, 6, 6, 4)))
    mean, var = normalization.batch_moments(jnp.asarray(x), lowering)
    bound = rounding(8 * 6 * 6)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), dtype=np.float64), rtol=bound)
    np.testing.assert_allclose(var, x.var((0, 1, 2), dtype=np.float64), rtol=2 * bound)


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
def test_batch_norm_trains_as_keras_does(lowering):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("the Keras oracle needs KERAS_BACKEND=jax")
    x = 100 + normal(0, (4, 5, 5, 3))
    bound = 100 * rounding(100)  # of a mean of 100 numbers near 100, or a deviation
    oracle = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    oracle.build(x.shape)
    module = layers.BatchNorm(epsilon=1e-3, momentum=0.9, lowering=lowering)
    variables = module.init(jax.random.key(0), x, use_batch_stats=True)
    for _ in range(3):
        expected = oracle(x, training=True)
        y, state = module.apply(
            variables, x, use_batch_stats=True, mutable=["batch_stats"]
        )
        variables = {**variables, **state}
        np.testing.assert_allclose(y, expected, rtol=0, atol=bound)
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], oracle.moving_mean, rtol=bound / 100)
    np.testing.assert_allclose(stats["var"], oracle.moving_variance, rtol=bound)
    y = module.apply(variables, x, use_batch_stats=False)
    np.testing.assert_allclose(y, oracle(x, training=False), atol=bound)


def test_batch_norm_statistics_are_written_only_when_asked():
    x = 3 + normal(0, (4, 5, 5, 3))
    module = layers.BatchNorm()
    start = module.init(jax.random.key(0), x, use_batch_stats=True)
    np.testing.assert_array_equal(start["batch_stats"]["mean"], np.zeros(3))
    _, frozen = module.apply(start, x, use_batch_stats=False, mutable=["batch_stats"])
    for name in ("mean", "var"):
        np.testing.assert_array_equal(
            frozen["batch_stats"][name], start["batch_stats"][name]
        )
    without = module.apply(start, x, use_batch_stats=True)  # not mutable: no error
    np.testing.assert_allclose(
        without.mean((0, 1, 2)), np.zeros(3), atol=4 * rounding(100)
    )


def test_momentum_zero_gives_the_moments_and_may_be_traced():
    x = 3 + normal(0, (4, 5, 5, 3))
    module = layers.BatchNorm(lowering="cpu")
    variables = module.init(jax.random.key(0), x, use_batch_stats=True)

    @jax.jit
    def statistics(momentum):
        _, state = module.apply(
            variables,
            x,
            use_batch_stats=True,
            momentum=momentum,
            mutable=["batch_stats"],
        )
        return state["batch_stats"], normalization.batch_moments(x, "cpu")

    stats, (mean, var) = statistics(jnp.float32(0))
    np.testing.assert_array_equal(stats["mean"], mean)
    np.testing.assert_array_equal(stats["var"], var)
    kept, _ = statistics(jnp.float32(1))
    np.testing.assert_array_equal(kept["var"], np.ones(3))


def test_frozen_batch_norm_keeps_nothing_where_only_x_is_differentiated():
    x = normal(0, (4, 6, 6, 3))
    module = layers.BatchNorm()
    variables = module.init(jax.random.key(0), x, use_batch_stats=False)
    pull = jax.vjp(lambda x: module.apply(variables, x, use_batch_stats=False), x)[1]
    assert max(leaf.size for leaf in jax.tree.leaves(pull)) <= 3


def test_batch_norm_in_training_keeps_only_its_input():
    x = normal(0, (4, 6, 6, 3))
    pull = jax.vjp(
        lambda *a: normalization.normalize_batch(*a, 1e-3)[0], x, x[0, 0, 0], x[0, 0, 0]
    )[1]
    large = [leaf for leaf in jax.tree.leaves(pull) if leaf.size > 3]
    assert len(large) == 1
    np.testing.assert_array_equal(large[0], x)
