"""The judge: how often is what the product says true, on sweeps of known truth?

Every function is pure: a number makes a sweep, the product's own functions judge it,
and the truth judges them.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.best_set import best_set
from ftjax.analysis.compare import compare_cells
from ftjax.analysis.curves import clean_results
from ftjax.analysis.decision import Decision, Placement
from ftjax.analysis.effects import depth_effects
from ftjax.analysis.evidence import Evidence, weigh_evidence
from ftjax.analysis.optimism import corrected_accuracy
from ftjax.search.depths import next_depths
from ftjax.search.halving import halving, rung_epochs
from ftjax.search.planted import (
    SHAPES,
    Planted,
    made_sweep,
    planted_surface,
    planted_sweep,
    run_spread,
)

SIZE = 6  # depths of a grid, as the default command has
UNITS = 19  # depths that a search may choose from
DRAWS = 1000
REPLICATED = 3  # runs of a contender
EPOCHS = 8  # of halving
RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # of a surface
SURFACE = "moving"  # its shape: the best depth moves with the rate


class Outcome(NamedTuple):
    """One made sweep as the product sees it.

    Attributes:
        covered: whether the set holds the (smallest) truly best depth.
        claims: whether it leaves any depth out, and says so.
        wrong: whether a truly best one is left out.
        size: share of the depths in the set.
        bias: corrected accuracy of the named depth less the true one.
        raw_bias: measured accuracy of the named depth less the true one.
        regret: accuracy that the named depth truly lacks to the best.
        runs: trials per depth.
        before_covered: `covered` of the rule before this one, the percentile interval
            of the winner.
        before_size: `size` of that rule.
        lost: whether the best depth never came to be compared.
    """

    covered: float
    claims: float
    wrong: float
    size: float
    bias: float
    raw_bias: float
    regret: float
    runs: float
    before_covered: float = np.nan
    before_size: float = np.nan
    lost: float = 0.0


class Case(NamedTuple):
    """A kind of made sweep.

    Attributes:
        mode: 'grid', 'replicates', 'halving' or 'auto'; of depths and rates
            'surface grid' or 'surface auto'.
        shape: one of `SHAPES`, or `SURFACE`.
        deepest: run-to-run noise of the deepest cut.
        images: number of validation images.
        seeds: of all depths (grid), or of those that may be the best.
    """

    mode: str
    shape: str
    deepest: float
    images: int
    seeds: int


def cases(*, quick: bool = False) -> list[Case]:
    """Every kind of sweep that is judged."""
    found = []
    for shape in SHAPES:
        for deepest in (0.01, 0.03):
            for images in (100, 400, 2000):
                kind = (shape, deepest, images)
                found += [Case("grid", *kind, seeds) for seeds in (1, 2, 3, 5)]
                found.append(Case("replicates", *kind, REPLICATED))
            found.append(Case("halving", shape, deepest, 400, REPLICATED))
            found += [Case("auto", shape, deepest, 400, s) for s in (1, REPLICATED)]
    surfaces = ("surface grid", "surface auto")
    for mode, deepest in itertools.product(surfaces, (0.01, 0.03)):
        found.append(Case(mode, SURFACE, deepest, 400, 1))
    if quick:
        found = [case for case in found if case.images == 400 and case.deepest > 0.02]
    return found


def simulate(case: Case, number: int) -> Outcome:
    """One sweep of a kind; `number` seeds its curve, its runs and its images."""
    shape = (*SHAPES, SURFACE).index(case.shape)
    rng = np.random.default_rng([number, shape, case.images, round(1e4 * case.deepest)])
    if case.shape == SURFACE:
        return _judge_surface(case, number, rng)
    size = UNITS if case.mode == "auto" else SIZE
    sweep = planted_sweep(
        case.shape,
        size=size,
        deepest=case.deepest,
        seeds=case.seeds,
        images=case.images,
        rng=rng,
    )
    if case.mode == "auto":
        return _searched(sweep, case.seeds)
    if case.mode == "halving":
        return _halved(sweep, case.deepest, rng)
    seen = np.ones(sweep.runs.shape, dtype=bool)
    if case.mode == "replicates":
        seen[:, 1:] = False
        first = best_set(_weigh(sweep, seen, number))
        if first.sum() > 1:
            seen[first] = True
    return _judge(sweep, seen, number)


def _scores(sweep: Planted, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean correctness (m, n) of the runs that were seen, and the flips (m,)."""
    scores, flips = [], []
    for correct, known in zip(sweep.correct, seen, strict=True):
        runs = correct[known].astype(float)
        scores.append(runs.mean(axis=0))
        single = len(runs) == 1
        flips.append(0.0 if single else runs.var(axis=0, ddof=1).mean() / runs.shape[1])
    return np.stack(scores), np.array(flips)


