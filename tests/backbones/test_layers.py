"""Layers: shapes, the form for the backend, and bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounding import rounding
from same_gradients import assert_same_with_gradients, normal

from ftjax.backbones import layers, lowering, pooling
from ftjax.kernels.depthwise import explicit_pads

pytestmark = pytest.mark.numeric


def test_scaled_images_equal_lax():
    def form(lowering):
        return lambda x, gates: layers.scale_images(x, gates, lowering=lowering)

    x, gates = normal(0, (3, 4, 5, 6)), normal(1, (3, 1, 1, 6))
    assert_same_with_gradients(form("cpu"), form("lax"), x, gates)


def test_relu_equals_the_usual_one_and_keeps_its_result_alone():
    x = normal(0, (2, 3, 4, 5)).at[0, 0].set(0).at[1, 0, 0, 0].set(-0.0)
    assert_same_with_gradients(layers.relu, jax.nn.relu, x, scale=0)
    y, pull = jax.vjp(layers.relu, x)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)


@pytest.mark.parametrize("form", ["cpu", "lax"])
def test_modules_have_keras_shapes(form):
    x = normal(0, (2, 7, 6, 4))
    conv = layers.Conv(6, 3, 2, ((1, 1), (1, 1)), groups=2, lowering=form)
    variables = conv.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (3, 3, 2, 6)
    assert variables["params"]["bias"].shape == (6,)
    assert conv.apply(variables, x).shape == (2, 4, 3, 6)
    depthwise = layers.DepthwiseConv(5, 2, lowering=form)
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
    np.testing.assert_allclose(
        pooling.global_average_pool(x), expected, atol=rounding(12) * abs(x).max()
    )


def test_lowering_follows_the_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lowering.preferred_lowering() == "lax"
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert lowering.preferred_lowering() == "cpu"
    assert lowering.preferred_lowering(jnp.float64) == "cpu"
    assert lowering.preferred_lowering(jnp.bfloat16) == "lax"


def test_bad_arguments_are_named():
    x = jnp.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match="padding='FULL' is unknown; use 'SAME'"):
        explicit_pads((4, 4), (3, 3), (1, 1), "FULL")
    with pytest.raises(ValueError, match="has 1 pairs; give one for the height"):
        explicit_pads((4, 4), (3, 3), (1, 1), ((1, 1),))
    with pytest.raises(ValueError, match="lowering='gpu' is unknown"):
        pooling.max_pool(x, 2, 2, lowering="gpu")
    with pytest.raises(ValueError, match="the kernel is 3x3; a pointwise"):
        layers.pointwise_conv(x, jnp.ones((3, 3, 2, 2)))
