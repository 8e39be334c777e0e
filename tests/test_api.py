"""The Python API: settings as keywords, own data, own networks, a run read again."""

import inspect
import subprocess
import sys
from dataclasses import fields

import flax.linen as nn
import numpy as np
import pandas as pd
import pytest
from tiny_run import PLAIN, run, table

import ftjax
from ftjax import keywords
from ftjax.backbones import BACKBONES
from ftjax.backbones.backbone import init
from ftjax.backbones.layers import BatchNorm
from ftjax.backbones.preprocessing import LITE
from ftjax.config import Config
from ftjax.data.arrays import open_arrays

pytestmark = pytest.mark.usefixtures("undrawn")
TINY = {"weights": "random", "image_size": 16, "batch_size": 16, "epochs": 1}
TINY |= {"lr": 1e-4, "replicate": False, "progress": False}


def pictures(count=40, seed=0):
    """Two classes that differ in colour."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 2)
    images = rng.integers(0, 120, (count, 20, 24, 3), np.uint8)
    images[np.arange(count), ..., 2 * labels] += 100
    return images, labels


def test_the_command_and_the_call_share_a_run(images, tmp_path, cache):
    depths = "--depths 0 3 --bn frozen --epochs 1"
    assert run(images, tmp_path, *depths.split()) == 0
    seen, before = [], table(tmp_path)
    again = ftjax.sweep(
        images,
        model="tiny",
        depths=[0, 3],
        bn="frozen",
        out=tmp_path,
        on_event=seen.append,
        **TINY,
    )
    assert [event.status for event in seen] == ["kept", "kept"]
    assert PLAIN == "--lr 1e-4 --no-replicate"  # as TINY says
    pd.testing.assert_frame_equal(table(tmp_path), before)
    assert ftjax.open(tmp_path) == again
    answer = again.answer
    assert answer.depth in (0, 3) and answer.depth in answer.set
    assert answer.conditions["lr"] == 1e-4 and answer.sentence == str(answer)
    assert again.class_names == ("blue", "red") and len(again.epochs) == 2
    shown = again._repr_html_()
    assert again.results["trial"].tolist() == before["trial"].astype(str).tolist()
    assert "<table" in shown and answer.sentence.split(":")[0][:20] in shown
    assert "accuracy" in again.plot().axes[0].get_ylabel().lower()


class Block(nn.Module):
    """As the docstring of `Backbone` has it."""

    features: int
    preprocessing: ftjax.Preprocessing | None = None

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        x = nn.Conv(self.features, (3, 3), strides=2, name="conv")(x)
        norm = BatchNorm(name="bn")
        x = norm(x, use_batch_stats="bn" in batch_norm, momentum=momentum)
        return nn.relu(x)


def unit(name, module):
    conv = ftjax.Layer(f"{name}_conv", "Conv2D", "conv")
    norm = ftjax.Layer(f"{name}_bn", "BatchNormalization", "bn")
    return ftjax.Unit(name, module, (conv, norm))


def test_a_network_and_images_of_ones_own(tmp_path, cache, monkeypatch):
    monkeypatch.setitem(BACKBONES, "mine", None)  # so that it is taken out at the end
    monkeypatch.delitem(BACKBONES, "mine")
    units = unit("a", Block(4, LITE)), unit("b", Block(8))
    mine = ftjax.Backbone("mine", units, smallest_size=8, native_size=16)
    path = tmp_path / "w.safetensors"
    ftjax.save_weights(path, mine, *init(units, 1, 16))
    images, labels = pictures()
    names = np.array(["left", "right"])
    val_images, val_labels = pictures(16, seed=1)
    run = ftjax.sweep(
        zip(images, names[labels], strict=True),
        val=(val_images, names[val_labels]),
        model=mine,
        depths=range(3),
        bn=["follow"],
        out=tmp_path / "run",
        **(TINY | {"weights": path}),
    )
    results = run.results
    assert (results["status"] == "done").all() and results["frozen_intact"].all()
    assert results["depth_layers"].tolist() == [0, 1, 2]
    assert (results["train_size"] == 40).all() and (results["val_size"] == 16).all()
    assert run.class_names == ("left", "right") and results["model"][0] == "mine"
    with pytest.raises(ValueError, match="is a network of ftjax"):
        ftjax.sweep("digits", model=ftjax.Backbone("tiny", units, 8, 16))
    other = unit("a", Block(4, LITE)), unit("b", Block(9))
    with pytest.raises(ValueError, match="shape"):
        ftjax.save_weights(path, mine, *init(other, 1, 16))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"depht": 3}, "unknown argument 'depht'; did you mean 'depths'?"),
        ({"epochs": "five"}, "epochs='five' is not allowed; give a whole number, or s"),
        ({"lr": "best"}, r"lr='best' .* give a number, or several or 'auto' or None"),
        ({"probes": 1}, "probes=1 is not allowed; give True or False"),
        ({"plan": True}, "unknown argument 'plan'"),
    ],
)
def test_a_wrong_keyword_is_a_type_error(settings, message):
    with pytest.raises(TypeError, match=message):
        ftjax.sweep("digits", **settings)


def test_keywords_become_the_commands_settings():
    made = keywords.make_config(
        {"lr": 1, "depths": (0, 32), "epochs": np.int64(3), "out": "x", "bn": "frozen"}
    )
    assert (made.lr, made.depths, made.epochs) == ((1.0,), ("0", "32"), (3,))
    assert (str(made.out), made.bn) == ("x", ("frozen",))
    assert keywords.make_config({"lr": "auto"}).lr == "auto"
    assert keywords.make_config({}) == Config()
    every = {name: getattr(Config(), name) for name in keywords.NAMES}
    assert keywords.make_config(every) == Config()
    shown = set(inspect.signature(ftjax.sweep).parameters)
    hidden = {"plan", "distributed"}
    own = {"val", "progress", "on_event"}
    assert shown == {field.name for field in fields(Config)} - hidden | own
    text = keywords.in_python("--val-size 3 is few; --no-resume, or --what")
    assert text == "val_size=3 is few; resume=False, or --what"


def test_bad_values_are_value_errors():
    with pytest.raises(ValueError, match=r"^image_size=4 is too small"):
        ftjax.sweep("digits", image_size=4)
    with pytest.raises(ValueError, match="holds no run"):
        ftjax.open("nowhere")
    with pytest.raises(ValueError, match="val goes with arrays"):
        ftjax.sweep("digits", val=pictures())


@pytest.mark.parametrize(
    "data, message",
    [
        (7, "data is of type int; allowed: "),
        ((np.zeros((3, 8, 8)), [0, 1]), "data has 3 images and 2 labels"),
        ([np.zeros((8, 8))], "data does not hold pairs"),
        ([], "data is empty"),
        ((np.ones((2, 8, 8)) / 2, [0, 1]), "all pixels lie in 0..1"),
        ((np.full((2, 8, 8), 300), [0, 1]), "image 0 has values 300 to 300"),
        ((np.zeros((2, 8, 8, 4)), [0, 1]), r"image 0 has shape \(8, 8, 4\)"),
        ((np.zeros((2, 8, 8)), [0.5, 1]), "label 0.5 is of type float"),
        ((np.zeros((2, 8, 8)), [0, "a"]), "numbers and names mixed"),
        ((np.zeros((2, 8, 8)), [1, 1]), "one class, 1"),
    ],
)
def test_wrong_arrays_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        open_arrays(data)


def test_arrays_are_taken_as_they_are():
    grey = np.arange(2 * 4 * 6, dtype=np.float64).reshape(2, 4, 6) + 0.6
    source = open_arrays((grey, [10, 9]), val=iter([(grey[0], 9), (grey[1], 10)]))
    assert source.class_names == ("9", "10")
    labels = source.train.labels.tolist(), source.val.labels.tolist()
    assert labels == ([1, 0], [0, 1])
    np.testing.assert_array_equal(source.train.read(1)[..., 2], grey[1].round())
    turned = open_arrays((grey.reshape(2, 6, 4), [10, 9]))
    items = np.arange(2)
    assert (source.train.digests(items) != turned.train.digests(items)).any(1).all()
    with pytest.raises(ValueError, match="val has labels that data does not have: '3'"):
        open_arrays((grey, [10, 9]), val=(grey, [10, 3]))
    with pytest.raises(ValueError, match="no images of class '9' in val"):
        open_arrays((grey, [10, 9]), val=(grey, [10, 10]))


def test_a_table_is_fitted_as_by_the_command():
    curve = pd.DataFrame({"depth": [0, 10, 20, 30], "accuracy": [61, 70, 74, 72]})
    answer = ftjax.fit(curve, total_layers=40)
    assert answer.depth == 20 and answer.accuracy == pytest.approx(0.74)
    assert "read as percent" in " ".join(answer.warnings)
    assert list(curve) == ["depth", "accuracy"]  # as it was
    with pytest.raises(ValueError, match="the table has no column depth_layers or dep"):
        ftjax.fit(curve[["accuracy"]])


def test_the_package_shows_its_public_names_and_starts_no_jax():
    code = "import sys, ftjax; assert 'jax' not in sys.modules; print(*dir(ftjax))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.split() == sorted(ftjax.__all__), found.stderr
    assert all(getattr(ftjax, name) is not None for name in ftjax.__all__)
    assert ftjax.sweep.__doc__.startswith("Trains a pretrained network at many depths")
