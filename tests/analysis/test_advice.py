"""Which case holds at which size, and where it changes, on made accuracies."""

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.advice import (
    ALL,
    HEAD,
    SCRATCH,
    SOME,
    advice_table,
    advise,
    case_words,
    change_sentence,
    label_ways,
    mode_of,
    rank_networks,
    rank_sentence,
    size_sentence,
)

N = 2000
# By training images: head alone, two depths, all layers, from scratch.
LITE = {50: (0.7, 0.6, 0.55, 0.5, 0.2), 800: (0.75, 0.85, 0.86, 0.95, 0.6)}


def made(accuracies, network="lite", total=149):
    """Rows of `label_ways` and right answers; what is right is nested, so it pairs."""
    correct, parts = {}, []
    for size, (*pretrained, scratch) in accuracies.items():
        depths = (0, 30, 77, total)
        shares = dict(zip([*depths, "scratch"], [*pretrained, scratch], strict=True))
        for name, share in shares.items():
            trial = f"{network}-{size}-{name}"
            correct[trial] = np.arange(N) < round(share * N)
            random = name == "scratch"
            row = {
                "trial": trial,
                "depth_layers": total if random else name,
                "total_layers": total,
                "bn": "follow" if random else "frozen",
                "weights": "random" if random else "imagenet",
                "epochs": 15 if random else 5,
                "train_size": size,
                "seed": 0,
                "lr": 1e-3,
                "val_accuracy": correct[trial].mean(),
                "val_size": N,
                "status": "done",
            }
            part = pd.DataFrame([row])
            parts.append(label_ways(part, network, scratch=random))
    return pd.concat(parts, ignore_index=True), correct


def test_modes_follow_from_depth_and_start():
    assert mode_of(0, 149, False) == HEAD and mode_of(149, 149, False) == ALL
    assert mode_of(30, 149, False) == SOME and mode_of(149, 149, True) == SCRATCH


def test_the_case_of_each_size_and_where_it_changes():
    small, large = advise(*made(LITE))
    assert (small.size, large.size) == (50, 800)
    assert (small.holds, large.holds) == (HEAD, ALL)
    assert case_words(small) == "case 1" and case_words(large) == "case 4"
    assert small.best.mode == HEAD and small.best.accuracy == pytest.approx(0.7)
    assert [way.mode for way in small.ways] == [HEAD, SOME, SOME, ALL, SCRATCH]
    assert [way.loss for way in small.ways] == pytest.approx([0, 0.1, 0.15, 0.2, 0.5])
    text = change_sentence([large, small])
    assert text.startswith("lite: case 1 at 50 images; it changes between 50 and 800")
    assert "from case 1 to case 4: with those, train all layers" in text


def test_similarity_is_frozen_features_over_scratch():
    (own,) = advise(*made({50: LITE[50]}))
    assert own.similarity == pytest.approx(0.5) and own.similar == "high"
    assert "similarity high: frozen features +50.0 +- " in size_sentence(own)
    (own,) = advise(*made({50: (0.3, 0.4, 0.5, 0.6, 0.9)}))
    assert own.similar == "low" and own.holds == SCRATCH and case_words(own) == "case 3"
    (own,) = advise(*made({50: (0.5, 0.4, 0.5, 0.6, 0.5)}))
    assert own.similar == "open"
    rows, correct = made({50: LITE[50]})
    (own,) = advise(rows[rows["mode"] != SCRATCH], correct)
    assert own.similar == "unknown" and "similarity" not in size_sentence(own)


def test_what_cannot_be_told_apart_is_said_and_the_least_of_it_holds():
    (own,) = advise(*made({50: (0.699, 0.6, 0.5, 0.7, 0.2)}))
    assert own.modes == (HEAD, ALL) and own.holds == HEAD
    assert case_words(own) == "cases 1 and 4 alike"
    assert "head alone 0.1 +- " in size_sentence(own)
    assert "all layers 70.0 % is the highest" in size_sentence(own)
    assert change_sentence([own]).startswith("lite: one size says nothing")


def test_networks_are_ranked_at_the_largest_size():
    rows, correct = made(LITE)
    other, more = made({50: (0.9,) * 5, 800: (0.5, 0.6, 0.7, 0.8, 0.9)}, "b0", 237)
    third, most = made({800: (0.1, 0.2, 0.949, 0.1, 0.1)}, "b1", 339)
    both = pd.concat([other, rows, third], ignore_index=True)
    ranked = rank_networks(both, correct | more | most)
    assert [way.network for way in ranked] == ["lite", "b1", "b0"]
    assert [way.mode for way in ranked] == [ALL, SOME, SCRATCH]
    assert [way.inside for way in ranked] == [True, True, False]
    assert ranked[2].loss == pytest.approx(0.05)
    text = rank_sentence(ranked, 800)
    assert "lite is the highest with 95.0 % (all layers); b1 0.1 +- " in text
    assert "(may be as good), b0 5.0 +- " in text


def test_the_table_has_a_row_for_every_way():
    table = advice_table(advise(*made(LITE)))
    assert len(table) == 10
    held = table[table["holds"]]
    assert list(held["case"]) == [1, 4] and list(held["mode"]) == [HEAD, ALL]
