"""One training step of the suffix, built from programs of single units.

Each distinct unit is compiled once, forward and backward, and chained by an ordinary
loop, so a new depth compiles nothing. Only trainable layers are differentiated.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ftjax.backbones.backbone import Backbone, Tree, Unit
from ftjax.depth import Cut
from ftjax.optim import Hyper, init_unit, update_unit
from ftjax.residuals import leave_out
from ftjax.variants import Variants, each_variant

BATCH_NORM_POLICIES = ("follow", "frozen", "recalibrate")


class SuffixUnit(NamedTuple):
    """A unit at or above the cut, and what of it is trained; static.

    Attributes:
        unit: the unit.
        trainable: keys of its trainable layers.
        batch_norm: keys of the BatchNorms that use batch statistics in training.
    """

    unit: Unit
    trainable: tuple[str, ...]
    batch_norm: tuple[str, ...]


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


class Metrics(NamedTuple):
    """Sums over pictures.

    Attributes:
        loss: cross-entropy in nats.
        correct: right answers.
    """

    loss: jax.Array
    correct: jax.Array


def check_policy(policy: str) -> None:
    """Raises ValueError if there is no such BatchNorm policy."""
    if policy not in BATCH_NORM_POLICIES:
        raise ValueError(
            f"unknown BatchNorm policy {policy!r}; --bn takes "
            f"{', '.join(BATCH_NORM_POLICIES)}"
        )


def make_suffix(
    network: Backbone, cut: Cut, policy: str, begin: str = ""
) -> tuple[SuffixUnit, ...]:
    """The suffix of a cut under a BatchNorm policy.

    `follow` and `recalibrate`: a BatchNorm uses batch statistics if it is trainable,
    as `trainable` means in Keras (keras/src/layers/normalization). `frozen`: none
    does, as the Keras guide advises (`base_model(x, training=False)`).

    Args:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        begin: as of `prefix.Activations`, whose pictures have passed the layers before.

    Raises:
        ValueError: the policy is unknown.
    """
    check_policy(policy)
    suffix = []
    first, *others = network[cut.unit :]
    units = first.onward(begin), *others
    for unit, keys in zip(units, cut.trainable, strict=True):
        norms = () if policy == "frozen" else unit.batch_norm_keys
        suffix.append(
            SuffixUnit(unit, keys, tuple(key for key in norms if key in keys))
        )
    return tuple(suffix)


def init_state(
    suffix: Sequence[SuffixUnit], params: Tree, batch_stats: Tree, *, optimizer: str
) -> State:
    """State at the start of a trial, from pretrained parameters and a fresh head."""
    own, stats = (
        {unit.name: on_device(tree[unit.name]) for unit, *_ in suffix}
        for tree in (params, batch_stats)
    )
    opt_state = {
        unit.name: init_unit(own[unit.name], name=optimizer, trainable=trainable)
        for unit, trainable, _ in suffix
    }
    return State(own, stats, opt_state)


def on_device(tree: Tree) -> Tree:
    """JAX arrays as they are, those of NumPy on the default device.

    Not by `jnp.asarray`: it compiles a program for every shape (JAX 0.10).
    """
    return jax.tree.map(
        lambda x: x if isinstance(x, jax.Array) else jax.device_put(x), tree
    )


def forward_unit(
    module,
    trainable,
    batch_norm,
    params: Tree,
    batch_stats: Tree,
    x,
    residual_scale,
    variants: Variants | None = None,
):
    """Training forward pass of one unit, of one trial or of stacked ones.

    Returns:
        Its output, its new running statistics, and the pullback, a pytree that maps
        the output's gradient to the gradients of the trainable layers and, if there are
        no others, of `x`.
    """
    inputs = params, batch_stats, x, residual_scale
    y, new_stats, residuals = forward_program(
        module, trainable, batch_norm, inputs, variants
    )
    return y, new_stats, residuals.complete((inputs, y))


@partial(jax.jit, static_argnums=(0, 1, 2, 4))
def forward_program(module, trainable, batch_norm, inputs, variants=None):
    """As `forward_unit`, of its arrays as a tuple; `Residuals` for the pullback."""

    def forward(*inputs):
        params, batch_stats, x, residual_scale = inputs
        frozen = {key: value for key, value in params.items() if key not in trainable}

        def run(learned, x):
            y, updated = module.apply(
                {"params": {**frozen, **learned}, "batch_stats": batch_stats},
                x,
                batch_norm=batch_norm,
                residual_scale=residual_scale,
                mutable=["batch_stats"],
            )
            return y, updated.get("batch_stats", {})

        learned = {key: params[key] for key in trainable}
        if frozen:  # the first unit of a suffix: nobody reads the gradient of x
            y, pullback, new_stats = jax.vjp(partial(run, x=x), learned, has_aux=True)
        else:
            y, pullback, new_stats = jax.vjp(run, learned, x, has_aux=True)
        return y, new_stats, leave_out(pullback, (inputs, y))

    return each_variant(forward, variants)(*inputs)


@partial(jax.jit, static_argnums=0, static_argnames="variants")
def backward_unit(input_gradient: bool, pullback, dy, variants: Variants | None = None):
    """Gradients of one unit's trainable layers and, if wanted, of its input."""

    def backward(pullback, dy):
        grads, *dx = pullback(dy)
        return grads, dx[0] if dx and input_gradient else None

    return each_variant(backward, variants)(pullback, dy)


