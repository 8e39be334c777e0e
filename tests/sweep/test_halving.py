"""Successive halving: rungs, continued curves, and what the guard keeps."""

import numpy as np
import pandas as pd
import pytest

from ftjax.search.halving import continue_curve, halving, rung_epochs


def test_rungs():
    assert rung_epochs(5) == (2, 3, 5)
    assert rung_epochs(16) == (2, 4, 8, 16)
    assert rung_epochs(27, eta=3) == (2, 3, 9, 27)
    assert rung_epochs(1) == (1,)
    with pytest.raises(ValueError, match="eta >= 2"):
        rung_epochs(5, eta=1)


def test_a_geometric_curve_is_continued_exactly():
    epochs = np.arange(1, 9)
    values = 0.9 - 0.3 * 0.5**epochs
    for seen in (3, 5):
        found = continue_curve(values[:seen], 8, optimistic=False)
        np.testing.assert_allclose(found, values[-1], rtol=1e-12)
        assert continue_curve(values[:seen], 8, optimistic=True) > found
    assert continue_curve(values[:1], 8, optimistic=True) == values[0]
    assert continue_curve(np.array([0.9, 0.8]), 8, optimistic=False) == 0.8


def learning(depth, epoch):
    """Deep cuts start slowly and end highest: 16 is overtaken after 6 epochs."""
    ends, speed = 0.80 + 0.01 * depth, 1.6 / (1 + depth / 4)
    return ends * (1 - np.exp(-speed * epoch))


def race(num_epochs, cuts=(0, 2, 4, 8, 16), value=learning):
    """Halving to its end; the last rung and the epochs that were trained."""
    trained = dict.fromkeys(cuts, 0)
    table = pd.DataFrame(columns=["trial", "depth_layers", "bn", "seed", "epoch"])
    while True:
        table = pd.DataFrame(
            {
                "trial": str(depth),
                "depth_layers": depth,
                "bn": "frozen",
                "epoch": epoch,
                "val_accuracy": value(depth, epoch),
            }
            for depth, count in trained.items()
            for epoch in range(1, max(count, 1) + 1)
        )
        rung = halving(table, num_epochs=num_epochs, val_size=1000)
        if rung.done:
            return rung, trained
        assert all(trained[depth] < rung.epochs for depth, _ in rung.cuts)
        trained |= {depth: rung.epochs for depth, _ in rung.cuts}


def test_the_guard_keeps_a_deep_cut_that_starts_slowly():
    rung, trained = race(16)
    finals = {depth: learning(depth, 16) for depth in trained}
    best = max(finals, key=finals.get)
    assert learning(best, 2) < learning(0, 2)  # plain halving would drop it
    assert (best, "frozen") in rung.cuts
    assert trained[best] == 16
    assert sum(trained.values()) < 0.75 * 16 * len(trained)


def test_the_guard_gives_up_a_deep_cut_that_cannot_win():
    def value(depth, epoch):
        return (0.9 if depth < 16 else 0.5) * (1 - np.exp(-2 * epoch)) - depth / 1000

    rung, trained = race(8, value=value)
    assert trained[16] == 2
    # 4 is now the deepest and within two standard errors of the best.
    assert trained == {0: 8, 2: 8, 4: 8, 8: 2, 16: 2}
    assert [depth for depth, _ in rung.cuts] == [0, 2, 4]
    assert rung.guarded == ((4, "frozen"),)


def test_failed_trials_leave_the_race():
    table = pd.DataFrame(
        {
            "trial": [str(d) for d in (0, 2, 4) for _ in range(2)],
            "depth_layers": [d for d in (0, 2, 4) for _ in range(2)],
            "bn": "follow",
            "epoch": [1, 2] * 3,
            "val_accuracy": [0.8, 0.85, 0.9, 0.95, 0.6, 0.65],
        }
    )
    rung = halving(table, num_epochs=8, failed=["2"])
    assert (2, "follow") not in rung.cuts
    with pytest.raises(ValueError, match="no trial is left"):
        halving(table, num_epochs=8, failed=["0", "2", "4"])
    with pytest.raises(ValueError, match="lack the columns bn"):
        halving(table.drop(columns="bn"), num_epochs=8)
