"""Which of the four cases of Petrovska et al. 2018, figure 5, holds at which size.

Their table goes from small or large data, and high or low similarity to the images of
the pretraining, to what should be trained. Here both are measured: the modes are
compared at every size, and similarity is what frozen features give over training from
scratch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.compare import compare_cells
from ftjax.analysis.curves import clean_results
from ftjax.analysis.wording import depth_list, percent, points

HEAD, SOME, ALL, SCRATCH = "head alone", "some layers", "all layers", "from scratch"
MODES = (HEAD, SOME, ALL, SCRATCH)  # in the order of what is trained anew
CASES = {HEAD: 1, SOME: 2, SCRATCH: 3, ALL: 4}
ADVICE = {
    HEAD: "train the head alone on frozen features",
    SOME: "freeze the lower layers and train the others",
    ALL: "train all layers from the pretrained weights",
    SCRATCH: "train from random weights",
}
KEPT = ("trial", "seed", "lr", "val_accuracy", "val_size", "frozen_intact", "status")


class Way(NamedTuple):
    """One way to train one network, at one number of images.

    Attributes:
        network: its name.
        mode: one of `MODES`.
        depth: unfrozen layers.
        accuracy: on the validation images, mean over the seeds, at its best rate.
        loss: what it lacks to the best of those that it was compared with.
        stderr: of the loss; paired over the images, with the noise of the runs.
        inside: whether it may be the best of them.
    """

    network: str
    mode: str
    depth: int
    accuracy: float
    loss: float
    stderr: float
    inside: bool


class SizeAdvice(NamedTuple):
    """What holds for one network at one number of training images.

    Attributes:
        network: its name.
        size: training images.
        ways: all of them, in the order of the modes.
        similarity: accuracy of the frozen features' head less that from scratch; nan
            where one was not trained.
        similarity_stderr: of it.
        measured: whether the noise of the runs was measured, not assumed.
    """

    network: str
    size: int
    ways: tuple[Way, ...]
    similarity: float
    similarity_stderr: float
    measured: bool

    @property
    def best(self) -> Way:
        """The highest accuracy."""
        return max(self.ways, key=lambda way: way.accuracy)

    @property
    def modes(self) -> tuple[str, ...]:
        """Those that may be the best, in the order of `MODES`."""
        own = {way.mode for way in self.ways if way.inside}
        return tuple(mode for mode in MODES if mode in own)

    @property
    def holds(self) -> str:
        """The mode that trains least anew and may be the best."""
        return self.modes[0]

    @property
    def similar(self) -> str:
        """`high`, `low`, or `open` where two standard errors hold zero."""
        if not np.isfinite(self.similarity):
            return "unknown"
        if abs(self.similarity) < 2 * self.similarity_stderr:
            return "open"
        return "high" if self.similarity > 0 else "low"


def mode_of(depth: int, total: int, scratch: bool) -> str:
    """The mode of a row: its depth, and whether it began from random weights."""
    if scratch:
        return SCRATCH
    return HEAD if depth == 0 else ALL if depth >= total else SOME


def label_ways(
    results: pd.DataFrame, network: str, *, scratch: bool = False
) -> pd.DataFrame:
    """Rows of results.csv with the columns `network`, `mode` and `depth`.

    What the ways differ in by their nature (BatchNorm, weights, epochs) is left out, so
    that they can stand in one table.

    Args:
        results: of one run.
        network: its name.
        scratch: whether the run began from random weights.
    """
    modes = [
        mode_of(int(depth), int(total), scratch)
        for depth, total in zip(
            results["depth_layers"], results["total_layers"], strict=True
        )
    ]
    kept = results[[name for name in (*KEPT, "train_size") if name in results]]
    return kept.assign(network=network, mode=modes, depth=results["depth_layers"])


def compare_ways(
    rows: pd.DataFrame, correct: Mapping[str, np.ndarray] | None = None
) -> tuple[tuple[Way, ...], np.ndarray, bool]:
    """Compares ways of training on the same images, each at its best rate.

    Args:
        rows: of `label_ways`, one number of training images.
        correct: trial -> (n_val,) whether each answer was right.

    Returns:
        The ways in the order of networks and modes, (w, w) standard errors of their
        differences, and whether the noise of the runs was measured.
    """
    networks = list(dict.fromkeys(rows["network"]))
    keys = ["network", "mode", "depth"]
    kinds = list(rows[keys].itertuples(index=False, name=None))
    order = sorted(
        set(kinds),
        key=lambda kind: (networks.index(kind[0]), MODES.index(kind[1]), kind[2]),
    )
    places = {kind: number for number, kind in enumerate(order)}
    numbers = [places[kind] for kind in kinds]
    table = rows.drop(columns=[*keys, "train_size"], errors="ignore")
    table, _ = clean_results(table.assign(depth_layers=numbers, bn="frozen"))
    size = table["val_size"].max() if "val_size" in table else None
    found = compare_cells(table, correct, val_size=size)
    (curve,), (where,) = found.curves, found.places
    means, stderr = found.evidence.means[where], found.evidence.stderr
    best = int(np.argmax(means))
    ways = tuple(
        Way(
            *order[int(number)],
            float(means[index]),
            float(means[best] - means[index]),
            float(stderr[where[best], where[index]]),
            bool(found.inside[where[index]]),
        )
        for index, number in enumerate(curve.depths)
    )
    return ways, stderr[np.ix_(where, where)], found.evidence.replicated


def advise_size(
    rows: pd.DataFrame, size: int, correct: Mapping[str, np.ndarray] | None = None
) -> SizeAdvice:
    """What holds for one network at one size; arguments as of `compare_ways`."""
    ways, stderr, measured = compare_ways(rows, correct)
    index = {way.mode: n for n, way in enumerate(ways)}
    similarity = error = np.nan
    if HEAD in index and SCRATCH in index:
        head, scratch = index[HEAD], index[SCRATCH]
        similarity = ways[head].accuracy - ways[scratch].accuracy
        error = float(stderr[head, scratch])
    return SizeAdvice(ways[0].network, size, ways, similarity, error, measured)


def advise(
    rows: pd.DataFrame, correct: Mapping[str, np.ndarray] | None = None
) -> tuple[SizeAdvice, ...]:
    """What holds for every network at every size, where something was trained.

    Args:
        rows: of `label_ways`, of all runs.
        correct: as of `compare_ways`.
    """
    done = rows[rows["status"] == "done"]
    return tuple(
        advise_size(own, int(size), correct)
        for (_, size), own in done.groupby(["network", "train_size"], sort=False)
    )


def case_words(advice: SizeAdvice) -> str:
    """E.g. `case 1`, or `cases 1, 2 and 4 alike`."""
    numbers = sorted(CASES[mode] for mode in advice.modes)
    if len(numbers) == 1:
        return f"case {numbers[0]}"
    first = ", ".join(map(str, numbers[:-1]))
    return f"cases {first} and {numbers[-1]} alike"


def size_sentence(advice: SizeAdvice) -> str:
    """What holds at one size, with its numbers."""
    best, least = advice.best, advice.holds
    text = (
        f"{advice.size:,} images: {case_words(advice)}; {best.mode} "
        f"{percent(best.accuracy)} is the highest"
    )
    if least != best.mode:
        way = min(
            (w for w in advice.ways if w.mode == least and w.inside),
            key=lambda w: w.loss,
        )
        text += (
            f", {least} {points(way.loss)} +- {points(way.stderr)} points below it "
            "may be as good"
        )
    if np.isfinite(advice.similarity):
        text += (
            f"; similarity {advice.similar}: frozen features "
            f"{100 * advice.similarity:+.1f} +- {points(advice.similarity_stderr)} "
            "points over scratch"
        )
    return f"{text}."


def change_sentence(advices: Sequence[SizeAdvice]) -> str:
    """Where the case of one network changes, between which sizes.

    Args:
        advices: of one network, by size.
    """
    ordered = sorted(advices, key=lambda own: own.size)
    name = ordered[0].network
    if len(ordered) == 1:
        return (
            f"{name}: one size says nothing about where the case changes; give several "
            "with --train-size"
        )
    changes = [
        f"between {before.size:,} and {after.size:,} images from case "
        f"{CASES[before.holds]} to case {CASES[after.holds]}"
        for before, after in zip(ordered, ordered[1:], strict=False)
        if before.holds != after.holds
    ]
    first = f"{name}: case {CASES[ordered[0].holds]} at {ordered[0].size:,} images"
    advice = ADVICE[ordered[-1].holds]
    if not changes:
        return (
            f"{first} and at all sizes up to {ordered[-1].size:,}: {advice}; the case "
            "does not change"
        )
    return f"{first}; it changes {', then '.join(changes)}: with those, {advice}"


def rank_networks(
    rows: pd.DataFrame, correct: Mapping[str, np.ndarray] | None = None
) -> tuple[Way, ...]:
    """The best way of every network at the largest size, best first.

    Args:
        rows: of `label_ways`, of all networks.
        correct: as of `compare_ways`; the validation images are the same for all.
    """
    done = rows[rows["status"] == "done"]
    done = done[done["train_size"] == done["train_size"].max()]
    ways, _, _ = compare_ways(done, correct)
    best: dict[str, Way] = {}
    for way in sorted(ways, key=lambda way: way.loss):
        known = best.setdefault(way.network, way)
        if way.inside and not known.inside:
            best[way.network] = known._replace(inside=True)
    return tuple(best.values())


def rank_sentence(ranked: Sequence[Way], size: int) -> str:
    """Which network is the best at a size, and which may be as good."""
    first, *others = ranked
    told = [
        f"{way.network} {points(way.loss)} +- {points(way.stderr)} points below"
        + (" (may be as good)" if way.inside else "")
        for way in others
    ]
    where = f"{first.mode}" if first.mode != SOME else depth_list([first.depth])
    return (
        f"Networks at {size:,} images: {first.network} is the highest with "
        f"{percent(first.accuracy)} ({where}); {', '.join(told)}."
    )


def advice_table(advices: Sequence[SizeAdvice]) -> pd.DataFrame:
    """A row for every network, size and way: advice.csv."""
    rows: list[dict[str, Any]] = []
    for own in advices:
        for way in own.ways:
            row = {"train_size": own.size, **way._asdict()}
            row |= {
                "case": CASES[way.mode],
                "holds": way.mode == own.holds,
                "similarity": own.similarity,
                "similarity_stderr": own.similarity_stderr,
            }
            rows.append(row)
    return pd.DataFrame(rows)
