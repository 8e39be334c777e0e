"""The loop over epochs: batches in order, training steps, evaluation."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Backbone, Unit
from ftjax.backbones.stochastic_depth import drop_rates, residual_scales
from ftjax.batch_norm import POLICIES
from ftjax.depth import Cut
from ftjax.frozen.forward import Activations
from ftjax.machine import clock
from ftjax.machine.mesh import fetch
from ftjax.machine.stacking import Variants
from ftjax.training.evaluate import evaluate
from ftjax.training.optimizer import Hyper
from ftjax.training.programs import Metrics
from ftjax.training.recalibrate import recalibrate
from ftjax.training.step import State
from ftjax.training.steps import Source, Step, fused_steps, take_steps
from ftjax.training.suffix import SuffixUnit, make_suffix
from ftjax.trees import Tree


class Problem(NamedTuple):
    """Everything a trial trains on, or several at once; constant during it.

    Attributes:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        params: pretrained parameters, by unit; only those before the cut are read.
        batch_stats: pretrained running statistics, by unit.
        activations: of the training and validation set, at or before the cut.
        train_labels: (n_train,).
        val_labels: (n_val,).
        hyper: run-time numbers of the optimizer.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: images per optimizer step.
        micro_batch: images that pass through the network at a time; divides
            batch_size.
        drop_connect: largest drop-connect rate, 0 for none.
        seeds: of head, data order and drop-connect; one for each trial.
        mesh: devices that share batches and trials; None is the default device.
        fused: whether an epoch is one program; the activations are on the device then.
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
    seeds: tuple[int, ...]
    mesh: Mesh | None = None
    fused: bool = False

    @property
    def variants(self) -> Variants | None:
        """How trials that are trained at once are stacked; None if it is only one."""
        return Variants(len(self.seeds), self.mesh) if len(self.seeds) > 1 else None


class Epoch(NamedTuple):
    """One epoch's numbers.

    Attributes:
        epoch: counted from 1.
        accuracy: on the training set, in evaluation mode; not a number but in the last
            epoch that was asked for.
        loss: likewise, in nats.
        val_accuracy: on the validation set, in evaluation mode.
        val_loss: likewise.
        train_mode_accuracy: mean over the epoch's batches as they were trained.
        train_mode_loss: likewise.
        steps: optimizer steps.
        seconds: wall time, compilation included; of trials that are trained at once
            or side by side, an equal share.
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


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of the training images; the same at every depth."""
    return np.random.default_rng([seed, epoch]).permutation(num_images)


def run_epochs(
    problem: Problem, state: State, first: int, last: int
) -> Iterator[tuple[State, tuple[Epoch, ...], np.ndarray]]:
    """Trains from epoch `first` to `last`, both counted from 1.

    Args:
        problem: what is trained.
        state: at the start; stacked if there are several seeds.
        first: epoch to begin with.
        last: epoch to end with.

    Yields:
        After each epoch: the state, the numbers of every trial, and (trials, n_val)
        whether the answer to a validation image is right. An epoch depends on nothing
        but the state before it, so a run that was interrupted ends with the numbers of
        one that was not.
    """
    suffix = suffix_of(problem)
    for epoch in range(first, last + 1):
        start = clock.seconds()
        order = np.stack(
            [
                epoch_order(seed, epoch, len(problem.train_labels))
                for seed in problem.seeds
            ]
        )
        order = order if problem.variants else order[0]
        state, metrics, steps = train_epoch(problem, suffix, state, order, epoch)
        if POLICIES[problem.policy].recalibrates:
            state = state._replace(
                batch_stats=recalibrate(
                    suffix,
                    recomputed_units(problem),
                    {**problem.params, **state.params},
                    {**problem.batch_stats, **state.batch_stats},
                    problem.activations.train,
                    order,
                    batch_size=problem.micro_batch,
                    mesh=problem.mesh,
                    variants=problem.variants,
                )
            )
        val_loss, val_correct = evaluate_state(problem, state, "val")
        loss = accuracy = np.nan
        if epoch == last:  # a third of a shallow cut's time, so not after every epoch
            loss, correct = evaluate_state(problem, state, "train")
            accuracy = correct.mean(axis=-1)
        seen = steps * problem.batch_size
        numbers = np.broadcast_arrays(
            accuracy,
            loss,
            val_correct.mean(axis=-1),
            val_loss,
            metrics.correct / seen,
            metrics.loss / seen,
        )
        seconds = (clock.seconds() - start) / len(problem.seeds)
        rows = np.atleast_2d(np.stack(numbers, axis=-1)).tolist()
        ended = tuple(Epoch(epoch, *row, steps, seconds) for row in rows)
        yield state, ended, np.atleast_2d(val_correct)


