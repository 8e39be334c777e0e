"""Successive halving over epochs, with a guard for deep cuts that start slowly.

All cuts are trained for a few epochs, the better half goes on for longer, and so on
(Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization"). Deep cuts start behind shallow ones: more parameters
move, and running statistics of BatchNorm lag at first. Plain halving would drop them
for that. So a cut also goes on while its learning curve still rises to the best one's,
and the deepest cut left goes on unless even an optimistic continuation stays below.

Pure: the same table of epochs gives the same rung, so a search resumes by asking again.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

FIRST_EPOCHS = 2  # one epoch shows no slope
DECAY = 0.6  # of the gain per epoch, where fewer than three epochs are known
OPTIMISTIC_DECAY = 0.9  # the slowest decay that is believed
TWO_SIDED = 2.0  # standard errors of the optimistic continuation

Cut = tuple[int, str]  # depth in layers, BatchNorm policy


class Rung(NamedTuple):
    """What goes on, and how far.

    Attributes:
        cuts: (depth_layers, bn) that are trained to `epochs` epochs, under all their
            seeds.
        epochs: in all, counted from the first.
        done: whether all of them are there and it is the last rung.
        guarded: those of the cuts that the guard kept.
        reason: in plain words.
    """

    cuts: tuple[Cut, ...]
    epochs: int
    done: bool
    guarded: tuple[Cut, ...]
    reason: str


def rung_epochs(epochs: int, *, eta: int = 2) -> tuple[int, ...]:
    """Numbers of epochs after which cuts are dropped, the last one being `epochs`.

    For example 5 -> (2, 3, 5), 16 -> (2, 4, 8, 16).

    Args:
        epochs: of the cuts that are trained to the end.
        eta: one in `eta` goes on.
    """
    if epochs < 1 or eta < 2:
        raise ValueError(
            f"halving needs epochs >= 1 and eta >= 2, got {epochs} and {eta}"
        )
    rungs = [epochs]
    while rungs[-1] > FIRST_EPOCHS:
        rungs.append(max(FIRST_EPOCHS, math.ceil(rungs[-1] / eta)))
    return tuple(reversed(rungs))


def continue_curve(values: np.ndarray, epochs: int, *, optimistic: bool) -> float:
    """Accuracy after `epochs` epochs, if the gains per epoch decay geometrically.

    With three or more epochs the decay is the ratio of the last two gains, else
    `DECAY`; a curve that does not rise stays where it is. The optimistic continuation
    takes the slowest decay that is believed. Not held below 1, so that curves that
    are continued too steeply keep their order.

    Args:
        values: (e,) accuracy after each epoch so far.
        epochs: e or more.
        optimistic: whether to take the slowest decay that is believed.
    """
    if len(values) < 2:
        return float(values[-1])
    gain = float(values[-1] - values[-2])
    if gain <= 0 and not optimistic:
        return float(values[-1])
    decay = DECAY
    if len(values) >= 3 and values[-2] > values[-3]:
        decay = gain / float(values[-2] - values[-3])
    decay = OPTIMISTIC_DECAY if optimistic else float(np.clip(decay, 0.0, DECAY))
    left = epochs - len(values)
    total = decay * (1 - decay**left) / (1 - decay)
    return float(values[-1] + max(gain, 0.0) * total)


def halving(
    epochs: pd.DataFrame,
    *,
    num_epochs: int,
    eta: int = 2,
    val_size: int | None = None,
    failed: Collection[str] = (),
) -> Rung:
    """Which cuts go on, and to how many epochs, from all that was trained so far.

    At every rung the best 1/eta of the cuts go on, and with them those that are
    expected to reach the best one by the last epoch, and the deepest cut left of each
    BatchNorm policy unless its optimistic continuation, plus two standard errors, is
    still below what the best one has already. Seeds are averaged.

    Args:
        epochs: rows of epochs.csv: trial, depth_layers, bn, seed, epoch, val_accuracy;
            at least one row for every cut that is in the race.
        num_epochs: of the cuts that are trained to the end.
        eta: one in `eta` goes on.
        val_size: validation images, for the standard error.
        failed: trials that will not go on; they leave the race.

    Raises:
        ValueError: a column is missing, or no trial is left in the race.
    """
    columns = ["trial", "depth_layers", "bn", "epoch", "val_accuracy"]
    missing = [column for column in columns if column not in epochs]
    if missing:
        raise ValueError(f"epochs lack the columns {', '.join(missing)}")
    rows = epochs[~epochs["trial"].astype(str).isin([str(one) for one in failed])]
    if rows.empty:
        raise ValueError("no trial is left in the race: look at the failed ones")
    curves, reached = _curves(rows)
    race, guarded = sorted(curves), ()
    reason = f"all {len(race)} cuts"
    rungs = rung_epochs(num_epochs, eta=eta)
    for rung in rungs:
        if any(reached[cut] < rung for cut in race):
            return Rung(tuple(race), rung, False, guarded, f"{reason} to epoch {rung}")
        if rung < num_epochs:
            before = len(race)
            race, guarded = _survivors(
                {cut: curves[cut][:rung] for cut in race}, num_epochs, eta, val_size
            )
            reason = f"{len(race)} of {before} cuts"
            if guarded:
                reason += f", {len(guarded)} of them because they may catch up,"
    return Rung(tuple(race), num_epochs, True, guarded, f"{reason} are at the end")


def _curves(rows: pd.DataFrame) -> tuple[dict[Cut, np.ndarray], dict[Cut, int]]:
    """Per cut: mean accuracy after each epoch, and epochs that all its seeds have."""
    curves, reached = {}, {}
    for (depth, bn), own in rows.groupby(["depth_layers", "bn"]):
        cut = (int(depth), str(bn))
        reached[cut] = int(own.groupby("trial")["epoch"].max().min())
        means = own.groupby("epoch")["val_accuracy"].mean().sort_index()
        curves[cut] = means.to_numpy(float)[: reached[cut]]
    return curves, reached


def _survivors(
    curves: dict[Cut, np.ndarray], num_epochs: int, eta: int, val_size: int | None
) -> tuple[list[Cut], tuple[Cut, ...]]:
    """Cuts that go on after a rung, and those of them that the guard kept."""
    ranked = sorted(curves, key=lambda cut: (-curves[cut][-1], cut))
    kept = ranked[: math.ceil(len(ranked) / eta)]
    leader = float(curves[ranked[0]][-1])
    goal = continue_curve(curves[ranked[0]], num_epochs, optimistic=False)
    share = min(max(leader, 0.0), 1.0)
    stderr = math.sqrt(share * (1 - share) / val_size) if val_size else 0.0
    guarded = []
    for cut in ranked[len(kept) :]:
        deepest = cut[0] == max(depth for depth, bn in curves if bn == cut[1])
        upper = continue_curve(curves[cut], num_epochs, optimistic=True)
        rises = continue_curve(curves[cut], num_epochs, optimistic=False) >= goal
        if rises or (deepest and upper + TWO_SIDED * stderr >= leader):
            guarded.append(cut)
    return sorted([*kept, *guarded]), tuple(sorted(guarded))
