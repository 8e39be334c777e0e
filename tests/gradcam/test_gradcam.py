"""Maps of a tiny network, the figure and the command."""

import json
import shutil
from typing import get_args

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from html_page import Page
from rounding import TINY_LAYERS, rounding

from experiments import sweep
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.cli import gradcam as command
from ftjax.frozen.forward import infer
from ftjax.gradcam import checks as gradcam_checks
from ftjax.gradcam import maps as gradcam
from ftjax.gradcam import run as gradcam_run
from ftjax.gradcam.rule import RECORD
from ftjax.report.gradcam_plots import Row, stage_figure
from ftjax.report.gradcam_section import read_heat_maps
from ftjax.training import chain

SIZE, CLASSES = 16, 3
IMAGES = 16  # one batch of `explain`, so that all tests share its programs
LABELS = np.arange(IMAGES) % CLASSES
NETWORK = with_head(make_backbone("tiny"), CLASSES)


@pytest.fixture(scope="module")
def weights():
    """Random; biases are not 0, or whole regions would lie on the kink of a ReLU."""
    rng = np.random.default_rng(2)

    def shift(path, leaf):
        if path[-1].key in ("bias", "mean"):
            return rng.normal(0, 0.2, leaf.shape).astype(np.float32)
        return leaf

    return jax.tree_util.tree_map_with_path(shift, init(NETWORK.units, 0, SIZE))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def tape(weights, images):
    return chain.record(NETWORK.units, *weights, jnp.asarray(images))


def explain(weights, images, **arguments):
    return gradcam.explain(NETWORK.units, *weights, images, **arguments)


@pytest.mark.numeric
def test_gradients_equal_finite_differences(weights, tape):
    gradients = gradcam.boundary_gradients(tape, jnp.asarray(LABELS))
    rng, step = np.random.default_rng(1), 1e-6
    assert list(gradients) == [unit.name for unit in NETWORK.units[:-2]]
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
        for index, (name, gradient) in enumerate(gradients.items()):
            middle = np.asarray(tape.outputs[name], np.float64)
            # Activations of 0 lie on the kink of a ReLU or of max pooling.
            direction = rng.normal(size=middle.shape) * (middle != 0)
            scores = []
            for shift in (step, -step):
                logits = infer(
                    NETWORK.units[index + 1 :],
                    *exact,
                    jnp.asarray(middle + shift * direction),
                )
                assert logits.dtype == np.float64
                scores.append(np.asarray(logits)[np.arange(IMAGES), LABELS])
            expected = (scores[0] - scores[1]) / (2 * step)
            terms = np.asarray(gradient, np.float64) * direction
            error = np.abs(terms.sum((1, 2, 3)) - expected)
            # float32 in every layer, then float64; differences of steps of 1e-6.
            bound = rounding(TINY_LAYERS * SIZE * SIZE) + 1e-6
            assert (error < bound * np.abs(terms).sum((1, 2, 3))).all()


@pytest.mark.numeric
def test_the_last_map_is_the_class_activation_map(weights, images, tape):
    """Zhou et al. 2016: before pooling and a linear classifier all three are one."""
    kernel = weights[0]["predictions"]["predictions"]["kernel"]
    top = np.asarray(tape.outputs["top"])
    expected = np.einsum("nhwc,cn->nhw", top, kernel[:, LABELS]) / 4  # 2x2 pixels
    expected = np.maximum(expected, 0)
    for method in ("gradcam", "hirescam"):
        found = explain(weights, images, classes=LABELS, method=method)
        bound = rounding(len(kernel)) * expected.max()
        np.testing.assert_allclose(found.maps["top"], expected, atol=bound)


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.parametrize("name", ["vgg16", "resnet152"])
def test_the_networks_of_the_paper_have_a_map_for_every_stage(name):
    """Small and with random weights: the last map is the closed form, others are not 0.

    VGG16 pools after its last convolution, which hands each gradient to one pixel.
    """
    size, rng = 64, np.random.default_rng(0)
    network = with_head(make_backbone(name), CLASSES)
    trees = init(network.units, 0, size)
    images = rng.integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    found = gradcam.explain(network.units, *trees, images, classes=1)
    stages = gradcam.find_stages(network.body, size)
    assert len(stages) >= 4
    for stage in stages:
        maps = found.maps[stage.end]
        assert maps.shape == (2, stage.height, stage.width)
        assert np.isfinite(maps).all() and maps.min() >= 0
    assert sum(found.maps[stage.end].max() > 0 for stage in stages) >= 3
    last = network.body[-1].name
    tape = chain.record(network.units, *trees, jnp.asarray(images))
    top = np.asarray(tape.outputs[last], np.float64)
    kernel = trees[0]["predictions"]["predictions"]["kernel"][:, 1]
    pixels = top.shape[1] * top.shape[2]
    expected = np.maximum(top @ kernel.astype(np.float64), 0) / pixels
    bound = rounding(len(kernel)) * np.abs(top @ np.abs(kernel)).max() / pixels
    np.testing.assert_allclose(found.maps[last], expected, atol=bound)


