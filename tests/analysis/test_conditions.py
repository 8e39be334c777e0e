"""What is said of the conditions, and what has to be said first."""

import pandas as pd
import pytest

from ftjax.analysis.conditions import (
    changed_winner,
    condition_words,
    conditions_of,
    leading_caveats,
    rising_cells,
)
from ftjax.analysis.wording import depth_list, depth_span, number
from ftjax.axes import NAMES


def epochs(curves):
    """Rows of epochs.csv from (depth, bn, seed) -> accuracies."""
    return pd.DataFrame(
        [
            {
                "trial": f"{depth}-{bn}-{seed}",
                "depth_layers": depth,
                "bn": bn,
                "epoch": epoch,
                "val_accuracy": value,
            }
            for (depth, bn, seed), values in curves.items()
            for epoch, value in enumerate(values, start=1)
        ]
    )


def test_conditions_are_the_columns_with_one_value():
    rows = pd.DataFrame(
        {"lr": [1e-4, 1e-4], "epochs": [5.0, 5.0], "data": "d", "optimizer": ["a", "b"]}
    )
    assert conditions_of(rows) == {"lr": 1e-4, "epochs": 5, "data": "d"}


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"lr": 1e-4, "epochs": 5, "image_size": 32}, "rate 1e-4, 5 epochs, 32 pixels"),
        ({"lr": 2.5e-5, "optimizer": "sgd"}, "rate 2.5e-5, sgd"),
        (
            {"momentum": 0.5, "l2": 1e-4, "l1": 0, "schedule": "cosine", "warmup": 2.0},
            "momentum 0.5, L2 penalty 1e-4, schedule cosine, warm-up 2 epochs",
        ),
        ({"head_lr_factor": 5.0, "head_bias_lr_factor": 5}, "head's rate factor 5"),
        (
            {"head_lr_factor": 10, "head_bias_lr_factor": 20},
            "rate factor of the head's biases 20",
        ),
        ({"batch_size": 32, "drop_connect": 0.2, "layer_decay": 1}, ""),
        ({"class_weights": "balanced"}, "balanced class weights"),
        ({"optimizer": "adam", "epochs": 1}, "1 epoch"),
        ({"augment": "flip", "train_size": 1400}, "augmentation flip, 1,400 images"),
        ({"augment": "none", "data": "digits", "views": "none"}, "digits"),
        ({"augment": "flip,crop", "views": 4}, "augmentation flip,crop (4 views)"),
        ({"augment": "flip", "views": "1"}, "augmentation flip (1 view)"),
        ({"augment": "mixup", "views": "fresh"}, "augmentation mixup (fresh views)"),
        ({"label_smoothing": 0.1, "clip": 1.0}, "label smoothing 0.1, clipping 1"),
        (
            {"augment": True, "train_size": 9, "data": "x"},
            "augmentation on, 9 images of x",
        ),
        ({}, ""),
    ],
)
def test_words_of_the_conditions(conditions, words):
    assert condition_words(conditions) == words


def test_words_of_depths_and_numbers():
    assert [number(x) for x in (1e-4, 0.001, 3e-4)] == ["1e-4", "0.001", "3e-4"]
    assert depth_list([0]) == "the head alone"
    assert depth_list([0, 3]) == "0 and 3 layers"
    tested = [0, 11, 41, 77, 115, 149]
    assert depth_span([77, 115, 149], tested) == "77 to 149 layers"
    assert depth_span([41, 115, 149], tested) == "41, 115 and 149 layers"
    assert depth_span([77], tested) == "77 layers"


def test_rising_means_a_gain_in_the_last_epoch_that_can_be_seen():
    table = epochs(
        {
            (0, "follow", 0): [0.5, 0.6, 0.7],
            (5, "follow", 0): [0.5, 0.7, 0.701],
            (9, "follow", 0): [0.5, 0.9, 0.8],
        }
    )
    cells = {(0, "follow"), (5, "follow"), (9, "follow"), (7, "follow")}
    assert rising_cells(table, cells, 1000) == ((0, "follow"),)
    assert rising_cells(table, cells, 10) == ()  # one image in ten is 10 points
    assert rising_cells(table, {(9, "follow")}, None) == ()


def test_the_winner_of_the_last_two_epochs():
    table = epochs({(3, "frozen", 0): [0.7, 0.8], (9, "frozen", 0): [0.75, 0.79]})
    assert changed_winner(table, "frozen") == (2, 9, 3)
    assert changed_winner(table, "follow") is None
    assert changed_winner(table[table["epoch"] == 1], "frozen") is None
    table = epochs({(3, "frozen", 0): [0.7, 1.0], (9, "frozen", 0): [0.75, 1.0]})
    assert changed_winner(table, "frozen") is None
    table = epochs({(3, "frozen", 0): [0.7, 0.8], (9, "frozen", 0): [0.7, 0.9]})
    assert changed_winner(table, "frozen") is None


def caveats(**changes):
    given = dict(
        epochs=None,
        bn="follow",
        contenders=(),
        val_size=None,
        training=0.95,
        validation=0.93,
        chance=0.1,
    )
    return leading_caveats(**{**given, **changes})


def test_what_has_to_be_said_first():
    assert caveats() == ()
    (little,) = caveats(training=0.24, validation=0.2, chance=1 / 6)
    assert little.startswith("Hardly anything was learned: 24.0 %")
    (over,) = caveats(training=1.0, validation=0.7)
    assert over.startswith("Overfitting: 100.0 %") and "augmentation" in over
    assert caveats(training=0.8, validation=0.6) == ()  # not fitted: no overfitting
    assert caveats(training=None) == ()


def test_every_axis_is_a_condition():
    rows = pd.DataFrame({name: [0.5, 0.5] for name in NAMES})
    assert conditions_of(rows) == dict.fromkeys(NAMES, 0.5)
