"""`--lr auto`: which learning rates are tried at every depth, and which go on.

The rate is a nuisance: depths are compared fairly if each has its own (Godbole et al.
2023, Deep Learning Tuning Playbook).
"""

from collections.abc import Collection, Generator, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from ftjax.analysis.curves import hold_ended
from ftjax.analysis.tuning import overtaken
from ftjax.config import FIXED_RATE
from ftjax.machine.mesh import from_first_process
from ftjax.search.depths import coarse_first
from ftjax.sweep.plan import Plan
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.rounds import Found, Round, Strategy, depths_of, trials_at
from ftjax.sweep.trial import Trial

TUNING_EPOCHS = 2  # after which rates are compared


def tune_rates(sweep: Sweep) -> Strategy:
    """`--lr auto`: several rates for a few epochs, then the better ones to the end.

    A rate goes on at a depth and policy if its validation accuracy is the best there,
    or within a standard error of it.

    With --budget a coarse spread of depths comes first, at the usual rate; then its
    other rates, then ever finer depths.
    """
    plan = sweep.plan()
    depths = [request.cut.depth_layers for request in plan.requests]
    levels = [tuple(depths)]
    if sweep.config.budget is not None:
        levels = coarse_first(depths)
        coarse = trials_at(plan, levels[0])
        usual = {t.id for t in plan.trials if t.hyper.lr == FIXED_RATE} & coarse
        goals = {id: plan.goals[id] for id in usual}
        yield Round(plan, goals, reason=f"budget: {depths_of(plan, usual)}")
    rates = {trial.hyper.lr for trial in plan.trials}
    stopped: frozenset[str] = frozenset()
    last = Round(plan, {})
    for level in levels:
        own = trials_at(plan, level)
        tried, going, left_out = yield from compare_rates(sweep, plan, own, stopped)
        if tried <= left_out:
            continue
        goals = {id: epochs for id, epochs in plan.goals.items() if id in going}
        reason = (
            f"rates: {len(tried)} of {len(own)} trials of {len(rates)} rates ran for "
            f"{tuning_epochs(sweep)} epochs; {len(goals)} go on"
        )
        stopped |= (tried if left_out else own) - going - left_out
        last = Round(plan, goals, stopped, reason)
        found = yield last
        while (
            again := from_first_process(partial(overtaken_of, sweep, found)) & stopped
        ):
            last = with_more(last, again)
            stopped = last.stopped
            found = yield last
    return last


def compare_rates(
    sweep: Sweep, plan: Plan, own: frozenset[str], stopped: frozenset[str]
) -> Generator[Round, Found, tuple[frozenset[str], frozenset[str], frozenset[str]]]:
    """The rounds in which rates are tried: the middle two, then where they point.

    Args:
        sweep: what to train.
        plan: of all rates.
        own: ids of the trials that are compared.
        stopped: those that are not trained to the last epoch.

    Returns:
        Ids of the trials that were tried, of those of them whose rate is the best or
        nearly, and of those that a budget has no time for.
    """
    short, size = tuning_epochs(sweep), len(sweep.data.val.labels)
    trials = [trial for trial in plan.trials if trial.id in own]
    tried = left_out = frozenset[str]()
    reached, reason = pd.DataFrame(columns=["trial", "epoch", "val_accuracy"]), ""
    while more := rates_beside(trials, tried, reached, short, size) - tried:
        if tried:
            reason = f"rates: {len(more)} more trials on the better side of these"
        found = yield Round(plan, dict.fromkeys(more, short), stopped, reason)
        tried, left_out = tried | more, left_out | found.left_out
        reached = hold_ended(found.epochs, found.results)
        reached = reached[reached["trial"].isin(list(tried))]
        if left_out:  # without them nothing tells which rates are next
            break
    return tried, better_rates(plan, reached, short, size), left_out