@partial(
    jax.jit, static_argnums=0, static_argnames=("name", "trainable", "head", "variants")
)
def finish_unit(
    input_gradient: bool,
    pullback,
    dy,
    total: Tree | None,
    params: Tree,
    opt_state: Tree,
    hyper: Hyper,
    *,
    name: str,
    trainable: tuple[str, ...],
    head: bool,
    variants: Variants | None = None,
):
    """`backward_unit` of the last part of a batch, then `update_unit`.

    As one program a sweep takes 2 % less than as two (EfficientNetB0, top 50 layers).

    Args:
        input_gradient: as of `backward_unit`, likewise `pullback` and `dy`.
        total: gradients of the parts before, None if there were none.
        params: as of `update_unit`, likewise the others.

    Returns:
        New parameters of the trainable layers, new optimizer state, and the gradient of
        the unit's input, if wanted.
    """
    grads, dx = backward_unit(input_gradient, pullback, dy, variants=variants)
    if total is not None:
        grads = add_trees(total, grads)
    updated, opt_state = update_unit(
        params,
        grads,
        opt_state,
        hyper,
        name=name,
        trainable=trainable,
        head=head,
        variants=variants,
    )
    return {key: updated[key] for key in trainable}, opt_state, dx


def gives_input_gradient(index: int, unit: Unit) -> bool:
    """Whether the backward pass of a suffix's unit makes the gradient of its input.

    Nobody reads that of the first one. In a single convolution it is half of the work
    and left out; in a block that is trained from its start it is a 1x1 convolution,
    less than a second program would cost to compile, so that a new depth compiles none.
    """
    return index > 0 or unit.composite


@partial(jax.jit, static_argnames=("parts", "variants"))
def loss_gradient(
    logits: jax.Array,
    labels: jax.Array,
    parts: int = 1,
    variants: Variants | None = None,
):
    """Mean cross-entropy of (batch, classes) logits: its gradient, and metrics.

    Of a batch that comes in `parts` equal parts, the gradients of all add up to that of
    its mean.
    """

    def mean_loss(logits, labels):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() / parts, losses.sum()

    def differentiate(logits, labels):
        gradient, total = jax.grad(mean_loss, has_aux=True)(logits, labels)
        return gradient, Metrics(total, (logits.argmax(-1) == labels).sum())

    return each_variant(differentiate, variants)(logits, labels)


