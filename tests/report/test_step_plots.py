"""Training curves by step, and the bars of the effects."""

import numpy as np
import pandas as pd
import pytest
from made_sweep import made_results

from ftjax.analysis.variance import axis_effects
from ftjax.axes import AXES
from ftjax.report.effect_plots import effect_bars
from ftjax.report.step_plots import (
    curves_by_depth,
    curves_by_value,
    smooth,
    step_curves,
)


@pytest.fixture(scope="module")
def results():
    parts = []
    for lr in (1e-5, 1e-3):
        table = made_results(bn=("frozen",), depths=(0, 30, 149), seeds=2)
        table["val_accuracy"] -= 0.3 * table["depth_layers"] / 149 * (lr > 1e-4)
        parts.append(table.assign(lr=lr, trial=table["trial"] + f"-{lr}"))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def steps(results):
    """Of each trial a constant curve; the head alone was solved for and has none."""
    rows = results[results["depth_layers"] > 0]
    return {
        row.trial: np.full((100, 2), [row.depth_layers, row.lr])
        for row in rows.itertuples()
    }


def test_a_running_mean_keeps_a_line():
    line = np.arange(1, 1001.0)[:, None] * [1, -2]
    places, means = smooth(line)
    assert len(places) <= 200
    np.testing.assert_allclose(means, places[:, None] * [1, -2])
    np.testing.assert_allclose(smooth(line[:3])[1], line[:3])


def test_curves_are_of_depths_or_of_values(results, steps):
    one = results[results["lr"] == 1e-5]
    by_depth = curves_by_depth(one, steps)
    assert [*by_depth] == ["30 layers", "149 layers"]
    np.testing.assert_allclose(by_depth["30 layers"], np.full((100, 2), [30, 1e-5]))
    rate = next(axis for axis in AXES if axis.name == "lr")
    by_rate = curves_by_value(results, rate, 149, steps)
    assert [*by_rate] == ["learning rate 1e-5", "learning rate 0.001"]
    np.testing.assert_allclose(by_rate["learning rate 0.001"][:, 1], 1e-3)
    loss, accuracy = step_curves(by_rate, "Training").axes
    assert len(loss.lines) == len(accuracy.lines) == 2


def test_bars_are_effects_in_points(results):
    (grid,) = axis_effects(results).grids
    (ax,) = effect_bars(grid).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[-1] == "seeds" and names[2] == "depth x learning rate"
    sizes = [100 * e.size for e in (*grid.main, *grid.pairs)]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches[:3]], sizes)