def test_classes_default_to_the_predicted_ones(weights, images):
    found = explain(weights, images)
    np.testing.assert_array_equal(found.classes, found.logits.argmax(-1))
    same = explain(weights, images, classes=found.classes)
    one = explain(weights, images, classes=1)
    np.testing.assert_array_equal(one.classes, 1)
    for name, maps in found.maps.items():
        np.testing.assert_array_equal(maps, same.maps[name])
        assert maps.min() >= 0


@pytest.mark.numeric
def test_batches_do_not_matter_and_nothing_is_compiled_again(weights, images):
    whole = explain(weights, images)
    programs = chain.forward_program._cache_size(), chain.backward_unit._cache_size()
    more = np.concatenate([images[5:], images[:9]])  # a full batch and a part of one
    parts = explain(weights, more)
    explain(weights, images[:3], classes=2)
    assert programs == (
        chain.forward_program._cache_size(),
        chain.backward_unit._cache_size(),
    )
    for name, maps in whole.maps.items():
        expected = np.concatenate([maps[5:], maps[:9]])
        np.testing.assert_allclose(parts.maps[name], expected, rtol=1e-4, atol=1e-6)


def test_maps_come_in_the_order_of_the_network(weights, images):
    names = [unit.name for unit in NETWORK.units]
    assert list(explain(weights, images).maps) == names[:-2]


