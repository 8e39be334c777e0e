"""Images along the hyperparameters that were varied, and the table of all settings."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_sweep import made_results

from ftjax.analysis.recommend import recommend
from ftjax.report.axis_panels import (
    axis_panels,
    parallel_coordinates,
    speed_by_batch_size,
    varied_axes,
)
from ftjax.report.axis_plots import depth_by_axis
from ftjax.report.inline import VARIABLES
from ftjax.report.tables import setting_table


@pytest.fixture(scope="module")
def results():
    """149 is best at 1e-5, the head at 1e-3; batches of 64, 2 epochs cost a bit."""
    parts = []
    for lr, size, epochs in itertools.product((1e-5, 1e-3), (16, 64), (2, 5)):
        table = made_results(bn=("frozen",), depths=(0, 30, 149), seeds=2)
        deep = table["depth_layers"] / 149
        loss = 0.3 * deep * (lr > 1e-4) + 0.02 * (size == 64) + 0.01 * (epochs == 2)
        table["val_accuracy"] -= loss
        settings = {"lr": lr, "batch_size": size, "epochs": epochs, "train_size": 100}
        table = table.assign(**settings)
        table["trial"] += f"-{lr}-{size}"
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def test_axes_are_those_with_several_values(results):
    assert [axis.name for axis in varied_axes(results)] == [
        "lr",
        "epochs",
        "batch_size",
    ]
    assert varied_axes(results[results["lr"] == 1e-5].query("epochs == 5"))[0].name == (
        "batch_size"
    )


def test_a_panel_has_the_named_depth_and_each_values_best(results):
    best = recommend(results, bootstrap=100)
    figure = axis_panels(results, best)
    rate, epochs, size = figure.axes
    assert (rate.get_xscale(), epochs.get_xscale(), size.get_xscale()) == (
        "log",
        "linear",
        "log",
    )
    assert [text.get_text() for text in rate.texts] == ["149", "0"]
    assert [text.get_text() for text in epochs.texts] == ["149", "149"]
    own = results[(results["batch_size"] == 16) & (results["epochs"] == 5)]
    means = own.groupby(["lr", "depth_layers"])["val_accuracy"].mean()
    assert best.depth_layers == 149
    np.testing.assert_allclose(
        rate.lines[0].get_ydata(), means.groupby("lr").max().to_numpy()
    )
    np.testing.assert_allclose(rate.lines[1].get_ydata(), means[:, 149].to_numpy())


def test_the_heat_map_has_each_cells_best(results):
    """Of two rates, and batches of 16 and 64: the best rate at each depth."""
    figure = depth_by_axis(results, "batch_size")
    values = figure.axes[0].images[0].get_array()
    own = results[(results["epochs"] == 5)]
    means = own.groupby(["batch_size", "depth_layers", "lr"])["val_accuracy"].mean()
    expected = means.groupby(["batch_size", "depth_layers"]).max().unstack()
    np.testing.assert_allclose(values, expected)
    # The page turns these colors at night, but not those of the cells.
    colors = {text.get_color() for text in figure.axes[0].texts}
    assert len(colors) == 2 and not colors & VARIABLES.keys()


def test_all_settings_are_lines_and_rows(results):
    figure = parallel_coordinates(results)
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names[:4] == ["learning rate", "epochs", "batch size", "layers"]
    whole = [line for line in ax.lines if len(line.get_xdata()) == 5]
    assert len(whole) == 24 + 1  # the best is drawn again
    np.testing.assert_allclose(whole[-1].get_ydata(), [0, 1, 0, 1, 1])
    table = setting_table(results, varied_axes(results))
    assert len(table.rows) == 24 and len(table.columns) == 9
    first = [cell.text for cell in table.rows[0][1]]
    assert first[:5] == ["0", "frozen", "1e-5", "2", "16"]


def test_speed_counts_training_images(results):
    figure = speed_by_batch_size(results)
    head, *_ = figure.axes[0].lines
    np.testing.assert_allclose(head.get_ydata(), [5 * 100 / 6] * 2)
