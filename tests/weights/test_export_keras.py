"""Keras loads what we export, and predicts the same.

`pytest -m parity tests/weights/test_export_keras.py` runs the code that the
export prints, for networks of every family; the default run takes the tiny one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.frozen.forward import infer
from ftjax.training.recalibrate import moments_unit
from ftjax.weights.export import export_keras, keras_code

keras_models = pytest.importorskip(
    "keras_models", reason="needs keras", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings(keras_models.KNOWN_WARNING)
CLASSES = 5


def random_network(name: str, size: int):
    """A network whose statistics are those of a batch, its images and its logits."""
    network = with_head(make_backbone(name), CLASSES)
    params, stats = init(network.units, 0, size)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, size, size, 3)).astype(np.uint8)
    x = jnp.asarray(images)
    for unit in network.units:
        own = params[unit.name], stats[unit.name]
        x, moments = moments_unit(unit.module, unit.batch_norm_keys, *own, x)
        stats[unit.name] = jax.tree.map(lambda leaf: leaf + 0.01, moments)
    logits = infer(network.units, params, stats, jnp.asarray(images))
    return network, params, stats, images, np.asarray(logits)


@pytest.mark.numeric
def test_tiny(tmp_path):
    network, params, stats, images, logits = random_network("tiny", 32)
    path = tmp_path / "tiny.weights.h5"
    export_keras(path, network, params, stats)
    layers = keras_models.keras.layers
    base = keras_models.make_keras("tiny", 32)
    x = layers.GlobalAveragePooling2D()(base.output)
    model = keras_models.keras.Model(base.input, layers.Dense(CLASSES)(x))
    model.load_weights(path)
    found, _ = keras_models.run(model, keras_models.preprocess("tiny", images))
    assert keras_models.deviation(found, logits) < 1e-4
    assert logits.std() > 0.01


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet50", "effnetb0", "vgg16"])
def test_the_printed_code(name, tmp_path):
    network, params, stats, images, logits = random_network(name, 64)
    path = tmp_path / "mine.weights.h5"
    export_keras(path, network, params, stats)
    code = keras_code(network, image_size=64, file_name=str(path))
    names = {"images": images}
    with jax.numpy_rank_promotion("allow"), keras_models.no_random_init():
        exec(code.replace("model.predict(x)", "model.predict(x, verbose=0)"), names)
    worst = keras_models.deviation(names["logits"], logits)
    print(f"{name}: largest deviation of the exported network in Keras {worst:.1e}")
    assert worst < 1e-4
    assert logits.std() > 0.01
