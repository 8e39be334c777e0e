"""Heads from a probe, weights of classes, and the test images that are scored once."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny_run import run, table
from tiny_sweep import tiny_sweep

from ftjax.sweep.chosen_images import balanced_weights
from ftjax.sweep.run import run as run_sweep

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_head_alone_is_the_probe_at_every_epoch_and_seed(tmp_path):
    sweep = tiny_sweep(
        tmp_path, depths=("0",), seeds=2, epochs=2, head_start="probe", train_size=200
    )
    outcome = run_sweep(sweep, tmp_path)
    assert not outcome.failed
    assert outcome.epochs["val_accuracy"].nunique() == 1
    kind = {"head_start": "random", "train_size": 200}
    plain = run_sweep(tiny_sweep(tmp_path, depths=("0",), **kind), tmp_path)
    ours, theirs = (each.results["accuracy"].iloc[0] for each in (outcome, plain))
    assert ours > theirs + 0.2  # one epoch of a random head is far from fitted


def test_deeper_cuts_start_from_the_probe(tmp_path):
    settings = {"depths": ("7",), "bn": ("frozen",), "lr": 1e-6, "train_size": 200}
    losses = []
    for head in ("probe", "random"):
        sweep = tiny_sweep(tmp_path, head_start=head, **settings)
        losses.append(run_sweep(sweep, tmp_path).epochs["train_mode_loss"].iloc[0])
    assert losses[0] < 0.8 * losses[1]


def test_balanced_weights_give_classes_equal_shares(tmp_path):
    sweep = tiny_sweep(tmp_path)
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    train = sweep.data.train._replace(labels=labels)
    weights = balanced_weights(
        type(sweep.data)("made", ("a", "b", "c"), train, train, None, "0", "", 0)
    )
    shares = np.bincount(labels, weights[labels], minlength=3)
    np.testing.assert_allclose(shares, [20, 20, 0], rtol=1e-6)


@pytest.fixture
def with_test(images, tmp_path):
    """The images, and a test split of the same kind."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(1)
    for split, count in (("train", 24), ("val", 12), ("test", 10)):
        for label, name in enumerate(("blue", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 120, (20, 20, 3), np.uint8)
                image[..., 2 * label] += 100
                cv2.imwrite(str(folder / split / name / f"{number}.png"), image)
    return folder


def test_test_images_are_scored_once(with_test, tmp_path, capsys):
    out = tmp_path / "run"
    words = "--depths 0 7 --bn frozen --epochs 2 --lr 1e-2".split()
    assert run(with_test, out, *words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    score = json.loads((out / "test.json").read_text())
    assert score["images"] == 20 and "On 20 test images, scored once" in printed
    assert score["trial"] in set(table(out).trial)
    assert score["accuracy"] == score["correct"] / 20
    # Another choice does not look at them again.
    assert (
        run(with_test, out, *"--depths 18 --bn frozen --epochs 2 --lr 1e-2".split())
        == 0
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "test.json").read_text()) == score
    assert f"That is trial {score['trial']}, which an earlier answer named" in printed


def test_validation_labels_and_logits_are_kept(images, tmp_path):
    assert run(images, tmp_path, *"--depths 0 7 --bn frozen --epochs 2".split()) == 0
    labels = np.load(tmp_path / "val_labels.npy")
    for row in pd.read_csv(tmp_path / "results.csv").itertuples():
        with np.load(tmp_path / "trials" / row.trial / "val_logits.npz") as arrays:
            logits = arrays["logits"]
        assert logits.shape == (2, len(labels), 2) and logits.dtype == np.float16
        right = logits[-1].argmax(-1) == labels
        assert right.mean() == pytest.approx(row.val_accuracy)
