"""An epoch of trials: what is drawn before it, and what is measured after it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ftjax.backbones.backbone import Unit
from ftjax.batch_norm import POLICIES
from ftjax.data import Dataset
from ftjax.data.augment import Views, chosen_views, fresh_views
from ftjax.frozen.forward import Activations
from ftjax.frozen.start import Start
from ftjax.machine.mesh import fetch
from ftjax.sweep.chosen_images import kept_rows
from ftjax.sweep.log import Log, as_kept, stopped_by
from ftjax.sweep.trial import Trial
from ftjax.training.batches import (
    Source,
    Step,
    ViewRows,
    dropout_numbers,
    epoch_order,
    epoch_rows,
    epoch_scales,
    view_rows,
)
from ftjax.training.epoch_program import (
    Draws,
    epoch_program,
    evaluation_program,
    recalibration_program,
)
from ftjax.training.evaluate import Evaluation, as_evaluation, evaluate
from ftjax.training.recalibrate import moment_rows, recalibrate
from ftjax.training.schedules import rate_factors
from ftjax.training.step import State
from ftjax.trees import Tree

LARGEST_LOSS = 1e4  # nats; a network that knows nothing has log(classes)


class Work(NamedTuple):
    """Trials that are trained at once.

    Attributes:
        trials: of one cut, policy and program, with equally many finished epochs; they
            differ in seed and rates.
        activations: of all data, at or before the cut; the trials use the first of
            them.
        last: epoch to end with, counted from 1.
    """

    trials: tuple[Trial, ...]
    activations: Activations
    last: int

    def measures_training(self, epoch: int) -> bool:
        """Whether the training set is measured after an epoch, a trial's last one.

        It is a third of a shallow cut's time, and an eighth of a round that only
        compares rates, whose trials end early or go on.
        """
        return epoch == self.last and epoch >= self.trials[0].hyper.epochs


class Group(NamedTuple):
    """What the trials of a work share; constant while they are trained.

    Attributes:
        work: the trials.
        start: the pretrained network, with the head of the trials.
        data: images and labels that they use.
        step: what their steps have in common.
        source: what their steps read; the images where each epoch has its own views.
        views: that are stored; None where there are none.
        programs: whether an epoch is a few programs, and all data on the device.
        val_labels: of the validation set, on the device then.
    """

    work: Work
    start: Start
    data: Dataset
    step: Step
    source: Source
    views: Views | None
    programs: bool = False
    val_labels: jax.Array | None = None


class EpochPlan(NamedTuple):
    """What is drawn before an epoch.

    Attributes:
        order: of the images, as of `epoch_order`.
        rows: of every batch, as of `epoch_rows`.
        scales: of what is dropped, as of `epoch_scales`.
        rates: learning rate of every step, (steps,) or (steps, trials); None where it
            is constant.
        views: that the images show, as of `view_rows`; None without augmentation.
        train: what the steps read, `Source.train`.
    """

    order: np.ndarray
    rows: np.ndarray
    scales: Tree
    rates: np.ndarray | None
    views: ViewRows | None
    train: np.ndarray | jax.Array | Views


def plan_epoch(group: Group, epoch: int) -> EpochPlan:
    """Draws what an epoch needs: the same for a seed, whatever came before."""
    trials, own = group.work.trials, group.data.rows
    hyper, seeds = trials[0].hyper, [trial.seed for trial in trials]
    order = np.stack([own[epoch_order(seed, epoch, len(own))] for seed in seeds])
    order = order if len(seeds) > 1 else order[0]
    rows = epoch_rows(order, hyper.batch_size)
    place = group.start.network, trials[0].cut.unit, seeds, epoch
    size = {"steps": len(rows), "batch_size": hyper.batch_size}
    if group.programs:  # which draw the rest
        scales = dropout_numbers(*place, **size)
    else:
        scales = epoch_scales(*place, drop_connect=hyper.drop_connect, **size)
    rates = None
    if not hyper.constant:
        factors = rate_factors(
            hyper.schedule, steps=len(rows), epochs=hyper.epochs, warmup=hyper.warmup
        )[(epoch - 1) * len(rows) : epoch * len(rows)]
        own = np.array([trial.hyper.lr for trial in trials], np.float32)
        rates = factors[:, None] * own if len(trials) > 1 else factors * own[0]
    return EpochPlan(order, rows, scales, rates, *show_views(group, rows, epoch))


def show_views(
    group: Group, rows: np.ndarray, epoch: int
) -> tuple[ViewRows | None, np.ndarray | jax.Array | Views]:
    """The last two of an `EpochPlan`."""
    source, trials = group.source, group.work.trials
    hyper, labels = trials[0].hyper, group.data.train.labels
    num_images = len(labels)
    seeds = tuple(trial.seed for trial in trials)
    if not hyper.words:
        return None, source.train
    if hyper.fresh:
        views = fresh_views(group.data.train.images, hyper.words, seeds, epoch)
        blocks = [np.full(num_images, number) for number in range(len(seeds))]
        train = views
    else:
        views, train = group.views, source.train
        train = views if group.step.words else train
        count = hyper.stored_views
        blocks = [chosen_views(seed, epoch, num_images, count) for seed in seeds]
    blocks = np.stack(blocks) if len(seeds) > 1 else blocks[0]
    return view_rows(views, rows, blocks, labels), train


class Seen(NamedTuple):
    """What an epoch has left.

    Attributes:
        state: after it, with statistics estimated anew where the policy says so.
        history: losses and right answers of every part of every batch.
        val: answers to the validation set.
        train: likewise to the training set; None where nobody has asked.
    """

    state: State
    history: Sequence[tuple[np.ndarray, np.ndarray]]
    val: Evaluation
    train: Evaluation | None = None


def frozen_units(group: Group) -> tuple[Unit, ...]:
    """Those between the stored activations and the cut."""
    boundary, cut = group.work.activations.boundary, group.work.trials[0].cut
    return group.start.network[boundary : cut.unit]


def trained_on(group: Group) -> tuple[np.ndarray | jax.Array, np.ndarray]:
    """Stored activations of the images that are trained on, and their labels."""
    data = group.data
    labels = data.train.labels[data.rows]
    return kept_rows(group.work.activations.train, data), labels


def look_by_units(
    group: Group,
    state: State,
    history: Sequence[tuple[np.ndarray, np.ndarray]],
    order: np.ndarray,
) -> Seen:
    """Estimates statistics anew if the policy says so, and measures the trials.

    Args:
        group: what is trained.
        state: after the epoch's last step.
        history: metrics of every part of every batch.
        order: of the images, as `epoch_order` drew it.
    """
    start, step = group.start, group.step
    trial, activations = group.work.trials[0], group.work.activations
    if POLICIES[trial.policy].recalibrates:
        estimated = recalibrate(
            step.suffix,
            frozen_units(group),
            {**start.params, **state.params},
            {**start.batch_stats, **state.batch_stats},
            activations.train,
            order,
            batch_size=trial.hyper.micro_batch,
            mesh=step.mesh,
            variants=step.variants,
        )
        state = state._replace(batch_stats=estimated)
    val = measure(group, state, activations.val, group.data.val.labels)
    return Seen(state, history, val)


def look_by_programs(group: Group, state: State, plan: EpochPlan, epoch: int) -> Seen:
    """An epoch of training, and `look_by_units`, as programs of the whole epoch.

    One transfer there, four programs at most, one transfer back.

    Args:
        group: what is trained; all that it reads is on the device.
        state: before the epoch; it is written over.
        plan: of the epoch.
        epoch: counted from 1.
    """
    step, source, work = group.step, group.source, group.work
    trial, metrics = work.trials[0], []
    draws = jax.device_put(draws_of(group, plan, epoch))
    if not trial.is_probe:  # else there is nothing to train
        state, metrics = epoch_program(step, source, state, draws)
    frozen = frozen_units(group)
    if draws.estimated is not None:
        own = step._replace(recomputed=frozen, drops=None, words=())
        estimated = recalibration_program(
            own,
            *frozen_variables(group),
            state,
            work.activations.train,
            draws.estimated,
        )
        state = state._replace(batch_stats=estimated)
    found = [dispatch(group, state, work.activations.val, group.val_labels)]
    if work.measures_training(epoch):
        x, labels = trained_on(group)
        labels = source.labels if group.data.kept is None else jax.device_put(labels)
        found.append(dispatch(group, state, x, labels))
    metrics, found = fetch((metrics, found))
    parts = [zip(*part, strict=True) for part in metrics]
    history = [own for each in zip(*parts, strict=True) for own in each]
    labels = group.data.val.labels, trained_on(group)[1]
    looks = [as_evaluation(*own, at) for own, at in zip(found, labels, strict=False)]
    return Seen(state, history, *looks)


def draws_of(group: Group, plan: EpochPlan, epoch: int) -> Draws:
    """What the programs of an epoch read, on the host."""
    trials, hyper = group.work.trials, group.work.trials[0].hyper
    blocks = estimated = None
    if group.step.words:
        blocks = np.array(plan.train.blocks, np.uint32)
    if POLICIES[trials[0].policy].recalibrates:
        estimated = np.stack(moment_rows(plan.order, hyper.micro_batch))
    return Draws(
        plan.rows,
        plan.scales,
        plan.rates,
        plan.views,
        blocks,
        np.array([trial.seed for trial in trials], np.int32),
        np.int32(epoch),
        estimated,
    )


def frozen_variables(group: Group) -> tuple[Tree, Tree]:
    """Parameters and statistics of `frozen_units`, by unit."""
    start, names = group.start, [unit.name for unit in frozen_units(group)]
    trees = start.params, start.batch_stats
    params, stats = ({name: tree.get(name, {}) for name in names} for tree in trees)
    return params, stats


def dispatch(
    group: Group, state: State, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`evaluation_program` on a data set, not waited for."""
    params, stats = frozen_variables(group)
    return evaluation_program(
        frozen_units(group),
        tuple(part.unit for part in group.step.suffix),
        group.step.variants,
        {**params, **state.params},
        {**stats, **state.batch_stats},
        x,
        labels,
    )


