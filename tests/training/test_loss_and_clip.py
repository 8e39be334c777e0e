"""Label smoothing, mixed labels, and the norm of the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.data.augment import Mixing
from ftjax.depth import make_cut
from ftjax.frozen.forward import infer
from ftjax.machine.stacking import Variants, stack
from ftjax.training.optimizer import Hyper
from ftjax.training.programs import loss_gradient
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

LOGITS = np.random.default_rng(0).normal(0, 2, (6, 4)).astype(np.float32)
LABELS, OTHERS = np.array([0, 1, 2, 3, 0, 1]), np.array([1, 1, 0, 2, 3, 3])
SHARES = np.linspace(0.5, 1, 6).astype(np.float32)
WEIGHTS = np.float32([0.5, 1, 2, 0.5])


def one_hot(labels):
    return np.eye(4)[labels]


@pytest.mark.parametrize(
    ("smoothing", "mixed", "weighted"),
    [(0.1, False, False), (None, True, False), (0.1, True, True)],
)
def test_the_gradient_is_that_of_the_soft_targets(smoothing, mixed, weighted):
    def target(labels):
        share = smoothing or 0
        soft = (1 - share) * one_hot(labels) + share / 4
        return soft * (WEIGHTS[labels][:, None] if weighted else 1)

    targets = target(LABELS)
    if mixed:
        share = SHARES[:, None]
        targets = share * targets + (1 - share) * target(OTHERS)
    logits = LOGITS.astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (chances * targets.sum(1, keepdims=True) - targets) / 6
    gradient, metrics = loss_gradient(
        jnp.asarray(LOGITS),
        jnp.asarray(LABELS),
        class_weights=jnp.asarray(WEIGHTS) if weighted else None,
        smoothing=None if smoothing is None else jnp.float32(smoothing),
        mixing=Mixing(jnp.asarray(OTHERS), jnp.asarray(SHARES)) if mixed else None,
    )
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    plain = -np.log(chances[np.arange(6), LABELS]).sum()
    np.testing.assert_allclose(metrics.loss, plain, rtol=1e-5)


def test_clipping_scales_the_gradient_of_what_is_trained():
    """By SGD's first step; also of parts of a batch, and of two trials at once."""
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 16)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 3, 8))
    cut = make_cut(network, 2)
    suffix = make_suffix(network, cut, "frozen")
    x = infer(network[: cut.unit], params, stats, images)
    start = init_state(suffix, params, stats, optimizer="sgd")

    def change(state, begin, index=...):
        moved = jax.tree.map(lambda a, b: np.asarray(b - a[index]), state, begin)
        return {unit.name: moved[unit.name] for unit, *_ in suffix}

    def step(clip, parts=1):
        hyper = Hyper.of(learning_rate=1, head_lr_factor=1, weight_decay=0, clip=clip)
        size = 8 // parts
        batches = [
            Batch(x[i : i + size], labels[i : i + size]) for i in range(0, 8, size)
        ]
        state, _ = train_step(
            suffix, start, batches, hyper, optimizer="sgd", parts=parts
        )
        return change(state.params, start.params)

    def norm(tree):
        return np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))

    free = step(None)
    limit = float(norm(free) / 3)
    clipped, in_parts, loose = step(limit), step(limit, parts=2), step(1e6)
    np.testing.assert_allclose(norm(clipped), limit, rtol=1e-4)
    variants = Variants(2)
    numbers = [
        Hyper.of(learning_rate=1, head_lr_factor=1, weight_decay=0, clip=clip)
        for clip in (limit, 1e6)
    ]
    state, _ = train_step(
        suffix,
        stack([start, start], variants),
        [Batch(jnp.stack([x, x]), jnp.stack([labels, labels]))],
        stack([jax.device_put(own) for own in numbers], variants),
        optimizer="sgd",
        variants=variants,
    )
    both = [change(state.params, start.params, index) for index in range(2)]
    wanted = jax.tree.map(lambda leaf: leaf / 3, free)
    for found, expected in (
        (clipped, wanted),
        (in_parts, wanted),
        (both[0], wanted),
        (loose, free),
        (both[1], free),
    ):
        for mine, other in zip(
            jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
        ):
            # A parameter near 1 has moved by a rounded difference.
            np.testing.assert_allclose(
                mine, other, atol=2e-5 * max(1, abs(other).max())
            )
