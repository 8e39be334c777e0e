"""One training step of the suffix, built from programs of single units.

Each distinct unit is compiled once, forward and backward, and chained by an ordinary
loop, so a new depth compiles nothing. Only trainable layers are differentiated.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ftjax.backbones.backbone import Backbone, Tree, Unit
from ftjax.depth import Cut
from ftjax.evaluate import evaluate, recalibrate
from ftjax.optim import Hyper, init_unit, update_unit
from ftjax.prefix import Activations, infer

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


def make_suffix(network: Backbone, cut: Cut, policy: str) -> tuple[SuffixUnit, ...]:
    """The suffix of a cut under a BatchNorm policy.

    `follow` and `recalibrate`: a BatchNorm uses batch statistics if it is trainable,
    as `trainable` means in Keras (keras/src/layers/normalization). `frozen`: none
    does, as the Keras guide advises (`base_model(x, training=False)`).

    Raises:
        ValueError: the policy is unknown.
    """
    check_policy(policy)
    suffix = []
    for unit, keys in zip(network.units[cut.unit :], cut.trainable, strict=True):
        norms = () if policy == "frozen" else unit.batch_norm_keys
        suffix.append(
            SuffixUnit(unit, keys, tuple(key for key in norms if key in keys))
        )
    return tuple(suffix)


def init_state(
    suffix: Sequence[SuffixUnit], params: Tree, batch_stats: Tree, *, optimizer: str
) -> State:
    """State at the start of a trial, from pretrained parameters and a fresh head."""
    own = {
        unit.name: jax.tree.map(jnp.asarray, params[unit.name]) for unit, *_ in suffix
    }
    stats = {
        unit.name: jax.tree.map(jnp.asarray, batch_stats[unit.name])
        for unit, *_ in suffix
    }
    opt_state = {
        unit.name: init_unit(own[unit.name], name=optimizer, trainable=trainable)
        for unit, trainable, _ in suffix
    }
    return State(own, stats, opt_state)


@partial(jax.jit, static_argnums=(0, 1, 2))
def forward_unit(
    module, trainable, batch_norm, params: Tree, batch_stats: Tree, x, residual_scale
):
    """Training forward pass of one unit.

    Returns:
        Its output, its new running statistics, and the pullback, a pytree that maps
        the output's gradient to the gradients of the trainable layers and of `x`.
    """
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
    y, pullback, new_stats = jax.vjp(run, learned, x, has_aux=True)
    return y, new_stats, pullback


@partial(jax.jit, static_argnums=0)
def backward_unit(input_gradient: bool, pullback, dy):
    """Gradients of one unit's trainable layers and, if wanted, of its input.

    Nobody reads the input's gradient of the first unit of a suffix. In a single
    convolution it is half of the work and left out; in a block it is a 1x1 convolution,
    less than a second program would cost to compile, so that a new depth compiles none.
    """
    grads, dx = pullback(dy)
    return grads, dx if input_gradient else None


@jax.jit
def loss_gradient(logits: jax.Array, labels: jax.Array):
    """Mean cross-entropy of (batch, classes) logits: its gradient, and metrics."""

    def mean_loss(logits):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), losses.sum()

    gradient, total = jax.grad(mean_loss, has_aux=True)(logits)
    return gradient, Metrics(total, (logits.argmax(-1) == labels).sum())


@partial(jax.jit, static_argnums=(2, 3, 4))
def residual_scales(
    key: jax.Array, epoch, rates: tuple[float, ...], steps: int, batch_size: int
) -> jax.Array:
    """Drop-connect (Huang et al. 2016): 0, or 1 / (1 - rate), by unit and picture.

    Rates belong to the units of the whole network, so a unit draws the same numbers
    at every depth. Keras drops in frozen blocks as well; here only blocks with
    something trainable do, since the frozen part is passed once.

    Returns:
        (steps, units, batch) of one epoch.
    """
    keep = 1 - jnp.asarray(rates, jnp.float32).reshape(1, -1, 1)
    shape = (steps, len(rates), batch_size)
    draws = jax.random.uniform(jax.random.fold_in(key, epoch), shape)
    return jnp.where(draws < keep, 1 / keep, 0.0)


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
        x: (batch, ...) inputs of the first unit.
        labels: (batch,) class indices.
        scales: (units, batch) residual scales of the suffix, None without drop-connect.
        hyper: learning rate, head factor and decay.
        optimizer: a key of `OPTIMIZERS`.
    """
    params, batch_stats, opt_state = map(dict, state)
    pullbacks = []
    for index, (unit, trainable, batch_norm) in enumerate(suffix):
        scale = None if scales is None or not unit.drop_share else scales[index]
        x, new_stats, pullback = forward_unit(
            unit.module,
            trainable,
            batch_norm,
            params[unit.name],
            batch_stats[unit.name],
            x,
            scale,
        )
        batch_stats[unit.name] = new_stats
        pullbacks.append(pullback)
    gradient, metrics = loss_gradient(x, labels)
    for index in reversed(range(len(suffix))):
        unit, trainable, _ = suffix[index]
        wanted = index > 0 or unit.composite
        grads, gradient = backward_unit(wanted, pullbacks.pop(), gradient)
        params[unit.name], opt_state[unit.name] = update_unit(
            params[unit.name],
            grads,
            opt_state[unit.name],
            hyper,
            name=optimizer,
            trainable=trainable,
            head=not unit.counted,
        )
    return State(params, batch_stats, opt_state), metrics


