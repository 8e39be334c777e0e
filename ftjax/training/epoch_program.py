"""An epoch as a few programs over data that lives on the device.

A step of unit programs is some 40 calls (EfficientNetB0, all layers), and Python needs
7 ms for them where an accelerator computes for less. Here all steps are one program,
estimating statistics and measuring a data set one each: at most four calls an epoch.
What an epoch draws is sent at once, and what it found is fetched at once. The formulas
are those of the unit programs, called inside.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.backbones.backbone import Unit
from ftjax.backbones.stochastic_depth import residual_scales
from ftjax.data.augment import augment, mix
from ftjax.frozen.forward import infer, take
from ftjax.machine.stacking import Variants, share, split_rows, unstack
from ftjax.training.batches import (
    Drops,
    Source,
    Step,
    ViewRows,
    batch_parts,
    by_unit,
    split,
)
from ftjax.training.evaluate import cross_entropies
from ftjax.training.programs import Metrics
from ftjax.training.recalibrate import moments_unit
from ftjax.training.step import State, train_step
from ftjax.trees import Tree

EVALUATED = 256  # images that are measured at a time, less where there are fewer


class Draws(NamedTuple):
    """What is drawn for an epoch, sent to the device at once.

    Attributes:
        rows: as `batches.epoch_rows` returns them.
        numbers: of dropout, as `batches.dropout_numbers` returns them.
        rates: learning rate of every step; None where it is constant.
        views: as `batches.view_rows` returns them; None where the images are read.
        blocks: (views, 2) as of `augment.Views`, where views are made in the steps.
        seeds: (seeds,) of the trials.
        epoch: counted from 1.
        estimated: (steps, ...) rows by which statistics are estimated anew; None where
            they are not.
    """

    rows: np.ndarray
    numbers: Tree
    rates: np.ndarray | None = None
    views: ViewRows | None = None
    blocks: np.ndarray | None = None
    seeds: np.ndarray | None = None
    epoch: np.ndarray | None = None
    estimated: np.ndarray | None = None


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def epoch_program(
    step: Step, source: Source, state: State, draws: Draws
) -> tuple[State, list[Metrics]]:
    """All steps of an epoch; the metrics are (steps,) each.

    The state is written over: who needs it later copies it before (`copies`).

    Args:
        step: what the steps have in common.
        source: what they read, on the device.
        state: before the epoch.
        draws: of the epoch.
    """
    scales = draws.numbers
    if step.drops is not None:
        scales = {**scales, **block_scales(step.drops, draws)}

    def run(state, batch):
        own, scale, rate, shown = batch
        hyper = source.hyper
        if rate is not None:
            hyper = hyper._replace(learning_rate=rate)
        mixing = None if shown is None else shown.mixing
        stored = show(step, source.train, own, shown, draws.blocks)
        return train_step(
            step.suffix,
            state,
            batch_parts(step, source, own, scale, stored, mixing),
            hyper,
            optimizer=step.optimizer,
            parts=step.parts,
            variants=step.variants,
            class_weights=source.class_weights,
        )

    return jax.lax.scan(run, state, (draws.rows, scales, draws.rates, draws.views))


def block_scales(drops: Drops, draws: Draws) -> Tree:
    """What the epoch draws for its blocks, as of `batches.epoch_scales`."""
    steps, size = len(draws.rows), draws.rows.shape[-1]
    assert draws.seeds is not None, "blocks are dropped by the seed"
    drawn = []
    for seed in draws.seeds:
        key = jax.random.key(seed)
        scales = residual_scales(key, draws.epoch, drops.rates, steps, size)
        drawn.append(by_unit(drops, scales))
    if len(drawn) == 1:
        return drawn[0]
    return jax.tree.map(lambda *own: jnp.stack(own, 1), *drawn)


def show(
    step: Step,
    train: jax.Array,
    rows: jax.Array,
    views: ViewRows | None,
    blocks: jax.Array | None,
) -> Iterator[jax.Array]:
    """What each part of a batch reads: stored rows, or views that are made here.

    Args:
        step: of the epoch.
        train: activations, or the images of which views are made.
        rows: of the images of one batch.
        views: of that batch.
        blocks: of all views that are made.
    """
    read = rows if views is None else views.stored
    if blocks is None:
        for own in split(step, read):
            yield take(train, own)
        return
    assert views is not None, "views are made where there are some"
    made = partial(make_views, step.words, train, blocks)

    mixed = []
    if views.mixing is not None:
        shares = split(step, views.mixing.shares)
        mixed = [*zip(split(step, views.others), shares, strict=True)]
    for number, own in enumerate(split(step, read)):
        index, block = own // len(blocks), own % len(blocks)
        images = made(index, block)
        if mixed:
            other, share = mixed[number]
            images = mix(images, made(other, block), share)
        yield images


def make_views(
    words: tuple[str, ...],
    images: jax.Array,
    blocks: jax.Array,
    index: jax.Array,
    block: jax.Array,
) -> jax.Array:
    """Augmented images by the keys of `augment.Views`, mixup aside."""
    keys = jnp.concatenate([blocks[block], index[:, None].astype(jnp.uint32)], 1)
    return augment(words, take(images, index), keys)


@partial(jax.jit, static_argnums=0)
def recalibration_program(
    step: Step, params: Tree, batch_stats: Tree, state: State, x, rows: jax.Array
) -> Tree:
    """`recalibrate` as one program; the sums over batches are running means.

    Args:
        step: of the trial.
        params: pretrained, of the units that are run again.
        batch_stats: likewise.
        state: after the epoch's last step.
        x: activations of the training images.
        rows: (batches, ...) of them, as in training, those of all seeds in a row.

    Returns:
        Running statistics of the suffix, by unit.
    """
    places = [(part.unit.name, key) for part in step.suffix for key in part.batch_norm]

    def measure(own):
        y = infer(step.recomputed, params, batch_stats, take(x, own))
        y = split_rows(y, step.variants)
        found: Tree = {}
        for unit, _, batch_norm, _ in step.suffix:
            of_unit = state.params[unit.name], state.batch_stats[unit.name]
            y, found[unit.name] = moments_unit(
                unit.module, batch_norm, *of_unit, y, step.variants
            )
        return [found[name][key] for name, key in places]

    def add(total, own):
        # Welford 1962: float32 has few digits left of a difference of large sums.
        count, moments, spreads = total
        count, new = count + 1, measure(own)
        before = [each["mean"] for each in moments]
        moments = jax.tree.map(lambda old, x: old + (x - old) / count, moments, new)
        spreads = [
            spread + ((x["mean"] - old) * (x["mean"] - now["mean"]) - spread) / count
            for spread, old, now, x in zip(spreads, before, moments, new, strict=True)
        ]
        return (count, moments, spreads), None

    zeros = [
        jax.tree.map(jnp.zeros_like, state.batch_stats[name][key])
        for name, key in places
    ]
    start = jnp.zeros(()), zeros, [each["mean"] for each in zeros]
    (_, moments, spreads), _ = jax.lax.scan(add, start, rows)
    estimated = {name: dict(layers) for name, layers in state.batch_stats.items()}
    for (name, key), own, spread in zip(places, moments, spreads, strict=True):
        estimated[name][key] = {**own, "var": own["var"] + spread}
    return estimated


@partial(jax.jit, static_argnums=(0, 1, 2))
def evaluation_program(
    frozen: Sequence[Unit],
    units: Sequence[Unit],
    variants: Variants | None,
    params: Tree,
    batch_stats: Tree,
    x: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Inference mode over the first `len(labels)` rows of a data set.

    Args:
        frozen: units before `units`, the same for all trials; a tuple.
        units: to the classifier; a tuple.
        variants: trials that are evaluated at once.
        params: by unit.
        batch_stats: likewise.
        x: (n, ...) inputs of the first unit.
        labels: of the images.

    Returns:
        Cross-entropies (n,) in nats, and logits (n, classes); of stacked trials
        (variants, ...) each.
    """
    count = len(labels)
    steps = -(-count // EVALUATED)
    size = -(-count // steps)
    rows = jnp.arange(steps * size).reshape(steps, size) % count

    def measure(_, own):
        y = infer(frozen, params, batch_stats, take(x, own))
        logits = infer(units, params, batch_stats, share(y, variants), variants)
        answers = share(take(labels, own), variants)
        return None, (cross_entropies(logits, answers), logits)

    _, (losses, logits) = jax.lax.scan(measure, None, rows)
    if variants is None:
        return tuple(
            own.reshape(-1, *own.shape[2:])[:count] for own in (losses, logits)
        )
    return tuple(
        jnp.moveaxis(own, 0, 1).reshape(variants.count, -1, *own.shape[3:])[:, :count]
        for own in (losses, logits)
    )


@partial(jax.jit, static_argnums=1)
def copies(state: State, variants: Variants | None = None) -> list[State]:
    """The state of every trial, in arrays of their own."""
    return [jax.tree.map(jnp.copy, own) for own in unstack(state, variants)]
