"""Running statistics estimated anew over the training set."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.frozen.forward import infer, take_each
from ftjax.machine.mesh import fetch, shard_batch
from ftjax.machine.stacking import Variants, each_variant, place, split_rows
from ftjax.trees import Tree


def moment_rows(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows of every batch, those of all seeds one after the other.

    Args:
        order: as of `recalibrate`.
        batch_size: images per batch.
    """
    starts = range(0, order.shape[-1] - batch_size + 1, batch_size)
    return [order[..., start : start + batch_size].reshape(-1) for start in starts]


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
        x: (n, ...) inputs of the first unit.
        order: (k,) random order of the rows that are trained on, or (variants, k); the
            last partial batch is left out.
        batch_size: images per batch, as in training.
        mesh: devices that share a batch.
        variants: trials that are estimated at once.

    Returns:
        Running statistics of the suffix, by unit.
    """
    means, squares, count = {}, {}, 0
    for own in take_each(x, moment_rows(order, batch_size)):
        y = infer(recomputed, params, batch_stats, shard_batch(own, mesh))
        y = split_rows(y, variants)
        count += 1
        for unit, _, batch_norm, _ in suffix:
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
