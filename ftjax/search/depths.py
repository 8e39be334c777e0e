"""Which depth to train next, and when to stop: an answer from a few trials.

The curve of each BatchNorm policy is a Gaussian process over the rank of the candidate
depths (`gaussian_process`). It starts from a few cuts, places every next trial where
one more is expected to raise the answer most (the knowledge gradient), and stops when
the interval of the best depth is narrower than one unit or that gain is below the
noise. Every function is pure: the same table gives the same decision, so a search
resumes by asking again.

Rough and smooth processes are mixed because planted steps and planted peaks need
different ones: smooth ones alone miss a step and are too sure of a peak, rough ones
alone go on measuring. `ftjax simulate` prints what that is worth.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from ftjax.analysis.curves import clean_results
from ftjax.analysis.decision import Decision, Placement
from ftjax.batch_norm import DEFAULT, POLICIES
from ftjax.search.belief import CurveBelief, believe, open_ends, shortest_interval
from ftjax.search.gaussian_process import draw_curves, knowledge_gradient

FIRST = 6  # cuts to start from
DENSER = 1.4  # exponent of their spacing: > 1 puts more of them near the output
GAIN = 0.05  # stop when one more trial is expected to gain less than this much noise
ALMOST = 0.8  # of the largest gain: then the shallowest depth, which costs least
# Share of the posterior in the interval. Real shapes are no draws of the process, so it
# covers somewhat less: `ftjax simulate` prints how much.
MASS = 0.98
MOST_GAP = 0.1  # of the depth axis: no longer stretch stays unseen ...
NEAR_GAP = 0.05  # ... nor next to the best trial ...
SHARE = 0.2  # ... as long as no more than this share of the candidates is trained
DRAWS = 1000
CONTENDER = 0.1  # probability to be the best from which a depth gets all its seeds
MOST_CONTENDERS = 3


def first_depths(candidates: Sequence[int]) -> tuple[int, ...]:
    """Six of the candidate depths, both ends included, denser near the output.

    Args:
        candidates: depths in layers. All of them, if they are six or fewer.
    """
    depths = _check_candidates(candidates)
    last = len(depths) - 1
    shares = (np.arange(FIRST) / (FIRST - 1)) ** DENSER
    places = {round(last * share) for share in shares}
    for place in range(len(depths)):  # short axes: no rank is taken twice
        if len(places) < min(FIRST, len(depths)):
            places.add(place)
    return tuple(depths[place] for place in sorted(places))


def coarse_first(candidates: Sequence[int]) -> list[tuple[int, ...]]:
    """The candidate depths in levels: both ends and the middle, then ever finer ones.

    Args:
        candidates: depths in layers.
    """
    depths = _check_candidates(candidates)
    last = len(depths) - 1
    placed, levels = set(), []
    new = {0, last // 2, last}
    while new:
        levels.append(tuple(depths[place] for place in sorted(new)))
        placed |= new
        ends = sorted(placed)
        gaps = zip(ends, ends[1:], strict=False)
        new = {(low + high) // 2 for low, high in gaps} - placed
    return levels


def _check_candidates(candidates: Sequence[int]) -> list[int]:
    depths = sorted({int(depth) for depth in candidates})
    if not depths or depths[0] < 0:
        raise ValueError(
            f"candidates must be depths >= 0 in layers, got {list(candidates)[:5]}"
        )
    return depths


def _unseen(curve: CurveBelief, size: int) -> list[int]:
    """Indices that split the stretches which are too long to be left unseen.

    A rise that is narrower than the gap between two trials leaves no trace in them.
    First all long gaps are split evenly, then those next to the highest measurement
    are halved. None where that would train more than SHARE of the candidates.
    """
    row = curve.highest // size * size  # of the best rate
    places = np.array([p - row for p in sorted(curve.tried) if 0 <= p - row < size])
    highest = curve.highest - row
    spare = int(SHARE * size) - len(places)
    gaps = np.diff(places)
    longest = max(MOST_GAP * (size - 1), 1.0)
    parts = np.ceil(gaps / longest - 1e-9).astype(int)
    if (parts <= 1).all():
        near = (places[:-1] == highest) | (places[1:] == highest)
        parts = np.where(near & (gaps > max(NEAR_GAP * (size - 1), 1.0)), 2, 1)
    new = []
    for which in np.argsort(-gaps, kind="stable"):
        ends = places[which], places[which + 1]
        inner = np.linspace(*ends, parts[which] + 1)[1:-1].round().astype(int)
        new += [row + int(place) for place in inner]
    return sorted(new[: max(spare, 0)])


def _start(
    results: pd.DataFrame | None,
    depths: Sequence[int],
    policies: Sequence[str],
    rates: Sequence[float],
) -> tuple[Placement, ...]:
    """The first cuts that no trial has tried yet, failed ones included.

    Of several rates the middle one has all of them, the others a coarse spread.
    """
    known: set = set()
    if results is not None and len(results):
        bn = results["bn"] if "bn" in results else [DEFAULT] * len(results)
        lr = results["lr"] if rates else [None] * len(results)
        known = set(zip(results["depth_layers"].astype(int), bn, lr, strict=True))
    first = {lr: coarse_first(depths)[0] for lr in rates}
    first[rates[len(rates) // 2] if rates else None] = first_depths(depths)
    return tuple(
        Placement(depth, bn, 0, lr)
        for bn in policies
        for lr, own in first.items()
        for depth in own
        if (depth, bn, lr) not in known
    )


def next_depths(
    results: pd.DataFrame | None,
    candidates: Sequence[int],
    *,
    seeds: int = 1,
    bn: Sequence[str] = (DEFAULT,),
    correct: Mapping[str, np.ndarray] | None = None,
    max_trials: int | None = None,
    rates: Sequence[float] = (),
) -> Decision:
    """Decide which trials to run next, from all that were run so far.

    First the cuts of `first_depths`, under every policy, with seed 0. Where there are
    many candidates, then the middle of the stretches that no trial has seen, under the
    better policy. Then one trial at a time, at the depth and under the policy with the
    largest knowledge gradient; a policy whose curve is clearly lower gets none. When
    the search over depths has ended, those that may still be the best get their other
    seeds.

    Args:
        results: rows of results.csv so far, None or empty at the start. Rows that are
            neither done nor failed are asked for again; failed ones are not.
        candidates: depths in layers, the ends of the axis included.
        seeds: of the best depths; the others are run with seed 0 alone.
        bn: policies to search.
        correct: trial -> (n_val,) bool, for the noise of one seed.
        max_trials: trials at most, the policies' shared ones counted once.
        rates: learning rates; where they are several, every depth is believed at its
            best one, and what is believed of a rate is shared with those next to it.

    Raises:
        ValueError: no candidate, an unknown policy, or a table that is no sweep's.
    """
    depths = _check_candidates(candidates)
    unknown = [policy for policy in bn if policy not in POLICIES]
    if unknown or not bn:
        raise ValueError(f"unknown bn {unknown}: choose from {', '.join(POLICIES)}")
    if seeds < 1 or (max_trials is not None and max_trials < 1):
        raise ValueError("seeds and max_trials must be 1 or more")
    rates = tuple(sorted(set(rates))) if len(set(rates)) > 1 else ()
    start = _start(results, depths, bn, rates)
    if results is None or not len(results):
        return Decision(start, False, f"start with {len(first_depths(depths))} depths")
    table = _known_rows(results, depths, bn, rates)
    waiting = table[~table["status"].isin(["done", "failed", "diverged"])]
    if len(waiting) or start:
        again = [
            Placement(
                int(row.depth_layers),
                str(row.bn),
                int(row.seed),
                float(row.lr) if rates else None,
            )
            for row in waiting.itertuples()
        ]
        return Decision((*start, *again), False, "the first depths are not all run")
    if not (table["status"] == "done").any():
        return Decision((), True, "every trial failed")
    done, _ = clean_results(table)
    tried = {
        Placement(int(depth), str(policy), int(seed), lr if rates else None)
        for depth, policy, seed, lr in table[
            ["depth_layers", "bn", "seed", "lr"]
        ].to_numpy()
    }
    curves = [
        believe(
            policy,
            done[done["bn"] == policy],
            [_index(trial, depths, rates) for trial in tried if trial.bn == policy],
            depths,
            correct,
            rates,
        )
        for policy in bn
        if (done["bn"] == policy).any()
    ]
    count = table["trial"].nunique() if "trial" in table else len(table)
    spent = max_trials is not None and count >= max_trials
    said = f"{count} trials" if spent else ""
    return _decide(curves, depths, tried, seeds, said, rates)


def _index(trial: Placement, depths: Sequence[int], rates: Sequence[float]) -> int:
    """As of `CurveBelief`."""
    row = rates.index(trial.lr) if rates else 0
    return row * len(depths) + depths.index(trial.depth_layers)


def _known_rows(
    results: pd.DataFrame,
    depths: Sequence[int],
    bn: Sequence[str],
    rates: Sequence[float],
) -> pd.DataFrame:
    """The rows of the searched policies and candidates, with status, bn and seed."""
    table = results.copy()
    absent = ("status", "done"), ("bn", DEFAULT), ("seed", 0), ("lr", None)
    for column, value in absent:
        if column not in table:
            table[column] = value
    if rates:
        table = table[table["lr"].isin(list(rates))]
    return table[table["bn"].isin(list(bn)) & table["depth_layers"].isin(list(depths))]


def _decide(
    curves: Sequence[CurveBelief],
    depths: Sequence[int],
    tried: Collection[Placement],
    seeds: int,
    spent: str,
    rates: Sequence[float],
) -> Decision:
    """One step of the search; see `next_depths`."""
    rng = np.random.default_rng(0)
    size = len(depths)

    def at(index: int, bn: str, seed: int = 0) -> Placement:
        lr = rates[index // size] if rates else None
        return Placement(depths[index % size], bn, seed, lr)

    draws = [draw_curves(curve.posterior, DRAWS, rng) for curve in curves]
    tops = np.stack([draw.max(axis=1) for draw in draws])  # (policies, draws)
    chosen = int(np.argmax([curve.posterior.mean[curve.best] for curve in curves]))
    curve, winners = curves[chosen], draws[chosen].argmax(axis=1)
    best = curve.best % size
    low, high = shortest_interval(winners % size, size, best, MASS)
    narrow = low == high
    low, high = open_ends(np.unique(curve.seen % size), best, low, high, size)
    gains = _gains(curves)
    which, place = _cheapest_of_the_best(gains, size)
    gain, noise = float(gains.max()), curve.posterior.noise_stderr
    found = dict(
        best=(depths[best], curve.bn),
        interval=(depths[low], depths[high]),
        gain=max(gain, 0.0),
        regret=float(np.mean(tops.max(axis=0) - draws[chosen][:, curve.best])),
        noise=noise,
    )

    def run(trials: Sequence[Placement], reason: str) -> Decision:
        return Decision(tuple(trials), not trials, reason, **found)

    if spent:
        return run((), f"stopped after {spent}, as asked")
    unseen = [at(place, curve.bn) for place in _unseen(curve, size)]
    if unseen:
        return run(unseen, "stretches of depth that no trial has seen")
    narrow = narrow and bool(np.mean(tops.argmax(axis=0) == chosen) >= MASS)
    if not narrow and gain >= GAIN * noise:
        target = at(place, curves[which].bn)
        return run(
            [target], f"one more trial is expected to gain {100 * gain:.2f} points"
        )
    places = curve.posterior.means.shape[1]
    chances = np.bincount(winners, minlength=places)[curve.seen] / DRAWS
    ranked = curve.seen[np.argsort(-chances, kind="stable")][:MOST_CONTENDERS]
    enough = set(curve.seen[chances >= CONTENDER]) & set(ranked) | {curve.best}
    more = [
        trial
        for seed in range(1, seeds)
        for index in sorted(enough)
        if (trial := at(int(index), curve.bn, seed)) not in tried
    ]
    if more:
        return run(more, "the depths that may be the best get their other seeds")
    if narrow:
        return run((), "the interval of the best depth is narrower than one unit")
    return run((), "one more trial is expected to gain less than the noise hides")


def _gains(curves: Sequence[CurveBelief]) -> np.ndarray:
    """Knowledge gradient (policies, m); minus infinity where a trial was tried."""
    peaks = [float(curve.posterior.mean.max()) for curve in curves]
    rows = []
    for index, curve in enumerate(curves):
        others = [peak for other, peak in enumerate(peaks) if other != index]
        row = knowledge_gradient(curve.posterior, max(others, default=-np.inf))
        row[list(curve.tried)] = -np.inf
        rows.append(row)
    return np.stack(rows)


def _cheapest_of_the_best(gains: np.ndarray, size: int) -> tuple[int, int]:
    """Policy and index of the shallowest depth that gains almost as much as any."""
    which, places = np.nonzero(gains >= ALMOST * gains.max())
    first = int(np.argmin(places % size))
    return int(which[first]), int(places[first])