def train_epoch(
    problem: Problem,
    suffix: Sequence[SuffixUnit],
    state: State,
    order: np.ndarray,
    epoch: int,
) -> tuple[State, Metrics, int]:
    """All full batches of one epoch; the rest of the images waits for the next.

    Args:
        problem: what is trained.
        suffix: units from the cut on.
        state: of the suffix.
        order: (n_train,) of the images, or (seeds, n_train).
        epoch: counted from 1.

    Returns:
        The new state, the metrics of every trial, and the number of steps.
    """
    size = problem.batch_size
    steps = order.shape[-1] // size
    rows = order[..., : steps * size].reshape(*order.shape[:-1], steps, size)
    rows = np.moveaxis(np.sort(rows), -2, 0)
    scales = epoch_scales(problem, epoch, steps)
    step = Step(
        tuple(suffix),
        recomputed_units(problem),
        problem.optimizer,
        size // problem.micro_batch,
        problem.variants,
        problem.mesh,
    )
    names = {unit.name for unit in step.recomputed}
    params, batch_stats = (
        {name: leaves for name, leaves in tree.items() if name in names}
        for tree in (problem.params, problem.batch_stats)
    )
    source = Source(
        problem.activations.train,
        problem.train_labels,
        params,
        batch_stats,
        problem.hyper,
    )
    if problem.fused:
        state, parts = fused_steps(step, source, state, rows, scales)
        history = [each for part in fetch(parts) for each in zip(*part, strict=True)]
    else:
        state, parts = take_steps(step, source, state, rows, scales)
        history = fetch(parts)
    losses, correct = zip(*history, strict=True)
    total = Metrics(np.sum(losses, axis=0, dtype=np.float64), np.sum(correct, axis=0))
    return state, total, steps


def epoch_scales(problem: Problem, epoch: int, steps: int) -> np.ndarray | None:
    """Residual scales of the suffix's units in every step; None without drop-connect.

    Returns:
        (steps, units, batch), with several seeds (steps, seeds, units, batch).
    """
    first = problem.cut.unit
    rates = drop_rates(problem.network, problem.drop_connect)
    if not any(rates[first:]):
        return None
    keys, size = map(jax.random.key, problem.seeds), problem.batch_size
    scales = [
        np.asarray(residual_scales(key, epoch, rates, steps, size))[:, first:]
        for key in keys
    ]
    return np.stack(scales, axis=1) if problem.variants else scales[0]


def suffix_of(problem: Problem) -> tuple[SuffixUnit, ...]:
    """From where the stored activations are, or the cut if they are before it."""
    begin = problem.activations.begin
    return make_suffix(problem.network, problem.cut, problem.policy, begin)


def recomputed_units(problem: Problem) -> tuple[Unit, ...]:
    """Frozen units between the stored activations and the cut."""
    return problem.network[problem.activations.boundary : problem.cut.unit]


def evaluate_state(
    problem: Problem, state: State, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and right answers of `train` or `val` in evaluation mode."""
    activations = problem.activations
    return evaluate(
        [part.unit for part in suffix_of(problem)],
        {**problem.params, **state.params},
        {**problem.batch_stats, **state.batch_stats},
        activations.train if split == "train" else activations.val,
        problem.train_labels if split == "train" else problem.val_labels,
        batch_size=problem.micro_batch,
        mesh=problem.mesh,
        frozen=recomputed_units(problem),
        variants=problem.variants,
    )
