"""Whole trials: freeze, seeds, forms of an epoch, BatchNorm policies, micro-batches."""

from functools import partial

import jax
import numpy as np
import pytest
from rounding import TINY_LAYERS, adam_drift, rounding
from train_tiny import TRAINED, on_device, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.data import read_ahead
from ftjax.depth import make_cut
from ftjax.sweep import records
from ftjax.training.suffix import make_suffix

# Nothing, within an MBConv, whole units, within a projection shortcut, everything.
DEPTHS = (0, 7, 18, 46, 59)
LOSSES = ("loss", "val_loss", "train_mode_loss")
ROUNDINGS = TINY_LAYERS * 8 * 16 * 16  # a sum over the pixels of a batch in each layer
DOUBLE = rounding(ROUNDINGS, "float64")
ADAM = adam_drift(4, 1e-2 * 10, DOUBLE)  # steps of `train_tiny`, at the head's rate


@pytest.fixture(scope="module")
def tiny():
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.02, x.shape), params)
    stats = jax.tree.map(lambda x: x + rng.uniform(0, 0.5, x.shape), stats)
    params, stats = jax.tree.map(np.float32, (params, stats))
    images = rng.integers(0, 256, (TRAINED + 4, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 4).astype(np.int32)
    return network, params, stats, images, labels


@pytest.fixture
def double(tiny):
    """In float64, where rounding is far below what a wrong formula would change."""
    with jax.enable_x64(True):
        yield in_dtype(tiny, "float64")


def in_dtype(tiny, dtype):
    network, *trees, images, labels = tiny
    trees = jax.tree.map(lambda x: x.astype(dtype), trees)
    return with_dtype(network, dtype), *trees, images, labels


def assert_close(found, expected, bound, kinds=("/params/", "/batch_stats/")):
    """Leaf by leaf, relative to the largest value of each."""
    for name, leaf in expected.state.items():
        if any(kind in name for kind in kinds):
            limit = bound * max(abs(leaf).max(), 1)
            np.testing.assert_allclose(
                found.state[name], leaf, rtol=0, atol=limit, err_msg=name
            )


def losses(trained):
    return [[epoch[name] for name in LOSSES] for epoch in trained.epochs]


@pytest.mark.parametrize(
    "depth, policy",
    [(depth, "follow") for depth in DEPTHS]
    + [(46, "frozen"), (18, "recalibrate")]
    # Ends of the same kinds as those above.
    + [pytest.param(depth, "follow", marks=pytest.mark.slow) for depth in (3, 48, 55)]
    + [pytest.param(18, "frozen", marks=pytest.mark.slow)],
)
def test_frozen_leaves_stay_bit_identical_and_have_no_state(
    tiny, tmp_path, depth, policy
):
    network, params, stats, *_ = tiny
    (trained,) = train_tiny(*tiny, tmp_path, depth=depth, policy=policy)
    suffix = make_suffix(network, make_cut(network, depth), policy)
    may_change = set()
    for unit, trainable, batch_norm, _ in suffix:
        may_change |= {f"state/params/{unit.name}/{key}/" for key in trainable}
        may_change |= {f"state/batch_stats/{unit.name}/{key}/" for key in batch_norm}
    head = network.units[-1].name
    for kind, tree in (("params", params), ("batch_stats", stats)):
        for unit, layers in tree.items():
            for layer, leaves in layers.items():
                for leaf, before in leaves.items():
                    name = f"state/{kind}/{unit}/{layer}/"
                    after = trained.state.get(name + leaf)
                    if unit == head or after is None:
                        continue
                    same = np.array_equal(before, after)
                    assert same == (name not in may_change), name + leaf
    trainable = sum(
        leaf.size
        for unit, keys, *_ in suffix
        for key in keys
        for leaf in params[unit.name][key].values()
    )
    moments = [v for k, v in trained.state.items() if "/opt_state/" in k and v.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * trainable


@pytest.mark.numeric
def test_the_stored_boundary_does_not_change_the_numbers(double, tmp_path):
    (stored,) = train_tiny(*double, tmp_path / "stored")
    (recomputed,) = train_tiny(*double, tmp_path / "recomputed", boundary=0)
    np.testing.assert_allclose(losses(stored), losses(recomputed), rtol=ADAM)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("dtype", "optimizer", "bound"),
    [("float32", "sgd", rounding(ROUNDINGS)), ("float64", "adam", ADAM)],
)
def test_a_fused_epoch_equals_its_steps(tiny, tmp_path, dtype, optimizer, bound):
    with jax.enable_x64(dtype == "float64"):
        own = in_dtype(tiny, dtype)
        settings = {"boundary": 0, "seeds": (0, 1), "micro_batch": 4}
        train = partial(train_tiny, *own, optimizer=optimizer, **settings)
        plain = train(tmp_path / "plain")
        fused = train(tmp_path / "fused", form=on_device, fused=True)
    for mine, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(losses(mine), losses(other), rtol=bound)
        assert_close(other, mine, bound)
        kernels = [leaf for name, leaf in other.state.items() if "kernel" in name]
        assert {leaf.dtype for leaf in kernels} == {np.dtype(dtype)}
    for path in (tmp_path / "plain").rglob("steps.npy"):
        steps = np.load(tmp_path / "fused" / path.relative_to(tmp_path / "plain"))
        np.testing.assert_allclose(steps, np.load(path), rtol=max(bound, 1e-6))


def test_seeds_are_replicates_and_repeat(tiny, tmp_path):
    first, again, other = (
        losses(train_tiny(*tiny, tmp_path / str(number), seeds=(seed,))[0])
        for number, seed in enumerate((0, 0, 1))
    )
    assert str(first) == str(again)  # not a number is not equal to itself
    assert str(first) != str(other)


@pytest.mark.numeric
def test_seeds_at_once_have_the_numbers_of_one_after_the_other(double, tmp_path):
    """Also with drop-connect, micro-batches, and frozen units that are run again."""
    settings = {"policy": "recalibrate", "boundary": 0, "micro_batch": 4}
    train = partial(train_tiny, *double, **settings)
    alone = [train(tmp_path / str(seed), seeds=(seed,))[0] for seed in (3, 5)]
    both = train(tmp_path / "both", seeds=(3, 5))
    for mine, other in zip(alone, both, strict=True):
        np.testing.assert_allclose(losses(mine), losses(other), rtol=ADAM)
        np.testing.assert_array_equal(mine.correct, other.correct)
        assert_close(other, mine, ADAM)


def test_policies_differ_in_which_statistics_move(tiny, tmp_path):
    ends = {
        policy: train_tiny(*tiny, tmp_path / policy, policy=policy)[0].state
        for policy in ("follow", "frozen", "recalibrate")
    }
    name = "state/batch_stats/top/bn/mean"
    before = tiny[2]["top"]["bn"]["mean"]
    np.testing.assert_array_equal(ends["frozen"][name], before)
    assert (ends["follow"][name] != before).all()
    assert (ends["follow"][name] != ends["recalibrate"][name]).all()
    # Training does not read the running statistics of a BatchNorm that is trained.
    for path, leaf in ends["follow"].items():
        if "/params/" in path:
            np.testing.assert_array_equal(leaf, ends["recalibrate"][path])


def test_activations_read_ahead_from_disk_give_the_same_numbers(
    tiny, tmp_path, monkeypatch
):
    def mapped(x):
        np.save(tmp_path / f"{len(x)}.npy", x)
        return np.load(tmp_path / f"{len(x)}.npy", mmap_mode="r").view(np.ndarray)

    train = partial(train_tiny, *tiny, policy="recalibrate", boundary=0, micro_batch=4)
    (expected,) = train(tmp_path / "memory")
    monkeypatch.setattr(read_ahead, "MIN_BYTES", 0)
    (found,) = train(tmp_path / "mapped", form=mapped)
    assert str(losses(found)) == str(losses(expected))


@pytest.mark.numeric
def test_micro_batches_make_the_step_of_the_whole_batch(double, tmp_path):
    """With BatchNorm frozen; drop-connect belongs to the image, not to the batch."""
    settings = {"policy": "frozen", "optimizer": "sgd", "epochs": 1}
    train = partial(train_tiny, *double, **settings)
    (whole,) = train(tmp_path / "whole", micro_batch=8)
    (parts,) = train(tmp_path / "parts", micro_batch=2)
    assert_close(parts, whole, DOUBLE)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=DOUBLE)
    for name in ("steps", "train_mode_accuracy"):
        assert parts.epochs[0][name] == whole.epochs[0][name]


def test_steps_are_kept_over_a_resume(tiny, tmp_path):
    """Loss and accuracy of each step; their means are the epoch's numbers."""
    train = partial(train_tiny, *tiny, seeds=(0, 1), micro_batch=4, policy="frozen")
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", epochs=1)
    train(tmp_path / "parts")
    assert {p.name for p in (tmp_path / "parts/trials").iterdir()} == {
        p.name for p in (tmp_path / "whole/trials").iterdir()
    }
    files = sorted((tmp_path / "whole/trials").glob("*/steps.npy"))
    curves = [np.load(path) for path in files]
    for path, curve in zip(files, curves, strict=True):
        assert (curve.dtype, curve.shape) == (np.float32, (4, 2))
        other = records.read_steps(tmp_path / "parts", path.parent.name)
        np.testing.assert_array_equal(other, curve)
    names = ("train_mode_loss", "train_mode_accuracy")
    expected = [[[e[n] for n in names] for e in t.epochs] for t in whole]
    means = np.array(curves).reshape(2, 2, 2, 2).mean(axis=2)
    np.testing.assert_allclose(sorted(means.tolist()), sorted(expected), rtol=1e-6)
