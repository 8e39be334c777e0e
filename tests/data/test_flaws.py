"""Uneven classes and wrong labels: which images, how many, and always the same."""

import numpy as np
import pytest

from ftjax.data import load
from ftjax.data.flaws import imbalanced_rows, noisy_labels

LABELS = np.tile(np.arange(3, dtype=np.int32), 100)


def test_classes_become_a_geometric_series_of_first_images():
    kept = imbalanced_rows(LABELS, 3, 25.0)
    assert np.bincount(LABELS[kept]).tolist() == [100, 20, 4]
    assert (np.diff(kept) > 0).all()
    for label, count in enumerate((100, 20, 4)):
        own = np.flatnonzero(LABELS == label)[:count]
        assert kept[LABELS[kept] == label].tolist() == own.tolist()


def test_no_class_is_lost():
    kept = imbalanced_rows(LABELS[:9], 3, 1e6)
    assert np.bincount(LABELS[kept]).tolist() == [3, 1, 1]


def test_a_share_of_the_labels_is_another_class():
    noisy = noisy_labels(LABELS, 3, 0.2, "data")
    wrong = noisy != LABELS
    assert wrong.sum() == 60 and set(noisy) == {0, 1, 2} and noisy.dtype == np.int32
    shifts = np.bincount((noisy - LABELS)[wrong] % 3, minlength=3)
    assert shifts[0] == 0 and shifts[1:].min() >= 15  # 30 expected, 4 deviations
    assert noisy_labels(LABELS, 3, 0.0, "data").tolist() == LABELS.tolist()


def test_the_data_alone_decides_and_more_noise_keeps_what_is_wrong():
    some = noisy_labels(LABELS, 3, 0.1, "data")
    more = noisy_labels(LABELS, 3, 0.5, "data")
    assert (some == noisy_labels(LABELS, 3, 0.1, "data")).all()
    assert (some != noisy_labels(LABELS, 3, 0.1, "other")).any()
    wrong = some != LABELS
    assert (more[wrong] == some[wrong]).all()


@pytest.fixture
def digits(cache):
    return load("digits", image_size=8, train_size=(50, 100), val_size=40)


def test_validation_and_images_stay_and_the_hash_tells(digits):
    flawed = digits.chosen(50, 5.0, 0.2)
    assert flawed.val is digits.val and flawed.test is digits.test
    assert (flawed.train.images == digits.train.images[:50]).all()
    clean = digits.train.labels[:50]
    assert len(flawed.rows) == imbalanced_rows(clean, 10, 5.0).size < 50
    left_out = np.setdiff1d(np.arange(50), flawed.rows)
    assert (flawed.train.labels[left_out] == clean[left_out]).all()
    wrong = (flawed.train.labels != clean).sum()
    assert wrong == round(0.2 * len(flawed.rows))
    hashes = {
        digits.chosen(*kind).content_hash
        for kind in (
            (50,),
            (100,),
            (50, 5.0),
            (100, 5.0),
            (50, 1.0, 0.2),
            (50, 5.0, 0.2),
        )
    }
    assert len(hashes) == 6
    assert digits.chosen(100).content_hash == digits.content_hash
    assert digits.chosen(100) is digits and digits.rows.tolist() == list(range(100))
