"""Which trials are trained, round by round: the grid, halving, auto, explain.

What a strategy decides depends on the tables alone, so the same command resumes where
it was stopped.
"""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.compare import contenders
from ftjax.analysis.curves import hold_ended
from ftjax.analysis.decision import Decision
from ftjax.analysis.explain import explain_trials
from ftjax.analysis.tuning import tuned_rows
from ftjax.backbones import Backbone
from ftjax.config import AUTO_RATE, HALVING, RATES, as_tuple, to_json
from ftjax.depth import AUTO, block_depths
from ftjax.machine.mesh import from_first_process
from ftjax.search.depths import coarse_first, next_depths
from ftjax.search.halving import halving, rung_epochs
from ftjax.sweep.allowance import Allowance
from ftjax.sweep.gradual_rounds import unfreeze_gradually
from ftjax.sweep.plan import Plan, Point, Request
from ftjax.sweep.prepare import Sweep, make_settings, seeds_of
from ftjax.sweep.rate_rounds import overtaken_of, tune_rates, with_more
from ftjax.sweep.records import RESULT_COLUMNS
from ftjax.sweep.results import read_correct
from ftjax.sweep.rounds import Round, Strategy, depths_of, exhaust
from ftjax.sweep.set_rounds import train_sets

REPLICATES = 2  # further seeds of what could be the best
REPEATS = 3  # rounds in which further cells may come in


def choose_strategy(
    sweep: Sweep, out: Path, allowance: Allowance | None = None
) -> Strategy:
    """The strategy that the command asks for.

    Args:
        sweep: what to train.
        out: the run's folder.
        allowance: of time, where --budget sets one.
    """
    config = sweep.config
    if config.depths == AUTO:
        strategy = search_depths(sweep, out)
    elif config.search == HALVING:
        strategy = halve(sweep)
    else:
        tuned = config.lr == AUTO_RATE
        strategy = tune_rates(sweep) if tuned else grid(sweep)
        if config.replicate and config.seeds == 1 and not config.distributed:
            strategy = replicate(sweep, strategy, out)
    strategy = explain_fall(sweep, strategy) if config.explain else strategy
    strategy = train_sets(sweep, strategy, out) if config.sets else strategy
    strategy = unfreeze_gradually(sweep, strategy) if config.gradual else strategy
    return strategy if allowance is None else within(allowance, strategy)


def one_round(round: Round) -> Strategy:
    """A round that is decided already."""
    yield round
    return round


def within(allowance: Allowance, strategy: Strategy) -> Strategy:
    """`--budget`: of every round of another strategy, what there is time for."""
    round = next(strategy)
    while True:
        goals = allowance.choose(round.plan, round.goals)
        found = yield round._replace(goals=goals)
        left_out = allowance.lacking(round.plan, round.goals) - found.failed
        try:
            round = strategy.send(found._replace(left_out=left_out))
        except StopIteration as end:
            return end.value


def grid(sweep: Sweep) -> Strategy:
    """All trials to their last epoch; with --budget in stages, best use first."""
    plan = sweep.plan()
    last = Round(plan, plan.goals)
    if sweep.config.budget is None:
        yield last
        return last
    for goals in stages(sweep, plan):
        last = Round(plan, goals, reason=f"budget: {depths_of(plan, goals)}")
        yield last
    return last


def stages(sweep: Sweep, plan: Plan) -> list[dict[str, int]]:
    """The goals of a grid in the order of their use.

    A coarse spread of depths comes first, at the first of the settings, so that there
    is an answer early; then its other settings; then ever finer depths; then the other
    seeds.
    """
    levels = coarse_first([request.cut.depth_layers for request in plan.requests])
    level_of = {depth: n for n, level in enumerate(levels) for depth in level}
    first, base = sweep.config.first_seed, sweep.hyper
    found: dict[str, tuple] = {}
    for request in plan.requests:
        level = level_of[request.cut.depth_layers]
        same = replace(request.hyper, epochs=base.epochs)
        other = same.at(request.cut) != base.at(request.cut)
        stage = (False, level, level == 0 and other)
        if request.seed != first:
            stage = (True, 0, False)
        found[request.trial] = min(stage, found.get(request.trial, stage))
    return [
        {id: epochs for id, epochs in plan.goals.items() if found[id] == stage}
        for stage in sorted(set(found.values()))
    ]


def replicate(sweep: Sweep, strategy: Strategy, out: Path) -> Strategy:
    """Another strategy, then two more seeds where the best may lie.

    One seed does not tell what another order of the images would change. The cells that
    could be the best are trained again, so that the noise is measured where it decides.
    What is learned of the noise may bring further cells in; after `REPEATS` rounds the
    answer says how many runs each has.
    """
    found, last = yield from exhaust(strategy)
    for _ in range(REPEATS):
        again = from_first_process(partial(overtaken_of, sweep, found))
        if again & last.stopped:
            last = with_more(last, again & last.stopped)
            found = yield last
        results = found.results[found.results["status"] == "done"]
        if results.empty:
            break
        correct = from_first_process(partial(read_correct, out, results))
        cells = from_first_process(partial(contenders, results, correct))
        rivals = results[results["trial"].isin(list(again))]
        named = pd.concat([tuned_rows(results), rivals])
        cells = {*cells, *zip(rivals["depth_layers"], rivals["bn"], strict=True)}
        added = replicates_of(last.plan, named, cells)
        if not added:
            break
        plan = sweep.plan([*last.plan.points, *added])
        goals = {id: n for id, n in plan.goals.items() if id not in last.stopped}
        count = len(added) // REPLICATES
        reason = (
            f"replicates: {count} cell{'s' * (count > 1)} of depth and BatchNorm "
            f"policy could be the best; each is trained with {REPLICATES} more seeds"
        )
        last = Round(plan, goals, last.stopped, reason)
        found = yield last
    return last