def test_runner_up_is_never_the_class_itself():
    logits = np.array([[3.0, 2.0, 1.0], [0.0, 5.0, 4.0]])
    np.testing.assert_array_equal(gradcam.runner_up(logits, np.array([0, 2])), [1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "cam"}, "unknown method 'cam'; allowed: gradcam, gradcam"),
        ({"classes": 3}, "class 3 is out of range: the network has classes 0 to 2"),
    ],
)
def test_bad_arguments(weights, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        explain(weights, images, **arguments)
    with pytest.raises(ValueError, match="n >= 1"):
        explain(weights, images[:0])


@pytest.mark.parametrize(
    ("name", "size", "ends"),
    [
        ("tiny", 32, ["plain_conv", "res_block2", "top"]),
        ("effnetlite0", 224, ["block1a", "block2b", "block3b", "block5c", "top"]),
        ("resnet50", 224, [f"conv{n}" for n in (2, 3, 4, 5)]),
        ("resnet152", 224, [f"conv{n}" for n in (2, 3, 4, 5)]),
        ("vgg16", 224, [f"block{n}_conv{2 + n // 3}" for n in range(1, 5)]),
    ],
)
def test_stages(name, size, ends):
    network = with_head(make_backbone(name), 2)
    stages = gradcam.find_stages(network.body, size)
    found = [stage.end for stage in stages]
    for end, expected in zip(found, ends, strict=False):
        assert end.startswith(expected)
    assert sum(stage.num_layers for stage in stages) == len(network.layers)
    assert sum(len(stage.units) for stage in stages) == network.num_units
    assert len({(stage.height, stage.width) for stage in stages}) == len(stages)


def test_randomization_goes_from_the_top_down(weights, images):
    params, batch_stats = weights
    stages = gradcam.find_stages(NETWORK.body, SIZE)
    before = jax.tree.map(np.copy, params)
    found = gradcam_checks.randomization(
        NETWORK.units,
        params,
        batch_stats,
        images,
        classes=LABELS,
        stages=stages,
        seed=7,
    )
    assert list(found) == ["classifier", "top", "res_block2", "plain_conv"]
    assert set(found["top"]) == {stage.end for stage in stages}
    assert np.nanmean(found["plain_conv"]["top"]) < 0.99
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_figure_shows_every_map_and_says_where_there_is_none(weights, images):
    stages = gradcam.find_stages(NETWORK.body, SIZE)
    maps = explain(weights, images[:2], classes=0)
    maps.maps["top"][0] = 0
    rows = [Row("head alone", maps, ("a 10 %", "b 20 %"))]
    for overlay in (True, False):
        figure = stage_figure(
            images[:2], ("one", "two"), rows, stages, title="t", overlay=overlay
        )
        drawn = [ax for ax in figure.axes if ax.images]
        assert len(drawn) == 2 * (1 + len(stages))
        texts = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert sum("nothing speaks" in text for text in texts) >= 1
    with pytest.raises(ValueError, match="nothing to draw"):
        stage_figure(images[:0], (), rows, stages, title="t")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A sweep of two depths over images of two colors."""
    folder = tmp_path_factory.mktemp("gradcam")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for label, name in enumerate(("blue", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 120, (20, 20, 3), np.uint8)
                image[..., 2 * label] += 100
                cv2.imwrite(str(folder / split / name / f"{number}.png"), image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTJAX_CACHE", str(folder / "cache"))
        words = "--model tiny --weights random --image-size 16 --batch-size 16 --epochs"
        words += " 1 --bn frozen --depths 0 3 --head-start random"
        data = ["--data", str(folder), "--out", str(folder / "run")]
        assert sweep.main([*words.split(), *data]) == 0
        shutil.copy(folder / "run" / "report.html", folder / "run" / "sweep.html")
        yield folder / "run"


def test_command(run_dir, capsys):
    masks = run_dir / "masks.npy"
    np.save(masks, np.ones((12, 16, 16), bool))
    assert command.main([str(run_dir), "--images", "12", "--masks", str(masks)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("Grad-CAM rule", "Measured optimum", "Agreement", RECORD):
        assert words in printed
    for name in ("gradcam", "gradcam_raw"):
        assert (run_dir / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (run_dir / f"{name}.svg").read_text()
    table = pd.read_csv(run_dir / "gradcam_numbers.csv")
    assert set(table["depth_layers"]) == {0, 3}
    assert set(table["unit"]) == {unit.name for unit in NETWORK.units[:-2]}
    inside = table[table["number"] == "energy_inside"]["mean"].dropna()
    np.testing.assert_allclose(inside, 1)
    rates = table[table["number"].isin(["class_hit", "deletion_auc"])]
    assert rates["mean"].dropna().between(0, 1).all()
    before = table[table["number"] == "before_rank_correlation"]
    assert set(before["depth_layers"]) == {3}
    saved = json.loads((run_dir / "gradcam.json").read_text())
    assert saved["suggestion"]["depth_layers"] in (0, 32, 55, 59)
    assert "What the network looks at" not in (run_dir / "sweep.html").read_text()
    check_page(run_dir, saved)


def check_page(run_dir, saved):
    """The report has the maps, needs nothing else, and is else the sweep's."""
    text = (run_dir / "report.html").read_text()
    page = Page(text)
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert len(page.ids) == len(set(page.ids))
    assert {"gradcam", "maps1", "maps2", "maps3"} <= set(page.ids)
    assert text.count("data:image/png;base64,") >= 4 * (1 + 2 * 3)
    words = "".join(page.text)
    for part in ("suggestion", "agreement"):
        assert saved[part]["sentence"] in words
    assert RECORD in words
    assert "Suggested by Grad-CAM" in words and "cannot be judged" in words
    assert "Head alone: mean" in words and "Top 3 layers unfrozen: mean" in words
    assert "Energy inside the object" in words
    start = text.index("<section>\n<h2>What the network looks at")
    end = text.index("<section>", start + 1)
    others = text[:start] + text[end:]
    assert others.split() == (run_dir / "sweep.html").read_text().split()


def test_maps_of_trials_that_are_gone_are_not_shown(tmp_path):
    table = pd.DataFrame({"trial": ["a", "b"], "depth_layers": [0, 3]})
    table.assign(status="done").to_csv(tmp_path / "results.csv")
    table.assign(trial="another", stage_end=True).to_csv(
        tmp_path / "gradcam_numbers.csv"
    )
    (tmp_path / "gradcam.json").write_text("{}")
    assert read_heat_maps(tmp_path) is None


def test_command_explains_files_and_takes_the_boxes_of_the_data(run_dir, monkeypatch):
    def left_half(*, count, image_size, **_):
        masks = np.zeros((count, image_size, image_size), bool)
        masks[:, :, : image_size // 2] = True
        return masks

    monkeypatch.setattr(gradcam_run, "load_object_masks", left_half)
    image = next((run_dir.parent / "val" / "red").iterdir())
    arguments = ["--images", str(image), "--depth", "3", "--method", "layercam"]
    assert command.main([str(run_dir), *arguments]) == 0
    assert json.loads((run_dir / "gradcam.json").read_text())["method"] == "layercam"
    table = pd.read_csv(run_dir / "gradcam_numbers.csv").set_index("number")
    np.testing.assert_allclose(table.loc["area_inside", "mean"], 0.5)
    assert table.loc["energy_inside", "mean"].dropna().between(0.1, 0.9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "7"], "depth 7 has no finished trial .*--depth takes 0 3"),
        (["--images", "0"], "--images 0 is too small: 1 or more"),
        (["--images", "none.jpg"], "none.jpg"),
        (["--images", "3", "none.jpg"], "one number or image files, not both"),
        (["--target", "green"], "unknown --target 'green'; allowed: true, predicted"),
        (["--masks", "none.npy"], "--masks none.npy cannot be read"),
        (["--bn", "follow"], "no finished trial with --bn follow --seed 0"),
    ],
)
def test_bad_command(run_dir, capsys, arguments, message):
    assert command.main([str(run_dir), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert pd.Series([error]).str.contains(message).all()


def test_folder_without_a_sweep(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert read_heat_maps(tmp_path) is None


def test_methods_of_the_command_are_those_of_the_library(capsys):
    assert tuple(gradcam.METHODS) == get_args(command.Method)
    with pytest.raises(SystemExit, match="2"):
        command.main(["run", "--method", "cam"])
    assert "invalid choice 'cam' for argument '--method'" in capsys.readouterr().err
