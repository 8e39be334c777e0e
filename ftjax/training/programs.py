"""Compiled programs of single units: forward, backward, update."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ftjax.backbones.backbone import Unit
from ftjax.data.augment import Mixing
from ftjax.machine.stacking import Variants, each_variant
from ftjax.training.optimizer import Hyper, update_unit
from ftjax.training.residuals import leave_out
from ftjax.trees import Tree


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
        if frozen and trainable:  # the first of a suffix: nobody reads x's gradient
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
        input_gradient: as of `backward_unit`.
        pullback: of `forward_unit`.
        dy: gradient of the unit's output.
        total: gradients of the parts before, None if there were none.
        params: as of `update_unit`.
        opt_state: as of `update_unit`.
        hyper: as of `update_unit`.
        name: as of `update_unit`.
        trainable: as of `update_unit`.
        head: as of `update_unit`.
        variants: as of `update_unit`.

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
    class_weights: jax.Array | None = None,
    smoothing: jax.Array | None = None,
    mixing: Mixing | None = None,
):
    """Mean cross-entropy of (batch, classes) logits: its gradient, and metrics.

    Of a batch that comes in `parts` equal parts, the gradients of all add up to that of
    its mean. With weights, (classes,), an image counts as often as its class's weight
    says. The share `smoothing` of a loss is the mean over all classes (Szegedy et al.
    2016, "Rethinking the Inception Architecture", section 7). Of a mixed image it is
    the weighted mean of the losses of both labels. The metrics are those of the plain
    cross-entropy of `labels`.
    """

    def mean_loss(logits, labels, smoothing, mixing):
        def cross_entropy(labels):
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

        def sought(losses, labels):
            if smoothing is not None:
                even = jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
                losses = (1 - smoothing) * losses + smoothing * even
            if class_weights is not None:
                losses = losses * class_weights[labels]
            return losses

        losses = cross_entropy(labels)
        wanted = sought(losses, labels)
        if mixing is not None:
            other = sought(cross_entropy(mixing.others), mixing.others)
            wanted = mixing.shares * wanted + (1 - mixing.shares) * other
        return wanted.mean() / parts, losses.sum()

    def differentiate(logits, labels, *settings):
        gradient, total = jax.grad(mean_loss, has_aux=True)(logits, labels, *settings)
        return gradient, Metrics(total, (logits.argmax(-1) == labels).sum())

    return each_variant(differentiate, variants)(logits, labels, smoothing, mixing)


@partial(jax.jit, static_argnames="variants")
def add_squares(
    grads: Tree, total: jax.Array | None, *, variants: Variants | None = None
) -> jax.Array:
    """Sum of squares of all leaves, added to that of other units."""
    squares = each_variant(lambda grads: optax.tree.norm(grads, squared=True), variants)
    return squares(grads) if total is None else total + squares(grads)


@jax.jit
def clip_scale(clip: jax.Array, squares: jax.Array) -> jax.Array:
    """Factor on gradients by which their norm is `clip` at most."""
    return jnp.minimum(1.0, clip / jnp.sqrt(squares))


@partial(jax.jit, donate_argnums=0)
def add_trees(total: Tree, term: Tree) -> Tree:
    """Sum of two trees, leaf by leaf; `total` is donated."""
    return jax.tree.map(jnp.add, total, term)


class Metrics(NamedTuple):
    """Sums over images.

    Attributes:
        loss: cross-entropy in nats.
        correct: right answers.
    """

    loss: jax.Array
    correct: jax.Array
