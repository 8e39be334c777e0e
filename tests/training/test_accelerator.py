"""On a GPU or TPU the numbers are those of the CPU.

JAX_PLATFORMS=cuda,cpu python -m pytest -n 0 tests/training/test_accelerator.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_sweep import tiny_sweep

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.depth import make_cut
from ftjax.frozen.forward import infer
from ftjax.sweep.run import run
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

pytestmark = pytest.mark.skipif(
    jax.default_backend() == "cpu", reason="no accelerator, or JAX_PLATFORMS=cpu"
)
HYPER = Hyper(jnp.float32(1e-3), jnp.float32(1), jnp.float32(0))


def train(device, name, depth, policy, dtype):
    """Losses of three steps of one batch, and the state after them, on a device."""
    network = with_dtype(with_head(make_backbone(name), 3), dtype)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 64, 64, 3), np.uint8)
    labels = rng.integers(0, 3, 16).astype(np.int32)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        params, stats = init(network.units, 0, 64)
        cut = make_cut(network, depth)
        suffix = make_suffix(network, cut, policy)
        state = init_state(suffix, params, stats, optimizer="sgd")
        x = infer(network[: cut.unit], params, stats, jax.device_put(images))
        y, losses = jax.device_put(labels), []
        for _ in range(3):
            state, (metrics,) = train_step(
                suffix, state, [Batch(x, y)], HYPER, optimizer="sgd"
            )
            losses.append(float(metrics.loss) / len(labels))
    return losses, jax.device_get(state)


@pytest.mark.parametrize("policy", ["follow", "frozen"])
def test_float32_training_is_that_of_the_cpu(policy):
    accelerator, cpu = jax.devices()[0], jax.devices("cpu")[0]
    ours = train(accelerator, "effnetb0", 100, policy, "float32")
    theirs = train(cpu, "effnetb0", 100, policy, "float32")
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["effnetlite0", "resnet50", "resnet152"])
def test_float32_forward_pass_is_that_of_the_cpu(name):
    """ReLUs and random weights: the last digit of the start moves the later steps."""
    accelerator, cpu = jax.devices()[0], jax.devices("cpu")[0]
    (loss, *_), _ = train(accelerator, name, 60, "follow", "float32")
    (expected, *_), _ = train(cpu, name, 60, "follow", "float32")
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["effnetb0", "resnet50"])
def test_bfloat16_trains_float32_parameters(name):
    accelerator = jax.devices()[0]
    losses, state = train(accelerator, name, 60, "follow", "bfloat16")
    precise, _ = train(accelerator, name, 60, "follow", "float32")
    np.testing.assert_allclose(losses, precise, atol=0.05)
    assert {x.dtype for x in jax.tree.leaves(state)} <= {
        np.dtype(t) for t in ("f4", "i4")
    }


@pytest.mark.parametrize(
    "options",
    [
        {"device_gb": 0.0},
        {"device_gb": 1.0, "cache_gb": 1.0},
        {"seeds_at_once": 2},
        {"micro_batch": 8},
    ],
    ids=str,
)
def test_a_sweep_of_any_form_gives_the_same_numbers(tmp_path, options):
    """On float32; TF32 would hide what differs."""
    usual = {"depths": ("0", "20", "59"), "bn": ("frozen",), "seeds": 2, "epochs": 2}
    tables = []
    with jax.default_matmul_precision("highest"):
        for name, extra in (("plain", {}), ("other", options)):
            out = tmp_path / name
            outcome = run(tiny_sweep(out, dtype="float32", **usual, **extra), out)
            assert not outcome.failed
            tables.append(outcome.results)
    columns = ["depth_layers", "seed", "val_accuracy", "val_loss", "accuracy"]
    plain, other = (table[columns].to_numpy(float) for table in tables)
    np.testing.assert_allclose(other, plain, atol=1e-4)
