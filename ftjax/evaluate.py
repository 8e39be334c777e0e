"""Measuring a network: evaluation mode, and running statistics estimated anew."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ftjax.backbones.backbone import Tree, Unit
from ftjax.mesh import fetch, shard_batch
from ftjax.prefix import batches, infer, take_each
from ftjax.variants import Variants, each_variant, place, share, split_rows


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
        batch_size: pictures per step; the result does not depend on it.
        mesh: devices that share a batch.
        frozen: units before `units`, the same for all trials.
        variants: trials that are evaluated at once.

    Returns:
        Mean cross-entropy in nats, (), and per picture whether the answer is right,
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
    """Per picture: cross-entropy in nats, and whether the largest logit is right."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, logits.argmax(-1) == labels


@partial(jax.jit, static_argnums=(0, 1, 5))
def moments_unit(
    module, batch_norm, params: Tree, batch_stats: Tree, x, variants=None
) -> tuple[jax.Array, Tree]:
    """One unit on batch statistics; momentum 0 leaves the batch's moments in place."""

    def run(params, batch_stats, x):
        y, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            x,
            batch_norm=batch_norm,
            momentum=jnp.zeros(()),
            mutable=["batch_stats"],
        )
        return y, {key: updated["batch_stats"][key] for key in batch_norm}

    return each_variant(run, variants)(params, batch_stats, x)


def recalibrate(
    suffix: Sequence,
    recomputed: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    x: np.ndarray,
    order: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    variants: Variants | None = None,
) -> Tree:
    """Population statistics of the given weights, for the BatchNorms that are trained.

    Running averages lag behind the weights they describe; these do not ("precise
    BatchNorm", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3). The
    variance of the whole set is the mean of the batches' variances plus the variance
    of their means.

    Args:
        suffix: units from the cut on, with the keys of their trained BatchNorms.
        recomputed: frozen units between `x` and the suffix.
        params: by unit; of the suffix, (variants, ...) if there are several trials.
        batch_stats: likewise.
        x: (n, ...) training set.
        order: (n,) random order of its rows, or (variants, n); the last partial batch
            is left out.
        batch_size: pictures per batch, as in training.
        mesh: devices that share a batch.
        variants: trials that are estimated at once.

    Returns:
        Running statistics of the suffix, by unit.
    """
    means, squares, count = {}, {}, 0
    starts = range(0, len(x) - batch_size + 1, batch_size)
    rows = [order[..., start : start + batch_size].reshape(-1) for start in starts]
    for own in take_each(x, rows):
        y = infer(recomputed, params, batch_stats, shard_batch(own, mesh))
        y = split_rows(y, variants)
        count += 1
        for unit, _, batch_norm in suffix:
            name = unit.name
            y, moments = moments_unit(
                unit.module, batch_norm, params[name], batch_stats[name], y, variants
            )
            for key, moment in moments.items():
                mean = fetch(moment["mean"]).astype(np.float64)
                square = fetch(moment["var"]).astype(np.float64) + mean**2
                means[name, key] = means.get((name, key), 0) + mean
                squares[name, key] = squares.get((name, key), 0) + square
    new_stats = {unit.name: dict(batch_stats[unit.name]) for unit, *_ in suffix}
    for (name, key), total in means.items():
        mean = total / count
        var = squares[name, key] / count - mean**2
        moments = {"mean": np.float32(mean), "var": np.float32(var)}
        new_stats[name][key] = place(moments, mesh, variants)
    return new_stats
