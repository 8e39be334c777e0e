"""The step: suffix against whole network, freeze, BatchNorm policies."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rounding import TINY_LAYERS, adam_drift, assert_close, rounding

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.block_sets import make_set_cut
from ftjax.depth import make_cut
from ftjax.frozen.forward import advance, infer
from ftjax.training import optimizer as optim
from ftjax.training.evaluate import evaluate
from ftjax.training.recalibrate import recalibrate
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

HYPER = optim.Hyper(jnp.float32(1e-2), jnp.float32(10), jnp.float32(1e-3))
ROUNDINGS = TINY_LAYERS * 8 * 16 * 16  # a sum over the pixels of a batch in each layer
DOUBLE = rounding(ROUNDINGS, "float64")
ADAM = adam_drift(4, float(HYPER.learning_rate * HYPER.head_lr_factor), DOUBLE)

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def tiny():
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.02, x.shape), params)
    stats = jax.tree.map(lambda x: x + rng.uniform(0, 0.5, x.shape), stats)
    params, stats = jax.tree.map(np.float32, (params, stats))
    images = rng.integers(0, 256, (20, 16, 16, 3), np.uint8)
    return network, params, stats, images, rng.integers(0, 3, 20).astype(np.int32)


@pytest.fixture
def double(tiny):
    """In float64, where rounding is far below what a wrong formula would change."""
    with jax.enable_x64(True):
        yield in_dtype(tiny, "float64")


def in_dtype(tiny, dtype):
    network, *trees, images, answers = tiny
    trees = jax.tree.map(lambda x: x.astype(dtype), trees)
    return with_dtype(network, dtype), *trees, images, answers


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_start_from_zeros(name):
    params = {"conv": {"kernel": jnp.ones((2, 3))}, "bn": {"scale": jnp.ones(3)}}
    labels = optim.unit_labels(params, ("bn",))
    start = optim.make_optimizer(name, labels, HYPER).init(params)
    own = optim.init_unit(params, name=name, trainable=("bn",))
    assert jax.tree.structure(own) == jax.tree.structure(start)
    for ours, theirs in zip(*map(jax.tree.leaves, (own, start)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def whole_network_step(network, cut, policy, optimizer, params, stats, opt_state, x, y):
    """The plain way: all parameters differentiated, `optax.partition` on the labels."""
    suffix = {part.unit.name: part for part in make_suffix(network, cut, policy)}

    def loss(params):
        z, new = x, {}
        for unit in network.units:
            part = suffix.get(unit.name)
            z, updated = unit.module.apply(
                {"params": params[unit.name], "batch_stats": stats[unit.name]},
                z,
                batch_norm=part.batch_norm if part else (),
                mutable=["batch_stats"],
            )
            new[unit.name] = updated.get("batch_stats", {})
        losses = optax.softmax_cross_entropy_with_integer_labels(z, y)
        return losses.mean(), new

    grads, new_stats = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), new_stats, opt_state


@pytest.mark.parametrize(
    "where, policy",
    [
        (0, "follow"),
        (7, "follow"),
        (46, "follow"),
        (7, "frozen"),
        (("plain_conv", "res_block2"), "follow"),
        (("res_block1", "mb_block1"), "frozen"),
    ],
)
def test_suffix_step_is_the_labelled_step_of_the_whole(double, where, policy):
    network, params, stats, images, answers = double
    cut = (make_cut if isinstance(where, int) else make_set_cut)(network, where)
    suffix = make_suffix(network, cut, policy)
    tree = {
        unit.name: dict.fromkeys(unit.parameter_keys, "freeze")
        for unit in network.units
    }
    for part in suffix:
        label = "head" if part.head else "train"
        tree[part.unit.name] |= dict.fromkeys(part.trainable, label)
    optimizer = optax.partition(
        {
            "train": optim.sgd(HYPER.learning_rate, HYPER),
            "head": optim.sgd(10 * HYPER.learning_rate, HYPER),
            "freeze": optax.set_to_zero(),
        },
        tree,
    )
    plain_params, plain_stats = jax.tree.map(jnp.asarray, (params, stats))
    opt_state = optimizer.init(plain_params)
    state = init_state(suffix, params, stats, optimizer="sgd")
    step = jax.jit(partial(whole_network_step, network, cut, policy, optimizer))
    middle = advance(network[: cut.unit], params, stats, images, batch_size=8)
    for start in (0, 8):
        rows = slice(start, start + 8)
        y = jnp.asarray(answers[rows])
        plain_params, plain_stats, opt_state = step(
            plain_params, plain_stats, opt_state, jnp.asarray(images[rows]), y
        )
        state, _ = train_step(
            suffix, state, [Batch(jnp.asarray(middle[rows]), y)], HYPER, optimizer="sgd"
        )
    assert state.opt_state.keys() == {p.unit.name for p in suffix if not p.frozen}
    for unit in state.params:
        assert_close(state.params[unit], plain_params[unit], DOUBLE)
        assert_close(state.batch_stats[unit], plain_stats[unit], DOUBLE)


def test_recalibrated_statistics_are_those_of_the_whole_set(tiny):
    network, params, stats, images, _ = tiny
    suffix = make_suffix(network, make_cut(network, 2), "recalibrate")
    assert [part.batch_norm for part in suffix] == [("bn",), (), ()]
    inputs = advance(network[:7], params, stats, images[:16], batch_size=8)
    order = np.arange(16)
    found = recalibrate(suffix, (), params, stats, inputs, order, batch_size=8)
    kernel = params["top"]["conv"]["kernel"][0, 0]
    values = (inputs @ kernel).reshape(-1, kernel.shape[1]).astype(np.float64)
    mean, var = found["top"]["bn"]["mean"], found["top"]["bn"]["var"]
    bound = rounding(values.size)
    np.testing.assert_allclose(mean, values.mean(0), atol=bound * abs(values).max())
    np.testing.assert_allclose(var, values.var(0), rtol=1e-4)


def test_bfloat16_computes_and_float32_keeps(tiny):
    network, params, stats, images, answers = tiny
    cut = make_cut(network, 46)
    y = jnp.asarray(answers[:8])
    scale = np.full(8, 1.5, np.float32)
    scales = {unit.name: scale for unit in network[cut.unit :] if unit.drop_share}
    metrics, ends = {}, {}
    for dtype in ("float32", "bfloat16"):
        made = with_dtype(network, dtype)
        middle = advance(made[: cut.unit], params, stats, images[:8], batch_size=8)
        assert middle.dtype == dtype
        suffix = make_suffix(made, cut, "follow")
        state = init_state(suffix, params, stats, optimizer="adam")
        batch = Batch(jnp.asarray(middle), y, scales)
        state, (metrics[dtype],) = train_step(
            suffix, state, [batch], HYPER, optimizer="adam"
        )
        kept = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim]
        assert set(kept) == {np.dtype("float32")}
        logits = infer(made[cut.unit :], params, stats, jnp.asarray(middle))
        assert logits.dtype == np.float32
        ends[dtype] = logits, state.batch_stats
    losses = [float(metrics[dtype].loss) for dtype in ends]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert losses[0] != losses[1]
    for found, expected in zip(*map(jax.tree.leaves, ends.values()), strict=True):
        scale = float(abs(found).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * scale)


def test_evaluation_does_not_depend_on_the_batch_size(tiny):
    network, params, stats, images, answers = tiny
    results = [
        evaluate(network[:], params, stats, images, answers, batch_size=size)
        for size in (3, 8, 20)
    ]
    for loss, correct, _ in results[1:]:
        np.testing.assert_allclose(loss, results[0][0], rtol=rounding(ROUNDINGS))
        np.testing.assert_array_equal(correct, results[0][1])


def test_unknown_policy():
    network = with_head(make_backbone("tiny"), 3)
    with pytest.raises(ValueError, match="unknown BatchNorm policy 'off'.*follow"):
        make_suffix(network, make_cut(network, 3), "off")
