"""Trains trials of one cut, from their checkpoints to their records."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.batch_norm import POLICIES
from ftjax.config import flag
from ftjax.data import Dataset
from ftjax.data.augment import Views, chosen_views, fresh_views, stored_views
from ftjax.frozen.forward import Activations
from ftjax.frozen.start import Start, with_fresh_head
from ftjax.machine import clock
from ftjax.machine.mesh import fetch, replicate
from ftjax.machine.stacking import Variants, stack, unstack
from ftjax.machine.workers import in_background, stop_point
from ftjax.sweep.chosen_images import balanced_weights, kept_rows
from ftjax.sweep.events import Epoch, Event, Listener
from ftjax.sweep.log import (
    Log,
    as_kept,
    closing_all,
    finish,
    keep,
    read_log,
    recording_failures,
    stopped_by,
)
from ftjax.sweep.probe_start import with_probe
from ftjax.sweep.trial import Trial, trial_start
from ftjax.training.batches import (
    Source,
    Step,
    ViewRows,
    epoch_batches,
    epoch_order,
    epoch_program,
    epoch_rows,
    epoch_scales,
    view_rows,
)
from ftjax.training.evaluate import evaluate
from ftjax.training.recalibrate import recalibrate
from ftjax.training.schedules import rate_factors
from ftjax.training.step import State, init_state, train_step
from ftjax.training.suffix import make_suffix
from ftjax.trees import Tree

LARGEST_LOSS = 1e4  # nats; a network that knows nothing has log(classes)
KEEP_EVERY = 10.0  # seconds; writing a checkpoint takes a tenth of a second of a core


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


class Group(NamedTuple):
    """What the trials of a work share; constant while they are trained.

    Attributes:
        work: the trials.
        start: the pretrained network, with the head of the trials.
        data: images and labels that they use.
        step: what their steps have in common.
        source: what their steps read; the images where each epoch has its own views.
        views: that are stored; None where there are none.
    """

    work: Work
    start: Start
    data: Dataset
    step: Step
    source: Source
    views: Views | None


def train_trials(
    work: Work,
    start: Start,
    data: Dataset,
    *,
    out: Path,
    listen: Listener,
    mesh: Mesh | None = None,
    fused: bool = False,
    keep_optimizer: bool = True,
) -> None:
    """Trains trials of one cut, policy and program at once, from their checkpoints on.

    An epoch depends on nothing but the state before it, so a trial that was interrupted
    ends with the numbers of one that was not. The newest epoch is kept every few
    seconds and at the end, be it Ctrl-C. A trial that fails is recorded, one that a
    rule ends is done; others go on.

    Args:
        work: the trials, and what they train on.
        start: the pretrained network.
        data: images and labels.
        out: the run's folder.
        listen: called after every epoch of a trial, and when it is done or has failed.
        mesh: devices that share batches and trials.
        fused: whether an epoch is one program, if the activations are on the device.
        keep_optimizer: whether a finished trial keeps the state of its optimizer.
    """
    group = make_group(work, start, data, mesh)
    step, source = group.step, group.source
    one_program = fused and isinstance(source.train, jax.Array)
    newest: dict[str, tuple[Log, State]] = {}
    ended: dict[str, tuple[State, str]] = {}  # by which rule
    with recording_failures(work.trials, out, listen) as failed, clock.at_work():
        logs, state = restore(group, out, listen)
        if len({len(log.rows) for log in logs}) > 1:  # a checkpoint was damaged
            for log in logs:
                log.checkpoints.close()
            alone = partial(
                train_trials,
                start=start,
                data=data,
                out=out,
                listen=listen,
                mesh=mesh,
                fused=fused,
                keep_optimizer=keep_optimizer,
            )
            for trial in work.trials:
                alone(work._replace(trials=(trial,)))
            return
        for log, own in zip(logs, unstack(whole(state), step.variants), strict=True):
            rule = ""
            if log.rows:  # killed between the end and the record of it
                trained = log.rows[-1]["train_mode_accuracy"]
                rule = stopped_by(log.trial.hyper, trained, log.logits, data.val.labels)
            if rule:
                ended[log.trial.id] = own, rule
        with closing_all(logs), in_background(KEEP_EVERY) as call:
            for epoch in range(len(logs[0].rows) + 1, work.last + 1):
                if len(failed) + len(ended) == len(logs):
                    break
                watch = clock.Stopwatch()
                order, rows, scales, rates, views, train = plan_epoch(group, epoch)
                source = source._replace(train=train)
                history = []
                if work.trials[0].is_probe:
                    pass  # there is nothing to train
                elif one_program:
                    state, steps = epoch_program(
                        step, source, state, rows, scales, rates, views
                    )
                    parts = [zip(*part, strict=True) for part in fetch(steps)]
                    history = [own for each in zip(*parts, strict=True) for own in each]
                else:
                    batches = epoch_batches(step, source, rows, scales, views)
                    for number, batch in enumerate(batches):
                        stop_point()
                        hyper = source.hyper
                        if rates is not None:
                            hyper = hyper._replace(learning_rate=rates[number])
                        state, metrics = train_step(
                            step.suffix,
                            state,
                            batch,
                            hyper,
                            optimizer=step.optimizer,
                            parts=step.parts,
                            variants=step.variants,
                            class_weights=source.class_weights,
                        )
                        history += metrics
                    history = fetch(history)
                state, numbers, logits, rules = end_epoch(
                    group, logs, state, history, order, epoch
                )
                seconds, compiling = watch.read(share=1 / len(logs))
                states = unstack(whole(state), step.variants)
                curves = step_numbers(history, work)
                events = []
                for log, own, row, answers, curve, rule in zip(
                    logs, states, numbers, logits, curves, rules, strict=True
                ):
                    trial, last = log.trial, Epoch(epoch, *row, len(rows), seconds)
                    if trial.id in failed or trial.id in ended:
                        continue
                    if not last.train_mode_loss < LARGEST_LOSS:  # nor is nan
                        failed[trial.id] = diverged(trial, last)
                        continue
                    log.add(last, answers, data.val.labels, curve, compiling)
                    if rule:
                        ended[trial.id] = own, rule
                    newest[trial.id] = log.copy(), own
                    events.append(Event(trial, "epoch", last))
                call(keep, out, [*newest.values()], keep_optimizer)
                for event in events:
                    listen(event)
        for log, own in zip(logs, unstack(whole(state), step.variants), strict=True):
            if log.trial.id not in failed:
                own, rule = ended.get(log.trial.id, (own, ""))
                finish(out, log, own, group.start, step.suffix, rule)
    for trial in work.trials:
        if trial.id not in failed:
            _, rule = ended.get(trial.id, (None, ""))
            message = f"ended by {flag(rule)}" if rule else ""
            listen(Event(trial, "done", message=message))


def make_group(work: Work, start: Start, data: Dataset, mesh: Mesh | None) -> Group:
    """What the trials share; arguments as of `train_trials`."""
    first, activations = work.trials[0], work.activations
    start, data = trial_start(start, first.hyper), data.chosen(*first.hyper.images)
    network, hyper, views, train = start.network, first.hyper, None, activations.train
    if hyper.fresh:
        train = data.train.images
    elif hyper.stored_views:
        views = stored_views(data.train.images, hyper.words, hyper.stored_views)
        train = activations.views
    variants = Variants(len(work.trials), mesh) if len(work.trials) > 1 else None
    step = Step(
        make_suffix(
            network,
            first.cut,
            first.policy,
            activations.begin,
            last_only=hyper.last_only,
        ),
        network[0 if hyper.fresh else activations.boundary : first.cut.unit],
        hyper.optimizer,
        hyper.parts,
        variants,
        mesh,
    )
    numbers = [replicate(trial.hyper.numbers, mesh) for trial in work.trials]
    source = Source(
        train,
        data.train.labels,
        {unit.name: start.params.get(unit.name, {}) for unit in step.recomputed},
        {unit.name: start.batch_stats.get(unit.name, {}) for unit in step.recomputed},
        stack(numbers, variants),
        balanced_weights(data) if hyper.class_weights == "balanced" else None,
    )
    if hyper.probe is not None:
        plain = step._replace(recomputed=network[activations.boundary : first.cut.unit])
        kept = kept_rows(activations.train, data)
        images = source._replace(train=kept, labels=data.train.labels[data.rows])
        start = with_probe(start, plain, images, hyper, len(data.class_names))
    return Group(work, start, data, step, source, views)


def restore(group: Group, out: Path, listen: Listener) -> tuple[list[Log], State]:
    """The trials as their checkpoints left them, or at their start; states stacked."""
    logs, states, mesh, start = [], [], group.step.mesh, group.start
    for trial in group.work.trials:
        params, batch_stats = with_fresh_head(start, trial.seed, mesh)
        suffix = make_suffix(
            start.network, trial.cut, trial.policy, last_only=trial.hyper.last_only
        )
        optimizer = trial.hyper.optimizer
        state = init_state(
            suffix,
            params,
            batch_stats,
            optimizer=optimizer,
            hyper=trial.hyper.numbers,
        )
        log, own = read_log(out, trial, state, listen)
        logs.append(log)
        states.append(own if own is state else replicate(own, mesh))
        del params, batch_stats, state, own
    return logs, stack(states, group.step.variants)


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
    scales = epoch_scales(
        group.start.network,
        trials[0].cut.unit,
        seeds,
        epoch,
        drop_connect=hyper.drop_connect,
        steps=len(rows),
        batch_size=hyper.batch_size,
    )
    still = {part.unit.name for part in group.step.suffix if part.frozen}
    scales = {unit: drawn for unit, drawn in scales.items() if unit not in still}
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
    hyper, num_images = trials[0].hyper, len(source.labels)
    seeds = tuple(trial.seed for trial in trials)
    if not hyper.words:
        return None, source.train
    if hyper.fresh:
        views = fresh_views(group.data.train.images, hyper.words, seeds, epoch)
        blocks = [np.full(num_images, number) for number in range(len(seeds))]
        train = views
    else:
        views, train = group.views, source.train
        count = hyper.stored_views
        blocks = [chosen_views(seed, epoch, num_images, count) for seed in seeds]
    blocks = np.stack(blocks) if len(seeds) > 1 else blocks[0]
    return view_rows(views, rows, blocks, source.labels), train


def end_epoch(
    group: Group,
    logs: Sequence[Log],
    state: State,
    history: Iterable[tuple[np.ndarray, np.ndarray]],
    order: np.ndarray,
    epoch: int,
) -> tuple[State, list[list[float]], np.ndarray, list[str]]:
    """Estimates statistics anew if the policy says so, and measures the trials.

    Args:
        group: what is trained.
        logs: of the trials, up to the epoch before.
        state: after the epoch's last step.
        history: metrics of every part of every batch.
        order: of the images, as `epoch_order` drew it.
        epoch: counted from 1. The training set is measured after a trial's last one
            alone: it is a third of a shallow cut's time.

    Returns:
        The state; per trial the numbers of `Epoch` from accuracy to train_mode_loss;
        (trials, n_val, classes) logits; per trial the rule that ends it, or ''.
    """
    work, start, data, step, *_ = group
    hyper, activations = work.trials[0].hyper, work.activations
    frozen = start.network[activations.boundary : work.trials[0].cut.unit]
    passes = {"batch_size": hyper.micro_batch, "mesh": step.mesh}
    params = {**start.params, **state.params}
    batch_stats = {**start.batch_stats, **state.batch_stats}
    if POLICIES[work.trials[0].policy].recalibrates:
        estimated = recalibrate(
            step.suffix,
            frozen,
            params,
            batch_stats,
            activations.train,
            order,
            variants=step.variants,
            **passes,
        )
        state = state._replace(batch_stats=estimated)
        batch_stats = {**start.batch_stats, **estimated}
    measure = partial(
        evaluate,
        [part.unit for part in step.suffix],
        params,
        batch_stats,
        frozen=frozen,
        variants=step.variants,
        **passes,
    )

    def measure_training():
        own = kept_rows(activations.train, data)
        return measure(own, data.train.labels[data.rows])

    val_labels = data.val.labels
    val = measure(activations.val, val_labels)
    if work.trials[0].is_probe:
        train = measure_training()
        trained = train.correct.mean(axis=-1), train.loss
    else:
        losses, right = zip(*history, strict=True)
        seen = order.shape[-1] // hyper.batch_size * hyper.batch_size
        trained = (
            np.sum(right, axis=0) / seen,
            np.sum(losses, axis=0, dtype=np.float64) / seen,
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
    last = np.array([epoch == work.last or bool(rule) for rule in rules])
    if last.any():
        train = measure_training()
        loss = np.where(last, train.loss, np.nan)
        accuracy = np.where(last, train.correct.mean(axis=-1), np.nan)
    correct = val.correct.mean(axis=-1)
    numbers = np.broadcast_arrays(accuracy, loss, correct, val.loss, right, lost)
    rows = np.stack(numbers, axis=-1).reshape(len(logs), -1).tolist()
    return state, rows, logits, rules


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


def diverged(trial: Trial, ended: Epoch) -> FloatingPointError:
    """Why a trial ends whose loss is no number."""
    return FloatingPointError(
        f"the loss is {ended.train_mode_loss} in epoch {ended.epoch}; "
        f"try a smaller --lr than {trial.hyper.lr}"
    )


def whole(state: State) -> State:
    """A state that the first process can write."""
    return fetch(state) if jax.process_count() > 1 else state
