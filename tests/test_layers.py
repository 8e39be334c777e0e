"""Layers: the CPU lowering equals plain lax, forward and backward; BN equals Keras."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ftjax.backbones import convolution, layers, normalization, winograd
from ftjax.backbones.depthwise import explicit_pads

ASYMMETRIC = ((0, 1), (2, 1))


def assert_same_with_gradients(first, second, *arguments, scale=1e-5):
    """Outputs and all gradients equal, relative to the largest entry of each."""

    def run(function):
        out, pull = jax.vjp(function, *arguments)
        leaves, tree = jax.tree.flatten(out)
        weights = [jnp.cos(jnp.arange(a.size, dtype=a.dtype)) for a in leaves]
        seeds = [w.reshape(a.shape) for w, a in zip(weights, leaves, strict=True)]
        return out, pull(jax.tree.unflatten(tree, seeds))

    left, right = jax.jit(lambda: (run(first), run(second)))()
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * float(abs(b).max()))


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "strides", "padding"),
    [
        (2, (6, 7), 3, 1, "SAME"),
        (2, (6, 7), 3, 2, "SAME"),
        (9, (5, 6), 3, 2, ASYMMETRIC),  # a batch that 8 does not divide
        (2, (5, 6), 3, 1, ASYMMETRIC),
        (2, (6, 7), 5, 1, "SAME"),
        (3, (6, 7), 5, 2, "SAME"),
        (2, (7, 8), 5, 1, "VALID"),
        (2, (5, 6), 5, 2, ASYMMETRIC),
        (2, (2, 2), 5, 1, "SAME"),  # taps that never meet the picture
        (19, (3, 4), 5, 1, "SAME"),  # 20 pictures in two groups, one of zeros
        (2, (4, 3), 5, 2, "SAME"),
        (2, (4, 4), 5, 1, ASYMMETRIC),
        (2, (5, 4), 1, 2, "SAME"),  # the kernel is smaller than the stride
        (1, (8, 7), 3, 3, "SAME"),
        (1, (3, 4), 3, 1, ((3, 0), (0, 4))),  # more padding than the kernel reaches
    ],
)
def test_depthwise_equals_lax(batch, size, kernel, strides, padding):
    def form(lowering):
        return lambda x, k: layers.depthwise_conv(
            x, k, strides, padding, lowering=lowering
        )

    x, k = normal(0, (batch, *size, 3)), normal(1, (kernel, kernel, 1, 3))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_pointwise_equals_lax(size, strides):
    def form(lowering):
        return lambda x, k: layers.pointwise_conv(x, k, strides, lowering=lowering)

    x, k = normal(0, (2, *size, 3)), normal(1, (1, 1, 3, 5))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "strides", "padding", "channels"),
    [
        (2, (6, 7), 3, 1, "SAME", 4),
        (2, (6, 7), 3, 2, "SAME", 4),
        (2, (7, 6), 3, 1, "SAME", 3),  # of pictures
        (3, (9, 12), 3, 2, ASYMMETRIC, 3),
        (3, (2, 2), 3, 1, "SAME", 4),  # a product of patches
        (3, (3, 5), 3, 2, ASYMMETRIC, 4),
        (2, (7, 8), 5, 1, "VALID", 4),
        (3, (40, 30), 3, 1, "SAME", 4),  # the gradient in bands of rows
        (2, (67, 64), 7, 2, ((3, 3), (3, 3)), 4),
        (4, (9, 9), 2, 1, ASYMMETRIC, 4),  # more padding than the kernel reaches
    ],
)
def test_conv_equals_lax(batch, size, kernel, strides, padding, channels):
    def form(lowering):
        conv = layers.Conv(5, kernel, strides, padding, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k, "bias": bias}}, x)

    bias = normal(2, (5,))
    x = normal(0, (batch, *size, channels))
    k = normal(1, (kernel, kernel, channels, 5))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize(
    ("batch", "size", "padding"),
    [
        (2, (6, 8), "SAME"),
        (3, (5, 7), "SAME"),  # tiles that hang over the edge
        (2, (7, 8), "VALID"),
        (2, (5, 6), ASYMMETRIC),
        (12, (9, 8), "SAME"),  # in groups of pictures
        (3, (4, 6), "SAME"),  # tiles of 2x2 need no more products than those of 2x4
    ],
)
def test_wide_conv_equals_lax(batch, size, padding, monkeypatch):
    monkeypatch.setattr(convolution, "WINOGRAD_TAPS", 0)
    monkeypatch.setattr(winograd, "GROUP_BYTES", 2**12)

    def form(lowering):
        conv = layers.Conv(5, 3, 1, padding, use_bias=False, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k}}, x)

    x, k = normal(0, (batch, *size, 4)), normal(1, (3, 3, 4, 5))
    assert "convolution" not in jax.jit(form("cpu")).lower(x, k).as_text()
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize("size", [(8, 6), (8, 12)])  # tiles of 2x2 and 2x4 pixels
def test_wide_conv_rounds_little(size):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, *size, 256)), rng.normal(size=(3, 3, 256, 16))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + size[0], j : j + size[1]] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    y = winograd.winograd_conv(jnp.float32(x), jnp.float32(kernel), ((1, 1), (1, 1)))
    assert abs(y - exact).max() < 3e-6 * abs(exact).max()


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [(2, 2, "VALID"), (3, 2, "SAME"), (3, 2, ((1, 1), (1, 1)))],
)
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_max_pool_equals_lax(size, window, strides, padding):
    def form(lowering):
        return lambda x: layers.max_pool(x, window, strides, padding, lowering=lowering)

    # Rounded after relu: many equal maxima, so that the choice among them is tested.
    x = jnp.round(jax.nn.relu(normal(0, (2, *size, 3))))
    assert_same_with_gradients(form("cpu"), form("lax"), x)


def test_max_pool_spreads_nan():
    x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0, 0].set(jnp.nan).at[0, 1, 1, 2].set(jnp.nan)
    pooled = layers.max_pool(x, 2, 2, lowering="cpu")
    np.testing.assert_array_equal(pooled[0, 0, 0], [np.nan, 0, np.nan])


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
        scale=1e-5 if center == 0 else 1e-4,  # x itself has 1e-5 of a deviation
    )


def test_relu_equals_the_usual_one_and_keeps_its_result_alone():
    x = normal(0, (2, 3, 4, 5)).at[0, 0].set(0).at[1, 0, 0, 0].set(-0.0)
    assert_same_with_gradients(layers.relu, jax.nn.relu, x, scale=0)
    y, pull = jax.vjp(layers.relu, x)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)


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
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var, x.var((0, 1, 2), dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
def test_batch_norm_trains_as_keras_does(lowering):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("the Keras oracle needs KERAS_BACKEND=jax")
    x = 100 + normal(0, (4, 5, 5, 3))
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
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], oracle.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], oracle.moving_variance, rtol=1e-5)
    y = module.apply(variables, x, use_batch_stats=False)
    np.testing.assert_allclose(y, oracle(x, training=False), rtol=1e-5, atol=1e-4)


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
    np.testing.assert_allclose(without.mean((0, 1, 2)), np.zeros(3), atol=1e-5)


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


@pytest.mark.parametrize("lowering", ["cpu", "lax"])
def test_modules_have_keras_shapes(lowering):
    x = normal(0, (2, 7, 6, 4))
    conv = layers.Conv(6, 3, 2, ((1, 1), (1, 1)), groups=2, lowering=lowering)
    variables = conv.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (3, 3, 2, 6)
    assert variables["params"]["bias"].shape == (6,)
    assert conv.apply(variables, x).shape == (2, 4, 3, 6)
    depthwise = layers.DepthwiseConv(5, 2, lowering=lowering)
    variables = depthwise.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel"}
    assert variables["params"]["kernel"].shape == (5, 5, 1, 4)
    assert depthwise.apply(variables, x).shape == (2, 4, 3, 4)


def test_pointwise_module_equals_plain_convolution():
    x = normal(0, (2, 7, 6, 4))
    plain, fast = (layers.Conv(5, 1, 2, lowering=form) for form in ("lax", "cpu"))
    variables = plain.init(jax.random.key(0), x)
    variables["params"]["bias"] = normal(1, (5,))
    expected = plain.apply(variables, x)
    np.testing.assert_allclose(fast.apply(variables, x), expected, atol=1e-5)


def test_global_average_pool():
    x = normal(0, (2, 4, 3, 5))
    expected = np.asarray(x).reshape(2, 12, 5).mean(1)
    np.testing.assert_allclose(layers.global_average_pool(x), expected, atol=1e-6)


def test_lowering_follows_the_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert layers.preferred_lowering() == "lax"
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert layers.preferred_lowering() == "cpu"


def test_bad_arguments_are_named():
    x = jnp.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match="padding='FULL' is unknown; use 'SAME'"):
        explicit_pads((4, 4), (3, 3), (1, 1), "FULL")
    with pytest.raises(ValueError, match="has 1 pairs; give one for the height"):
        explicit_pads((4, 4), (3, 3), (1, 1), ((1, 1),))
    with pytest.raises(ValueError, match="lowering='gpu' is unknown"):
        layers.max_pool(x, 2, 2, lowering="gpu")
    with pytest.raises(ValueError, match="the kernel is 3x3; a pointwise"):
        layers.pointwise_conv(x, jnp.ones((3, 3, 2, 2)))
