"""The maps equal those of Keras' own networks on the same weights.

Independent of our code: the gradients come from adding 0 to the output of a Keras
layer and differentiating with respect to it, the maps from the papers' formulas in
NumPy. `pytest -m parity tests/gradcam/test_gradcam_parity.py` takes EfficientNetB0 and
ResNet50 and prints the largest deviations.
"""

from contextlib import ExitStack
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.gradcam.maps import METHODS, explain
from ftjax.weights.pretrained import load_pretrained

keras_models = pytest.importorskip(
    "keras_models", reason="needs keras", exc_type=ImportError
)
keras = keras_models.keras
pytestmark = pytest.mark.filterwarnings(keras_models.KNOWN_WARNING)

TOLERANCE = 1e-4
CLASSES = 5
IMAGES = 8  # for the statistics; two of them are compared


@pytest.fixture(scope="module")
def table(request):
    """Rows of (network, size, method, drawn, deviation), printed at the end."""
    rows = []
    yield rows
    lines = ["", "", "maps above 0, and their largest deviation from Keras over the"]
    lines.append("largest absolute value of the map before its ReLU")
    for name, size, method, drawn, worst in rows:
        lines.append(f"{name:10} {size:4} px  {method:10} {drawn:14}  {worst:.1e}")
    keras_models.print_lines(request.config, lines)


def add_head(model):
    """Global average pooling and a linear classifier with random weights."""
    features = keras.layers.GlobalAveragePooling2D()(model.output)
    with keras_models.no_random_init():
        head = keras.layers.Dense(CLASSES, name="predictions")
        full = keras.Model(model.input, head(features))
    rng = np.random.default_rng(1)
    width = features.shape[-1]
    head.set_weights(
        [rng.normal(0, 1, (width, CLASSES)) / np.sqrt(width), rng.normal(0, 1, CLASSES)]
    )
    return full


def keras_gradients(model, names, x, classes):
    """Outputs of the layers, and gradients of the class's logit there."""
    trainable = [variable.value for variable in model.trainable_variables]
    other = [variable.value for variable in model.non_trainable_variables]
    outputs = {}

    def tapped(layer, taps):
        call = layer.call

        def call_and_add(*args, **kwargs):
            outputs[layer.name] = call(*args, **kwargs) + taps[layer.name]
            return outputs[layer.name]

        return mock.patch.object(layer, "call", call_and_add)

    def score(taps):
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(tapped(model.get_layer(name), taps))
            logits, _ = model.stateless_call(trainable, other, x, training=False)
        return logits[np.arange(len(x)), classes].sum(), dict(outputs)

    shapes = {name: model.get_layer(name).output.shape[1:] for name in names}
    taps = {name: jnp.zeros((len(x), *shape)) for name, shape in shapes.items()}
    with jax.numpy_rank_promotion("allow"):  # Keras' Dense adds its bias this way
        gradients, found = jax.jit(jax.grad(score, has_aux=True))(taps)
    return found, gradients


def reference_map(method, a, g):
    """The papers' formulas before their ReLU: (batch, h, w, channels) to (batch, h, w).

    In Grad-CAM++ the sum is of the positive activations, which after a ReLU are all.
    """
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    batch, height, width, channels = a.shape
    found = np.zeros((batch, height, width))
    for image in range(batch):
        for k in range(channels):
            own_a, own_g = a[image, :, :, k], g[image, :, :, k]
            if method == "gradcam":
                found[image] += own_g.sum() / (height * width) * own_a
            elif method == "hirescam":
                found[image] += own_g * own_a
            elif method == "layercam":
                found[image] += np.maximum(own_g, 0) * own_a
            else:
                bottom = 2 * own_g**2 + np.maximum(own_a, 0).sum() * own_g**3
                alpha = np.divide(
                    own_g**2, bottom, out=np.zeros_like(bottom), where=bottom != 0
                )
                found[image] += (alpha * np.maximum(own_g, 0)).sum() * own_a
    return found


def compare(name, size, folder, table):
    """Builds, saves, reads, explains, and compares every boundary and method."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, size, size, 3)).astype(np.uint8)
    x = keras_models.preprocess(name, images)
    model = keras_models.make_keras(name, size)
    keras_models.randomize(model, x)
    path = keras_models.save(model, folder / f"{name}.weights.h5")
    backbone = make_backbone(name)
    weights = load_pretrained(backbone, str(path), size=size)
    full = add_head(model)
    kernel, bias = (np.asarray(v.value) for v in full.get_layer("predictions").weights)
    params = {
        **weights.params,
        "avg_pool": {},
        "predictions": {"predictions": {"kernel": kernel, "bias": bias}},
    }
    classes = np.array([1, 3])
    layers = {unit.name: unit.layers[-1].name for unit in backbone.units}
    outputs, gradients = keras_gradients(
        full, list(layers.values()), x[: len(classes)], classes
    )
    units = with_head(backbone, CLASSES).units
    for method in METHODS:
        maps = explain(
            units,
            params,
            weights.batch_stats,
            images[: len(classes)],
            classes=classes,
            method=method,
        ).maps
        assert list(maps) == list(layers)
        deviations, drawn = [], 0
        for unit, layer in layers.items():
            expected = reference_map(method, outputs[layer], gradients[layer])
            drawn += expected.max() > 0
            error = np.abs(maps[unit] - np.maximum(expected, 0)).max()
            deviations.append(float(error / np.abs(expected).max()))
        shown = f"{drawn} of {len(maps)} maps"
        table.append((name, size, method, shown, max(deviations)))
        assert max(deviations) < TOLERANCE
        # Grad-CAM++ weighs no channel below 0, so that signed activations (after the
        # projection of an MBConv block) can sum to less than 0 everywhere: no map.
        assert drawn >= len(maps) * (1 / 3 if method == "gradcam++" else 1 / 2)


@pytest.mark.numeric
def test_tiny(tmp_path, table):
    compare("tiny", 32, tmp_path, table)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["effnetb0", "resnet50"])
def test_full_size(name, tmp_path, table):
    compare(name, 64, tmp_path, table)
