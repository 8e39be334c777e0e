"""Labels become an optimizer: frozen parameters have no state and get no update.

The learning rate, the head's factor and the weight decay are arrays given at run time,
so trials that differ in them share one compiled program.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ftjax.axes import SGD_MOMENTUM
from ftjax.kernels.xla_calls import one_kernel
from ftjax.machine.stacking import Variants, each_variant
from ftjax.trees import Tree


class Hyper(NamedTuple):
    """Run-time numbers of the optimizer, float32 scalars.

    What is None has no part in the compiled program.

    Attributes:
        learning_rate: of the backbone.
        head_lr_factor: the head's learning rate over the backbone's.
        weight_decay: decoupled, per step as a fraction of the learning rate.
        head_bias_lr_factor: likewise of the head's biases; None: as `head_lr_factor`.
        momentum: of SGD; None: 0.9.
        l2: times the weight, added to the gradient of every kernel before momentum, as
            in Caffe and MATLAB; the gradient of l2 / 2 times the sum of squares.
        l1: times the weight's sign, likewise.
        layer_decay: factor on the rate from each unit of the body to the one before it.
        distance: of a unit, how many units of the body lie from it to the head; 0 in
            the head. Set by the step where there is a layer decay.
        label_smoothing: share of the loss that asks for all classes alike.
        clip: largest norm of the gradient of all that is trained.
        gradient_scale: factor on the gradient. Set by the step where it is clipped.
    """

    learning_rate: jax.Array
    head_lr_factor: jax.Array
    weight_decay: jax.Array
    head_bias_lr_factor: jax.Array | None = None
    momentum: jax.Array | None = None
    l2: jax.Array | None = None
    l1: jax.Array | None = None
    layer_decay: jax.Array | None = None
    distance: jax.Array | None = None
    label_smoothing: jax.Array | None = None
    clip: jax.Array | None = None
    gradient_scale: jax.Array | None = None

    @classmethod
    def of(cls, **numbers: float | None) -> "Hyper":
        """The numbers as float32 scalars on the host."""
        return cls(
            **{
                name: None if value is None else np.float32(value)
                for name, value in numbers.items()
            }
        )


def adam(learning_rate: jax.Array, hyper: Hyper, *, epsilon: float = 1e-7):
    """Adam (Kingma and Ba 2015), decay decoupled (Loshchilov and Hutter 2019).

    Equal to Keras' step by step, its default epsilon included.
    """
    return optax.chain(
        *penalties(hyper),
        scale_by_keras_adam(epsilon),
        optax.add_decayed_weights(hyper.weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def scale_by_keras_adam(
    epsilon: float, *, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam's direction with epsilon added where Keras adds it.

    Keras (keras/src/optimizers/adam.py) follows the end of section 2 of the paper: the
    bias correction of the second moment is taken out of the root, so epsilon stands
    beside the uncorrected root and weighs 1 / sqrt(1 - b2^t) as much, 32 times at the
    first step. optax adds it to the corrected root (algorithm 1).
    """

    def update(grads, state, params=None):
        del params
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        factor = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(
            lambda m, v: factor * m / (jnp.sqrt(v) + epsilon), mu, nu
        )
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1=b1, b2=b2).init, update)


