"""A run's trials as predictors and as files."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import ftjax
from experiments import export as export_command
from experiments import gradcam as gradcam_command
from experiments import predict as predict_command
from experiments import sweep as command
from ftjax import data
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.machine.files import read_json
from ftjax.stats.temperature import fit_temperature
from ftjax.sweep import records
from ftjax.sweep.results import read_correct
from ftjax.weights.export import export_keras, export_safetensors, keras_code
from ftjax.weights.pretrained import load_pretrained

TINY = "--model tiny --weights random --image-size 16 --batch-size 16 --epochs 1"
TINY = [*TINY.split(), "--no-replicate"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for label, name in enumerate(("blue", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 120, (20, 30, 3), np.uint8)
                image[..., 2 * label] += 100
                cv2.imwrite(str(folder / split / name / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def run_dir(images, tmp_path_factory, undrawn_module):
    """Depths 0 and 7 after 1 and 2 epochs; 7 has a trainable BatchNorm."""
    folder = tmp_path_factory.mktemp("run")
    os.environ["FTJAX_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    arguments = [*TINY, "--data", str(images), "--out", str(folder), "--lr", "1e-4"]
    arguments += ["--epochs", "1", "2", "--depths", "0", "7"]
    assert command.main([*arguments, "--bn", "follow", "frozen"]) == 0
    return folder


@pytest.mark.parametrize("depth, bn", [(0, None), (7, "follow"), (7, "frozen")])
def test_it_is_right_where_the_trial_was(run_dir, images, depth, bn):
    predictor = ftjax.load(run_dir, depth, bn=bn)
    val = data.load(str(images), image_size=16).val
    answers = predictor.logits(val.images).argmax(-1)
    correct = records.read_correct(run_dir, predictor.trial)
    np.testing.assert_array_equal(answers == val.labels, correct[-1])
    assert predictor.class_names == ("blue", "red")
    assert (predictor.depth_layers, predictor.image_size) == (depth, 16)
    assert predictor.val_accuracy == pytest.approx(correct[-1].mean())


@pytest.mark.numeric
def test_files_are_cut_and_resized_as_in_training(run_dir, images):
    predictor = ftjax.load(run_dir, 7)
    paths = sorted((images / "val" / "red").iterdir())[:3]
    answers = predictor.predict_files(paths)
    images = np.stack([cv2.imread(str(path))[:, 5:25, ::-1] for path in paths])
    resized = np.stack([predictor.resize(image) for image in images])
    np.testing.assert_array_equal(resized[0], predictor.read(paths[0]))
    for answer, row in zip(answers, predictor.logits(resized), strict=True):
        expected = np.exp(row / predictor.temperature)
        expected /= expected.sum()
        np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)
        assert answer.class_name == predictor.class_names[row.argmax()]
        assert answer.probability == answer.probabilities.max()


def test_a_head_of_several_layers(images, tmp_path, monkeypatch, undrawn, capsys):
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    arguments = [*TINY, "--data", str(images), "--out", str(tmp_path / "run")]
    arguments += ["--lr", "1e-3", "--depths", "0", "7", "--head", "4d0.5,3"]
    assert command.main([*arguments, "--bn", "frozen"]) == 0
    predictor = ftjax.load(tmp_path / "run", 7)
    val = data.load(str(images), image_size=16).val
    correct = records.read_correct(tmp_path / "run", predictor.trial)
    answers = predictor.logits(val.images).argmax(-1)
    np.testing.assert_array_equal(answers == val.labels, correct[-1])
    path = tmp_path / "own.safetensors"
    words = [str(tmp_path / "run"), "--depth", "7", "--out", str(path)]
    assert export_command.main(words) == 0
    body = load_pretrained(make_backbone("tiny"), str(path), size=16).params
    assert "hidden1" in predictor.params and "hidden1" not in body
    network = replace(predictor.network, name="resnet50")
    with pytest.raises(ValueError, match="for a linear head only.* hidden1, hidden2"):
        keras_code(network, image_size=16, file_name="x")


def test_without_a_depth_it_is_the_recommended_one(run_dir):
    advice = read_json(run_dir / "recommendation.json")
    predictor = ftjax.load(run_dir)
    assert predictor.depth_layers == advice["depth_layers"]


def test_answers_of_images_are_those_of_the_last_epoch_read_off(tmp_path):
    epochs = np.array([[True, False], [False, False], [True, True]])
    records.write_correct(tmp_path, "a", epochs)
    results = pd.DataFrame({"trial": "a", "epochs": [1, 2]})
    np.testing.assert_array_equal(read_correct(tmp_path, results)["a"], epochs[1])


def test_where_chooses_among_the_rows(run_dir, images, capsys):
    for bn in ("follow", "frozen"):
        predictor = ftjax.load(run_dir, 7, where=(f"bn={bn}", "epochs=2"))
        assert (predictor.depth_layers, predictor.bn) == (7, bn)
        again = ftjax.load(run_dir, where=(f"trial={predictor.trial}",))
        assert (again.trial, again.bn) == (predictor.trial, bn)
    assert ftjax.load(run_dir, where=("depth_layers=0",)).depth_layers == 0
    with pytest.raises(ValueError, match="no weights after 1 epochs.*leave epochs out"):
        ftjax.load(run_dir, where=("epochs=1",))
    path = str(images / "val" / "red" / "0.png")
    words = [str(run_dir), path, "--where", "lr=1e-4", "bn=frozen", "--where"]
    assert predict_command.main([*words, "depth_layers=7"]) == 0
    assert predict_command.main([*words, "depth_layers=8"]) == 2
    error = capsys.readouterr().err
    assert "depth_layers with lr=1e-4 bn=frozen is 0, 7" in error
    assert error.count("\n") == 1
    arguments = [str(run_dir), "--where", "rate=1"]
    for tool in (export_command, gradcam_command):
        assert tool.main(arguments) == 2
        assert "no column 'rate'; allowed are depth_layers" in capsys.readouterr().err


def test_trials_of_an_earlier_command_are_not_taken(
    images, tmp_path, monkeypatch, undrawn
):
    """Two commands with different rates share a folder; the first one is better."""
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    arguments = [*TINY, "--data", str(images), "--out", str(tmp_path / "run")]
    arguments += ["--depths", "7", "--bn", "frozen", "--lr"]
    found = []
    for rate in ("1e-2", "1e-9"):
        assert command.main([*arguments, rate]) == 0
        (trial,) = pd.read_csv(tmp_path / "run" / "results.csv", dtype=str)["trial"]
        path = tmp_path / "run" / "trials" / trial / "trial.json"
        record = json.loads(path.read_text())
        record["epochs"][-1]["val_accuracy"] = float(rate)  # the first is better
        del record["sha256"]  # as a version that wrote none
        path.write_text(json.dumps(record))
        found.append(trial)
    assert found[0] != found[1]
    assert ftjax.load(tmp_path / "run").trial == found[1]


def test_wrong_images_are_noticed(run_dir, tmp_path):
    predictor = ftjax.load(run_dir, 0)
    with pytest.raises(ValueError, match="look like images divided by 255"):
        predictor.predict(np.full((1, 16, 16, 3), 0.5))
    with pytest.raises(ValueError, match=r"this network takes \(n, 16, 16, 3\)"):
        predictor.predict(np.zeros((1, 20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="gone.jpg cannot be read: No such file"):
        predictor.predict_files([tmp_path / "gone.jpg"])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match="text.jpg is not an image"):
        predictor.predict_files([tmp_path / "text.jpg"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"depth": 3},
            r"no finished trial of depth 3.*has depths 0 7, bn follow frozen",
        ),
        ({"depth": 7, "bn": "recalibrate"}, "no finished trial of depth 7, bn recal"),
        ({"depth": 7, "seed": 5}, "seed 5; it has .* seeds 0"),
        ({"depth": 60}, "depth 60 is out of range"),
    ],
)
def test_no_such_trial(run_dir, arguments, message):
    with pytest.raises(ValueError, match=message):
        ftjax.load(run_dir, **arguments)


def test_no_run(tmp_path):
    with pytest.raises(ValueError, match="holds no run: config.json is missing"):
        ftjax.load(tmp_path)


def test_predict_command(run_dir, images, capsys):
    path = str(images / "val" / "red" / "0.png")
    assert predict_command.main([str(run_dir), path, "--depth", "7", "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{path}: ") and "red 0." in shown and "blue 0." in shown
    assert predict_command.main([str(run_dir), "gone.png"]) == 2
    error = capsys.readouterr().err
    assert error == "error: gone.png cannot be read: No such file or directory\n"


def test_export_command_gives_the_same_network(run_dir, tmp_path, capsys):
    path = tmp_path / "mine.safetensors"
    arguments = [str(run_dir), "--depth", "7", "--bn", "follow", "--out", str(path)]
    assert export_command.main(arguments) == 0
    assert "classes blue, red" in capsys.readouterr().out
    predictor = ftjax.load(run_dir, 7, bn="follow")
    again = load_pretrained(with_head(make_backbone("tiny"), 2), str(path), size=16)
    np.testing.assert_equal(again.params, predictor.params)
    np.testing.assert_equal(again.batch_stats, predictor.batch_stats)
    with safe_open(path, framework="np") as file:
        assert file.metadata()["model"] == "tiny"
        assert file.metadata()["class_names"] == '["blue", "red"]'
        assert json.loads(file.metadata()["preprocessing"])["std"] == [128.0] * 3
        assert file.metadata()["weights_licence"].startswith("none: the network star")
        advice = read_json(run_dir / "recommendation.json")
        assert file.metadata()["answer"] == advice["sentence"]
    assert export_command.main([*arguments, "--format", "keras"]) == 2
    assert "must end in .keras for format keras" in capsys.readouterr().err
    arguments[-1] = str(tmp_path / "t.weights.h5")
    assert export_command.main([*arguments, "--format", "keras"]) == 2
    assert "keras.applications has no tiny" in capsys.readouterr().err


def test_probabilities_are_those_of_the_validation_images(run_dir, images, tmp_path):
    run = ftjax.open(run_dir)
    predictor = run.load(7, bn="frozen")
    logits = records.read_logits(run_dir, predictor.trial)[-1]
    labels = records.read_labels(run_dir)
    assert predictor.temperature == fit_temperature(logits, labels) != 1
    table = run.predict(images / "val", depth=7, bn="frozen")
    names = [*predictor.class_names]
    assert list(table) == ["file", "class", "probability", "p_blue", "p_red"]
    assert len(table) == 24 and table["file"].is_monotonic_increasing
    assert (table[[f"p_{name}" for name in names]].sum(axis=1) - 1).abs().max() < 1e-6
    right = np.mean([f"/{row._2}/" in row.file for row in table.itertuples()])
    assert right == predictor.val_accuracy
    path = tmp_path / "p.csv"
    words = [str(run_dir), str(images / "val"), "--depth", "7", "--bn", "frozen"]
    assert predict_command.main([*words, "--csv", str(path)]) == 0
    read = pd.read_csv(path)
    pd.testing.assert_frame_equal(read, table, rtol=1e-5, check_dtype=False)
    with pytest.raises(ValueError, match="holds no images"):
        run.predict(run_dir / "trials")


def test_importing_the_package_does_not_start_jax():
    code = "import sys, ftjax; assert 'jax' not in sys.modules; ftjax.load"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = ftjax.lode


@pytest.fixture(scope="module")
def network():
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 16)
    rng = np.random.default_rng(0)
    for unit in stats.values():
        for leaves in unit.values():
            leaves["var"] = rng.uniform(0.5, 2, leaves["var"].shape).astype(np.float32)
    return network, params, stats


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors"])
def test_files_round_trip_bit_for_bit(suffix, network, tmp_path):
    network, params, stats = network
    path = tmp_path / f"t{suffix}"
    if suffix == ".weights.h5":
        export_keras(path, network, params, stats)
    else:
        export_safetensors(path, network, params, stats, image_size=16)
    again = load_pretrained(network, str(path), size=16)
    for name, layers in params.items():
        np.testing.assert_equal(again.params.get(name, {}), layers)
    for name, layers in stats.items():
        np.testing.assert_equal(again.batch_stats.get(name, {}), layers)


def test_safetensors_of_arrays_that_are_not_contiguous(network, tmp_path):
    network, params, stats = network
    kernel = params["top"]["conv"]["kernel"]
    params = {**params, "top": {**params["top"], "conv": {"kernel": kernel.copy("F")}}}
    export_safetensors(
        tmp_path / "t.safetensors", network, params, stats, image_size=16
    )
    again = load_pretrained(network, str(tmp_path / "t.safetensors"), size=16)
    np.testing.assert_array_equal(again.params["top"]["conv"]["kernel"], kernel)


def test_what_cannot_be_exported(network, tmp_path):
    network, params, stats = network
    with pytest.raises(ValueError, match="must end in .weights.h5"):
        export_keras(tmp_path / "t.h5", network, params, stats)
    with pytest.raises(ValueError, match="gone.* cannot be written: No such file"):
        export_keras(tmp_path / "gone" / "t.weights.h5", network, params, stats)
    torch = with_head(make_backbone("resnet50_torch"), 3)
    with pytest.raises(ValueError, match="no network with the graph of resnet50_torch"):
        export_keras(tmp_path / "t.weights.h5", torch, {}, {})
    with pytest.raises(ValueError, match="keras.applications has no resnet50_torch"):
        keras_code(torch, image_size=32, file_name="t.weights.h5")
