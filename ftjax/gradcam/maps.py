"""Where a network looks: class activation maps at every unit boundary.

One forward pass keeps every unit's output and its pullback, one backward pass gives
the gradient of the score at every boundary (`chain`). Gradients are with respect to
activations, so nothing needs to be trainable.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ftjax.backbones.backbone import Unit, boundary_shapes
from ftjax.training.chain import Tape, backward, record
from ftjax.trees import Tree


class Maps(NamedTuple):
    """Class activation maps of some images.

    Attributes:
        logits: (n, classes).
        classes: (n,) class whose score the maps explain.
        maps: by unit, input first; (n, h, w) at the unit's own resolution, 0 or more.
            Their scale differs between units and images and has no meaning.
    """

    logits: np.ndarray
    classes: np.ndarray
    maps: dict[str, np.ndarray]


class Stage(NamedTuple):
    """Consecutive units at one resolution.

    Attributes:
        units: their names, input first.
        end: the unit whose map stands for the stage: its last with parameters.
        num_layers: how many layers of Keras' graph the units hold.
        height: of that unit's output, in pixels.
        width: likewise.
    """

    units: tuple[str, ...]
    end: str
    num_layers: int
    height: int
    width: int


def grad_cam(outputs: jax.Array, gradients: jax.Array) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2).

    Channels are weighted by the mean of their gradient over the pixels.

    Args:
        outputs: (batch, h, w, channels) of a unit.
        gradients: of the score with respect to `outputs`.

    Returns:
        (batch, h, w), 0 or more.
    """
    weights = gradients.mean((1, 2), keepdims=True)  # (batch, 1, 1, channels)
    return jax.nn.relu((weights * outputs).sum(-1))


def grad_cam_plus_plus(outputs: jax.Array, gradients: jax.Array) -> jax.Array:
    """Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063, equation 19).

    The score is exp(logit), as in the paper; its derivative is the
    logit's times a positive factor that is the same for the whole map, which is left
    out. The paper's activations are 0 or more. Those after the linear projection of an
    MBConv block are not, and its denominator would pass through 0, so that rounding
    alone decides the map; here only their positive part is summed. After a ReLU that
    is the paper's formula.

    Args and result as in `grad_cam`.
    """
    total = jax.nn.relu(outputs).sum((1, 2), keepdims=True)  # (batch, 1, 1, channels)
    # Equation 19, g^2 / (2 g^2 + total g^3), divided by g^2, which underflows. Below,
    # gradients under 0 have no weight, so their denominator is not needed.
    alpha = 1 / (2 + total * jax.nn.relu(gradients))
    weights = (alpha * jax.nn.relu(gradients)).sum((1, 2), keepdims=True)
    return jax.nn.relu((weights * outputs).sum(-1))


def hires_cam(outputs: jax.Array, gradients: jax.Array) -> jax.Array:
    """HiResCAM (Draelos and Carin 2020, arXiv:2011.08891), its positive part.

    Gradient times activation, pixel by pixel. Args and result as in `grad_cam`.
    """
    return jax.nn.relu((gradients * outputs).sum(-1))


def layer_cam(outputs: jax.Array, gradients: jax.Array) -> jax.Array:
    """LayerCAM (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943), section III.

    As HiResCAM with positive gradients only. Args and result as in `grad_cam`.
    """
    return jax.nn.relu((jax.nn.relu(gradients) * outputs).sum(-1))


METHODS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "hirescam": hires_cam,
    "layercam": layer_cam,
}


@partial(jax.jit, static_argnums=0)
def cam(method: str, outputs: jax.Array, gradients: jax.Array) -> jax.Array:
    """The map of one boundary; arguments as in `grad_cam`."""
    return METHODS[method](outputs, gradients)


def boundary_gradients(tape: Tape, classes: jax.Array) -> dict[str, jax.Array]:
    """Gradients of a class score with respect to every unit's output.

    The score is the class's logit, before the softmax (Selvaraju et al. 2017, section
    3): a softmax would mix in the other classes.

    Args:
        tape: of `record`.
        classes: (batch,) one class for each image.

    Returns:
        By unit, input first; of those whose output is (batch, h, w, channels), and
        shaped like it.
    """
    dy = jax.nn.one_hot(classes, tape.logits.shape[-1], dtype=tape.logits.dtype)
    steps = backward(tape, dy)
    found = [step.input for step in steps if step.input is not None][::-1]
    # The gradient of a unit's input is that of the output of the unit before it.
    pairs = zip(list(tape.outputs)[:-1], found, strict=True)
    return {name: gradient for name, gradient in pairs if gradient.ndim == 4}


