"""The batches of an epoch: which images, in which order, brought to the cut."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ftjax.backbones.backbone import Backbone, Unit
from ftjax.backbones.stochastic_depth import drop_rates, residual_scales
from ftjax.data.augment import Mixing, Views
from ftjax.frozen.forward import infer, take_each
from ftjax.machine.mesh import shard_batch
from ftjax.machine.stacking import Variants, split_rows
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch
from ftjax.training.suffix import SuffixUnit
from ftjax.trees import Tree

BODY = 1  # sets its units' draws apart from those of the head


class Step(NamedTuple):
    """What all steps of a trial, or of stacked trials, have in common; static.

    Attributes:
        suffix: units from the cut on.
        recomputed: frozen units between the stored activations and the cut.
        optimizer: a key of `OPTIMIZERS`.
        parts: in which a batch passes through the network.
        variants: trials that are trained at once.
        mesh: devices that share them.
        drops: blocks that an epoch program draws for; None: there are none.
        words: of the augmentation, where an epoch program makes the views.
    """

    suffix: tuple[SuffixUnit, ...]
    recomputed: tuple[Unit, ...]
    optimizer: str
    parts: int
    variants: Variants | None
    mesh: Mesh | None
    drops: "Drops | None" = None
    words: tuple[str, ...] = ()


class Drops(NamedTuple):
    """The blocks that are skipped at random; static.

    Attributes:
        rates: of all units, as of `drop_rates`.
        units: name and index of each of them that is in the suffix.
    """

    rates: tuple[float, ...]
    units: tuple[tuple[str, int], ...]


class ViewRows(NamedTuple):
    """The views that the images of an epoch show.

    Attributes:
        stored: rows of `Source.train`, in the place of those of the images.
        mixing: labels that mixup takes in, and shares, likewise; None without mixup.
        others: images that mixup takes in, likewise.
    """

    stored: np.ndarray | jax.Array
    mixing: Mixing | None = None
    others: np.ndarray | jax.Array | None = None


class Source(NamedTuple):
    """The arrays that every step reads.

    Attributes:
        train: stored activations of the training set, or of views of it.
        labels: (n_train,).
        params: pretrained, of the recomputed units at least.
        batch_stats: likewise.
        hyper: run-time numbers of the optimizer.
        class_weights: (classes,) of the loss; None: all weigh the same.
    """

    train: np.ndarray | jax.Array | Views
    labels: np.ndarray | jax.Array
    params: Tree
    batch_stats: Tree
    hyper: Hyper
    class_weights: np.ndarray | None = None


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of the training images; the same at every depth."""
    return np.random.default_rng([seed, epoch]).permutation(num_images)


def epoch_rows(order: np.ndarray, batch_size: int) -> np.ndarray:
    """The full batches of an epoch; the rest of the images waits for the next.

    Args:
        order: (n_train,) of the images, or (seeds, n_train).
        batch_size: images per step.

    Returns:
        (steps, batch) indices into the training set, or (steps, seeds, batch); sorted
        within a batch, so that they are read in the order in which they are stored.
    """
    steps = order.shape[-1] // batch_size
    rows = order[..., : steps * batch_size]
    rows = rows.reshape(*order.shape[:-1], steps, batch_size)
    return np.moveaxis(np.sort(rows), -2, 0)


def view_rows(
    views: Views, rows: np.ndarray, blocks: np.ndarray, labels: np.ndarray
) -> ViewRows:
    """Where the views of an epoch are.

    Args:
        views: of the training set.
        rows: as `epoch_rows` returns them.
        blocks: (n_train,) or (seeds, n_train), the block of each image's view.
        labels: (n_train,).
    """
    shown = np.take_along_axis(
        np.broadcast_to(blocks, (len(rows), *blocks.shape)), rows, axis=-1
    )
    stored = rows * len(views.blocks) + shown
    if views.mixing is None:
        return ViewRows(stored)
    others, shares = views.mixing
    mixed = others[stored]
    return ViewRows(stored, Mixing(labels[mixed], shares[stored]), mixed)