class Problem(NamedTuple):
    """Everything a trial trains on; constant during it.

    Attributes:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        params: pretrained parameters and the fresh head, by unit.
        batch_stats: pretrained running statistics, by unit.
        activations: of the training and validation set, at or before the cut.
        train_labels: (n_train,).
        val_labels: (n_val,).
        hyper: run-time numbers of the optimizer.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: pictures per step.
        drop_connect: largest drop-connect rate, 0 for none.
        seed: of head, data order and drop-connect.
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
    drop_connect: float
    seed: int


class Epoch(NamedTuple):
    """One epoch's numbers.

    Attributes:
        epoch: counted from 1.
        accuracy: on the training set, in evaluation mode.
        loss: likewise, in nats.
        val_accuracy: on the validation set, in evaluation mode.
        val_loss: likewise.
        train_mode_accuracy: mean over the epoch's batches as they were trained.
        train_mode_loss: likewise.
        steps: optimizer steps.
        seconds: wall time, compilation included.
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


def epoch_order(seed: int, epoch: int, num_pictures: int) -> np.ndarray:
    """The order of the training pictures; the same at every depth."""
    key = jax.random.fold_in(jax.random.split(jax.random.key(seed), 3)[1], epoch)
    return np.asarray(jax.random.permutation(key, num_pictures))


def run_epochs(
    problem: Problem, state: State, first: int, last: int
) -> Iterator[tuple[State, Epoch, np.ndarray]]:
    """Trains from epoch `first` to `last`, both counted from 1.

    Yields:
        After each epoch: the state, its numbers, and per validation picture whether
        the answer is right. An epoch depends on nothing but the state before it, so
        a run that was interrupted ends with the numbers of one that was not.
    """
    suffix = make_suffix(problem.network, problem.cut, problem.policy)
    for epoch in range(first, last + 1):
        start = time.perf_counter()
        order = epoch_order(problem.seed, epoch, len(problem.train_labels))
        state, metrics, steps = train_epoch(problem, suffix, state, order, epoch)
        if problem.policy == "recalibrate":
            state = state._replace(
                batch_stats=recalibrate(
                    suffix,
                    recomputed_units(problem),
                    {**problem.params, **state.params},
                    {**problem.batch_stats, **state.batch_stats},
                    problem.activations.train[order],
                    batch_size=problem.batch_size,
                )
            )
        loss, correct = evaluate_state(problem, state, "train")
        val_loss, val_correct = evaluate_state(problem, state, "val")
        seen = steps * problem.batch_size
        yield (
            state,
            Epoch(
                epoch=epoch,
                accuracy=float(correct.mean()),
                loss=loss,
                val_accuracy=float(val_correct.mean()),
                val_loss=val_loss,
                train_mode_accuracy=float(metrics.correct) / seen,
                train_mode_loss=float(metrics.loss) / seen,
                steps=steps,
                seconds=time.perf_counter() - start,
            ),
            val_correct,
        )


def train_epoch(
    problem: Problem,
    suffix: Sequence[SuffixUnit],
    state: State,
    order: np.ndarray,
    epoch: int,
) -> tuple[State, Metrics, int]:
    """All full batches of one epoch; the rest of the pictures waits for the next."""
    batch_size = problem.batch_size
    steps = len(order) // batch_size
    rates = tuple(
        unit.drop_share * problem.drop_connect for unit in problem.network.units
    )
    scales = None
    if any(rates[problem.cut.unit :]):
        drop_key = jax.random.split(jax.random.key(problem.seed), 3)[2]
        scales = residual_scales(drop_key, epoch, rates, steps, batch_size)
        scales = np.asarray(scales)[:, problem.cut.unit :]
    recomputed = recomputed_units(problem)
    history = []
    for step in range(steps):
        rows = np.sort(order[step * batch_size : (step + 1) * batch_size])
        x = jnp.asarray(problem.activations.train[rows])
        x = infer(recomputed, problem.params, problem.batch_stats, x)
        state, metrics = train_step(
            suffix,
            state,
            x,
            problem.train_labels[rows],
            None if scales is None else scales[step],
            problem.hyper,
            optimizer=problem.optimizer,
        )
        history.append(metrics)
    losses, correct = zip(*jax.device_get(history), strict=True)
    return state, Metrics(np.sum(losses, dtype=np.float64), np.sum(correct)), steps


def recomputed_units(problem: Problem) -> tuple[Unit, ...]:
    """Frozen units between the stored activations and the cut."""
    return problem.network[problem.activations.boundary : problem.cut.unit]


def evaluate_state(
    problem: Problem, state: State, split: str
) -> tuple[float, np.ndarray]:
    """Loss and right answers of `train` or `val` in evaluation mode."""
    activations = problem.activations
    return evaluate(
        problem.network[activations.boundary :],
        {**problem.params, **state.params},
        {**problem.batch_stats, **state.batch_stats},
        activations.train if split == "train" else activations.val,
        problem.train_labels if split == "train" else problem.val_labels,
        batch_size=problem.batch_size,
    )
