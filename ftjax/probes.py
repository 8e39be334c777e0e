"""A curve before any training: how separable the classes are at every cut.

One pass over the data. At every unit boundary the activations are averaged over
height and width, and two closed forms say how well a linear classifier on them would
do: ridge regression on the classes, judged on the validation set, and LogME, judged on
the training set alone. One backward pass through the network, with the ridge solution
as its head, gives the relative gradient of every unit. Whether any of them follows the
measured curve is what `rank_correlation` measures; nothing is promised.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ftjax.backbones.backbone import Backbone, Unit, variables
from ftjax.backbones.heads import classifier
from ftjax.data import Dataset
from ftjax.depth import make_cut, unit_depths
from ftjax.frozen.forward import batches, infer_unit
from ftjax.stats.linear_probe import fit_ridge, log_evidence
from ftjax.training.chain import backward, record
from ftjax.training.programs import loss_gradient
from ftjax.trees import Tree

GRADIENT_IMAGES = 256


@jax.jit
def pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: (batch, h, w, c) -> (batch, c)."""
    return x.mean(axis=tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x


def pooled_features(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    images: np.ndarray,
    *,
    batch_size: int,
) -> list[np.ndarray]:
    """Pooled activations before each unit and after the last, by one pass.

    Args:
        units: from the first one on, without the classifier.
        params: by unit.
        batch_stats: by unit.
        images: (n, h, w, 3) uint8.
        batch_size: images per step.

    Returns:
        `len(units) + 1` arrays (n, channels), float32.
    """
    parts: list[list[np.ndarray]] = [[] for _ in range(len(units) + 1)]
    for rows, count in batches(images, batch_size):
        x = jax.device_put(rows)
        parts[0].append(np.asarray(pool(x.astype(jnp.float32)))[:count])
        for index, unit in enumerate(units, start=1):
            x = infer_unit(unit.module, variables(params, batch_stats, unit.name), x)
            parts[index].append(np.asarray(pool(x))[:count])
    return [np.concatenate(part) for part in parts]


def gradient_norms(
    units: Sequence[Unit],
    params: Tree,
    batch_stats: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
) -> dict[str, float]:
    """||gradient|| / ||parameters|| of every unit that has parameters.

    The gradient is that of the mean cross-entropy over `images` in inference mode.

    Args:
        units: from the first one to the classifier.
        params: of every unit, the classifier included.
        batch_stats: by unit.
        images: (n, h, w, 3) uint8; those after the last full batch are not used.
        labels: (n,) classes.
        batch_size: images per step.
    """
    sums: Tree = {}
    for start in range(0, len(images) - batch_size + 1, batch_size):
        rows = slice(start, start + batch_size)
        x = jax.device_put(images[rows])
        tape = record(units, params, batch_stats, x, with_params=True)
        gradient, _ = loss_gradient(tape.logits, jax.device_put(labels[rows]))
        for name, grads, _ in backward(tape, gradient):
            old = sums.get(name)
            sums[name] = grads if old is None else jax.tree.map(jnp.add, old, grads)
    steps = len(images) // batch_size
    return {
        name: _norm(grads) / steps / max(_norm(params[name]), 1e-30)
        for name, grads in sums.items()
        if jax.tree.leaves(grads)
    }


def _norm(tree: Tree) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))


def probe_curve(
    network: Backbone,
    params: Tree,
    batch_stats: Tree,
    dataset: Dataset,
    *,
    depths: Iterable[int] = (),
    batch_size: int = 32,
    gradient_images: int = GRADIENT_IMAGES,
) -> pd.DataFrame:
    """Probes at the boundary before the trainable part, for every depth in units.

    The row of depth d looks at what the frozen part hands over when d layers are
    unfrozen: for d = 0 the input of the head, for full depth the images themselves.
    Its gradient norm is that of the first unfrozen unit, for d = 0 that of the head.

    Args:
        network: backbone with head.
        params: pretrained, by unit; the head's own are not needed, the ridge solution
            takes its place.
        batch_stats: pretrained, by unit.
        dataset: images at the network's size.
        depths: in layers, probed beside those that unfreeze whole units.
        batch_size: images per step.
        gradient_images: training images of the backward pass, the first ones.

    Returns:
        Columns unit (name of the first unfrozen unit),
        depth_layers, depth_units, ridge_accuracy (validation, 0..1), ridge_strength,
        logme, gradient_norm; one row per depth, increasing.

    Raises:
        ValueError: the training set is smaller than a batch.
    """
    train, val = dataset.train, dataset.val
    if len(train.labels) < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is larger than the training set of "
            f"{len(train.labels)} images"
        )
    classes = len(dataset.class_names)
    cuts = [
        make_cut(network, depth) for depth in sorted({*unit_depths(network), *depths})
    ]
    end = make_cut(network, 0).unit  # what comes before is never trained with the head
    frozen, head = network[:end], classifier(classes)
    units = *frozen, head
    sides = [
        pooled_features(
            frozen, params, batch_stats, split.images, batch_size=batch_size
        )
        for split in (train, val)
    ]
    probes = {
        place: fit_ridge(sides[0][place], train.labels, classes)
        for place in {cut.unit for cut in cuts} | {end}
    }
    kernel, bias = probes[end].kernel, probes[end].bias
    solution = {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}
    count = max(batch_size, min(gradient_images, len(train.labels)))
    order = np.linspace(0, len(train.labels) - 1, count).astype(int)
    norms = gradient_norms(
        units,
        {**params, head.name: {head.parameter_keys[0]: solution}},
        batch_stats,
        train.images[order],
        train.labels[order],
        batch_size=batch_size,
    )
    rows = []
    for cut in cuts:
        place = cut.unit
        ridge, features = probes[place], sides[1][place]
        answers = (features @ ridge.kernel + ridge.bias).argmax(axis=1)
        unit = units[place]
        rows.append(
            {
                "unit": unit.name,
                "depth_layers": cut.depth_layers,
                "depth_units": cut.depth_units,
                "ridge_accuracy": float((answers == val.labels).mean()),
                "ridge_strength": ridge.strength,
                "logme": log_evidence(sides[0][place], train.labels, classes),
                "gradient_norm": norms[unit.name],
            }
        )
    return pd.DataFrame(rows)
