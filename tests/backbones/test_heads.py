"""A head may have several units; all of them are fresh, trained, and no depth."""

from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import Layer, Unit, draw_variables, init, variable_shapes
from ftjax.backbones.heads import (
    UNIT_NAMES,
    draw_head,
    is_of_head,
    linear_head,
    make_head,
    with_head,
)
from ftjax.backbones.layers import drop_out
from ftjax.data.images import Arrays, Dataset
from ftjax.depth import make_cut
from ftjax.probes import probe_curve
from ftjax.sweep.cost import measure_cost, trainable_params
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

SIZE = 16


class Hidden(nn.Module):
    """A Dense layer before the classifier."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return nn.relu(nn.Dense(5, name="hidden")(x))


@pytest.fixture(scope="module")
def deep():
    """tiny with a head of two Dense layers."""
    pool, last = linear_head(3)
    hidden = Unit("hidden", Hidden(), (Layer("hidden", "Dense", "hidden"),))
    return replace(make_backbone("tiny"), head=(pool, hidden, last))


def test_a_linear_head_is_drawn_by_the_seed_itself():
    """As in every earlier version: trials of a seed start from the same head."""
    network = with_head(make_backbone("tiny"), 7)
    params, batch_stats = draw_head(network, 5, SIZE)
    shapes = variable_shapes(network.units, SIZE)[-1]
    expected = {"avg_pool": {}, "predictions": draw_variables(shapes["params"], 5)}
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert batch_stats == {"avg_pool": {}, "predictions": {}}
    assert tuple(unit.name for unit in network.head) == UNIT_NAMES


def test_every_unit_of_a_head_is_drawn(deep):
    params, _ = draw_head(deep, 5, SIZE)
    other, _ = draw_head(deep, 6, SIZE)
    for name in ("hidden", "predictions"):
        kernel = params[name][name]["kernel"]
        assert kernel.std() > 0 and (kernel != other[name][name]["kernel"]).all()
    assert not np.isin(params["hidden"]["hidden"]["kernel"], kernel).any()


def test_hidden_layers_by_their_widths():
    head = make_head(7, "500d0.5,75")
    assert [unit.dropout for unit in head] == [0, 0, 0.5, 0]
    network = replace(make_backbone("tiny"), head=head)
    params, _ = draw_head(network, 5, SIZE, 0.01)
    shapes = [params[unit.name][unit.parameter_keys[0]] for unit in head[1:]]
    assert [layer["kernel"].shape[1] for layer in shapes] == [500, 75, 7]
    kernel = shapes[1]["kernel"]  # of 37,500 numbers: five standard errors
    assert kernel.std() == pytest.approx(0.01, rel=5 / np.sqrt(2 * kernel.size))
    assert make_head(7) == make_head(7, "linear") == linear_head(7)
    assert all(is_of_head(unit.name) for unit in head)
    assert not any(is_of_head(unit.name) for unit in network.body)


def test_dropout_scales_what_it_keeps():
    x = np.full((4, 10_000), 3.0, np.float32)
    numbers = np.array([0.1, 0.2, 0.1, 0.7], np.float32)
    y = np.asarray(drop_out(x, 0.25, numbers))
    np.testing.assert_allclose(np.unique(y), [0, 4], rtol=1e-6)
    share = (y == 0).mean(axis=1)
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 10_000))
    assert (y[0] == y[2]).all() and (y[0] != y[1]).any()  # by the number alone
    assert drop_out(x, 0.25, None) is x and drop_out(x, 0.0, numbers) is x


def test_depth_counts_the_body_alone(deep):
    plain = with_head(make_backbone("tiny"), 3)
    assert (deep.layers, deep.num_units) == (plain.layers, plain.num_units)
    cost = measure_cost(deep, SIZE)
    for depth in (0, 3, len(deep.layers)):
        cut, expected = make_cut(deep, depth), make_cut(plain, depth)
        assert cut.depth_units == expected.depth_units
        assert cut.trainable[-2:] == (("hidden",), ("predictions",))
        assert trainable_params(deep, cut, cost) == trainable_params(
            plain, expected, measure_cost(plain, SIZE)
        )


def test_depth_zero_trains_all_of_the_head(deep):
    parts = make_suffix(deep, make_cut(deep, 0), "follow")
    assert [part.unit.name for part in parts] == ["hidden", "predictions"]
    assert all(part.head for part in parts)


def test_the_heads_learning_rate_is_that_of_all_its_units(deep):
    params, batch_stats = init(deep.units, 0, SIZE)
    suffix = make_suffix(deep, make_cut(deep, 3), "frozen")
    state = init_state(suffix, params, batch_stats, optimizer="sgd")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2, 2, 8)).astype(np.float32)
    hyper = Hyper(*map(np.float32, (0.1, 0.0, 0.0)))
    labels = np.array([0, 1, 2, 0], np.int32)
    after, _ = train_step(suffix, state, [Batch(x, labels)], hyper, optimizer="sgd")
    for name in ("hidden", "predictions"):
        jax.tree.map(
            np.testing.assert_array_equal, after.params[name], state.params[name]
        )
    old, new = (each.params["top"]["conv"]["kernel"] for each in (state, after))
    assert (new != old).any()


def test_probes_look_at_what_comes_before_the_head(deep):
    params, batch_stats = init(deep.body, 0, SIZE)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, SIZE, SIZE, 3)).astype(np.uint8)
    split = Arrays(images, (np.arange(24) % 3).astype(np.int32))
    dataset = Dataset("made", ("a", "b", "c"), split, split, None, "0", "", 0)
    found, expected = (
        probe_curve(network, params, batch_stats, dataset, batch_size=8)
        for network in (deep, with_head(make_backbone("tiny"), 3))
    )
    assert found.equals(expected)