def replicates_of(
    plan: Plan, finished: pd.DataFrame, cells: Collection[tuple[int, str]]
) -> list[Point]:
    """The points with further seeds of some cells, those that have them left out.

    Args:
        plan: with the requests of the first seed.
        finished: rows of the best setting of each depth and policy.
        cells: depth in layers and policy.
    """
    named = set(finished["trial"])
    return [
        Point(request.cut.depth_layers, request.policy, seed, request.hyper)
        for request in plan.requests
        if request.trial in named
        and (request.cut.depth_layers, request.policy) in cells
        and len(seeds_with(plan, request)) == 1
        for seed in range(request.seed + 1, request.seed + 1 + REPLICATES)
    ]


def seeds_with(plan: Plan, request: Request) -> set[int]:
    """The seeds that the plan holds of a request's depth, policy and setting."""
    return {
        other.seed
        for other in plan.requests
        if other.cut.depth_layers == request.cut.depth_layers
        and (other.policy, other.hyper) == (request.policy, request.hyper)
    }


def halve(sweep: Sweep) -> Strategy:
    """`--search halving`: all cuts for a few epochs, then fewer of them for longer.

    Every rung passes the frozen part again.
    """
    plan, num_epochs = sweep.plan(), sweep.hyper.epochs
    everything = frozenset(plan.goals)
    goals = dict.fromkeys(everything, rung_epochs(num_epochs)[0])
    last = Round(plan, goals)
    while True:
        found = yield last
        # Policies that are equal at a cut are one trial, and one runner.
        reached = hold_ended(found.epochs, found.results)
        runners = reached.drop_duplicates(["trial", "epoch"])
        if runners[~runners["trial"].isin(list(found.failed))].empty:
            return last
        rung = halving(
            runners,
            num_epochs=num_epochs,
            val_size=len(sweep.data.val.labels),
            failed=found.failed,
        )
        cuts = zip(runners["depth_layers"], runners["bn"], strict=True)
        race = {
            trial
            for trial, cut in zip(runners["trial"], cuts, strict=True)
            if cut in rung.cuts
        }
        goals = {} if rung.done else dict.fromkeys(race - found.failed, rung.epochs)
        last = Round(plan, goals, everything - race, f"halving: {rung.reason}")
        if rung.done:
            yield last
            return last


def search_depths(sweep: Sweep, out: Path) -> Strategy:
    """`--depths auto`: a few depths first, then one after the other where it pays.

    Of several rates every depth is tried at those that may be its best.
    """
    points: list[Point] = []
    settings = {None: sweep.hyper}
    settings |= {hyper.lr: hyper for hyper in make_settings(sweep.config)}
    results = pd.DataFrame(columns=list(RESULT_COLUMNS))
    while True:
        decide = partial(decide_run, sweep, out, results)
        decision = Decision(*from_first_process(decide))
        points += [Point(*place[:3], settings[place[3]]) for place in decision.trials]
        plan = sweep.plan(points)
        goals = {} if decision.done else plan.goals
        last = Round(plan, goals, reason=decision.reason)
        found = yield last
        new = set(points[len(points) - len(decision.trials) :])
        asked = {
            request.trial
            for request, point in zip(plan.requests, plan.points, strict=True)
            if point in new
        }
        if decision.done or asked <= found.left_out:
            return last
        results = found.results


def decide_run(sweep: Sweep, out: Path, results: pd.DataFrame) -> Decision:
    """Which depths to train next, from what is trained so far."""
    correct = read_correct(out, results)
    return decide(to_json(sweep.config), sweep.start.network, results, correct)


def decide(
    config: Mapping[str, Any],
    backbone: Backbone,
    results: pd.DataFrame,
    correct: Mapping[str, np.ndarray],
) -> Decision:
    """What `--depths auto` has found so far, and which depths to train next.

    Args:
        config: as config.json holds it.
        backbone: whose depths they are.
        results: of what was trained.
        correct: as for `recommend`.
    """
    return next_depths(
        results,
        block_depths(backbone),
        seeds=config["seeds"],
        bn=config["bn"],
        correct=correct,
        rates=RATES if config["lr"] == AUTO_RATE else as_tuple(config["lr"]),
    )


def explain_fall(sweep: Sweep, strategy: Strategy) -> Strategy:
    """`--explain`: another strategy, then the trials that tell why the curve falls."""
    found, last = yield from exhaust(strategy)
    missing = from_first_process(partial(explain_trials, found.results))
    if not missing:
        reason = "nothing to add: the follow curve does not fall, or is explained"
        last = last._replace(goals={}, reason=reason)
        yield last
        return last
    seeds, hyper = seeds_of(sweep.config), sweep.hyper
    added = [
        Point(*pair, seed, hyper) for pair, seed in itertools.product(missing, seeds)
    ]
    plan = sweep.plan([*last.plan.points, *added])
    stopped = last.stopped - {
        request.trial
        for request in plan.requests
        if (request.cut.depth_layers, request.policy) in missing
    }
    goals = {id: epochs for id, epochs in plan.goals.items() if id not in stopped}
    last = Round(plan, goals, stopped)
    yield last
    return last