@partial(jax.jit, donate_argnums=0)
def add_trees(total: Tree, term: Tree) -> Tree:
    """Sum of two trees, leaf by leaf; `total` is donated."""
    return jax.tree.map(jnp.add, total, term)


class Batch(NamedTuple):
    """What one pass through the suffix takes; of stacked trials, (variants, ...).

    Attributes:
        x: (batch, ...) inputs of the first unit.
        labels: (batch,) class indices.
        scales: (units, batch) residual scales of the suffix, None without drop-connect.
    """

    x: jax.Array
    labels: jax.Array
    scales: np.ndarray | None


def train_step(
    suffix: Sequence[SuffixUnit],
    state: State,
    x: jax.Array,
    labels: jax.Array,
    scales: np.ndarray | None,
    hyper: Hyper,
    *,
    optimizer: str,
) -> tuple[State, Metrics]:
    """One optimizer step on one batch of the suffix's inputs.

    Args:
        suffix: units from the cut on.
        state: parameters, statistics and optimizer state by unit.
        x: as of `Batch`, likewise `labels` and `scales`.
        hyper: learning rate, head factor and decay.
        optimizer: a key of `OPTIMIZERS`.
    """
    batches = [Batch(x, labels, scales)]
    state, (metrics,) = accumulated_step(
        suffix, state, batches, 1, hyper, optimizer=optimizer
    )
    return state, metrics


def accumulated_step(
    suffix: Sequence[SuffixUnit],
    state: State,
    batches: Iterable[Batch],
    parts: int,
    hyper: Hyper,
    *,
    optimizer: str,
    variants: Variants | None = None,
) -> tuple[State, list[Metrics]]:
    """One optimizer step on a batch that comes in equal parts, one after the other.

    The gradients of the parts are added up, so the activations of only one are held.
    With BatchNorm frozen the step is that of the whole batch; a BatchNorm that is
    trained uses the statistics of each part, and its running ones move with each.

    Args:
        suffix: units from the cut on.
        state: parameters, statistics and optimizer state by unit.
        batches: the parts.
        parts: how many they are.
        hyper: learning rate, head factor and decay.
        optimizer: a key of `OPTIMIZERS`.
        variants: trials that are trained at once; all arrays above are stacked.

    Returns:
        The new state, and the metrics of every part.
    """
    params, batch_stats, opt_state = map(dict, state)
    totals: Tree = {}
    history = []
    for number, (x, labels, scales) in enumerate(batches, start=1):
        pullbacks = []
        for index, (unit, trainable, batch_norm) in enumerate(suffix):
            scale = None
            if scales is not None and unit.drop_share:
                scale = scales[..., index, :]
            x, new_stats, pullback = forward_unit(
                unit.module,
                trainable,
                batch_norm,
                params[unit.name],
                batch_stats[unit.name],
                x,
                scale,
                variants=variants,
            )
            batch_stats[unit.name] = new_stats
            pullbacks.append(pullback)
        gradient, metrics = loss_gradient(x, labels, parts, variants)
        history.append(metrics)
        for index in reversed(range(len(suffix))):
            unit, trainable, _ = suffix[index]
            wanted = gives_input_gradient(index, unit)
            pullback, total = pullbacks.pop(), totals.pop(unit.name, None)
            if number < parts:
                grads, gradient = backward_unit(
                    wanted, pullback, gradient, variants=variants
                )
                totals[unit.name] = grads if total is None else add_trees(total, grads)
                continue
            updated, opt_state[unit.name], gradient = finish_unit(
                wanted,
                pullback,
                gradient,
                total,
                params[unit.name],
                opt_state[unit.name],
                hyper,
                name=optimizer,
                trainable=trainable,
                head=not unit.counted,
                variants=variants,
            )
            params[unit.name] = {**params[unit.name], **updated}
    return State(params, batch_stats, opt_state), history