def _weigh(sweep: Planted, seen: np.ndarray, seed: int) -> Evidence:
    scores, flips = _scores(sweep, seen)
    values = np.where(seen, sweep.correct.mean(axis=2), np.nan)
    rank = np.linspace(0, 1, len(values))
    return weigh_evidence(
        values, rank, scores=scores, flips=flips, draws=DRAWS, seed=seed
    )


def _judge(sweep: Planted, seen: np.ndarray, seed: int) -> Outcome:
    evidence = _weigh(sweep, seen, seed)
    scores, _ = _scores(sweep, seen)
    named = int(np.argmax(evidence.means))
    inside = best_set(evidence)
    corrected = corrected_accuracy(evidence, named, scores, seed=seed)
    true = sweep.truth if evidence.replicated else sweep.runs[:, 0]
    values = np.where(seen, sweep.correct.mean(axis=2), np.nan)
    low, high = interval_before(values, scores, seed)
    smallest = int(np.argmax(sweep.best))
    return Outcome(
        covered=bool(inside[smallest]),
        claims=bool(not inside.all()),
        wrong=bool(np.any(sweep.best & ~inside)),
        size=inside.mean(),
        bias=corrected.value - true[named],
        raw_bias=evidence.means[named] - true[named],
        regret=sweep.truth.max() - sweep.truth[named],
        runs=seen.sum() / len(seen),
        before_covered=low <= smallest <= high,
        before_size=(high - low + 1) / len(seen),
    )


def interval_before(
    values: np.ndarray, scores: np.ndarray, seed: int
) -> tuple[int, int]:
    """The rule that this one replaced: percentile interval of the winner, as ranks.

    Seeds, where there are several, and images; of runs that were not repeated it knew
    nothing.
    """
    rng = np.random.default_rng(seed)
    effects = depth_effects(values)
    n = scores.shape[1]
    centered = scores - scores.mean(axis=1, keepdims=True)
    covariance = centered @ centered.T / (n * (n + 1))
    lower = np.linalg.cholesky(covariance + 1e-14 * np.eye(len(scores)))
    noise = rng.standard_normal((DRAWS, len(scores))) @ lower.T
    if effects.dof:
        pooled = effects.squares.sum() / effects.dof
        spread = np.sqrt(
            (4 * pooled + effects.squares) / (4 + effects.own_dof) / effects.counts
        )
        tails = np.sqrt(rng.chisquare(effects.dof, (DRAWS, 1)) / effects.dof)
        noise += spread * rng.standard_normal(noise.shape) / tails
    winners = np.argmax(effects.means + noise, axis=1)
    low, high = np.quantile(winners, [0.025, 0.975], method="inverted_cdf")
    best = int(np.argmax(effects.means))
    return min(int(low), best), max(int(high), best)


def _row(sweep: Planted, depth: int, seed: int) -> dict:
    return {
        "trial": f"{depth}-{seed}",
        "depth_layers": depth,
        "bn": "follow",
        "seed": seed,
        "val_accuracy": float(sweep.correct[depth, seed].mean()),
    }