def measure(
    group: Group, state: State, x: np.ndarray | jax.Array, labels: np.ndarray
) -> Evaluation:
    """The answers of the trials to a data set of so many labels."""
    if group.programs:
        return as_evaluation(
            *fetch(dispatch(group, state, x, jax.device_put(labels))), labels
        )
    start = group.start
    return evaluate(
        [part.unit for part in group.step.suffix],
        {**start.params, **state.params},
        {**start.batch_stats, **state.batch_stats},
        x if len(x) == len(labels) else x[: len(labels)],
        labels,
        batch_size=group.work.trials[0].hyper.micro_batch,
        mesh=group.step.mesh,
        frozen=frozen_units(group),
        variants=group.step.variants,
    )


def end_epoch(
    group: Group, logs: Sequence[Log], seen: Seen, epoch: int
) -> tuple[list[list[float]], np.ndarray, list[str]]:
    """The numbers of an epoch, and which trials it ends.

    Args:
        group: what is trained.
        logs: of the trials, up to the epoch before.
        seen: of the epoch.
        epoch: counted from 1.

    Returns:
        Per trial the numbers of `Epoch` from accuracy to train_mode_loss; (trials,
        n_val, classes) logits; per trial the rule that ends it, or ''.
    """
    work, data, val = group.work, group.data, seen.val
    hyper, val_labels = work.trials[0].hyper, data.val.labels

    def measure_train() -> Evaluation:
        return measure(group, seen.state, *trained_on(group))

    train = seen.train
    if work.trials[0].is_probe:
        train = train or measure_train()
        trained = train.correct.mean(axis=-1), train.loss
    else:
        losses, right = zip(*seen.history, strict=True)
        count = len(data.rows) // hyper.batch_size * hyper.batch_size
        trained = (
            np.sum(right, axis=0) / count,
            np.sum(losses, axis=0, dtype=np.float64) / count,
        )
    logits = val.logits.reshape(len(logs), *val.logits.shape[-2:])
    right, lost = map(np.atleast_1d, trained)
    rules = [
        stopped_by(log.trial.hyper, right[n], [*log.logits, as_kept(own)], val_labels)
        if len(log.rows) == epoch - 1 and lost[n] < LARGEST_LOSS  # it still goes
        else ""
        for n, (log, own) in enumerate(zip(logs, logits, strict=True))
    ]
    loss = accuracy = np.nan
    last = np.array([work.measures_training(epoch) or bool(rule) for rule in rules])
    if last.any():
        train = train or measure_train()
        loss = np.where(last, train.loss, np.nan)
        accuracy = np.where(last, train.correct.mean(axis=-1), np.nan)
    correct = val.correct.mean(axis=-1)
    numbers = np.broadcast_arrays(accuracy, loss, correct, val.loss, right, lost)
    rows = np.stack(numbers, axis=-1).reshape(len(logs), -1).tolist()
    return rows, logits, rules


def step_numbers(
    history: Sequence[tuple[np.ndarray, np.ndarray]], work: Work
) -> np.ndarray:
    """Loss (nats) and accuracy of every training step, (trials, steps, 2).

    Args:
        history: sums over the images of every part of every batch, in their order;
            empty of probes.
        work: what was trained.
    """
    hyper = work.trials[0].hyper
    sums = np.array(history, np.float64)
    sums = sums.reshape(-1, hyper.parts, 2, len(work.trials)).sum(axis=1)
    return np.moveaxis(sums / hyper.batch_size, -1, 0)