def epoch_scales(
    network: Backbone,
    first: int,
    seeds: Sequence[int],
    epoch: int,
    *,
    drop_connect: float,
    steps: int,
    batch_size: int,
) -> Tree:
    """What an epoch draws for the units that drop something, a number per image.

    The body draws the same under every head, and a unit of the head at every depth.

    Args:
        network: backbone with head.
        first: index of the suffix's first unit.
        seeds: of the trials.
        epoch: counted from 1.
        drop_connect: largest rate.
        steps: of the epoch.
        batch_size: images per step.

    Returns:
        By unit of the suffix (steps, batch), with several seeds (steps, seeds, batch):
        residual scales (`residual_scales`) in the body, in [0, 1) for dropout.
    """
    drops = make_drops(network, first, drop_connect)
    drawn = []
    for seed in seeds:
        own = {}
        if drops is not None:
            key = jax.random.key(seed)
            scales = residual_scales(key, epoch, drops.rates, steps, batch_size)
            own = by_unit(drops, np.asarray(scales))
        drawn.append(own)
    numbers = dropout_numbers(
        network, first, seeds, epoch, steps=steps, batch_size=batch_size
    )
    return {**stack_draws(drawn), **numbers}


def make_drops(network: Backbone, first: int, drop_connect: float) -> Drops | None:
    """The blocks from unit `first` on that are dropped at rates up to the largest."""
    rates = drop_rates(network, drop_connect)
    units = tuple(
        (unit.name, index)
        for index, unit in enumerate(network.body)
        if index >= first and unit.drop_share
    )
    return Drops(rates, units) if any(rates[first:]) else None


def by_unit(drops: Drops, scales: np.ndarray | jax.Array) -> Tree:
    """(steps, units, batch) residual scales as (steps, batch) of each block's."""
    return {name: scales[:, index] for name, index in drops.units}


def dropout_numbers(
    network: Backbone,
    first: int,
    seeds: Sequence[int],
    epoch: int,
    *,
    steps: int,
    batch_size: int,
) -> Tree:
    """The part of `epoch_scales` that is of dropout: numbers in [0, 1)."""
    drawn: list[Tree] = []
    for seed in seeds:
        own = {}
        places = {(index,): unit for index, unit in enumerate(network.head)}
        places |= {
            (index, BODY): unit
            for index, unit in enumerate(network.body)
            if index >= first
        }
        for place, unit in places.items():
            if unit.dropout:
                rng = np.random.default_rng([seed, epoch, *place])
                own[unit.name] = rng.random((steps, batch_size), np.float32)
        drawn.append(own)
    return stack_draws(drawn)


def stack_draws(drawn: Sequence[Tree]) -> Tree:
    """What several seeds draw, (steps, seeds, ...); of a single one as it is."""
    if len(drawn) == 1:
        return drawn[0]
    return jax.tree.map(lambda *each: np.stack(each, axis=1), *drawn)


def epoch_batches(
    step: Step,
    source: Source,
    rows: np.ndarray,
    scales: Tree,
    views: ViewRows | None = None,
) -> Iterator[Iterator[Batch]]:
    """The batches of an epoch, each as its parts.

    Args:
        step: what the steps have in common.
        source: what they read.
        rows: as `epoch_rows` returns them.
        scales: as `epoch_scales` returns them.
        views: as `view_rows` returns them; None where the images themselves are read.
    """
    read = rows if views is None else views.stored
    parts = [part for own in read for part in split(step, own)]
    stored = take_each(source.train, parts)
    for number, own in enumerate(rows):
        scale = {unit: drawn[number] for unit, drawn in scales.items()}
        mixing = None
        if views is not None and views.mixing is not None:
            mixing = Mixing(*(values[number] for values in views.mixing))
        yield batch_parts(step, source, own, scale, stored, mixing)


def split(step: Step, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each part of a batch, those of all seeds one after the other."""
    size = rows.shape[-1] // step.parts
    for start in range(0, rows.shape[-1], size):
        yield rows[..., start : start + size].reshape(-1)


def batch_parts(
    step: Step,
    source: Source,
    rows: np.ndarray,
    scales: Tree,
    stored: Iterator[np.ndarray | jax.Array],
    mixing: Mixing | None = None,
) -> Iterator[Batch]:
    """The images of one step in equal parts, each at the cut when it is asked for."""
    size = rows.shape[-1] // step.parts
    for number, own in enumerate(split(step, rows)):
        x = shard_batch(next(stored), step.mesh)
        x = infer(step.recomputed, source.params, source.batch_stats, x)
        labels = shard_batch(source.labels[own], step.mesh)
        part = slice(number * size, (number + 1) * size)
        mixed = [values[..., part].reshape(-1) for values in mixing or ()]
        mixed = [shard_batch(values, step.mesh) for values in mixed]
        yield Batch(
            split_rows(x, step.variants),
            split_rows(labels, step.variants),
            {unit: drawn[..., part] for unit, drawn in scales.items()},
            Mixing(*(split_rows(own, step.variants) for own in mixed))
            if mixed
            else None,
        )
