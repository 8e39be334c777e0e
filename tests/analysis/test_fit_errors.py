"""Predicted values and their errors: the columns of the paper's tables 6 to 8."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_sweep import made_results

from ftjax.analysis.fit_errors import CurveFits, all_errors, curve_fits, fit_errors
from ftjax.analysis.fits import fit_all, fit_quadratic
from ftjax.paper.source import load_experiments


@pytest.fixture
def curve():
    depth, accuracy = [8, 0, 2, 4], [0.6, 0.5, 0.7, 0.8]
    return fit_all(depth, accuracy, total_layers=10), depth, accuracy


def test_rows_hold_prediction_and_errors_of_the_right_depth(curve):
    rows = fit_errors(*curve)
    assert list(rows["equation"].unique()) == list(curve[0])
    constant = rows[rows["equation"] == "constant"]
    assert list(constant["depth_layers"]) == [0, 2, 4, 8]
    assert list(constant["val_accuracy"]) == [0.5, 0.7, 0.8, 0.6]
    assert constant["predicted"].to_numpy() == pytest.approx([0.65] * 4)
    error = np.array([0.15, 0.05, 0.15, 0.05])
    assert constant["absolute_error"].to_numpy() == pytest.approx(error)
    assert constant["squared_error"].to_numpy() == pytest.approx(error**2)


def test_means_are_the_errors_of_each_equation(curve):
    means = CurveFits(curve[0], fit_errors(*curve)).means
    for shape, fit in curve[0].items():
        assert means.loc[shape, "squared_error"] == pytest.approx(fit.rmse**2)
    assert means.loc["constant", "absolute_error"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["vgg16", "efficientnetb0"])
def test_printed_equations_give_the_printed_tables(name):
    """Tables 7 and 8: their predictions, MSE and MAE, from the printed coefficients."""
    e = load_experiments()[name]
    fit = fit_quadratic(e.depth, e.val_accuracy, total_layers=e.total_layers)
    fits = {"printed": replace(fit, coef=e.equation_val_accuracy)}
    curve = CurveFits(fits, fit_errors(fits, e.depth, e.val_accuracy))
    assert np.round(curve.rows["predicted"], 4).to_numpy() == pytest.approx(e.predicted)
    mse, mae = curve.means.loc["printed"]
    assert mse == pytest.approx(e.mse, abs=5e-5)
    assert mae == pytest.approx(e.mae, abs=5e-5)


def test_each_policy_has_its_curve_and_each_depth_its_best_setting():
    good = made_results().assign(lr=1e-3, train_size=100)
    bad = good.assign(lr=1e-5, val_accuracy=good["val_accuracy"] - 0.1)
    other = good.assign(train_size=50, val_accuracy=0.2)
    table = pd.concat([good, bad, other], ignore_index=True)
    curves = curve_fits(table, 149, {"train_size": 100})
    assert list(curves) == ["follow", "frozen"]
    errors = all_errors(curves)
    assert list(errors.columns[:2]) == ["bn", "equation"]
    for bn, rows in errors[errors["equation"] == "linear"].groupby("bn"):
        measured = good.loc[good["bn"] == bn, "val_accuracy"]
        assert list(rows["val_accuracy"]) == list(measured)
