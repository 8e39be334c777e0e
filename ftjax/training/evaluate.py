"""Measuring a network in evaluation mode."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.frozen.forward import batches, infer
from ftjax.machine.mesh import fetch, shard_batch
from ftjax.machine.stacking import Variants, share
from ftjax.trees import Tree


class Evaluation(NamedTuple):
    """What a network answers to a data set; of stacked trials, (variants, ...) each.

    Attributes:
        loss: mean cross-entropy in nats.
        correct: (n,) whether the largest logit is that of the label.
        logits: (n, classes) float32.
    """

    loss: np.ndarray
    correct: np.ndarray
    logits: np.ndarray


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
) -> Evaluation:
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
    """
    found, start = [], 0
    for rows, count in batches(x, batch_size):
        y = infer(frozen, params, batch_stats, shard_batch(rows, mesh))
        logits = infer(units, params, batch_stats, share(y, variants), variants)
        answers = np.resize(labels[start : start + count], batch_size)
        answers = share(shard_batch(answers, mesh), variants)
        found.append((cross_entropies(logits, answers), logits, count))
        start += count
    losses = [fetch(values)[..., :count] for values, _, count in found]
    logits = [fetch(values)[..., :count, :] for _, values, count in found]
    losses, logits = np.concatenate(losses, axis=-1), np.concatenate(logits, axis=-2)
    return as_evaluation(losses, logits, labels)


def as_evaluation(
    losses: np.ndarray, logits: np.ndarray, labels: np.ndarray
) -> Evaluation:
    """What was found of every image, (n,) and (n, classes), with its right answer."""
    loss = losses.mean(axis=-1, dtype=np.float64)
    return Evaluation(loss, logits.argmax(-1) == labels, logits)


@jax.jit
def cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Per image, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