def search_curve(
    sweep: Planted, *, max_trials: int | None = None
) -> tuple[Decision, pd.DataFrame]:
    """Run the search on a made sweep to its end.

    Returns:
        The last decision and the table of trials.
    """
    depths = range(len(sweep.truth))
    table = pd.DataFrame(
        columns=["trial", "depth_layers", "bn", "seed", "val_accuracy"]
    )
    correct: dict[str, np.ndarray] = {}
    while True:
        decision = next_depths(
            table,
            depths,
            seeds=sweep.runs.shape[1],
            correct=correct,
            max_trials=max_trials,
        )
        if decision.done:
            return decision, table
        rows = [
            _row(sweep, trial.depth_layers, trial.seed) for trial in decision.trials
        ]
        for row in rows:
            runs = sweep.correct[row["depth_layers"]]
            correct[row["trial"]] = runs[row["seed"]]
        new = pd.DataFrame(rows)
        table = new if table.empty else pd.concat([table, new], ignore_index=True)


def _searched(sweep: Planted, seeds: int) -> Outcome:
    decision, table = search_curve(sweep)
    assert decision.best is not None and decision.interval is not None
    low, high = decision.interval
    named = decision.best[0]
    ranks = np.arange(len(sweep.truth))
    inside = (ranks >= low) & (ranks <= high)
    seen = table[table["depth_layers"] == named]["val_accuracy"].mean()
    return Outcome(
        covered=bool(np.any(sweep.best & inside)),
        claims=bool(not inside.all()),
        wrong=bool(not np.any(sweep.best & inside)),
        size=inside.mean(),
        bias=np.nan,
        raw_bias=float(seen) - sweep.truth[named],
        regret=sweep.truth.max() - sweep.truth[named],
        runs=len(table) / len(sweep.truth),
    )


def _judge_surface(case: Case, number: int, rng: np.random.Generator) -> Outcome:
    """A surface over depth and rate: every cell once, or those that the search picks.

    The best depth is that of the best cell; the named one is used at the rate that
    measured best there.
    """
    truth = planted_surface(UNITS, RATES, rng)
    spread = np.tile(run_spread(UNITS, case.deepest), len(RATES))
    sweep = made_sweep(truth.ravel(), spread, case.seeds, case.images, rng)
    cells = {
        Placement(depth, "follow", 0, rate): UNITS * row + depth
        for row, rate in enumerate(RATES)
        for depth in range(UNITS)
    }
    correct = {str(cell): sweep.correct[cell, 0] for cell in cells.values()}

    def rows(trials: Sequence[Placement]) -> pd.DataFrame:
        found = [
            {**trial._asdict(), "trial": str(cells[trial])}
            | {"val_accuracy": float(correct[str(cells[trial])].mean())}
            for trial in trials
        ]
        return pd.DataFrame(found)

    depths = np.arange(UNITS)
    if case.mode == "surface grid":
        table = rows(list(cells))
        found = compare_cells(table, correct, draws=DRAWS, seed=number)
        named = int(found.curve.depths[found.best])
        inside = np.isin(
            depths, found.curve.depths[found.inside[found.places[found.chosen]]]
        )
    else:
        table, tried = None, {}
        while True:
            decision = next_depths(table, depths, correct=tried, rates=RATES)
            if decision.done:
                break
            table = pd.concat([table, rows(decision.trials)], ignore_index=True)
            tried = {trial: correct[trial] for trial in table["trial"]}
        assert table is not None
        assert decision.best is not None and decision.interval is not None
        named, (low, high) = decision.best[0], decision.interval
        inside = (depths >= low) & (depths <= high)
    own = table[table["depth_layers"] == named]
    rate = RATES.index(own.loc[own["val_accuracy"].idxmax(), "lr"])
    best = int(np.argmax(truth.max(axis=0)))
    return Outcome(
        covered=bool(inside[best]),
        claims=bool(not inside.all()),
        wrong=bool(not inside[best]),
        size=inside.mean(),
        bias=np.nan,
        raw_bias=float(own["val_accuracy"].max()) - truth[rate, named],
        regret=truth.max() - truth[rate, named],
        runs=len(table) / UNITS,
    )


