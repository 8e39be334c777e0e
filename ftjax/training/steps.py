"""The steps of an epoch, one by one or as one program."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Unit
from ftjax.frozen.forward import infer, take, take_each
from ftjax.machine.mesh import shard_batch
from ftjax.machine.stacking import Variants, split_rows
from ftjax.training.optimizer import Hyper
from ftjax.training.programs import Metrics
from ftjax.training.step import Batch, State, accumulated_step
from ftjax.training.suffix import SuffixUnit
from ftjax.trees import Tree


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


def take_steps(
    step: Step,
    source: Source,
    state: State,
    rows: np.ndarray,
    scales: np.ndarray | None,
) -> tuple[State, list[Metrics]]:
    """Optimizer steps, one by one.

    Args:
        step: what is trained.
        source: on what.
        state: of the suffix.
        rows: (steps, batch) indices into the training set, or (steps, seeds, batch).
        scales: (steps, units, batch) residual scales of the suffix, likewise; None
            without drop-connect.

    Returns:
        The new state, and the metrics of every part of every batch.
    """
    history = []
    parts = [part for own in rows for part in split(step, own)]
    stored = take_each(source.train, parts)
    for number, own in enumerate(rows):
        scale = None if scales is None else scales[number]
        state, metrics = take_step(step, source, state, own, scale, stored)
        history += metrics
    return state, history


def take_step(
    step: Step,
    source: Source,
    state: State,
    rows: np.ndarray,
    scales: np.ndarray | None,
    stored: Iterator[np.ndarray | jax.Array],
) -> tuple[State, list[Metrics]]:
    """One of `take_steps`; `stored` has what its rows are, part by part."""
    return accumulated_step(
        step.suffix,
        state,
        micro_batches(step, source, rows, scales, stored),
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
    """`take_steps` as one program; the metrics are (steps,) each."""

    def run(state, batch):
        stored = (take(source.train, part) for part in split(step, batch[0]))
        return take_step(step, source, state, *batch, stored)

    return jax.lax.scan(run, state, (rows, scales))


def split(step: Step, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each part of a batch, those of all seeds one after the other."""
    size = rows.shape[-1] // step.parts
    for start in range(0, rows.shape[-1], size):
        yield rows[..., start : start + size].reshape(-1)


def micro_batches(
    step: Step,
    source: Source,
    rows: np.ndarray,
    scales: np.ndarray | None,
    stored: Iterator[np.ndarray | jax.Array],
) -> Iterator[Batch]:
    """The images of one step in equal parts, each at the cut when it is asked for."""
    size = rows.shape[-1] // step.parts
    for number, own in enumerate(split(step, rows)):
        x = shard_batch(next(stored), step.mesh)
        x = infer(step.recomputed, source.params, source.batch_stats, x)
        labels = shard_batch(source.labels[own], step.mesh)
        part = slice(number * size, (number + 1) * size)
        yield Batch(
            split_rows(x, step.variants),
            split_rows(labels, step.variants),
            None if scales is None else scales[..., part],
        )
