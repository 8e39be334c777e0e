"""One training step of the suffix, built from programs of single units.

Each distinct unit is compiled once, forward and backward, and chained by an ordinary
loop, so a new depth compiles nothing. Only trainable layers are differentiated.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax

from ftjax.data.augment import Mixing
from ftjax.machine.stacking import Variants
from ftjax.training.optimizer import PLAIN, Hyper, for_unit, init_unit, update_unit
from ftjax.training.programs import (
    Metrics,
    add_squares,
    add_trees,
    backward_unit,
    clip_scale,
    finish_unit,
    forward_program,
    gives_input_gradient,
    loss_gradient,
)
from ftjax.training.suffix import SuffixUnit
from ftjax.trees import Tree


class State(NamedTuple):
    """What changes in training: the suffix, by unit.

    Attributes:
        params: of all layers of the suffix.
        batch_stats: running statistics of all BatchNorms of the suffix.
        opt_state: optimizer state.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree


def init_state(
    suffix: Sequence[SuffixUnit],
    params: Tree,
    batch_stats: Tree,
    *,
    optimizer: str,
    hyper: Hyper = PLAIN,
) -> State:
    """State at the start of a trial, from pretrained parameters and a fresh head.

    Args:
        suffix: units from the cut on.
        params: by unit.
        batch_stats: by unit.
        optimizer: a key of `OPTIMIZERS`.
        hyper: whose parts that are None have no state.
    """
    own, stats = (
        {unit.name: on_device(tree[unit.name]) for unit, *_ in suffix}
        for tree in (params, batch_stats)
    )
    opt_state = {
        part.unit.name: init_unit(
            own[part.unit.name],
            for_unit(hyper, 0),
            name=optimizer,
            trainable=part.trainable,
            head=part.head,
        )
        for part in suffix
        if not part.frozen
    }
    return State(own, stats, opt_state)


def on_device(tree: Tree) -> Tree:
    """JAX arrays as they are, those of NumPy on the default device.

    Not by `jnp.asarray`: it compiles a program for every shape (JAX 0.10).
    """
    return jax.tree.map(
        lambda x: x if isinstance(x, jax.Array) else jax.device_put(x), tree
    )


class Batch(NamedTuple):
    """What one pass through the suffix takes; of stacked trials, (variants, ...).

    Attributes:
        x: (batch, ...) inputs of the first unit.
        labels: (batch,) class indices.
        scales: by unit that drops something, (batch,), as of `batches.epoch_scales`.
        mixing: (batch,) labels of the images that these were mixed with, and shares;
            None without mixup.
    """

    x: jax.Array
    labels: jax.Array
    scales: Tree = {}
    mixing: Mixing | None = None


def train_step(
    suffix: Sequence[SuffixUnit],
    state: State,
    batches: Iterable[Batch],
    hyper: Hyper,
    *,
    optimizer: str,
    parts: int = 1,
    variants: Variants | None = None,
    class_weights: jax.Array | None = None,
) -> tuple[State, list[Metrics]]:
    """One optimizer step on a batch that comes in equal parts, one after the other.

    The gradients of the parts are added up, so the activations of only one are held.
    With BatchNorm frozen the step is that of the whole batch; a BatchNorm that is
    trained uses the statistics of each part, and its running ones move with each.
    Where the gradient is clipped, no unit is updated before the norm of all is known.

    Args:
        suffix: units from the cut on.
        state: parameters, statistics and optimizer state by unit.
        batches: the parts; each is asked for when the one before has been passed.
        hyper: run-time numbers of the optimizer.
        optimizer: a key of `OPTIMIZERS`.
        parts: how many they are.
        variants: trials that are trained at once; all arrays above are stacked.
        class_weights: (classes,) of the loss; None: all weigh the same.

    Returns:
        The new state, and the metrics of every part.
    """
    params, batch_stats, opt_state = map(dict, state)
    totals: Tree = {}
    history = []
    bodies = sum(not part.head for part in suffix)
    clipped = hyper.clip is not None
    for number, (x, labels, scales, mixing) in enumerate(batches, start=1):
        pullbacks = []
        for part in suffix:
            unit, trainable, batch_norm, _ = part
            scale = None if part.frozen else scales.get(unit.name)
            inputs = params[unit.name], batch_stats[unit.name], x, scale
            x, batch_stats[unit.name], residuals = forward_program(
                unit.module, trainable, batch_norm, inputs, variants
            )
            pullbacks.append(residuals.complete((inputs, x)))
        smoothing = hyper.label_smoothing
        gradient, metrics = loss_gradient(
            x, labels, parts, variants, class_weights, smoothing, mixing
        )
        history.append(metrics)
        for index in reversed(range(len(suffix))):
            unit, trainable, _, head = suffix[index]
            wanted = gives_input_gradient(index, unit)
            pullback, total = pullbacks.pop(), totals.pop(unit.name, None)
            if number < parts or clipped or suffix[index].frozen:
                grads, gradient = backward_unit(
                    wanted, pullback, gradient, variants=variants
                )
                if total is not None:
                    grads = add_trees(total, grads)
                totals[unit.name] = grads
                continue
            updated, opt_state[unit.name], gradient = finish_unit(
                wanted,
                pullback,
                gradient,
                total,
                params[unit.name],
                opt_state[unit.name],
                for_unit(hyper, 0 if head else bodies - index),
                name=optimizer,
                trainable=trainable,
                head=head,
                variants=variants,
            )
            params[unit.name] = {**params[unit.name], **updated}
    if clipped:
        squares = None
        for grads in filter(jax.tree.leaves, totals.values()):
            squares = add_squares(grads, squares, variants=variants)
        hyper = hyper._replace(gradient_scale=clip_scale(hyper.clip, squares))
        for index, part in enumerate(suffix):
            if part.frozen:
                continue
            unit, trainable, _, head = part
            params[unit.name], opt_state[unit.name] = update_unit(
                params[unit.name],
                totals[unit.name],
                opt_state[unit.name],
                for_unit(hyper, 0 if head else bodies - index),
                name=optimizer,
                trainable=trainable,
                head=head,
                variants=variants,
            )
    return State(params, batch_stats, opt_state), history
