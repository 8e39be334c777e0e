"""What each fitted equation predicts for the measured depths, and how far it is off.

The columns are those of Philip 2025, tables 6 to 8, which hold them for the parabola
alone: measured and predicted value, squared and absolute error, and their means.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ftjax.analysis.fits import Fit, fit_all, predict
from ftjax.analysis.tuning import tuned_rows

ERRORS = ("squared_error", "absolute_error")


class CurveFits(NamedTuple):
    """All equations of one curve.

    Attributes:
        fits: by shape, as of `fit_all`.
        rows: as of `fit_errors`.
    """

    fits: Mapping[str, Fit]
    rows: pd.DataFrame

    @property
    def means(self) -> pd.DataFrame:
        """MSE and MAE, in the columns of `ERRORS`, by shape."""
        return self.rows.groupby("equation", sort=False)[list(ERRORS)].mean()


def fit_errors(
    fits: Mapping[str, Fit], depth: ArrayLike, accuracy: ArrayLike
) -> pd.DataFrame:
    """A row for every equation and measured value, by depth.

    Args:
        fits: by shape.
        depth: (n,) unfrozen layers that were fitted.
        accuracy: (n,) values that were fitted.
    """
    order = np.argsort(np.asarray(depth), kind="stable")
    x, y = np.asarray(depth)[order], np.asarray(accuracy, float)[order]
    columns = ["equation", "depth_layers", "val_accuracy", "predicted", *ERRORS]
    parts = [pd.DataFrame(columns=columns)]
    for shape, fit in fits.items():
        value = predict(fit, x)
        error = value - y
        cells = shape, x, y, value, error**2, np.abs(error)
        parts.append(pd.DataFrame(dict(zip(columns, cells, strict=True))))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def curve_fits(
    table: pd.DataFrame, total_layers: int, setting: Mapping[str, Any]
) -> dict[str, CurveFits]:
    """Every equation fitted to the curve of each BatchNorm policy.

    Where hyperparameters were tuned, each depth has its best setting.

    Args:
        table: of `clean_results`.
        total_layers: of the whole network.
        setting: value of each setting of which one is meant, as a recommendation has.
    """
    for column, value in setting.items():
        table = table[table[column] == value]
    found = {}
    for bn, rows in tuned_rows(table).groupby("bn", sort=False):
        depth, accuracy = rows["depth_layers"], rows["val_accuracy"]
        fits = fit_all(depth, accuracy, total_layers=total_layers)
        found[str(bn)] = CurveFits(fits, fit_errors(fits, depth, accuracy))
    return found


def all_errors(curves: Mapping[str, CurveFits]) -> pd.DataFrame:
    """The rows of all curves, with the policy before them."""
    parts = [curve.rows.assign(bn=bn) for bn, curve in curves.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["bn", *table.columns.drop("bn")]]
