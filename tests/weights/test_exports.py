"""Files for other frameworks, each loaded by its own: the same logits.

`pytest -m parity tests/weights/test_exports.py` takes networks of every family at full
width; PyTorch's names need torch, timm and torchvision, ONNX onnx and onnxruntime.
"""

import json
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import ftjax
from ftjax.axes import LINEAR
from ftjax.backbones import BACKBONES, make_backbone
from ftjax.backbones.backbone import Unit, init
from ftjax.backbones.heads import with_head
from ftjax.exports import FORMATS, export_network
from ftjax.frozen.forward import infer
from ftjax.machine.files import write_json
from ftjax.training.recalibrate import moments_unit
from ftjax.weights.export_torch import module_names
from ftjax.weights.graph_units import KINDS, make_graph
from ftjax.weights.licences import licence_of
from ftjax.weights.pretrained import convert_tensors, load_pretrained
from ftjax.weights.readers import read_tensors

CLASSES = 5
TOLERANCE = 1e-4
HEADS = {"tiny": "6,4d0.5"}  # hidden layers; the others have a linear head
SHORT = "tiny", "resnet18", "mobilenetv3_small", "convnext_tiny", "vit_small"
SLOW = ("densenet121", 32), ("effnetv2s", 32), ("alexnet", 99), ("alexnet_torch", 99)
WHOLE = {
    "effnetlite0": 64,
    "effnetlite1": 64,
    "effnetb0": 64,
    "effnetv2s": 64,
    "densenet121": 64,
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "resnet50_torch": 64,
    "vgg16": 64,
    "mobilenetv3_small": 64,
    "mobilenetv3_large": 64,
    "convnext_tiny": 64,
    "convnext_base": 64,
    "vit_small": 96,
    "vit_base": 96,
    "alexnet": 227,
    "alexnet_ksh": 227,
    "alexnet_torch": 224,
}
NETWORKS = [
    *((name, 32, True) for name in SHORT),
    *(pytest.param(*each, True, marks=pytest.mark.slow) for each in SLOW),
    *(
        pytest.param(name, size, False, marks=pytest.mark.parity)
        for name, size in WHOLE.items()
    ),
]
# Where the leaves are drawn from that `init` sets to a constant.
DRAWS = {"bias": (-0.2, 0.2), "scale": (0.8, 1.2), "gamma": (0.2, 0.5)}
# The last norm of a branch: else rounding would grow from block to block without end.
ENDS, SMALL = ("project_bn", "3_bn"), (0.1, 0.3)


