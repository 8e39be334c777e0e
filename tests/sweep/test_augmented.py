"""Trials on augmented images: stored and fresh views, and the command's `--augment`."""

from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, adam_drift, rounding
from tiny_run import interrupt_after, run, table
from train_tiny import TRAINED, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head

LOSSES = ("loss", "val_loss", "train_mode_loss")
DOUBLE = rounding(TINY_LAYERS * 8 * 16 * 16, "float64")
ADAM = adam_drift(4, 1e-2 * 10, DOUBLE)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def double():
    network = with_dtype(with_head(make_backbone("tiny"), 3), "float64")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINED + 4, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 4).astype(np.int32)
    with jax.enable_x64(True):
        trees = init(network.units, 0, 16)
        trees = jax.tree.map(lambda leaf: leaf.astype(np.float64), trees)
        yield network, *trees, images, labels


def losses(trained):
    return [[epoch[name] for name in LOSSES] for epoch in trained.epochs]


@pytest.mark.numeric
def test_stored_views_have_the_numbers_of_those_made_in_every_step(double, tmp_path):
    """Mixed labels are found for both."""
    train = partial(train_tiny, *double, depth=0, seeds=(1,), micro_batch=4)
    settings = {"augment": "flip,crop,mixup", "views": "3"}
    (stored,) = train(tmp_path / "stored", **settings)
    (made,) = train(tmp_path / "made", boundary=0, **settings)
    np.testing.assert_allclose(losses(made), losses(stored), rtol=ADAM)


@pytest.mark.numeric
def test_fresh_views_belong_to_seed_epoch_and_image(double, tmp_path):
    """Not to the parts of a batch, the seeds beside it, or an interruption."""
    settings = {"augment": "crop,mixup", "views": "fresh", "depth": 0}
    train = partial(train_tiny, *double, policy="frozen", **settings)
    (whole,) = train(tmp_path / "whole", seeds=(3,))
    (one,) = train(tmp_path / "resumed", seeds=(3,), epochs=1)
    (resumed,) = train(tmp_path / "resumed", seeds=(3,))
    both = train(tmp_path / "both", seeds=(5, 3), micro_batch=4)
    assert len(one.epochs) == 1
    for found, bound in ((resumed, 0), (both[1], ADAM)):
        mine, other = (np.array(losses(own)) for own in (found, whole))
        other[0, 0] = mine[0, 0] = 0  # the training images, after the last epoch alone
        np.testing.assert_allclose(mine, other, rtol=bound)


@pytest.mark.usefixtures("undrawn")
def test_the_command_resumes_with_the_same_pixels(images, tmp_path, monkeypatch):
    words = "--depths 0 --bn frozen --augment none crop,flip --views 2 fresh --epochs 2"
    words += " --trials-at-once 1 --head-start random"
    assert run(images, tmp_path / "whole", *words.split()) == 0
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert run(images, tmp_path / "cut", *words.split()) == 130
    assert run(images, tmp_path / "cut", *words.split()) == 0
    whole = table(tmp_path / "whole")
    pd.testing.assert_frame_equal(table(tmp_path / "cut"), whole)
    kinds = ["none", "flip,crop", "flip,crop"]
    assert [*whole.augment] == kinds and [*whole.views] == ["none", "2", "fresh"]
    assert whole.frozen_intact.all() and whole.val_loss.nunique() == 3
    plain = "--depths 0 --bn frozen --epochs 2 --head-start random".split()
    assert run(images, tmp_path / "plain", *plain) == 0
    assert table(tmp_path / "plain").trial[0] == whole.trial[0]


@pytest.mark.numeric
@pytest.mark.usefixtures("undrawn")
def test_views_that_do_not_fit_the_cache_are_made_again(images, tmp_path):
    words = "--depths 0 --bn frozen --augment crop,flip --views 2 --epochs 2".split()
    words += ["--head-start", "random"]
    assert run(images, tmp_path / "kept", *words) == 0
    assert run(images, tmp_path / "made", *words, "--cache-gb", "1e-6") == 0
    kept, made = (table(tmp_path / name) for name in ("kept", "made"))
    assert [*made.trial] == [*kept.trial]
    np.testing.assert_allclose(made.val_loss, kept.val_loss, rtol=1e-4)