def overtaken_of(sweep: Sweep, found: Found) -> frozenset[str]:
    """As `tuning.overtaken`, of what was found."""
    reached = hold_ended(found.epochs, found.results)
    return overtaken(found.results, reached, len(sweep.data.val.labels))


def with_more(last: Round, again: frozenset[str]) -> Round:
    """A round in which trials go on that were stopped."""
    stopped = last.stopped - again
    goals = {id: n for id, n in last.plan.goals.items() if id not in stopped}
    reason = (
        f"rates: {len(again)} trials that were stopped had come further than what went "
        "on; they go on as well"
    )
    return Round(last.plan, goals, stopped, reason)


def tuning_epochs(sweep: Sweep) -> int:
    """After how many epochs rates are compared."""
    return min(TUNING_EPOCHS, sweep.hyper.epochs)


def better_rates(
    plan: Plan, epochs: pd.DataFrame, short: int, val_size: int
) -> frozenset[str]:
    """Trials whose rate is the best of their depth and policy, or nearly.

    Args:
        plan: with the trials.
        epochs: as in epochs.csv.
        short: the epoch at which they are compared.
        val_size: number of validation images.
    """
    accuracy = accuracy_after(epochs, short)
    cells: dict[tuple, list[str]] = {}
    for trial in plan.trials:
        if trial.id in accuracy:
            cells.setdefault(cell_of(trial), []).append(trial.id)
    going: set[str] = set()
    for ids in cells.values():
        best = max(accuracy[id] for id in ids)
        error = standard_error(best, val_size)
        going |= {id for id in ids if accuracy[id] >= best - error}
    return frozenset(going)


def rates_beside(
    trials: Iterable[Trial],
    tried: Collection[str],
    epochs: pd.DataFrame,
    short: int,
    val_size: int,
) -> frozenset[str]:
    """Trials of the rates to try next at each depth, policy and other settings.

    The middle two come first. Accuracy rises with the rate up to the best one and falls
    beyond it, so a rate beyond those that were tried can be better only where the last
    one on its side is the best of them, or within a standard error of it.

    Args:
        trials: of all rates that may be tried.
        tried: ids of those that were.
        epochs: as in epochs.csv; a tried trial that is not in it has failed.
        short: the epoch at which they are compared.
        val_size: number of validation images.
    """
    accuracy = accuracy_after(epochs, short)
    cells: dict[tuple, dict[float, str]] = {}
    for trial in trials:
        key = *cell_of(trial), replace(trial.hyper, lr=0.0)
        cells.setdefault(key, {})[trial.hyper.lr] = trial.id
    found: set[str] = set()
    for cell in cells.values():
        ids = [cell[rate] for rate in sorted(cell)]
        known = [n for n, id in enumerate(ids) if id in tried]
        if not known:
            middle = (len(ids) - 1) // 2
            found |= set(ids[middle : middle + 2])
            continue
        reached = {n: accuracy.get(ids[n], 0.0) for n in known}
        best = max(reached.values())
        least = best - standard_error(best, val_size)
        for end, beyond in ((min(known), min(known) - 1), (max(known), max(known) + 1)):
            if 0 <= beyond < len(ids) and reached[end] >= least:
                found.add(ids[beyond])
    return frozenset(found)


def accuracy_after(epochs: pd.DataFrame, short: int) -> dict[str, float]:
    """Validation accuracy of every trial after an epoch."""
    at = epochs[epochs["epoch"] == short].drop_duplicates("trial")
    return dict(zip(at["trial"], at["val_accuracy"], strict=True))


def cell_of(trial: Trial) -> tuple:
    """What trials have in common whose rates are compared."""
    return trial.cut.same_set, trial.cut.blocks, trial.policy, trial.seed


def standard_error(accuracy: float, val_size: int) -> float:
    """Of an accuracy; that of one image where all are right."""
    return np.sqrt(max(accuracy * (1 - accuracy), 1 / val_size) / val_size)
