"""Some of a data set's classes: their images alone, or one clear line."""

import shutil

import cv2
import numpy as np
import pytest

from ftjax.data import load

NAMES = ("cat", "dog", "frog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        for number in range(10):
            image = rng.integers(0, 256, (12, 12, 3), np.uint8)
            cv2.imwrite(str(root / name / f"{number}.png"), image)
    return root


def test_it_is_the_data_set_without_the_other_classes(folder, cache, tmp_path):
    shutil.copytree(folder, tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets" / "cat")
    chosen = load(str(folder), image_size=8, classes=["frog", "dog", "frog"])
    alone = load(str(tmp_path / "pets"), image_size=8)
    assert chosen.class_names == alone.class_names == ("dog", "frog")
    assert chosen.content_hash == alone.content_hash
    np.testing.assert_array_equal(chosen.train.images, alone.train.images)
    np.testing.assert_array_equal(chosen.val.labels, alone.val.labels)


def test_a_number_is_how_many_of_the_first(folder, cache):
    chosen = load(str(folder), image_size=8, classes=["2"])
    assert chosen.class_names == ("cat", "dog")
    assert len(chosen.train.labels) + len(chosen.val.labels) == 20
    every = load(str(folder), image_size=8, classes=["3"])
    assert every.content_hash == load(str(folder), image_size=8).content_hash


def test_held_out_images_are_as_large_a_share(cache):
    pytest.importorskip("sklearn", reason="digits come with scikit-learn")
    chosen = load("digits", image_size=8, classes=["0", "7"])
    assert chosen.class_names == ("0", "7")
    assert len(chosen.val.labels) == round(397 * 357 / 1797)


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (["cat", "cow"], "pets.* has no class 'cow'; it has 'cat', 'dog', 'frog'$"),
        (["cat"], "^--classes cat is a single class; give 2 or more names, or how m"),
        (["1"], "^--classes 1 is out of range: 2 to 3 classes of "),
        (["4"], "^--classes 4 is out of range: 2 to 3 classes of "),
    ],
)
def test_refused(folder, cache, classes, line):
    with pytest.raises(ValueError, match=line):
        load(str(folder), image_size=8, classes=classes)