@lru_cache(1)  # tests of one network run one after the other
def drawn(name, size, short):
    """A network with random weights, images, and its logits.

    Its statistics are near those of the images: else a deep one would forget them. A
    short one has one of the equal units in a row.
    """
    backbone = make_backbone(name)
    if short:
        rows = groupby(backbone.body, key=lambda unit: unit.module)
        backbone = replace(backbone, body=tuple(next(units) for _, units in rows))
    network = with_head(backbone, CLASSES, HEADS.get(name, LINEAR))
    params, stats = init(network.units, 0, size)
    rng = np.random.default_rng(0)
    for layers in params.values():
        for key, leaves in layers.items():
            draws = DRAWS | {"scale": SMALL} if key in ENDS else DRAWS
            for leaf in sorted(leaves.keys() & draws.keys()):
                leaves[leaf] = uniform(rng, *draws[leaf], leaves[leaf].shape)
    side = -(-size // 4)
    colors = rng.integers(0, 200, (8, 4, 4, 3)).repeat(side, 1).repeat(side, 2)
    images = colors[:, :size, :size] + rng.integers(0, 56, (8, size, size, 3))
    images = images.astype(np.uint8)
    x = jnp.asarray(images)
    for unit in network.units:
        own = params[unit.name], stats[unit.name]
        x, moments = moments_unit(unit.module, unit.batch_norm_keys, *own, x)
        for key, moment in moments.items():
            width = np.sqrt(moment["var"])
            stats[unit.name][key] = {
                "mean": moment["mean"] + width * uniform(rng, -0.2, 0.2, width.shape),
                "var": moment["var"] * uniform(rng, 0.8, 1.2, width.shape) + 0.01,
            }
    logits = np.asarray(infer(network.units, params, stats, jnp.asarray(images)))
    assert logits.std(axis=0).min() > 1e-2 * logits.std()  # images matter
    return network, params, stats, images.astype(np.float32), logits


def uniform(rng, low, high, shape):
    return rng.uniform(low, high, shape).astype(np.float32)


def made(name, size, folder, *, short=False):
    """That network as if a run had trained it."""
    network, params, stats, images, logits = drawn(name, size, short)
    names = tuple("abcde")
    predictor = ftjax.Predictor(
        network, params, stats, names, size, "t1", 3, "frozen", 0.9, temperature=2.0
    )
    write_json(folder / "config.json", {"config": {"weights": "imagenet"}})
    write_json(folder / "recommendation.json", {"sentence": "Unfreeze 3."})
    return predictor, images, logits


def check(name, found, logits):
    """Of one order of summation against another: relative to the spread of logits."""
    deviation = np.abs(np.asarray(found) - logits).max() / logits.std()
    print(f"\n{name}: largest deviation {deviation:.1e} of the logits' spread")
    assert deviation < TOLERANCE


def run_code(code, images):
    """What the printed code computes; it calls its result `logits`."""
    scope = {"images": images}
    exec(code, scope)
    return scope


@pytest.mark.parametrize("name, size, short", NETWORKS, scope="module")
@pytest.mark.filterwarnings("ignore")
def test_keras_reads_the_model(name, size, short, tmp_path):
    models = pytest.importorskip("keras_models", exc_type=ImportError)
    predictor, images, logits = made(name, size, tmp_path, short=short)
    path, code = export_network(predictor, tmp_path, format="keras")
    # Keras relies on promotion, and its draws would take longer than all else.
    with jax.numpy_rank_promotion("allow"), models.no_random_init():
        check(f"{name} in Keras", run_code(code, images)["logits"], logits)
    before = path.read_bytes()
    export_network(predictor, tmp_path, format="keras")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name, size, short", NETWORKS, scope="module")
def test_onnxruntime_reads_the_graph(name, size, short, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    predictor, images, logits = made(name, size, tmp_path, short=short)
    path, code = export_network(predictor, tmp_path, format="onnx")
    scope = run_code(code, images)
    check(f"{name} in onnxruntime", scope["logits"], logits)
    scaled = scope["logits"] / 2.0  # by the temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scope["probabilities"], expected, atol=1e-6)
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
        ("alexnet_torch", 99),
        ("alexnet_torch", 224),
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
    check(f"{name} in PyTorch", found, logits)


def test_what_cannot_be_exported_is_refused(tmp_path):
    predictor, *_ = made("tiny", 32, tmp_path)
    with pytest.raises(ValueError, match="hidden layers, which neither timm's nor"):
        export_network(predictor, tmp_path, format="torch")
    for name, reason in (
        ("tiny", "nor torchvision has"),
        ("resnet50", "strides are others; train resnet50_torch"),
        ("alexnet", "one column; train alexnet_torch"),
        ("densenet121", "what they call its modules is not known"),
    ):
        network = with_head(make_backbone(name), CLASSES)
        with pytest.raises(ValueError, match=reason):
            module_names(network, 224)
    with pytest.raises(ValueError, match="unknown format 'tflite'; there are safe"):
        export_network(predictor, tmp_path, format="tflite")
    with pytest.raises(ValueError, match="must end in .onnx"):
        export_network(predictor, tmp_path, format="onnx", path=Path("t.tflite"))
    assert {suffix for suffix, _ in FORMATS.values()} >= {".keras", ".onnx"}


def test_every_network_has_a_graph_and_ones_own_is_refused():
    for name in BACKBONES:
        network = with_head(make_backbone(name), CLASSES, "8")
        assert {type(unit.module) for unit in network.units} <= KINDS.keys(), name
    tiny = make_backbone("tiny")
    own = Unit("own", nn.Dense(4), ())  # no network here is made of such a module
    network = replace(tiny, name="mine", body=(tiny.body[0], own))
    with pytest.raises(ValueError, match="^unit own of mine is a Dense, which other"):
        make_graph(network, *init(tiny.body[:1], 0, 32), 32)


@pytest.mark.parametrize(
    "name", ["tiny", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_keras_files_are_read_back_as_weights(name, tmp_path):
    """The layers of Keras' own networks are in the order of their table."""
    predictor, *_ = made(name, 32, tmp_path, short=name == "densenet121")
    path, _ = export_network(predictor, tmp_path, format="keras")
    size = predictor.image_size
    found = convert_tensors(
        predictor.network, read_tensors(path), size=size, source=path.name
    )
    wanted = predictor.params, predictor.batch_stats
    for again, tree in zip(found, wanted, strict=True):
        for unit, layers in again.items():
            jax.tree.map(np.testing.assert_array_equal, layers, tree[unit])


@pytest.mark.slow  # 60 million weights
def test_alexnet_in_onnx_is_no_file_of_weights(tmp_path):
    """Its first kernel takes red first, which such files do not say."""
    pytest.importorskip("onnx")
    predictor, *_ = made("alexnet", 99, tmp_path, short=True)
    path, _ = export_network(predictor, tmp_path, format="onnx")
    with pytest.raises(ValueError, match="has the layers Transpose, Mul, Add, conv"):
        load_pretrained(make_backbone("alexnet"), str(path), size=99)


def test_licences():
    assert licence_of("effnetb3", "imagenet").startswith("Apache-2.0")
    assert licence_of("vgg19", "imagenet").startswith("CC BY 4.0")
    assert "ask its source" in licence_of("vgg19_torch", "vgg19.pth")