def sgd(learning_rate: jax.Array, hyper: Hyper):
    """Momentum; decay decoupled, so it does not enter the momentum, as L2 does."""
    decay = SGD_MOMENTUM if hyper.momentum is None else hyper.momentum
    return optax.chain(
        *penalties(hyper),
        optax.trace(decay=decay),
        optax.add_decayed_weights(hyper.weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def penalties(hyper: Hyper) -> Iterator[optax.GradientTransformation]:
    """What is added to the gradients of kernels; biases and BatchNorms go free."""
    if hyper.l2 is not None:
        yield optax.masked(optax.add_decayed_weights(hyper.l2), kernels)
    if hyper.l1 is not None:
        yield optax.masked(
            optax.stateless(
                lambda grads, params: jax.tree.map(
                    lambda grad, leaf: grad + hyper.l1 * jnp.sign(leaf), grads, params
                )
            ),
            kernels,
        )


def kernels(tree: Tree) -> Tree:
    """Whether each leaf is a kernel."""
    return _named(tree, "kernel")


def _named(tree: Tree, name: str) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == name, tree)


OPTIMIZERS: dict[str, Callable] = {"adam": adam, "sgd": sgd}


def make_optimizer(
    name: str, labels: Tree, hyper: Hyper, *, head: bool = False
) -> optax.GradientTransformation:
    """The whole chain for what is labelled 'train', nothing for 'freeze'.

    Args:
        name: a key of `OPTIMIZERS`.
        labels: prefix tree of 'train' and 'freeze'.
        hyper: may be traced.
        head: whether these are the classifier's parameters.
    """
    rate = hyper.learning_rate * (hyper.head_lr_factor if head else 1.0)
    if hyper.layer_decay is not None:
        rate *= hyper.layer_decay**hyper.distance
    train = OPTIMIZERS[name](rate, hyper)
    if head and hyper.head_bias_lr_factor is not None:
        ratio = hyper.head_bias_lr_factor / hyper.head_lr_factor
        scale = optax.masked(optax.scale(ratio), biases)
        train = optax.chain(train, scale)
    return optax.partition({"train": train, "freeze": optax.set_to_zero()}, labels)


def biases(tree: Tree) -> Tree:
    """Whether each leaf is a bias."""
    return _named(tree, "bias")


def for_unit(hyper: Hyper, distance: int) -> Hyper:
    """The numbers that the update of a unit reads, so far from the head."""
    hyper = hyper._replace(label_smoothing=None, clip=None)
    if hyper.layer_decay is None:
        return hyper
    distances = np.full(np.shape(hyper.layer_decay), distance, np.float32)
    return hyper._replace(distance=distances)


def unit_labels(params: Tree, trainable: tuple[str, ...]) -> Tree:
    """Labels of one unit's layers."""
    return {key: "train" if key in trainable else "freeze" for key in params}


@partial(jax.jit, static_argnames=("name", "trainable", "head"))
def _start(
    params: Tree, hyper: Hyper, *, name: str, trainable: tuple[str, ...], head: bool
) -> Any:
    labels = unit_labels(params, trainable)
    return make_optimizer(name, labels, hyper, head=head).init(params)


PLAIN = Hyper.of(learning_rate=0, head_lr_factor=1, weight_decay=0)


def init_unit(
    params: Tree,
    hyper: Hyper = PLAIN,
    *,
    name: str,
    trainable: tuple[str, ...],
    head: bool = False,
) -> Any:
    """Optimizer state of one unit; frozen layers hold none.

    All of `OPTIMIZERS` start from zeros, so nothing need be compiled for it.
    """
    start = partial(_start, name=name, trainable=trainable, head=head)
    return jax.tree.map(
        lambda struct: jax.device_put(np.zeros(struct.shape, struct.dtype)),
        jax.eval_shape(start, params, hyper),
    )


@partial(jax.jit, static_argnames=("name", "trainable", "head", "variants"))
def update_unit(
    params: Tree,
    grads: Tree,
    opt_state: Any,
    hyper: Hyper,
    *,
    name: str,
    trainable: tuple[str, ...],
    head: bool,
    variants: Variants | None = None,
) -> tuple[Tree, Any]:
    """One optimizer step of one unit.

    Nothing is donated: XLA:CPU would copy the moments before it writes over them, which
    takes twice as long as writing elsewhere, and memory for one unit more is little.

    Args:
        params: of all its layers.
        grads: of its trainable layers only.
        opt_state: as `init_unit` made it.
        hyper: run-time numbers.
        name: a key of `OPTIMIZERS`.
        trainable: keys of its trainable layers.
        head: whether the unit is the classifier.
        variants: trials whose arrays are stacked in all of the above.

    Returns:
        New parameters, whose frozen leaves are the given ones, and new state.
    """

    def update(params, grads, opt_state, hyper):
        labels = unit_labels(params, trainable)
        optimizer = make_optimizer(name, labels, hyper, head=head)
        if hyper.gradient_scale is not None:
            grads = jax.tree.map(lambda leaf: leaf * hyper.gradient_scale, grads)
        all_grads = {**jax.tree.map(jnp.zeros_like, params), **grads}
        updates, opt_state = optimizer.update(all_grads, opt_state, params)
        updated = optax.apply_updates(params, updates)
        return {key: updated[key] for key in trainable}, opt_state

    run = one_kernel(each_variant(update, variants))
    updated, opt_state = run(params, grads, opt_state, hyper)
    return {**params, **updated}, opt_state
