"""Nuisances tuned at every depth, and how the best depth moves along them."""

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.compare import compare_cells, contenders
from ftjax.analysis.conditions import condition_words
from ftjax.analysis.curves import clean_results
from ftjax.analysis.recommend import recommend
from ftjax.analysis.surface import surface, surface_axes, surface_sentences
from ftjax.analysis.tuning import overtaken, tuned_columns, tuned_rows

DEPTHS = (0, 41, 77, 115, 149)
PEAKS = {1e-5: 149, 1e-4: 115, 1e-3: 77}


def grid(peaks=PEAKS, *, seeds=3, noise=0.002, depths=DEPTHS, bn="frozen", height=0.1):
    """A peak that moves with the rate; the middle rate is the best at its own peak."""
    rng = np.random.default_rng(0)
    rows = []
    for lr, peak in peaks.items():
        for depth in depths:
            for seed in range(seeds):
                value = 0.95 - height * abs(depth - peak) / 149 + rng.normal(0, noise)
                rows.append(
                    {
                        "trial": f"{bn}-{lr}-{depth}-{seed}",
                        "depth_layers": depth,
                        "bn": bn,
                        "seed": seed,
                        "lr": lr,
                        "val_accuracy": value,
                        "val_size": 1000,
                        "total_layers": 149,
                        "status": "done",
                    }
                )
    return pd.DataFrame(rows)


def test_each_depth_is_judged_by_its_best_rate():
    rows = tuned_rows(grid())
    best = rows.groupby("depth_layers")["lr"].unique().map(list).to_dict()
    assert best == {0: [1e-3], 41: [1e-3], 77: [1e-3], 115: [1e-4], 149: [1e-5]}
    assert tuned_columns(rows) == ("lr",)
    assert tuned_rows(rows[rows.lr == 1e-4]).equals(rows[rows.lr == 1e-4])


def test_what_was_trained_again_is_the_setting_of_its_depth():
    """A rate with one lucky run does not take the place of one with three."""
    table = grid(seeds=3)
    lucky = table[(table.lr == 1e-5) & (table.depth_layers == 115)].head(1)
    others = table[table.lr == 1e-4]
    lucky = lucky.assign(val_accuracy=0.99)
    chosen = tuned_rows(pd.concat([others, lucky], ignore_index=True))
    assert set(chosen["lr"]) == {1e-4}


def test_a_rate_that_was_stopped_ahead_of_what_went_on_is_found():
    """Of 400 images; a standard error of 70 % is 2.3 points."""

    def row(trial, lr, seed, status, *curve):
        at = {"trial": trial, "depth_layers": 115, "bn": "frozen"}
        ended = curve[-1] if status == "done" else np.nan
        rows.append({**at, "lr": lr, "seed": seed, "status": status})
        rows[-1]["val_accuracy"] = ended
        epochs.extend(
            {**at, "epoch": n, "val_accuracy": v} for n, v in enumerate(curve, 1)
        )

    def found():
        return overtaken(pd.DataFrame(rows), pd.DataFrame(epochs), 400)

    rows, epochs = [], []
    row("high", 1e-3, 0, "done", 0.79, 0.97, 0.85)
    row("middle", 3e-4, 0, "stopped", 0.90, 0.96)
    row("low", 1e-4, 0, "stopped", 0.70, 0.86)
    assert found() == {"middle"}
    row("high-1", 1e-3, 1, "done", 0.4, 0.6, 0.75)
    row("high-2", 1e-3, 2, "done", 0.2, 0.2, 0.5)  # with other seeds it collapses
    assert found() == {"middle", "low"}
    row("middle-1", 3e-4, 1, "done", 0.9, 0.95, 0.96)  # has been trained again
    row("middle-2", 3e-4, 2, "done", 0.9, 0.95, 0.96)
    assert found() == {"low"}
    assert overtaken(pd.DataFrame(rows[:1]), pd.DataFrame(epochs), 400) == frozenset()


def test_the_set_holds_a_depth_as_long_as_any_of_its_rates_may_be_the_best():
    table, _ = clean_results(grid())
    found = compare_cells(table)
    (curve,) = found.curves
    assert list(curve.depths) == list(DEPTHS)
    inside = dict(zip(DEPTHS, found.inside[found.places[0]], strict=True))
    # All three peaks are equally high, so each is in the set, and the rest is not.
    assert inside == {0: False, 41: False, 77: True, 115: True, 149: True}
    assert len(found.evidence.means) == len(PEAKS) * len(DEPTHS)


def test_the_correction_knows_that_rates_were_chosen_as_well():
    one = grid({1e-4: 77}, seeds=2, noise=0.01, height=0.0)
    many = grid(
        dict.fromkeys((1e-5, 3e-5, 1e-4, 1e-3), 77), seeds=2, noise=0.01, height=0
    )
    taken = [
        found.val_accuracy - found.expected for found in map(recommend, (one, many))
    ]
    assert taken[1] > taken[0] > 0


def test_the_sentence_names_the_rate_and_what_was_tried():
    best = recommend(grid())
    rate, *tried = best.conditions["tuned"]["lr"]
    assert rate in PEAKS and tried == sorted(PEAKS)
    assert "(tuned for each depth among 1e-5 1e-4 0.001)" in best.sentence
    assert contenders(grid())


def test_the_best_depth_moves_with_the_rate():
    found = surface(grid(), "lr")
    assert [part.best for part in found.slices] == [149, 115, 77]
    assert found.moves and found.common == 115
    # One depth for all costs 0.1 x 38 / 149 at the outer rates.
    assert found.loss == pytest.approx(0.1 * 38 / 149, abs=0.004)
    (sentence,) = surface_sentences(grid())
    assert "0.001: 77 layers (77)" in sentence
    assert "no depth is as good as can be told at all of them" in sentence
    (sentence,) = surface_sentences(grid(dict.fromkeys(PEAKS, 0)))
    assert "the head alone is as good as can be told at all of them" in sentence
    assert "the head alone everywhere costs at most 0.0" in sentence
    still = surface(grid(dict.fromkeys(PEAKS, 77)), "lr")
    assert not still.moves and still.common == 77 and still.loss < 0.004


def test_a_search_over_rates_leaves_gaps_and_no_surface():
    table = grid()
    gap = (table.lr == 1e-5) & (table.depth_layers > 41)
    table.loc[gap, "status"] = "stopped"
    assert surface_axes(table) == ("lr",) and surface_sentences(table) == ()
    # Nor where each depth has a run of each rate, but not under each policy.
    table = pd.concat([grid(), grid(bn="follow")], ignore_index=True)
    assert surface_sentences(table)
    gap = (table.lr == 1e-5) & (table.bn == "follow") & (table.depth_layers > 41)
    assert not surface_sentences(table[~gap])


@pytest.mark.parametrize(
    ("rate", "said"),
    [(1e-3, "; the highest of them"), (1e-5, "; the lowest of them"), (1e-4, "")],
)
def test_a_tuned_rate_with_none_beyond_it_is_said(rate, said):
    words = condition_words({"lr": rate, "tuned": {"lr": [rate, 1e-5, 1e-4, 1e-3]}})
    rest = words.partition("1e-5 1e-4 0.001")[2]
    assert rest.startswith(said or ")")
