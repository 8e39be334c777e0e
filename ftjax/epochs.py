"""The loop over epochs: batches in order, training steps, evaluation."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Backbone, Tree, Unit
from ftjax.depth import Cut
from ftjax.evaluate import evaluate, recalibrate
from ftjax.mesh import shard_batch
from ftjax.optim import Hyper
from ftjax.prefix import Activations, infer
from ftjax.train import (
    Batch,
    Metrics,
    State,
    SuffixUnit,
    accumulated_step,
    make_suffix,
    residual_scales,
)


class Problem(NamedTuple):
    """Everything a trial trains on; constant during it.

    Attributes:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        params: pretrained parameters and the fresh head, by unit.
        batch_stats: pretrained running statistics, by unit.
        activations: of the training and validation set, at or before the cut.
        train_labels: (n_train,).
        val_labels: (n_val,).
        hyper: run-time numbers of the optimizer.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: pictures per optimizer step.
        micro_batch: pictures that pass through the network at a time; divides
            batch_size.
        drop_connect: largest drop-connect rate, 0 for none.
        seed: of head, data order and drop-connect.
        mesh: devices that share a batch; None is the default device.
    """

    network: Backbone
    cut: Cut
    policy: str
    params: Tree
    batch_stats: Tree
    activations: Activations
    train_labels: np.ndarray
    val_labels: np.ndarray
    hyper: Hyper
    optimizer: str
    batch_size: int
    micro_batch: int
    drop_connect: float
    seed: int
    mesh: Mesh | None = None


class Epoch(NamedTuple):
    """One epoch's numbers.

    Attributes:
        epoch: counted from 1.
        accuracy: on the training set, in evaluation mode.
        loss: likewise, in nats.
        val_accuracy: on the validation set, in evaluation mode.
        val_loss: likewise.
        train_mode_accuracy: mean over the epoch's batches as they were trained.
        train_mode_loss: likewise.
        steps: optimizer steps.
        seconds: wall time, compilation included.
    """

    epoch: int
    accuracy: float
    loss: float
    val_accuracy: float
    val_loss: float
    train_mode_accuracy: float
    train_mode_loss: float
    steps: int
    seconds: float


def epoch_order(seed: int, epoch: int, num_pictures: int) -> np.ndarray:
    """The order of the training pictures; the same at every depth."""
    key = jax.random.fold_in(jax.random.split(jax.random.key(seed), 3)[1], epoch)
    return np.asarray(jax.random.permutation(key, num_pictures))


def run_epochs(
    problem: Problem, state: State, first: int, last: int
) -> Iterator[tuple[State, Epoch, np.ndarray]]:
    """Trains from epoch `first` to `last`, both counted from 1.

    Yields:
        After each epoch: the state, its numbers, and per validation picture whether
        the answer is right. An epoch depends on nothing but the state before it, so
        a run that was interrupted ends with the numbers of one that was not.
    """
    suffix = make_suffix(problem.network, problem.cut, problem.policy)
    for epoch in range(first, last + 1):
        start = time.perf_counter()
        order = epoch_order(problem.seed, epoch, len(problem.train_labels))
        state, metrics, steps = train_epoch(problem, suffix, state, order, epoch)
        if problem.policy == "recalibrate":
            state = state._replace(
                batch_stats=recalibrate(
                    suffix,
                    recomputed_units(problem),
                    {**problem.params, **state.params},
                    {**problem.batch_stats, **state.batch_stats},
                    problem.activations.train[order],
                    batch_size=problem.micro_batch,
                    mesh=problem.mesh,
                )
            )
        loss, correct = evaluate_state(problem, state, "train")
        val_loss, val_correct = evaluate_state(problem, state, "val")
        seen = steps * problem.batch_size
        yield (
            state,
            Epoch(
                epoch=epoch,
                accuracy=float(correct.mean()),
                loss=loss,
                val_accuracy=float(val_correct.mean()),
                val_loss=val_loss,
                train_mode_accuracy=float(metrics.correct) / seen,
                train_mode_loss=float(metrics.loss) / seen,
                steps=steps,
                seconds=time.perf_counter() - start,
            ),
            val_correct,
        )


def train_epoch(
    problem: Problem,
    suffix: Sequence[SuffixUnit],
    state: State,
    order: np.ndarray,
    epoch: int,
) -> tuple[State, Metrics, int]:
    """All full batches of one epoch; the rest of the pictures waits for the next."""
    batch_size = problem.batch_size
    steps = len(order) // batch_size
    rates = tuple(
        unit.drop_share * problem.drop_connect for unit in problem.network.units
    )
    scales = None
    if any(rates[problem.cut.unit :]):
        drop_key = jax.random.split(jax.random.key(problem.seed), 3)[2]
        scales = residual_scales(drop_key, epoch, rates, steps, batch_size)
        scales = np.asarray(scales)[:, problem.cut.unit :]
    parts = batch_size // problem.micro_batch
    history = []
    for step in range(steps):
        rows = np.sort(order[step * batch_size : (step + 1) * batch_size])
        batches = micro_batches(problem, rows, None if scales is None else scales[step])
        state, metrics = accumulated_step(
            suffix, state, batches, parts, problem.hyper, optimizer=problem.optimizer
        )
        history += metrics
    losses, correct = zip(*jax.device_get(history), strict=True)
    return state, Metrics(np.sum(losses, dtype=np.float64), np.sum(correct)), steps


def micro_batches(
    problem: Problem, rows: np.ndarray, scales: np.ndarray | None
) -> Iterator[Batch]:
    """The pictures of one step in equal parts, each at the cut when it is asked for.

    Args:
        problem: what is trained.
        rows: (batch,) indices into the training set.
        scales: (units, batch) residual scales of the suffix, None without drop-connect.
    """
    recomputed, size = recomputed_units(problem), problem.micro_batch
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        x = shard_batch(problem.activations.train[rows[part]], problem.mesh)
        yield Batch(
            infer(recomputed, problem.params, problem.batch_stats, x),
            shard_batch(problem.train_labels[rows[part]], problem.mesh),
            None if scales is None else scales[:, part],
        )


def recomputed_units(problem: Problem) -> tuple[Unit, ...]:
    """Frozen units between the stored activations and the cut."""
    return problem.network[problem.activations.boundary : problem.cut.unit]


def evaluate_state(
    problem: Problem, state: State, split: str
) -> tuple[float, np.ndarray]:
    """Loss and right answers of `train` or `val` in evaluation mode."""
    activations = problem.activations
    return evaluate(
        problem.network[activations.boundary :],
        {**problem.params, **state.params},
        {**problem.batch_stats, **state.batch_stats},
        activations.train if split == "train" else activations.val,
        problem.train_labels if split == "train" else problem.val_labels,
        batch_size=problem.micro_batch,
        mesh=problem.mesh,
    )
