"""The forward pass equals Keras' at every unit boundary.

`pytest -m parity tests/weights/test_parity_forward.py` takes every network at
full size and prints the largest deviation of each; the default run takes the tiny one.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import Backbone, variables
from ftjax.backbones.heads import with_head
from ftjax.frozen.forward import infer_unit
from ftjax.weights.pretrained import load_pretrained

keras_models = pytest.importorskip(
    "keras_models", reason="needs keras", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings(keras_models.KNOWN_WARNING)

TOLERANCE = 1e-4
ODD = 97
# B5 to B7 at 224 px instead of their native 456 to 600, for time and memory.
NETWORKS = (
    *("resnet50", "resnet101", "resnet152"),
    *(f"effnetb{i}" for i in range(8)),
    *("vgg16", "vgg19", "effnetv2s", "densenet121"),
)


@pytest.fixture(scope="module")
def table(request):
    """Rows of (network, size, file, boundaries, deviation), printed at the end."""
    rows = []
    yield rows
    lines = ["", "", "largest deviation from Keras, over the largest value"]
    for name, size, kind, boundaries, worst in rows:
        lines.append(
            f"{name:14} {size:4} px  {kind:12} {boundaries:3} boundaries  {worst:.1e}"
        )
    keras_models.print_lines(request.config, lines)


def draw_images(size: int) -> np.ndarray:
    """Enough of them for good statistics; the first two are compared."""
    return keras_models.make_images(16 if size < 128 else 6, size)


def outputs(network: Backbone, weights, images: np.ndarray) -> list:
    """Output of every unit."""
    x = jnp.asarray(images)
    found = []
    for unit in network.units:
        own = variables(weights.params, weights.batch_stats, unit.name)
        x = infer_unit(unit.module, own, x)
        found.append(x)
    return found


def compare(model, network: Backbone, name: str, path, table) -> None:
    """Saves the model, reads the file, and compares every boundary."""
    size = model.input_shape[1]
    images = draw_images(size)[:2]
    x = keras_models.preprocess(name, images)
    expected, _ = keras_models.run(keras_models.boundary_outputs(model, network), x)
    keras_models.save(model, path)
    weights = load_pretrained(network, str(path), size=size)
    found = outputs(network, weights, images)
    assert all(np.asarray(y).std() > 1e-3 for y in found)
    deviations = [
        keras_models.deviation(a, b) for a, b in zip(found, expected, strict=True)
    ]
    label = f"{name} top" if network.head else name
    kind = "".join(path.suffixes)
    table.append((label, size, kind, len(found), max(deviations)))
    assert max(deviations) < TOLERANCE


def random_model(name: str, size: int, *, top: bool = False):
    """A Keras model with random weights and statistics."""
    model = keras_models.make_keras(name, size, top=top)
    x = keras_models.preprocess(name, draw_images(size))
    keras_models.randomize(model, x)
    return model


@pytest.mark.numeric
def test_tiny(tmp_path, table):
    network = make_backbone("tiny")
    model = random_model("tiny", 45)
    for suffix in (".h5", ".weights.h5"):
        compare(model, network, "tiny", tmp_path / f"tiny{suffix}", table)


def test_tiny_layer_table_is_that_of_the_keras_model():
    model = keras_models.make_keras("tiny", 32)
    layers = make_backbone("tiny").layers
    assert [layer.name for layer in layers] == [
        layer.name for layer in model.layers[1:]
    ]
    assert [layer.kind for layer in layers] == [
        type(layer).__name__ for layer in model.layers[1:]
    ]


def nested(base):
    """As in the Keras guide: `base(inputs)`, pooling, Dense."""
    keras = keras_models.keras
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(base(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def grown(base):
    """The layers of the network, and more on top of its output."""
    keras = keras_models.keras
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.input, keras.layers.Dense(3, name="mine")(x))


@pytest.mark.parametrize(
    "around, file, frozen",
    [
        (nested, "a.weights.h5", 20),
        (nested, "a.h5", 20),
        (nested, "whole.h5", 0),
        (grown, "a.weights.h5", 0),
        (grown, "a.h5", 20),
    ],
)
def test_a_fine_tuned_model_gives_the_weights_of_its_network(
    around, file, frozen, tmp_path
):
    """Saved with its head; legacy files list what is trained first."""
    base = keras_models.make_keras("tiny", 32)
    rng = np.random.default_rng(0)
    base.set_weights([rng.normal(size=weight.shape) for weight in base.weights])
    keras_models.save(base, tmp_path / "base.weights.h5")
    for layer in base.layers[:frozen]:
        layer.trainable = False
    model = around(base)
    if file == "whole.h5":
        model.save(tmp_path / file)
    else:
        keras_models.save(model, tmp_path / file)
    network = make_backbone("tiny")
    expected = load_pretrained(network, str(tmp_path / "base.weights.h5"), size=32)
    path = str(tmp_path / file)
    found = load_pretrained(network, path, size=32)
    np.testing.assert_equal(found[:2], expected[:2])
    head = load_pretrained(with_head(network, 3), path, size=32).params["predictions"]
    kernel = np.asarray(model.layers[-1].kernel.value)
    np.testing.assert_array_equal(head["predictions"]["kernel"], kernel)


@pytest.mark.parity
@pytest.mark.parametrize("name", NETWORKS)
def test_features(name, tmp_path, table):
    """At an odd size through a Keras 3 file, at 224 px through a legacy one."""
    network = make_backbone(name)
    path = tmp_path / "odd.weights.h5"
    compare(random_model(name, ODD), network, name, path, table)
    compare(random_model(name, 224), network, name, tmp_path / "even.h5", table)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet50", "effnetb0"])
def test_logits(name, tmp_path, table):
    network = with_head(make_backbone(name), 1000)
    model = random_model(name, 224, top=True)
    for suffix in (".h5", ".weights.h5"):
        compare(model, network, name, tmp_path / f"top{suffix}", table)