def explain(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    images: np.ndarray,
    *,
    classes: np.ndarray | int | None = None,
    method: str = "gradcam",
    batch_size: int = 16,
) -> Maps:
    """Maps of a set of images at every unit boundary.

    Args:
        units: of a backbone with its head.
        params: by unit.
        batch_stats: running statistics by unit.
        images: (n, h, w, 3) RGB in 0..255.
        classes: (n,) the class to explain for each image, one for all of them, or
            None for the one the network predicts.
        method: a key of `METHODS`.
        batch_size: images per pass; the result does not depend on it.

    Raises:
        ValueError: unknown method, no images, or classes that do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    if images.ndim != 4 or not len(images):
        raise ValueError(
            f"images of shape {images.shape}; allowed: (n, height, width, 3), n >= 1"
        )
    if classes is not None:
        classes = np.broadcast_to(np.asarray(classes, np.int32), len(images))
    parts = []
    for rows, count in _slices(len(images), batch_size):
        tape = record(units, params, batch_stats, jax.device_put(images[rows]))
        if classes is None:
            chosen = np.asarray(tape.logits.argmax(-1), np.int32)
        else:
            chosen = check_classes(classes, tape.logits.shape[-1])[rows]
        gradients = boundary_gradients(tape, jax.device_put(chosen))
        maps = {
            name: cam(method, tape.outputs[name], gradient)
            for name, gradient in gradients.items()
        }
        part = jax.device_get(Maps(tape.logits, chosen, maps))
        parts.append(jax.tree.map(lambda x, count=count: x[:count], part))
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    # JAX sorts the keys of a dict; back to the order of the network.
    order = [unit.name for unit in units if unit.name in joined.maps]
    return joined._replace(maps={name: joined.maps[name] for name in order})


def _slices(num_images: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Image numbers of every batch, and how many are real.

    The last is filled up, even if it is the only one: another size would need programs
    of its own.
    """
    for start in range(0, num_images, batch_size):
        rows = np.arange(start, min(start + batch_size, num_images))
        yield np.resize(rows, batch_size), len(rows)


def check_classes(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the classes if the network has them all, else raises ValueError."""
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"class {wrong[0]} is out of range: the network has classes 0 to "
            f"{num_classes - 1}"
        )
    return classes


def runner_up(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class of the largest logit other than `classes`; (n, classes) -> (n,)."""
    others = np.array(logits, np.float64)
    others[np.arange(len(classes)), classes] = -np.inf
    return others.argmax(-1).astype(np.int32)


def find_stages(units: Sequence[Unit], size: int) -> tuple[Stage, ...]:
    """Groups the units that give maps by the resolution of their outputs.

    A pooling unit opens the stage of its lower resolution; pooling at the very end
    belongs to the stage before it, as it has nothing to unfreeze.

    Args:
        units: of a backbone's body, from the first one on.
        size: height and width of the images, in pixels.

    Raises:
        ValueError: no unit gives a map, as in a vision transformer.
    """
    shapes = boundary_shapes(units, size)[1:]
    groups: list[list[tuple[Unit, tuple[int, ...]]]] = []
    for unit, shape in zip(units, shapes, strict=True):
        if len(shape) != 3:  # vectors have no maps
            continue
        if groups and groups[-1][-1][1][:2] == shape[:2]:
            groups[-1].append((unit, shape))
        else:
            groups.append([(unit, shape)])
    if not groups:
        raise ValueError(
            f"no unit gives a map of places ({units[0].name} gives {shapes[0]}): "
            "Grad-CAM takes networks of convolutions, not of tokens"
        )
    if len(groups) > 1 and not any(unit.parameter_keys for unit, _ in groups[-1]):
        last = groups.pop()
        groups[-1] += last
    stages = []
    for group in groups:
        end, shape = [pair for pair in group if pair[0].parameter_keys][-1]
        names = tuple(unit.name for unit, _ in group)
        count = sum(len(unit.layers) for unit, _ in group)
        stages.append(Stage(names, end.name, count, shape[0], shape[1]))
    return tuple(stages)