def _halved(sweep: Planted, deepest: float, rng: np.random.Generator) -> Outcome:
    """Halving with the first seed, then the other seeds of those at the end."""
    size = len(sweep.truth)
    rank = np.linspace(0, 1, size)
    final = sweep.correct[:, 0].mean(axis=1)
    slow = (0.1 + 0.1 * rank) * np.exp(-np.arange(1, EPOCHS + 1)[:, None] / (1 + rank))
    slow = slow - slow[-1]  # (epochs, size): deeper cuts start further behind
    wobble = 0.5 * run_spread(size, deepest) * rng.standard_normal((EPOCHS, size))
    wobble[-1] = 0.0
    rows = [
        {**_row(sweep, depth, 0), "epoch": epoch + 1}
        | {"val_accuracy": final[depth] - slow[epoch, depth] + wobble[epoch, depth]}
        for depth in range(size)
        for epoch in range(EPOCHS)
    ]
    whole, images = pd.DataFrame(rows), sweep.correct.shape[2]
    reached = dict.fromkeys(range(size), rung_epochs(EPOCHS)[0])
    while True:
        table = whole[whole["epoch"] <= whole["depth_layers"].map(reached)]
        rung = halving(table, num_epochs=EPOCHS, val_size=images)
        if rung.done:
            break
        reached |= {depth: rung.epochs for depth, _ in rung.cuts}
    alive = sorted(depth for depth, _ in rung.cuts)
    results = [
        _row(sweep, depth, seed) for depth in alive for seed in range(REPLICATED)
    ]
    clean, _ = clean_results(pd.DataFrame(results))
    scores = {
        row["trial"]: sweep.correct[row["depth_layers"], row["seed"]] for row in results
    }
    stopped = {"follow": [depth for depth in range(size) if depth not in alive]}
    found = compare_cells(clean, scores, stopped=stopped, draws=DRAWS)
    kept = found.curve.depths[found.inside[found.places[0]]]
    truth = sweep.truth[alive]
    best = [depth for depth in alive if sweep.truth[depth] >= truth.max() - 1e-9]
    named = int(found.curve.depths[found.best])
    assert found.corrected is not None
    return Outcome(
        covered=best[0] in kept,
        claims=len(kept) < len(alive),
        wrong=not set(best) <= set(kept.tolist()),
        size=len(kept) / len(alive),
        bias=found.corrected.value - sweep.truth[named],
        raw_bias=float(found.evidence.means[found.cell]) - sweep.truth[named],
        regret=sweep.truth.max() - sweep.truth[named],
        runs=(sum(reached.values()) / EPOCHS + 2 * len(alive)) / size,
        lost=not sweep.best[alive].any(),
    )


class Summary(NamedTuple):
    """Means over the sweeps of one case; shares are 0..1.

    Attributes:
        covered: as of `Outcome`.
        claims: share that claims a difference at all.
        wrong: share of all sweeps.
        size: as of `Outcome`.
        bias: as of `Outcome`.
        raw_bias: as of `Outcome`.
        regret: as of `Outcome`.
        runs: as of `Outcome`.
        before_covered: as of `Outcome`.
        before_size: as of `Outcome`.
        lost: as of `Outcome`.
    """

    covered: float
    claims: float
    wrong: float
    size: float
    bias: float
    raw_bias: float
    regret: float
    runs: float
    before_covered: float
    before_size: float
    lost: float

    @property
    def wrong_claims(self) -> float:
        """Share of the claims that are wrong."""
        return self.wrong / self.claims if self.claims else 0.0


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Means of the outcomes."""
    means = np.array(outcomes, dtype=float).mean(axis=0)
    return Summary(**dict(zip(Outcome._fields, means.tolist(), strict=True)))
