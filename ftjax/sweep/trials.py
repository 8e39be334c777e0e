"""Trains trials of one cut, from their checkpoints to their records."""

from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from ftjax.config import flag
from ftjax.data import Dataset
from ftjax.data.augment import Views, stored_views
from ftjax.frozen.forward import Activations
from ftjax.frozen.start import Start, with_fresh_head
from ftjax.machine import clock
from ftjax.machine.mesh import fetch, replicate
from ftjax.machine.stacking import Variants, stack, unstack
from ftjax.machine.workers import in_background, stop_point
from ftjax.sweep.chosen_images import balanced_weights, kept_rows
from ftjax.sweep.epochs import (
    LARGEST_LOSS,
    Group,
    Work,
    end_epoch,
    look_by_programs,
    look_by_units,
    plan_epoch,
    step_numbers,
)
from ftjax.sweep.events import Epoch, Event, Listener
from ftjax.sweep.log import (
    Log,
    closing_all,
    finish,
    keep,
    read_log,
    recording_failures,
    stopped_by,
)
from ftjax.sweep.probe_start import with_probe
from ftjax.sweep.trial import Trial, trial_start
from ftjax.training.batches import Source, Step, epoch_batches, make_drops
from ftjax.training.epoch_program import copies
from ftjax.training.step import State, init_state, train_step
from ftjax.training.suffix import make_suffix

KEEP_EVERY = 10.0  # seconds; writing a checkpoint takes a tenth of a second of a core


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
        fused: whether an epoch is a few programs, if the activations are on the device.
        keep_optimizer: whether a finished trial keeps the state of its optimizer.
    """
    group = make_group(work, start, data, mesh, fused=fused)
    step, source = group.step, group.source
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
                plan = plan_epoch(group, epoch)
                order, rows, scales, rates, views, train = plan
                history = []
                if group.programs or work.trials[0].is_probe:
                    stop_point()  # there is nothing to train here
                else:
                    source = source._replace(train=train)
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
                if group.programs:
                    seen = look_by_programs(group, state, plan, epoch)
                else:
                    seen = look_by_units(group, state, history, order)
                state = seen.state
                numbers, logits, rules = end_epoch(group, logs, seen, epoch)
                seconds, compiling = watch.read(share=1 / len(logs))
                if group.programs and (epoch < work.last or step.variants):
                    # The next epoch writes over it.
                    states = copies(state, step.variants)
                else:
                    states = unstack(whole(state), step.variants)
                curves = step_numbers(seen.history, work)
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


def make_group(
    work: Work, start: Start, data: Dataset, mesh: Mesh | None, *, fused: bool = False
) -> Group:
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
    group = Group(work, start, data, step, source, views)
    return on_the_device(group) if fused and is_on_device(activations) else group


def is_on_device(activations: Activations) -> bool:
    """Whether a device holds them; views that are made there need images alone."""
    stored = activations.train, activations.val, activations.views
    return all(isinstance(own, jax.Array | Views | None) for own in stored)


def on_the_device(group: Group) -> Group:
    """The group with all on the device that the programs of an epoch read."""
    work, source, data = group.work, group.source, group.data
    trial, activations, train = work.trials[0], work.activations, source.train
    made = trial.hyper.fresh or isinstance(train, Views)
    if made and activations.boundary == 0:
        train = activations.train
    elif made:
        train = jax.device_put(data.train.images)
    network, cut = group.start.network, trial.cut
    labels, val_labels, weights = jax.device_put(
        (data.train.labels, data.val.labels, source.class_weights)
    )
    return group._replace(
        step=group.step._replace(
            drops=make_drops(network, cut.unit, trial.hyper.drop_connect),
            words=trial.hyper.words if made else (),
        ),
        source=source._replace(train=train, labels=labels, class_weights=weights),
        programs=True,
        val_labels=val_labels,
    )


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
    state = stack(states, group.step.variants)
    if group.programs:  # they write over it, and others read the pretrained arrays
        (state,) = copies(state)
    return logs, state


def diverged(trial: Trial, ended: Epoch) -> FloatingPointError:
    """Why a trial ends whose loss is no number."""
    return FloatingPointError(
        f"the loss is {ended.train_mode_loss} in epoch {ended.epoch}; "
        f"try a smaller --lr than {trial.hyper.lr}"
    )


def whole(state: State) -> State:
    """A state that the first process can write."""
    return fetch(state) if jax.process_count() > 1 else state
