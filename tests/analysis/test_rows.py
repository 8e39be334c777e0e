"""Rows that do not belong together are separated or refused, never averaged."""

import numpy as np
import pandas as pd
import pytest
from made_curve import LAYERS, sweep

from ftjax.analysis.curves import clean_results, depth_curve, split_settings
from ftjax.analysis.recommend import recommend

PEAK = 0.9 - 0.2 * ((LAYERS - 54) / 149) ** 2


def bare(**columns):
    """A foreign table: two rows of each depth, no seeds."""
    table = pd.DataFrame({"depth_layers": [0, 5, 10], "val_accuracy": [0.5, 0.7, 0.6]})
    return pd.concat([table, table.assign(val_accuracy=[0.52, 0.69, 0.63])]).assign(
        **columns
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (bare(mixup=["on"] * 3 + ["off"] * 3), "column mixup has several values at"),
        (
            bare(my_setting=[0] * 3 + [5] * 3),
            "column my_setting has several values at depth 0",
        ),
        (bare(epoch=[1] * 3 + [2] * 3), "epochs are no replicates"),
        (bare(seed=0), "6 rows repeat a depth, policy and seed .depth 0, bn follow"),
        (bare(seed=[0, 0, 0, 1, 1, np.nan]), "1 finished rows have an empty seed"),
        (bare(bn=["follow"] * 5 + [None]), "an empty bn .the first is row 6"),
        (bare(depth_layers=[0, 5, 10, 0, 5, np.nan]), "an empty depth_layers"),
        (bare(val_size=[100] * 3 + [400] * 3), "mixes 2 values of val_size"),
        (
            bare(val_accuracy=[0.5, 0.7, 0.93, 52, 69, 91]),
            "mixes fractions and percent .0.5 beside 52",
        ),
    ],
)
def test_rows_of_two_kinds_are_refused(table, message):
    with pytest.raises(ValueError, match=message) as error:
        recommend(table)
    assert "\n" not in str(error.value)


def test_measurements_and_names_may_differ_between_replicates():
    table = bare(
        minutes=[1.1, 2.5, 3.2, 1.3, 2.4, 3.9],
        run_name=list("abcdef"),
        val_auroc=[0.7, 0.8, 0.9, 0.7, 0.8, 0.9],
        params=[1, 2, 3, 1, 2, 3],
    )
    assert recommend(table).seeds == (2, 2)


def test_settings_are_separated_and_keep_their_own_values():
    low, high = sweep(PEAK, lr=1e-5), sweep(PEAK - 0.1, lr=1e-3)
    clean, notes = clean_results(pd.concat([low, high], ignore_index=True))
    assert not any("Averaged" in note for note in notes)
    found = split_settings(clean)
    assert [setting for setting, _ in found] == [{"lr": 1e-5}, {"lr": 1e-3}]
    for (setting, rows), truth in zip(found, (PEAK, PEAK - 0.1), strict=True):
        curve, _ = depth_curve(rows, "follow", None, setting)
        assert curve.values.shape == (9, 3)
        np.testing.assert_allclose(curve.values, np.tile(truth[:, None], 3))


def test_one_setting_is_one_table():
    clean, _ = clean_results(sweep(PEAK, lr=1e-4))
    ((setting, rows),) = split_settings(clean)
    assert setting == {} and len(rows) == 27


def test_other_tools_words_for_a_finished_trial():
    words = ["COMPLETE", "TERMINATED", "finished", "done", "FAIL"]
    table = pd.DataFrame(
        {"depth_layers": range(5), "val_accuracy": 0.5, "status": words}
    )
    clean, notes = clean_results(table)
    assert list(clean.depth_layers) == [0, 1, 2, 3]
    assert "1 FAIL" in notes[0]
