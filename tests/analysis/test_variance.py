"""Analysis of variance: known effects, sums that add up, grids that are refused."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.variance import axis_effects, decompose

DEPTH, RATE = np.array([-0.06, 0.02, 0.04]), np.array([-0.03, 0.03])
BOTH = np.array([[0.01, -0.01], [-0.02, 0.02], [0.01, -0.01]])
CELLS = 0.8 + DEPTH[:, None] + RATE + BOTH
# A seed's shift of all cells, and noise that sums to zero over seeds and over cells.
SHIFT = np.array([0.005, -0.005])
NOISE = 0.001 * np.array([[1, -1], [1, -1], [-2, 2]])[..., None] * [1, -1]
LEVELS = {"depth_layers": (0, 5, 9), "lr": (0.001, 0.01)}


def table(**columns):
    """Rows of a made grid of depth, rate and seed; further columns as given."""
    rows = [
        {"depth_layers": d, "lr": r, "seed": s, "val_accuracy": v, "status": "done"}
        for ((i, d), (j, r), s) in itertools.product(
            enumerate(LEVELS["depth_layers"]), enumerate(LEVELS["lr"]), range(2)
        )
        for v in [(CELLS[..., None] + SHIFT + NOISE)[i, j, s]]
    ]
    return pd.DataFrame(rows).assign(bn="frozen", **columns)


def test_known_effects_of_a_two_way_layout():
    grid = decompose(CELLS[..., None] + SHIFT + NOISE, LEVELS)
    depth, rate, both = grid.effects
    assert both.factors == ("depth_layers", "lr") and both.title == (
        "depth x learning rate"
    )
    expected = 4 * np.sum(DEPTH**2), 6 * np.sum(RATE**2), 2 * np.sum(BOTH**2)
    squares = [effect.squares for effect in grid.effects]
    assert squares == pytest.approx(expected, rel=1e-12)
    seeds = 12 * 0.005**2 + np.sum(NOISE**2)
    assert grid.squares == pytest.approx(sum(expected) + seeds, rel=1e-12)
    assert grid.within == pytest.approx(seeds / grid.squares)
    assert grid.higher == pytest.approx(0, abs=1e-12)
    assert [effect.dof for effect in grid.effects] == [2, 1, 2]
    assert (depth.range, rate.range) == pytest.approx((0.10, 0.06))
    assert rate.size == pytest.approx(0.03)
    # 24 (units of 0.001) over (6 - 1)(2 - 1) degrees of freedom
    assert grid.run_noise == pytest.approx(0.001 * np.sqrt(24 / 5))
    assert rate.stderr == pytest.approx(grid.run_noise * np.sqrt(2 / 6))
    t = 2.570581835636314  # 97.5 % of Student's t with 5 degrees of freedom
    assert rate.interval == pytest.approx(
        (0.06 - t * rate.stderr, 0.06 + t * rate.stderr)
    )


def test_shares_add_up():
    rng = np.random.default_rng(0)
    levels = {name: (0, 1, 2)[:k] for name, k in zip("abc", (2, 3, 3), strict=True)}
    grid = decompose(rng.normal(size=(2, 3, 3, 4)), levels)
    shares = [effect.share for effect in grid.effects]
    assert len(shares) == 6 and grid.higher > 0.01
    assert sum(shares) + grid.higher + grid.within == pytest.approx(1, rel=1e-12)


def test_noise_alone_is_told_from_effects():
    """Under pure noise the F tests are uniform: 5 % of them are below 5 %."""
    rng = np.random.default_rng(0)
    found = [
        decompose(rng.normal(size=(3, 2, 3)) + rng.normal(size=3), LEVELS).effects
        for _ in range(200)
    ]
    low = np.mean([[e.probability < 0.05 for e in effects] for effects in found])
    assert abs(low - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 200)


def test_the_most_important_axis_is_named():
    found = axis_effects(table(weights="random"))
    (grid,) = found.grids
    assert grid.levels == LEVELS and found.reason == ""
    assert found.sentence == (
        "Depth matters most: 62 % of the variance between runs (learning rate 30 %, "
        "depth x learning rate 7 %, seeds 1 %); 10.0 +- 0.2 points from its worst to "
        "its best value."
    )
    assert axis_effects(table().query("lr == 0.01")) is None
    # A column that follows from another one is no axis of its own.
    bias = axis_effects(table().assign(head_bias_lr_factor=lambda t: 10 * t["lr"]))
    assert bias == found


def test_only_seeds_of_every_cell_are_compared():
    more = table().head(1).assign(seed=7, val_accuracy=0.1)
    found = axis_effects(pd.concat([table(), more], ignore_index=True))
    assert found == axis_effects(table())
    (alone,) = axis_effects(table().query("seed == 0")).grids
    assert (alone.seeds, alone.within, alone.dof) == (1, 0, 0)
    assert all(np.isnan(effect.probability) for effect in alone.effects)


def test_an_incomplete_grid_is_refused():
    gap = table()
    gap.loc[[0, 1], "status"] = "stopped"
    found = axis_effects(gap)
    assert not found.grids and found.reason.startswith("5 of the 6 cells of the grid")
    chosen = table(momentum=[0.5, 0.9, 0.5, *[0.9] * 7, 0.0, 0.5])
    assert "no complete grid" in axis_effects(chosen).reason


def test_axes_varied_one_at_a_time_have_ranges():
    base, other = table(l2=0.0), table(l2=0.1).query("lr == 0.001")
    other = other.assign(val_accuracy=other["val_accuracy"] - 0.02)
    found = axis_effects(pd.concat([base, other], ignore_index=True))
    assert found.one_by_one
    assert [list(grid.levels) for grid in found.grids] == [
        ["depth_layers", "lr"],
        ["depth_layers", "l2"],
    ]
    assert found.sentence.startswith(
        "Varied one at a time, learning rate matters most: 6.0 +- 0.1 points from its "
        "worst to its best value (L2 penalty 2.0 +- 0.1 points)"
    )


def test_epochs_of_a_trial_are_judged_by_the_noise_within_it():
    """Luck of whole trials is noise between rates, and none between their epochs."""
    luck = 0.01 * np.array([[1, -1], [-1, 1]])  # by rate and seed
    values = 0.8 + np.array([0, 0.02])[:, None] + luck[:, None, :]
    grid = decompose(values, {"lr": (0.001, 0.01), "epochs": (2, 5)})
    rate, epochs, _ = grid.effects
    # Four trials of two epochs: 8 squares, (2 - 1)(2 - 1) degrees of freedom.
    assert grid.dof == 1 and grid.run_noise == pytest.approx(np.sqrt(8e-4))
    assert rate.stderr == pytest.approx(np.sqrt(8e-4 * 2 / 4))
    assert epochs.range == pytest.approx(0.02)
    assert epochs.stderr == pytest.approx(0, abs=1e-12)
