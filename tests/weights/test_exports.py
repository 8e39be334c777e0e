"""Files for other frameworks, each loaded by its own: the same logits.

`pytest -m parity tests/weights/test_exports.py` takes networks of every family at full
width; PyTorch's names need torch, timm and torchvision, ONNX onnx and onnxruntime.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ftjax
from ftjax.axes import LINEAR
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.exports import FORMATS, export_network
from ftjax.frozen.forward import infer
from ftjax.machine.files import write_json
from ftjax.weights.export_torch import module_names
from ftjax.weights.licences import licence_of

CLASSES = 5
SMALL = "tiny", 32
HEADS = {"tiny": "6,4d0.5"}  # hidden layers; the others have a linear head
LARGE = [
    pytest.param(name, 64, marks=pytest.mark.parity)
    for name in (
        "effnetlite0",
        "effnetlite1",
        "effnetb0",
        "resnet50",
        "resnet50_torch",
        "vgg16",
    )
]


def made(name, size, folder):
    """A network with random weights and statistics, as if a run had trained it."""
    network = with_head(make_backbone(name), CLASSES, HEADS.get(name, LINEAR))
    params, stats = init(network.units, 0, size)
    rng = np.random.default_rng(0)
    for own in stats.values():
        for leaves in own.values():
            leaves["mean"] = rng.normal(0, 0.1, leaves["mean"].shape).astype("f4")
            leaves["var"] = rng.uniform(0.8, 1.5, leaves["var"].shape).astype("f4")
    names = tuple("abcde")
    predictor = ftjax.Predictor(
        network, params, stats, names, size, "t1", 3, "frozen", 0.9, temperature=2.0
    )
    write_json(folder / "config.json", {"config": {"weights": "imagenet"}})
    write_json(folder / "recommendation.json", {"sentence": "Unfreeze 3."})
    images = rng.integers(0, 256, (4, size, size, 3)).astype(np.uint8)
    logits = np.asarray(infer(network.units, params, stats, jnp.asarray(images)))
    assert logits.std() > 1e-3
    return predictor, images.astype(np.float32), logits


def check(found, logits):
    """Of one order of summation against another: relative to the spread of logits."""
    deviation = np.abs(np.asarray(found) - logits).max() / logits.std()
    print(f"largest deviation: {deviation:.1e} of the logits' spread")
    assert deviation < 1e-3


def run_code(code, images):
    """What the printed code computes; it calls its result `logits`."""
    scope = {"images": images}
    exec(code, scope)
    return scope


@pytest.mark.parametrize("name, size", [SMALL, *LARGE])
@pytest.mark.filterwarnings("ignore")
def test_keras_reads_the_model(name, size, tmp_path):
    pytest.importorskip("keras")
    predictor, images, logits = made(name, size, tmp_path)
    path, code = export_network(predictor, tmp_path, format="keras")
    with jax.numpy_rank_promotion("allow"):  # Keras relies on it
        check(run_code(code, images)["logits"], logits)
    before = path.read_bytes()
    export_network(predictor, tmp_path, format="keras")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name, size", [SMALL, *LARGE])
def test_onnxruntime_reads_the_graph(name, size, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    predictor, images, logits = made(name, size, tmp_path)
    path, code = export_network(predictor, tmp_path, format="onnx")
    scope = run_code(code, images)
    check(scope["logits"], logits)
    odds = np.exp(scope["logits"] / 2.0)  # by the temperature
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scope["probabilities"], expected, rtol=1e-4)
    session = runtime.InferenceSession(path)
    with pytest.raises(Exception, match="Got invalid dimensions"):  # its own class
        session.run(None, {"images": np.zeros((1, size + 32, size, 3), np.float32)})
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list("abcde")
    assert about["answer"] == "Unfreeze 3."
    assert about["weights_licence"] == licence_of(name, "imagenet")


@pytest.mark.parametrize(
    "name, size",
    [
        ("effnetlite0", 64),
        ("effnetb0", 64),
        ("resnet50_torch", 64),
        ("vgg16", 64),
    ],
)
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_pytorch_reads_the_names(name, size, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    predictor, images, logits = made(name, size, tmp_path)
    path, code = export_network(predictor, tmp_path, format="torch")
    with torch.inference_mode():
        found = run_code(code, torch.tensor(images).permute(0, 3, 1, 2))["logits"]
    check(found, logits)


def test_what_cannot_be_exported_is_refused(tmp_path):
    predictor, *_ = made("tiny", 32, tmp_path)
    with pytest.raises(ValueError, match="hidden layers, which neither timm's nor"):
        export_network(predictor, tmp_path, format="torch")
    for name, reason in (("tiny", "nor torchvision has"), ("resnet50", "strides are")):
        network = with_head(make_backbone(name), CLASSES)
        with pytest.raises(ValueError, match=reason):
            module_names(network, 224)
    with pytest.raises(ValueError, match="unknown format 'tflite'; there are safe"):
        export_network(predictor, tmp_path, format="tflite")
    with pytest.raises(ValueError, match="must end in .onnx"):
        export_network(predictor, tmp_path, format="onnx", path=Path("t.tflite"))
    assert {suffix for suffix, _ in FORMATS.values()} >= {".keras", ".onnx"}


def test_licences():
    assert licence_of("effnetb3", "imagenet").startswith("Apache-2.0")
    assert licence_of("vgg19", "imagenet").startswith("CC BY 4.0")
    assert "ask its source" in licence_of("vgg19_torch", "vgg19.pth")
