"""The step: suffix against whole network, freeze, BatchNorm policies."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.backbones.stochastic_depth import residual_scales
from ftjax.data import read_ahead
from ftjax.depth import make_cut
from ftjax.frozen.forward import Activations, advance, infer
from ftjax.frozen.placement import Room, choose_boundary
from ftjax.frozen.proof import changed_leaves, digests
from ftjax.machine.stacking import stack, unstack
from ftjax.training import optimizer as optim
from ftjax.training.epochs import Problem, run_epochs
from ftjax.training.evaluate import evaluate
from ftjax.training.recalibrate import recalibrate
from ftjax.training.step import init_state, train_step
from ftjax.training.suffix import make_suffix

HYPER = optim.Hyper(jnp.float32(1e-2), jnp.float32(10), jnp.float32(1e-3))
# Whole units, within a projection shortcut, within an MBConv, nothing, everything.
DEPTHS = (0, 3, 7, 18, 46, 48, 55, 59)


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
    "depth, policy", [(0, "follow"), (7, "follow"), (46, "follow"), (7, "frozen")]
)
def test_suffix_step_is_the_labelled_step_of_the_whole(tiny, depth, policy):
    network, params, stats, images, answers = tiny
    cut = make_cut(network, depth)
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
            "train": optim.sgd(HYPER.learning_rate, HYPER.weight_decay),
            "head": optim.sgd(10 * HYPER.learning_rate, HYPER.weight_decay),
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
            suffix, state, jnp.asarray(middle[rows]), y, None, HYPER, optimizer="sgd"
        )
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    for unit in state.params:
        jax.tree.map(close, state.params[unit], plain_params[unit])
        jax.tree.map(close, state.batch_stats[unit], plain_stats[unit])


@pytest.mark.parametrize(
    "depth, policy",
    [(depth, "follow") for depth in DEPTHS]
    + [(18, "frozen"), (46, "frozen"), (18, "recalibrate")],
)
def test_frozen_leaves_stay_bit_identical_and_have_no_state(tiny, depth, policy):
    network, params, stats, *_ = tiny
    cut = make_cut(network, depth)
    suffix = make_suffix(network, cut, policy)
    *_, (state, _, _) = run_epochs(problem(tiny, depth, policy), *start(tiny, suffix))
    trainable = {part.unit.name: part.trainable for part in suffix}
    batch_norm = {part.unit.name: part.batch_norm for part in suffix}
    after = {**params, **state.params}, {**stats, **state.batch_stats}
    before = digests(params, stats)
    allowed = {"trainable": trainable, "batch_norm": batch_norm}
    assert changed_leaves(before, *after, **allowed) == ()
    changed = changed_leaves(before, *after, trainable={}, batch_norm={})
    kernels = {name for name in changed if name.endswith("kernel")}
    expected = {
        f"params/{unit}/{key}/kernel"
        for unit, keys in trainable.items()
        for key in keys
        if "kernel" in params[unit][key]
    }
    assert kernels == expected
    for part in suffix:
        leaves = jax.tree.leaves(state.opt_state[part.unit.name])
        moments = sum(leaf.size for leaf in leaves if leaf.ndim)
        own = params[part.unit.name]
        learned = jax.tree.leaves({key: own[key] for key in part.trainable})
        assert moments == 2 * sum(leaf.size for leaf in learned)


def problem(tiny, depth, policy, boundary=None, seed=0):
    network, params, stats, images, answers = tiny
    cut = make_cut(network, depth)
    boundary = cut.unit if boundary is None else boundary
    middle = advance(network[:boundary], params, stats, images, batch_size=8)
    return Problem(
        network=network,
        cut=cut,
        policy=policy,
        params=params,
        batch_stats=stats,
        activations=Activations(boundary, middle[:16], middle[16:]),
        train_labels=answers[:16],
        val_labels=answers[16:],
        hyper=HYPER,
        optimizer="adam",
        batch_size=8,
        micro_batch=8,
        drop_connect=0.5,
        seeds=(seed,),
    )


def start(tiny, suffix):
    _, params, stats, *_ = tiny
    return init_state(suffix, params, stats, optimizer="adam"), 1, 2


def test_the_stored_boundary_does_not_change_the_numbers(tiny):
    suffix = make_suffix(tiny[0], make_cut(tiny[0], 18), "follow")
    runs = [
        [epoch for _, (epoch,), _ in run_epochs(made, *start(tiny, suffix))]
        for made in (problem(tiny, 18, "follow"), problem(tiny, 18, "follow", 0))
    ]
    for stored, recomputed in zip(*runs, strict=True):
        np.testing.assert_allclose(stored.loss, recomputed.loss, rtol=1e-5)
        np.testing.assert_allclose(stored.val_loss, recomputed.val_loss, rtol=1e-5)


# In float32 rounding grows with each step: at a rate of 0.01 to 2e-5 of a loss.
@pytest.mark.parametrize(
    ("dtype", "rate", "bound"), [("float32", 1e-3, 1e-5), ("float64", 1e-2, 1e-6)]
)
def test_a_fused_epoch_equals_its_steps(tiny, dtype, rate, bound):
    with jax.enable_x64(dtype == "float64"):
        network, *trees, images, answers = tiny
        trees = jax.tree.map(lambda x: x.astype(dtype), trees)
        own = with_dtype(network, dtype), *trees, images, answers
        made = problem(own, 18, "follow", 0)._replace(micro_batch=4, seeds=(0, 1))
        count, variants = len(made.seeds), made.variants
        hyper = jax.tree.map(jnp.dtype(dtype).type, HYPER._replace(learning_rate=rate))
        made = made._replace(hyper=stack([hyper] * count, variants))
        splits = made.activations.train, made.activations.val
        there = Activations(0, *map(jax.device_put, splits))
        suffix = make_suffix(own[0], made.cut, "follow")
        states, numbers = [], []
        for form in (made, made._replace(activations=there, fused=True)):
            state, first, last = start(own, suffix)
            state = stack([state] * count, variants)
            for ended in run_epochs(form, state, first, last):
                state, epochs, _ = ended
            states.append(state.params)
            numbers.append([epoch[:-1] for epoch in epochs])
        np.testing.assert_allclose(*numbers, rtol=bound)
        for plain, fused in zip(*map(jax.tree.leaves, states), strict=True):
            assert fused.dtype == dtype
            # At most 1 % of a step of Adam.
            np.testing.assert_allclose(fused, plain, atol=1e-5)


def test_seeds_are_replicates_and_repeat(tiny):
    suffix = make_suffix(tiny[0], make_cut(tiny[0], 18), "follow")

    def losses(seed):
        made = problem(tiny, 18, "follow", seed=seed)
        ends = run_epochs(made, *start(tiny, suffix))
        return [epoch.val_loss for _, (epoch,), _ in ends]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_seeds_at_once_have_the_numbers_of_one_after_the_other(tiny):
    """Also with drop-connect, micro-batches, and frozen units that are run again."""
    made = problem(tiny, 18, "recalibrate", boundary=0)._replace(micro_batch=4)
    suffix = make_suffix(made.network, made.cut, made.policy)
    expected = []
    for seed in (3, 5):
        *_, end = run_epochs(made._replace(seeds=(seed,)), *start(tiny, suffix))
        expected.append(end)
    both = made._replace(seeds=(3, 5))
    both = both._replace(hyper=stack([HYPER] * 2, both.variants))
    states = [start(tiny, suffix)[0] for _ in range(2)]
    stacked = stack(states, both.variants)
    *_, (stacked, epochs, right) = run_epochs(both, stacked, 1, 2)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    states = unstack(stacked, both.variants)
    for index, (alone, (epoch,), (answers,)) in enumerate(expected):
        close(epochs[index][:-1], epoch[:-1])
        np.testing.assert_array_equal(right[index], answers)
        jax.tree.map(close, states[index], alone)


def test_policies_differ_in_which_statistics_move(tiny):
    network, params, stats, *_ = tiny
    ends = {}
    for policy in ("follow", "frozen", "recalibrate"):
        suffix = make_suffix(network, make_cut(network, 18), policy)
        *_, (ends[policy], _, _) = run_epochs(
            problem(tiny, 18, policy), *start(tiny, suffix)
        )
    before = stats["top"]["bn"]
    np.testing.assert_array_equal(
        ends["frozen"].batch_stats["top"]["bn"]["mean"], before["mean"]
    )
    assert (ends["follow"].batch_stats["top"]["bn"]["mean"] != before["mean"]).all()
    # Training does not read the running statistics of a BatchNorm that is trained.
    jax.tree.map(
        np.testing.assert_array_equal, ends["follow"].params, ends["recalibrate"].params
    )
    assert (
        ends["follow"].batch_stats["top"]["bn"]["mean"]
        != ends["recalibrate"].batch_stats["top"]["bn"]["mean"]
    ).all()


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
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(var, values.var(0), rtol=1e-4)


def test_activations_read_ahead_from_disk_give_the_same_numbers(
    tiny, tmp_path, monkeypatch
):
    suffix = make_suffix(tiny[0], make_cut(tiny[0], 18), "recalibrate")
    made = problem(tiny, 18, "recalibrate", boundary=0)._replace(micro_batch=4)
    np.save(tmp_path / "train.npy", made.activations.train)
    train = np.load(tmp_path / "train.npy", mmap_mode="r").view(np.ndarray)
    mapped = made._replace(activations=made.activations._replace(train=train))
    *_, (_, expected, _) = run_epochs(made, *start(tiny, suffix))
    monkeypatch.setattr(read_ahead, "MIN_BYTES", 0)
    *_, (_, found, _) = run_epochs(mapped, *start(tiny, suffix))
    assert [one._replace(seconds=0) for one in found] == [
        one._replace(seconds=0) for one in expected
    ]


def test_micro_batches_make_the_step_of_the_whole_batch(tiny):
    """With BatchNorm frozen; drop-connect belongs to the image, not to the batch."""
    suffix = make_suffix(tiny[0], make_cut(tiny[0], 18), "frozen")
    ends = []
    for size in (8, 2):
        made = problem(tiny, 18, "frozen")._replace(micro_batch=size, optimizer="sgd")
        state = init_state(suffix, *tiny[1:3], optimizer="sgd")
        ends += run_epochs(made, state, 1, 1)
    (whole, (expected,), _), (state, (found,), _) = ends
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, whole.params)
    assert found.steps == expected.steps
    for name in ("loss", "val_loss", "train_mode_loss", "train_mode_accuracy"):
        close(getattr(found, name), getattr(expected, name))


def test_bfloat16_computes_and_float32_keeps(tiny):
    network, params, stats, images, answers = tiny
    cut = make_cut(network, 46)
    y = jnp.asarray(answers[:8])
    scales = np.full((len(network.units), 8), 1.5, np.float32)[cut.unit :]
    metrics, ends = {}, {}
    for dtype in ("float32", "bfloat16"):
        made = with_dtype(network, dtype)
        middle = advance(made[: cut.unit], params, stats, images[:8], batch_size=8)
        assert middle.dtype == dtype
        suffix = make_suffix(made, cut, "follow")
        state = init_state(suffix, params, stats, optimizer="adam")
        state, metrics[dtype] = train_step(
            suffix, state, jnp.asarray(middle), y, scales, HYPER, optimizer="adam"
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


def test_drop_connect_draws_the_same_numbers_at_every_depth():
    rates = (0.0, 0.25, 0.5)
    scales = residual_scales(jax.random.key(0), 3, rates, 2, 2000)
    assert scales.shape == (2, 3, 2000)
    scales = np.swapaxes(scales, 0, 1).reshape(3, -1)
    assert (scales[0] == 1).all()
    np.testing.assert_allclose(np.unique(scales[1]), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(scales.mean(1), 1, atol=0.06)


def test_evaluation_does_not_depend_on_the_batch_size(tiny):
    network, params, stats, images, answers = tiny
    results = [
        evaluate(network[:], params, stats, images, answers, batch_size=size)
        for size in (3, 8, 20)
    ]
    for loss, correct in results[1:]:
        np.testing.assert_allclose(loss, results[0][0], rtol=1e-5)
        np.testing.assert_array_equal(correct, results[0][1])


def test_the_boundary_is_the_latest_that_fits():
    room = Room((100, 4_000, 3_000, 1_000, 200), (1.0,) * 5, memory=3_000)
    assert choose_boundary(room, 4) == 4
    assert choose_boundary(room, 2) == 2
    assert choose_boundary(room._replace(memory=2_999), 2) == 0
    assert choose_boundary(room._replace(memory=1_000), 3) == 3


def test_the_disk_takes_what_is_read_faster_than_made():
    room = Room((100, 400, 300, 100, 50), (9.0, 9.0, 9.0, 9.0, 9.0), 60, 300, 0.05)
    assert choose_boundary(room, 1) == 0  # larger than the disk
    assert choose_boundary(room, 2) == 2  # 300 bytes as 15 FLOPs beside 18
    assert choose_boundary(room._replace(flops_per_byte=0.1), 2) == 0
    # While one is written the one before is read: 300 and 100 bytes.
    assert choose_boundary(room, 3, previous=2) == 2
    assert choose_boundary(room._replace(disk=400), 3, previous=2) == 3
    assert choose_boundary(room, 4, previous=2) == 4  # in memory


def test_unknown_policy():
    network = with_head(make_backbone("tiny"), 3)
    with pytest.raises(ValueError, match="unknown BatchNorm policy 'off'.*follow"):
        make_suffix(network, make_cut(network, 3), "off")
