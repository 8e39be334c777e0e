"""Conditions on rows, as `--where` takes them."""

import pandas as pd
import pytest

from ftjax.analysis.where import rows_where

TABLE = pd.DataFrame(
    {
        "trial": ["a", "b", "c", "d"],
        "depth_layers": [0, 7, 7, 7],
        "bn": ["frozen", "frozen", "follow", "frozen"],
        "lr": [1e-4, 1e-4, 1e-4, 1e-3],
        "val_accuracy": [0.5, 0.6, 0.7, 0.8],
    }
)


@pytest.mark.parametrize(
    ("conditions", "trials"),
    [
        ([], "abcd"),
        (["lr=0.0001"], "abc"),
        (["lr=1e-4", "bn=frozen", "depth_layers=7"], "b"),
        (["trial=d"], "d"),
    ],
)
def test_rows_meet_all_conditions(conditions, trials):
    assert "".join(rows_where(TABLE, conditions)["trial"]) == trials


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["lr"], "--where lr must be COLUMN=VALUE, as lr=0.001"),
        (["rate=1"], "no column 'rate'; allowed are depth_layers, bn, lr, trial"),
        (["val_accuracy=0.5"], "no column 'val_accuracy'"),
        (["lr=0.01"], "--where lr=0.01 fits no finished trial; lr is 0.0001, 0.001"),
        (["lr=fast"], "--where lr=fast fits no finished trial; lr is 0.0001, 0.001"),
        (["bn=follow", "lr=1e-3"], "lr with bn=follow is 0.0001"),
    ],
)
def test_what_fits_no_row_is_told_in_one_line(conditions, message):
    with pytest.raises(ValueError) as caught:
        rows_where(TABLE, conditions)
    assert message in str(caught.value) and "\n" not in str(caught.value)
