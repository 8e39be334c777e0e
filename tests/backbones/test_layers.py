"""Layers: the CPU lowering equals plain lax, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same_gradients import assert_same_with_gradients, normal

from ftjax.backbones import layers
from ftjax.kernels import convolution, winograd
from ftjax.kernels.depthwise import explicit_pads
from ftjax.machine.threads import POOL_SIZE

ASYMMETRIC = ((0, 1), (2, 1))


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
        (2, (2, 2), 5, 1, "SAME"),  # taps that never meet the image
        (19, (3, 4), 5, 1, "SAME"),  # 20 images in two groups, one of zeros
        (2, (4, 3), 5, 2, "SAME"),
        (3, (3, 3), 3, 1, "SAME"),  # as many taps as pixels
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


@pytest.mark.parametrize("threads", ["1", "2", "4"])  # of more, no blocks of channels
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (9, 8)])  # pixels added at once, and by rows
def test_depthwise_in_blocks_equals_lax(threads, kernel, strides, size, monkeypatch):
    monkeypatch.setenv(POOL_SIZE, threads)

    def form(lowering):
        return lambda x, k: layers.depthwise_conv(x, k, strides, lowering=lowering)

    x, k = normal(0, (2, *size, 48)), normal(1, (kernel, kernel, 1, 48))
    assert ("while" in lowered(form("cpu"), x, k)) == (kernel == 5 and threads != "4")
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


def lowered(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text()


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (14, 15)])
@pytest.mark.parametrize("channels", [(3, 5), (5, 3), (128, 130), (130, 128)])
def test_pointwise_equals_lax(size, strides, channels):
    def form(lowering):
        return lambda x, k: layers.pointwise_conv(x, k, strides, lowering=lowering)

    x, k = normal(0, (2, *size, channels[0])), normal(1, (1, 1, *channels))
    assert_same_with_gradients(form("cpu"), form("lax"), x, k / channels[0] ** 0.5)


def test_scaled_images_equal_lax():
    def form(lowering):
        return lambda x, gates: layers.scale_images(x, gates, lowering=lowering)

    x, gates = normal(0, (3, 4, 5, 6)), normal(1, (3, 1, 1, 6))
    assert_same_with_gradients(form("cpu"), form("lax"), x, gates)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "strides", "padding", "channels"),
    [
        (2, (6, 7), 3, 1, "SAME", 4),
        (2, (6, 7), 3, 2, "SAME", 4),
        (2, (7, 6), 3, 1, "SAME", 3),  # of images
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
        (3, (4, 6), "SAME"),  # tiles of 2x2 need no more products than those of 2x4
        (2, (16, 20), "SAME"),  # tiles of 4x4
        (2, (15, 18), ASYMMETRIC),  # that hang over the edge
        (2, (16, 6), "SAME"),  # of 4x2
    ],
)
def test_wide_conv_equals_lax(batch, size, padding, monkeypatch):
    monkeypatch.setattr(convolution, "WINOGRAD_TAPS", 0)

    def form(lowering):
        conv = layers.Conv(5, 3, 1, padding, use_bias=False, lowering=lowering)
        return lambda x, k: conv.apply({"params": {"kernel": k}}, x)

    x, k = normal(0, (batch, *size, 4)), normal(1, (3, 3, 4, 5))
    assert "convolution" not in lowered(form("cpu"), x, k)
    assert_same_with_gradients(form("cpu"), form("lax"), x, k)


@pytest.mark.parametrize(("batch", "groups"), [(4, 2), (7, 7), (12, 6)])
def test_wide_conv_by_groups_equals_the_whole(batch, groups, monkeypatch):
    pads = ((1, 1), (1, 1))

    def all_three(x, k, grad):
        return (
            winograd.winograd_conv(x, k, pads),
            winograd.winograd_input_gradient(grad, k, pads),
            winograd.winograd_kernel_gradient(x, grad, pads),
        )

    with jax.enable_x64(True):
        shapes = (batch, 9, 8, 4), (3, 3, 4, 5), (batch, 9, 8, 5)
        x, k, grad = (
            jnp.asarray(normal(seed, shape), jnp.float64)
            for seed, shape in enumerate(shapes)
        )
        image = x[0].nbytes + grad[0].nbytes
        assert "while" not in lowered(all_three, x, k, grad)
        whole = all_three(x, k, grad)
        monkeypatch.setattr(winograd, "WHOLE_BYTES", 0)
        monkeypatch.setattr(winograd, "GROUP_BYTES", 2 * image)
        monkeypatch.setattr(winograd, "GRADIENT_BYTES", 2 * image)
        text = lowered(lambda *inputs: all_three(*inputs), x, k, grad)
        assert f"tensor<{groups}x{batch // groups}x9x8x4xf64>" in text
        for part, expected in zip(all_three(x, k, grad), whole, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 6), (8, 12), (16, 12)])  # tiles 2x2, 2x4, 4x4
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


def test_relu_equals_the_usual_one_and_keeps_its_result_alone():
    x = normal(0, (2, 3, 4, 5)).at[0, 0].set(0).at[1, 0, 0, 0].set(-0.0)
    assert_same_with_gradients(layers.relu, jax.nn.relu, x, scale=0)
    y, pull = jax.vjp(layers.relu, x)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)


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
    params = {"kernel": normal(1, (1, 1, 4, 5)), "bias": normal(2, (5,))}
    variables = {"params": params}
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
    assert layers.preferred_lowering(jnp.float64) == "cpu"
    assert layers.preferred_lowering(jnp.bfloat16) == "lax"


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
