"""The head that a linear probe gives: fitted to the end on features of the frozen part.

Five epochs of a random head stay far below it, so that gains over "the head alone"
looked nine points too large. Deeper cuts may start from it as well: a random head
distorts the features below it first (Kumar et al. 2022, "Fine-Tuning can Distort
Pretrained Features and Underperform Out-of-Distribution", LP-FT).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

PENALTIES = tuple(10.0**power for power in range(-4, 2))  # on the mean loss
HELD_OUT = 5  # every fifth image of a class chooses the penalty
STEPS, TOLERANCE = 100, 1e-4


class HeadProbe(NamedTuple):
    """A linear classifier, and how it was regularized.

    Attributes:
        kernel: (c, classes) float32.
        bias: (classes,) float32.
        penalty: on half the squared norm of the kernel of standardized features.
        held_out_loss: of each of `PENALTIES`, in nats.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    held_out_loss: np.ndarray


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    class_weights: np.ndarray | None = None,
) -> HeadProbe:
    """Multinomial logistic regression by L-BFGS, to convergence.

    The penalty is the one of the least loss on a fifth of the training images, which
    are not looked at when it is fitted; then all of them are.

    Args:
        features: (n, c) of the training images.
        labels: (n,).
        num_classes: that there are.
        class_weights: (classes,) of the loss; None: all weigh the same.
    """
    features = np.asarray(features, np.float32)
    center, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, y = (features - center) / spread, np.asarray(labels, np.int32)
    held = held_out(y)
    w = np.ones(num_classes, np.float32) if class_weights is None else class_weights
    w = np.asarray(w, np.float32)[y]
    errors, start = [], zeros(x.shape[1], num_classes)
    for penalty in reversed(PENALTIES):  # from the one that is solved soonest
        start = solve(x[~held], y[~held], w[~held], np.float32(penalty), start)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            x[held] @ start[0] + start[1][None], y[held]
        )
        errors.append(float(np.average(losses, weights=w[held])))
    errors = np.array(errors[::-1])
    penalty = PENALTIES[int(np.nanargmin(errors))]
    kernel, bias = jax.device_get(
        solve(x, y, w, np.float32(penalty), zeros(x.shape[1], num_classes))
    )
    kernel = kernel / spread[:, None]
    return HeadProbe(kernel, bias - center @ kernel, penalty, errors)


def held_out(labels: np.ndarray) -> np.ndarray:
    """(n,) bool: every fifth image of each class, in order; at least one image."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        held[rows[HELD_OUT - 1 :: HELD_OUT]] = True
    if not held.any():
        held[-1] = True
    return held


def zeros(channels: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Where every fit starts."""
    return jnp.zeros((channels, num_classes)), jnp.zeros(num_classes)


@jax.jit
def solve(x, y, each, penalty, start):
    """The least weighted mean cross-entropy plus half the penalty times the squares."""

    def objective(weights):
        kernel, bias = weights
        logits = x @ kernel + bias[None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        mean = jnp.sum(each * losses) / jnp.sum(each)
        return mean + penalty / 2 * jnp.sum(kernel**2)

    optimizer = optax.lbfgs()
    gradient = optax.value_and_grad_from_state(objective)

    def go_on(carry):
        _, _, step, size = carry
        return (step < STEPS) & (size > TOLERANCE)

    def step(carry):
        weights, state, number, _ = carry
        value, grads = gradient(weights, state=state)
        updates, state = optimizer.update(
            grads, state, weights, value=value, grad=grads, value_fn=objective
        )
        weights = optax.apply_updates(weights, updates)
        return weights, state, number + 1, optax.tree.norm(grads)

    carry = start, optimizer.init(start), 0, jnp.inf
    weights, *_ = jax.lax.while_loop(go_on, step, carry)
    return weights
