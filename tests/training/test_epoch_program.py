"""An epoch as a few programs: the numbers of unit programs, and what it takes."""

from functools import partial

import jax
import numpy as np
import pytest
from rounding import TINY_LAYERS, adam_drift, rounding
from train_tiny import TRAINED, on_device, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head

LOSSES = ("loss", "val_loss", "train_mode_loss")
DOUBLE = rounding(TINY_LAYERS * 8 * 16 * 16, "float64")
# Two epochs of two steps, at the head's rate.
ADAM = adam_drift(4, 1e-2 * 10, DOUBLE)

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]


@pytest.fixture(scope="module")
def double():
    network = with_dtype(with_head(make_backbone("tiny"), 3), "float64")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINED + 4, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 4).astype(np.int32)
    with jax.enable_x64(True):
        trees = init(network.units, 0, 16)
        yield network, *jax.tree.map(np.float64, trees), images, labels


def losses(trained):
    return [[epoch[name] for name in LOSSES] for epoch in trained.epochs]


SHALLOW = {"depth": 7, "optimizer": "sgd"}
FORMS = {
    "follow": {"depth": 18, "boundary": 0, "micro_batch": 4, "seeds": (0, 1)},
    "frozen": {"depth": 18, "policy": "frozen", "optimizer": "sgd", "clip": 0.1},
    "recalibrate": {"depth": 18, "policy": "recalibrate", "boundary": 5},
    "recalibrate seeds": {**SHALLOW, "policy": "recalibrate", "seeds": (2, 3)},
    "stored views": {**SHALLOW, "augment": "flip,mixup", "views": "2"},
    "views made": {**SHALLOW, "augment": "crop,mixup", "views": "2", "boundary": 0},
    "fresh views": {**SHALLOW, "augment": "color,mixup", "views": "fresh"},
    "dropout": {**SHALLOW, "depth": 0, "head": "8d0.5", "schedule": "cosine"},
    "probe": {**SHALLOW, "depth": 0, "head_start": "probe"},
}


@pytest.mark.parametrize("name", FORMS)
def test_it_has_the_numbers_of_unit_programs(double, tmp_path, name):
    train = partial(train_tiny, *double, **FORMS[name])
    units = train(tmp_path / "units")
    programs = train(tmp_path / "programs", form=on_device, fused=True)
    for mine, other in zip(programs, units, strict=True):
        np.testing.assert_allclose(losses(mine), losses(other), rtol=ADAM)
        np.testing.assert_array_equal(mine.correct, other.correct)
        for path, leaf in other.state.items():
            limit = ADAM * max(abs(leaf).max(initial=0), 1)
            np.testing.assert_allclose(
                mine.state[path], leaf, rtol=0, atol=limit, err_msg=path
            )
