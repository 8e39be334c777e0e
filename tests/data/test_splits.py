"""Splits: stratified, nested, balanced, fixed by a seed."""

import numpy as np

from ftjax.data.splits import balanced_order, hold_out


def test_unequal_classes_are_as_balanced_as_they_allow():
    labels = np.repeat([0, 1, 2], [50, 4, 20])
    order = balanced_order(labels, num_classes=3, seed=1)
    assert sorted(order) == list(range(74))
    assert np.bincount(labels[order[:12]]).tolist() == [4, 4, 4]
    assert np.bincount(labels[order[:34]]).tolist() == [15, 4, 15]


def test_default_hold_out_is_stratified_and_capped():
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    train, val = hold_out(labels, class_names="abc", seed=0)
    assert np.bincount(labels[val]).tolist() == [14, 4, 2]
    assert sorted([*train, *val]) == list(range(100))
    many = np.repeat(np.arange(4), 10_000)
    assert len(hold_out(many, class_names="abcd", seed=0)[1]) == 5_000
    rare = np.repeat([0, 1], [60, 2])
    train, val = hold_out(rare, class_names="ab", seed=0)
    assert np.bincount(rare[val])[1] == np.bincount(rare[train])[1] == 1


def test_a_split_depends_on_its_seed_only():
    labels = np.repeat(np.arange(5), 40)
    first, again, other = (
        hold_out(labels, class_names="abcde", seed=seed, val_size=20)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert set(first[1]) != set(other[1])
