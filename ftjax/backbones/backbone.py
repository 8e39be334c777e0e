"""A backbone is data: an ordered tuple of units, each a Linen module with its layers.

The units are those of the pretrained body and, behind it, of the head (`heads`). Every
operation of the study (forward pass, frozen prefix, trainable suffix, feature cache,
Grad-CAM, probes) is a loop over a slice of that tuple. `params` and `batch_stats` are
plain dicts keyed by unit, then by layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ftjax.backbones.lowering import plain_lowering
from ftjax.trees import Tree


@dataclass(frozen=True)
class Layer:
    """One entry of Keras' `model.layers`.

    Attributes:
        name: Keras' name of the layer, e.g. `block6a_expand_conv`.
        kind: Keras' class, e.g. `Conv2D`.
        key: name of its parameters inside the unit; empty if it has none.
    """

    name: str
    kind: str
    key: str = ""


@dataclass(frozen=True)
class Unit:
    """The smallest piece of a network with one input and one output.

    Attributes:
        name: e.g. `block6a`.
        module: Linen module called as `module(x, batch_norm=..., residual_scale=...)`.
            Units of equal shape hold equal modules, so they share compiled programs.
        layers: the unit's layers in the order of Keras' `model.layers`.
        drop_share: its probability to drop the residual branch, over the largest.
    """

    name: str
    module: nn.Module
    layers: tuple[Layer, ...]
    drop_share: float = 0.0

    @property
    def parameter_keys(self) -> tuple[str, ...]:
        """Keys of the layers that hold parameters, in network order."""
        return tuple(layer.key for layer in self.layers if layer.key)

    @property
    def dropout(self) -> float:
        """Share of its inputs that training drops; most modules drop none."""
        return getattr(self.module, "dropout", 0.0)

    @property
    def composite(self) -> bool:
        """Whether the unit is a block of several convolutions."""
        return sum(layer.kind.endswith("Conv2D") for layer in self.layers) > 1

    @property
    def batch_norm_keys(self) -> tuple[str, ...]:
        """Keys of the BatchNorm layers, in network order."""
        return tuple(
            layer.key for layer in self.layers if layer.kind == "BatchNormalization"
        )

    def step_of(self, key: str) -> str:
        """The first layer of the step that a layer belongs to; empty: the first step.

        A unit can be divided where a step begins. Most modules know no steps.
        """
        keys = self.parameter_keys
        steps = getattr(self.module, "steps", ())
        last = keys.index(key)
        return max(
            (step for step in steps if 0 < keys.index(step) <= last),
            key=keys.index,
            default="",
        )

    def before(self, step: str) -> "Unit":
        """The unit up to a step, on the same parameters, in inference mode.

        Its output is one array: what the step takes, and the unit's input as more
        channels if a shortcut will need it.
        """
        return replace(self, module=self.module.clone(end=step))

    def onward(self, step: str) -> "Unit":
        """The unit from a step on, which takes what `before` returns; empty: all."""
        return replace(self, module=self.module.clone(begin=step)) if step else self


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier, or with one (`heads.with_head`).

    The body's layers count as depth. The head is drawn anew for every trial, always
    trained, and has its own learning rate.

    One of your own is made of Linen modules. Every module is called as `module(x,
    batch_norm=(), momentum=None, residual_scale=None)`; the first one has a field
    `preprocessing` and calls it on the images. A layer with parameters is named in the
    module by the `key` of its `Layer`. BatchNorm is `ftjax.backbones.layers.BatchNorm`,
    told by `batch_norm` (the keys that use batch statistics) and `momentum`:

        class Block(nn.Module):
            features: int
            preprocessing: Preprocessing | None = None

            @nn.compact
            def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
                if self.preprocessing is not None:
                    x = self.preprocessing(x)
                x = nn.Conv(self.features, (3, 3), strides=2, name="conv")(x)
                norm = BatchNorm(name="bn")
                x = norm(x, use_batch_stats="bn" in batch_norm, momentum=momentum)
                return nn.relu(x)

        conv = Layer("a_conv", "Conv2D", "conv")
        norm = Layer("a_bn", "BatchNormalization", "bn")
        units = Unit("a", Block(8, Preprocessing()), (conv, norm)), ...
        mine = Backbone("mine", units, smallest_size=8, native_size=32)
        ftjax.sweep("my_images", model=mine, weights="mine.safetensors")

    Its weights are a file of `ftjax.save_weights`, or `random`.

    Attributes:
        name: as given to `--model`.
        body: units that hold pretrained weights, input first.
        smallest_size: smallest height and width of an image, in pixels.
        native_size: the size the pretrained weights were made for, in pixels.
        source: whose graph it is: `keras`, `torchvision`, `timm`, `lite` or `caffe`.
            Networks of one name differ between them in strides, padding, epsilon and
            preprocessing.
        flat: whether the body's output is a vector for each image, (batch, c), which
            the head takes as it is; else it is a map, which the head averages.
        head_dropout: share of that vector that the head drops in training.
        head: units between the body's output and the logits; empty without a head.
    """

    name: str
    body: tuple[Unit, ...]
    smallest_size: int
    native_size: int
    source: str = "keras"
    flat: bool = False
    head_dropout: float = 0.0
    head: tuple[Unit, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those of the body, then those of the head."""
        return self.body + self.head

    def __getitem__(self, key: slice) -> tuple[Unit, ...]:
        """A slice of the units; runs with `apply` on their part of the parameters."""
        return self.units[key]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer table: Keras' `model.layers` without InputLayer and classifier."""
        return tuple(layer for unit in self.body for layer in unit.layers)

    @property
    def num_units(self) -> int:
        """Number of units that count as depth."""
        return len(self.body)

    @property
    def dtype(self) -> str:
        """NumPy name of the type it computes in."""
        return self.body[0].module.preprocessing.dtype


def named_layers(
    unit: str, keys: str, kinds: Mapping[str, str], others: Mapping[str, str]
) -> tuple[Layer, ...]:
    """Layers `<unit>_<key>`.

    Args:
        unit: name of the unit.
        keys: of its layers, in their order, with spaces between.
        kinds: of the layers with parameters, which stand under their keys.
        others: kinds of the layers without.
    """
    return tuple(
        Layer(f"{unit}_{key}", kinds[key], key)
        if key in kinds
        else Layer(f"{unit}_{key}", others[key])
        for key in keys.split()
    )


def with_dtype(backbone: Backbone, dtype: str) -> Backbone:
    """The backbone computing in `dtype`; parameters, statistics, logits stay float32.

    Every layer computes in the type of its input, so it is set once, at the end of the
    preprocessing.
    """
    first, *others = backbone.body
    preprocessing = replace(first.module.preprocessing, dtype=dtype)
    module = first.module.clone(preprocessing=preprocessing)
    return replace(backbone, body=(replace(first, module=module), *others))


def apply(
    units: Iterable[Unit], params: Tree, batch_stats: Tree, x: jax.Array
) -> jax.Array:
    """Runs `units` in order, in inference mode.

    Args:
        units: a slice of a backbone, e.g. `backbone[3:7]`.
        params: parameters by unit; only those of `units` are needed.
        batch_stats: running statistics by unit; only those of `units` are needed.
        x: input of the first unit; images are RGB in 0..255, (batch, h, w, 3).
    """
    for unit in units:
        x = unit.module.apply(variables(params, batch_stats, unit.name), x)
    return x


def variables(params: Tree, batch_stats: Tree, unit: str) -> Tree:
    """Linen variables of one unit."""
    return {"params": params.get(unit, {}), "batch_stats": batch_stats.get(unit, {})}


def init(units: Sequence[Unit], seed: int, size: int) -> tuple[Tree, Tree]:
    """Random parameters and fresh statistics.

    Args:
        units: from the first one on, as the input is an image.
        seed: of the draws; each unit draws by its own position.
        size: height and width of the images, in pixels.

    Returns:
        `params`, `batch_stats`: dicts by unit, then layer, of float32 NumPy arrays.
    """
    params, batch_stats = {}, {}
    shapes = variable_shapes(units, size)
    for index, unit in enumerate(units):
        fresh = draw_variables(shapes[index], (seed, index))
        params[unit.name] = fresh.get("params", {})
        batch_stats[unit.name] = fresh.get("batch_stats", {})
    return params, batch_stats


def draw_variables(
    shapes: Tree, seed: int | tuple[int, ...], deviation: float = 0.0
) -> Tree:
    """Random variables of the given shapes, as host arrays.

    Convolutions: He normal (He et al. 2015); the classifier: Glorot uniform, as
    Keras' Dense; biases 0; BatchNorm: the identity; tokens and positions of vision
    transformers, factors of ConvNeXt: as timm and torchvision draw them. With a
    deviation: all kernels normal with that one.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "embedding":
            return rng.normal(0, 0.02, leaf.shape).astype(np.float32)
        if name != "kernel":
            value = {"scale": 1.0, "var": 1.0, "gamma": 1e-6}.get(name, 0.0)
            return np.full(leaf.shape, value, np.float32)
        if deviation:
            return rng.normal(0, deviation, leaf.shape).astype(np.float32)
        fan_in = int(np.prod(leaf.shape[:-1]))
        if len(leaf.shape) == 2:
            limit = np.sqrt(6 / (fan_in + leaf.shape[-1]))
            return rng.uniform(-limit, limit, leaf.shape).astype(np.float32)
        return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def variable_shapes(units: Sequence[Unit], size: int) -> tuple[Tree, ...]:
    """Shapes of every unit's Linen variables; nothing is computed."""
    shape, shapes = (1, size, size, 3), []
    for unit in units:
        shape, unit_shapes = trace_shapes(unit.module, shape)
        shapes.append(unit_shapes)
    return tuple(shapes)


@cache
def trace_shapes(module: nn.Module, shape: tuple[int, ...]) -> tuple[tuple, Tree]:
    """Shapes of a unit's output and variables; traced once for units of equal shape."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    with plain_lowering():  # of the same shapes, and traced sooner
        y, shapes = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    # As they are drawn and read, also where JAX may make them float64.
    shapes = jax.tree.map(
        lambda own: jax.ShapeDtypeStruct(own.shape, jnp.float32), shapes
    )
    return y.shape, shapes


def boundary_shapes(units: Sequence[Unit], size: int) -> tuple[tuple[int, ...], ...]:
    """Shape of one image's activation before each unit, and after the last.

    Args:
        units: from the first one on.
        size: height and width of the images, in pixels.

    Returns:
        `len(units) + 1` shapes without the batch axis.
    """
    shape = (1, size, size, 3)
    shapes = [shape[1:]]
    for unit in units:
        shape, _ = trace_shapes(unit.module, shape)
        shapes.append(shape[1:])
    return tuple(shapes)
