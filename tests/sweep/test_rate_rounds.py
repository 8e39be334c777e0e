"""Which rates are tried at a depth, and which go on."""

from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest

from ftjax.sweep.rate_rounds import rates_beside

RATES = (3e-5, 1e-4, 3e-4, 1e-3)
VAL_SIZE = 400  # a standard error of 1.5 points at 90 %


@dataclass(frozen=True)
class Hyper:
    """What varies here of the hyperparameters."""

    lr: float
    batch_size: int = 32


def trials_of(cells, axis=()):
    """One trial for each rate of some cells; an axis varies beside the rate."""
    return [
        SimpleNamespace(
            id=f"{cell}-{rate}-{size}",
            cut=SimpleNamespace(same_set=cell, blocks=()),
            policy="frozen",
            seed=0,
            hyper=Hyper(rate, size),
        )
        for cell in cells
        for rate in RATES
        for size in axis or (32,)
    ]


def tried_at(accuracy, trials):
    """Ids of the trials that are tried until none is left, round by round."""
    tried, rounds = set(), []
    while True:
        table = pd.DataFrame(
            [
                {"trial": t.id, "epoch": 2, "val_accuracy": accuracy(t)}
                for t in trials
                if t.id in tried and accuracy(t) is not None
            ],
            columns=["trial", "epoch", "val_accuracy"],
        )
        more = rates_beside(trials, tried, table, 2, VAL_SIZE) - tried
        if not more:
            return rounds
        rounds.append({t.hyper.lr for t in trials if t.id in more})
        tried |= more


@pytest.mark.parametrize(
    ("curve", "rounds"),
    [
        ((0.80, 0.85, 0.92, 0.60), [{1e-4, 3e-4}, {1e-3}]),
        ((0.95, 0.90, 0.80, 0.60), [{1e-4, 3e-4}, {3e-5}]),
        ((0.80, 0.900, 0.905, 0.80), [{1e-4, 3e-4}, {3e-5, 1e-3}]),  # a tie
        ((0.80, 0.85, None, 0.60), [{1e-4, 3e-4}, {3e-5}]),  # one that failed
        ((1.0, 1.0, 1.0, 1.0), [{1e-4, 3e-4}, {3e-5, 1e-3}]),
    ],
)
def test_the_middle_two_come_first_and_then_the_better_side(curve, rounds):
    accuracy = dict(zip(RATES, curve, strict=True))
    trials = trials_of(["a"])
    assert tried_at(lambda trial: accuracy[trial.hyper.lr], trials) == rounds


def test_the_best_of_a_single_peak_is_always_tried():
    for best in range(len(RATES)):
        curve = {rate: 0.9 - 0.1 * abs(n - best) for n, rate in enumerate(RATES)}
        trials = trials_of(["a"])
        rounds = tried_at(lambda trial, curve=curve: curve[trial.hyper.lr], trials)
        assert RATES[best] in set.union(*rounds)
        assert len(set.union(*rounds)) == 3


def test_cells_and_other_settings_are_looked_at_by_themselves():
    trials = trials_of(["a", "b"], axis=(16, 32))

    def accuracy(trial):
        """Of batches of 16 at cell a the low rates are better, else the high ones."""
        low = trial.cut.same_set == "a" and trial.hyper.batch_size == 16
        rank = RATES.index(trial.hyper.lr)
        return 0.9 - 0.1 * rank if low else 0.5 + 0.1 * rank

    first, second = tried_at(accuracy, trials)
    assert first == {1e-4, 3e-4} and second == {3e-5, 1e-3}
    table = pd.DataFrame(
        [{"trial": t.id, "epoch": 2, "val_accuracy": accuracy(t)} for t in trials]
    )
    middle = {t.id for t in trials if t.hyper.lr in first}
    more = rates_beside(trials, middle, table, 2, VAL_SIZE)
    assert more == {"a-3e-05-16", "a-0.001-32", "b-0.001-16", "b-0.001-32"}


def test_a_single_rate_is_tried_alone():
    (trial, *_) = trials_of(["a"])
    empty = pd.DataFrame(columns=["trial", "epoch", "val_accuracy"])
    assert rates_beside([trial], (), empty, 2, VAL_SIZE) == {trial.id}
    table = pd.DataFrame([{"trial": trial.id, "epoch": 2, "val_accuracy": 0.9}])
    assert not rates_beside([trial], {trial.id}, table, 2, VAL_SIZE)
