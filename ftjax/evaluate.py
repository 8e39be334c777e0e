"""Measuring a network: evaluation mode, and running statistics estimated anew."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ftjax.backbones.backbone import Tree, Unit
from ftjax.mesh import fetch, replicate, shard_batch
from ftjax.prefix import batches, infer


def evaluate(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[float, np.ndarray]:
    """Inference mode over a data set.

    Args:
        units: from the boundary of `x` to the classifier.
        params: by unit.
        batch_stats: running statistics by unit.
        x: (n, ...) inputs of the first unit.
        labels: (n,) class indices.
        batch_size: pictures per step; the result does not depend on it.
        mesh: devices that share a batch.

    Returns:
        Mean cross-entropy in nats, and per picture whether the answer is right.
    """
    losses, correct, start = [], [], 0
    for rows, count in batches(x, batch_size):
        logits = infer(units, params, batch_stats, shard_batch(rows, mesh))
        answers = np.resize(labels[start : start + count], batch_size)
        batch_losses, batch_correct = score(logits, shard_batch(answers, mesh))
        losses.append((batch_losses, count))
        correct.append((batch_correct, count))
        start += count
    total = np.concatenate([fetch(values)[:count] for values, count in losses])
    right = np.concatenate([fetch(values)[:count] for values, count in correct])
    return float(total.mean(dtype=np.float64)), right


@jax.jit
def score(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Per picture: cross-entropy in nats, and whether the largest logit is right."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, logits.argmax(-1) == labels


@partial(jax.jit, static_argnums=(0, 1))
def moments_unit(module, batch_norm, params: Tree, batch_stats: Tree, x):
    """One unit on batch statistics; momentum 0 leaves the batch's moments in place."""
    y, updated = module.apply(
        {"params": params, "batch_stats": batch_stats},
        x,
        batch_norm=batch_norm,
        momentum=jnp.zeros(()),
        mutable=["batch_stats"],
    )
    return y, {key: updated["batch_stats"][key] for key in batch_norm}


def recalibrate(
    suffix: Sequence,
    recomputed: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Tree:
    """Population statistics of the given weights, for the BatchNorms that are trained.

    Running averages lag behind the weights they describe; these do not ("precise
    BatchNorm", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3). The
    variance of the whole set is the mean of the batches' variances plus the variance
    of their means.

    Args:
        suffix: units from the cut on, with the keys of their trained BatchNorms.
        recomputed: frozen units between `x` and the suffix.
        params: by unit.
        batch_stats: by unit.
        x: (n, ...) training set in random order; the last partial batch is left out.
        batch_size: pictures per batch, as in training.
        mesh: devices that share a batch.

    Returns:
        Running statistics of the suffix, by unit.
    """
    means, squares, count = {}, {}, 0
    for start in range(0, len(x) - batch_size + 1, batch_size):
        rows = shard_batch(x[start : start + batch_size], mesh)
        y = infer(recomputed, params, batch_stats, rows)
        count += 1
        for unit, _, batch_norm in suffix:
            name = unit.name
            y, moments = moments_unit(
                unit.module, batch_norm, params[name], batch_stats[name], y
            )
            for key, moment in moments.items():
                mean = np.asarray(moment["mean"], np.float64)
                square = np.asarray(moment["var"], np.float64) + mean**2
                means[name, key] = means.get((name, key), 0) + mean
                squares[name, key] = squares.get((name, key), 0) + square
    new_stats = {unit.name: dict(batch_stats[unit.name]) for unit, *_ in suffix}
    for (name, key), total in means.items():
        mean = total / count
        var = squares[name, key] / count - mean**2
        new_stats[name][key] = {
            "mean": replicate(np.float32(mean), mesh),
            "var": replicate(np.float32(var), mesh),
        }
    return new_stats
