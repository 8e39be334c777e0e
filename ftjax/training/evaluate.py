"""Measuring a network: evaluation mode, and running statistics estimated anew."""

from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.frozen.forward import batches, infer
from ftjax.machine.mesh import fetch, shard_batch
from ftjax.machine.stacking import Variants, share
from ftjax.trees import Tree


def evaluate(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    frozen: Sequence[Unit] = (),
    variants: Variants | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Inference mode over a data set.

    Args:
        units: from `frozen`, or the boundary of `x`, to the classifier.
        params: by unit; of `units`, (variants, ...) if several trials are evaluated.
        batch_stats: running statistics, likewise.
        x: (n, ...) inputs of the first unit.
        labels: (n,) class indices.
        batch_size: images per step; the result does not depend on it.
        mesh: devices that share a batch.
        frozen: units before `units`, the same for all trials.
        variants: trials that are evaluated at once.

    Returns:
        Mean cross-entropy in nats, (), and per image whether the answer is right,
        (n,); with variants (variants,) and (variants, n).
    """
    losses, correct, start = [], [], 0
    for rows, count in batches(x, batch_size):
        y = infer(frozen, params, batch_stats, shard_batch(rows, mesh))
        logits = infer(units, params, batch_stats, share(y, variants), variants)
        answers = np.resize(labels[start : start + count], batch_size)
        answers = share(shard_batch(answers, mesh), variants)
        batch_losses, batch_correct = score(logits, answers)
        losses.append((batch_losses, count))
        correct.append((batch_correct, count))
        start += count
    total = [fetch(values)[..., :count] for values, count in losses]
    right = [fetch(values)[..., :count] for values, count in correct]
    mean = np.concatenate(total, axis=-1).mean(axis=-1, dtype=np.float64)
    return mean, np.concatenate(right, axis=-1)


@jax.jit
def score(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Per image: cross-entropy in nats, and whether the largest logit is right."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, logits.argmax(-1) == labels
