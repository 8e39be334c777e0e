"""The steps of an epoch, one by one or as one program."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Tree, Unit
from ftjax.mesh import shard_batch
from ftjax.optim import Hyper
from ftjax.prefix import infer, take
from ftjax.train import Batch, Metrics, State, SuffixUnit, accumulated_step
from ftjax.variants import Variants, split_rows


class Step(NamedTuple):
    """What all steps of a trial have in common; static.

    Attributes:
        suffix: units from the cut on.
        recomputed: frozen units between the stored activations and the cut.
        optimizer: a key of `OPTIMIZERS`.
        parts: in which a batch passes through the network.
        variants: trials that are trained at once.
        mesh: devices that share them.
    """

    suffix: tuple[SuffixUnit, ...]
    recomputed: tuple[Unit, ...]
    optimizer: str
    parts: int
    variants: Variants | None
    mesh: Mesh | None


class Source(NamedTuple):
    """What every step reads.

    Attributes:
        train: stored activations of the training set.
        labels: (n_train,).
        params: pretrained, of the recomputed units.
        batch_stats: likewise.
        hyper: run-time numbers of the optimizer.
    """

    train: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array
    params: Tree
    batch_stats: Tree
    hyper: Hyper


def take_step(
    step: Step,
    source: Source,
    state: State,
    rows: np.ndarray,
    scales: np.ndarray | None,
) -> tuple[State, list[Metrics]]:
    """One optimizer step.

    Args:
        step: what is trained.
        source: on what.
        state: of the suffix.
        rows: (batch,) indices into the training set, or (seeds, batch).
        scales: (units, batch) residual scales of the suffix, likewise; None without
            drop-connect.

    Returns:
        The new state, and the metrics of every part of the batch.
    """
    return accumulated_step(
        step.suffix,
        state,
        micro_batches(step, source, rows, scales),
        step.parts,
        source.hyper,
        optimizer=step.optimizer,
        variants=step.variants,
    )


@partial(jax.jit, static_argnums=0)
def fused_steps(
    step: Step,
    source: Source,
    state: State,
    rows: jax.Array,
    scales: jax.Array | None,
) -> tuple[State, list[Metrics]]:
    """Steps as one program; arguments and results of `take_step`, (steps, ...)."""

    def run(state, batch):
        return take_step(step, source, state, *batch)

    return jax.lax.scan(run, state, (rows, scales))


def micro_batches(
    step: Step, source: Source, rows: np.ndarray, scales: np.ndarray | None
) -> Iterator[Batch]:
    """The pictures of one step in equal parts, each at the cut when it is asked for."""
    size = rows.shape[-1] // step.parts
    for start in range(0, rows.shape[-1], size):
        part = slice(start, start + size)
        own = rows[..., part].reshape(-1)
        x = shard_batch(take(source.train, own), step.mesh)
        x = infer(step.recomputed, source.params, source.batch_stats, x)
        labels = shard_batch(take(source.labels, own), step.mesh)
        yield Batch(
            split_rows(x, step.variants),
            split_rows(labels, step.variants),
            None if scales is None else scales[..., part],
        )
