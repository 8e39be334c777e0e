"""How much depth and every varied hyperparameter matter: exact analysis of variance.

In a complete grid with the same seeds in every cell the sums of squares of all main
effects, interactions and seeds add up to the total (Fisher 1925, Statistical Methods
for Research Workers; Montgomery 2017, Design and Analysis of Experiments, chapter 5).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ftjax.analysis.wording import points
from ftjax.axes import AXES
from ftjax.stats.distributions import f_survival, student_t_quantile

EPOCHS = "epochs"
TITLES = {"depth_layers": "depth", "bn": "BatchNorm policy"}
TITLES |= {axis.name: axis.title for axis in AXES}


@dataclass(frozen=True)
class Effect:
    """A main effect or an interaction; accuracies are 0..1.

    Attributes:
        factors: one column, or the two of an interaction.
        dof: degrees of freedom.
        squares: sum over all runs.
        share: of the total sum of squares, 0..1.
        size: root mean square over all runs.
        noise: of `size`, what the seeds alone would give; nan with one seed.
        probability: of as large an effect by noise alone (F test); nan with one seed.
        range: of a main effect, its best minus its worst value, each averaged over the
            other factors; nan of an interaction.
        stderr: of that difference, not corrected for the choice of the two; nan with
            one seed.
        interval: 95 % (Student t) of it; None with one seed, and of an interaction.
    """

    factors: tuple[str, ...]
    dof: int
    squares: float
    share: float
    size: float
    noise: float
    probability: float
    range: float
    stderr: float
    interval: tuple[float, float] | None

    @property
    def title(self) -> str:
        """E.g. 'depth x learning rate'."""
        return " x ".join(TITLES.get(name, name) for name in self.factors)


@dataclass(frozen=True)
class Variance:
    """The analysis of one complete grid.

    Attributes:
        levels: by factor, its values.
        seeds: in each cell.
        squares: total, over all runs.
        effects: main effects, then interactions of two.
        higher: share of all interactions of three and more factors.
        within: share of the seeds: all that differs between runs of one cell.
        run_noise: standard deviation of a run, with what a seed does to all cells
            taken out; one for all cells, so an average where deep cells are noisier.
            nan with one seed.
        dof: degrees of freedom of `run_noise`.
    """

    levels: dict[str, tuple[Any, ...]]
    seeds: int
    squares: float
    effects: tuple[Effect, ...]
    higher: float
    within: float
    run_noise: float
    dof: int

    @property
    def runs(self) -> int:
        """Of all cells and seeds."""
        return self.seeds * math.prod(map(len, self.levels.values()))

    @property
    def main(self) -> tuple[Effect, ...]:
        """The main effects, the largest share first."""
        own = (effect for effect in self.effects if len(effect.factors) == 1)
        return tuple(sorted(own, key=lambda effect: -effect.share))

    @property
    def pairs(self) -> tuple[Effect, ...]:
        """The interactions, the largest share first."""
        own = (effect for effect in self.effects if len(effect.factors) == 2)
        return tuple(sorted(own, key=lambda effect: -effect.share))


@dataclass(frozen=True)
class Effects:
    """How much every varied axis of a run matters.

    Attributes:
        grids: one of a complete grid; of axes varied one at a time, one for each.
        one_by_one: whether they were.
        reason: why there is no analysis; '' where there is.
        sentence: the finding; '' without an analysis.
    """

    grids: tuple[Variance, ...] = ()
    one_by_one: bool = False
    reason: str = ""
    sentence: str = ""


def decompose(values: np.ndarray, levels: dict[str, tuple[Any, ...]]) -> Variance:
    """Splits the variance of a balanced grid.

    Args:
        values: (levels of the first factor, ..., seeds) accuracy; the same seeds in
            every cell.
        levels: by factor, the values along its axis.

    Raises:
        ValueError: the shape is not that of the levels, or a cell is missing.
    """
    shape = tuple(map(len, levels.values()))
    if values.shape[:-1] != shape or not np.isfinite(values).all():
        raise ValueError(f"a complete grid of {shape} with seeds is needed")
    seeds, total = values.shape[-1], float(np.sum((values - values.mean()) ** 2))
    cells = values.mean(axis=-1)
    inside = values - cells[..., None]
    common = inside.reshape(-1, seeds).mean(axis=0)
    names = [*levels]
    between, of_epochs = noise_of(inside - common, names)
    found: dict[tuple[int, ...], np.ndarray] = {}
    rest = cells - cells.mean()
    for order in (1, 2):
        for own in itertools.combinations(range(cells.ndim), order):
            others = tuple(axis for axis in range(cells.ndim) if axis not in own)
            # Of what the main effects leave, an interaction is the mean.
            found[own] = rest.mean(axis=others, keepdims=True)
        rest = rest - sum(found[own] for own in found if len(own) == order)
    effects = []
    for own, part in found.items():
        factors = tuple(names[axis] for axis in own)
        noise = of_epochs if EPOCHS in factors else between
        effects.append(make_effect(factors, part, values.size, total, *noise))
    return Variance(
        levels,
        seeds,
        total,
        tuple(effects),
        share_of(float(np.sum(rest**2)) * seeds, total),
        share_of(float(np.sum(inside**2)), total),
        *between,
    )


def noise_of(
    residuals: np.ndarray, names: Sequence[str]
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Noise of a run as trials differ, and as the epochs of one trial do.

    Epochs that are read off one trial share its luck, so what is compared between
    trials is known less well than the number of rows says (a split plot: Montgomery
    2017, chapter 14). Without that axis both are the same.

    Args:
        residuals: (levels of the first factor, ..., seeds), less the cells' means and
            what a seed does to all cells.
        names: of the factors.

    Returns:
        Twice the standard deviation, nan with one seed, and its degrees of freedom.
    """
    trials, more = residuals[..., 0].size, residuals.shape[-1] - 1
    if EPOCHS not in names:
        both = deviation(residuals, (trials - 1) * more)
        return both, both
    axis = names.index(EPOCHS)
    count = residuals.shape[axis]
    shared = residuals.mean(axis=axis, keepdims=True)
    trials //= count
    between = deviation(shared * math.sqrt(count), (trials - 1) * more)
    return between, deviation(residuals - shared, trials * (count - 1) * more)


def deviation(residuals: np.ndarray, dof: int) -> tuple[float, int]:
    """Standard deviation, nan where nothing is left to estimate it from, and `dof`."""
    return (math.sqrt(np.sum(residuals**2) / dof) if dof else math.nan), dof


def share_of(squares: float, total: float) -> float:
    """Of the total; 0 where nothing varies."""
    return squares / total if total > 0 else 0.0


def make_effect(
    factors: tuple[str, ...],
    part: np.ndarray,
    runs: int,
    total: float,
    noise: float,
    dof: int,
) -> Effect:
    """One line of the analysis.

    Args:
        factors: columns.
        part: the effect at every value, or pair of values, of the factors.
        runs: of the grid.
        total: sum of squares.
        noise: standard deviation of a run; nan if it is not known.
        dof: of the noise.
    """
    own = math.prod(size - 1 for size in part.shape if size > 1)
    squares = float(np.sum(part**2)) * runs / part.size
    probability = math.nan
    if dof:
        by_noise = own * noise**2
        ratio = squares / by_noise if by_noise > 0 else math.inf
        probability = f_survival(ratio, own, dof) if squares > 0 else 1.0
    spread = stderr = math.nan
    interval = None
    if len(factors) == 1:
        spread = float(part.max() - part.min())
        stderr = noise * math.sqrt(2 * part.size / runs)
        if dof:
            half = student_t_quantile(0.975, dof) * stderr
            interval = max(spread - half, 0.0), spread + half
    return Effect(
        factors,
        own,
        squares,
        share_of(squares, total),
        math.sqrt(squares / runs),
        noise * math.sqrt(own / runs),
        probability,
        spread,
        stderr,
        interval,
    )


def axis_effects(results: pd.DataFrame) -> Effects | None:
    """The analysis of a run: of depth, policy and every axis that was varied.

    Args:
        results: as in results.csv, rows that are not done included: they say what was
            asked for. Several epochs of one trial are an axis as others.

    Returns:
        None where no axis was varied.
    """
    axes = varied_columns(results, [axis.name for axis in AXES])
    if not axes:
        return None
    basic = varied_columns(results, [*TITLES][:2])
    settings = results[list(axes)].drop_duplicates()
    if len(settings) == math.prod(results[name].nunique() for name in axes):
        designs = [((*basic, *axes), results)]
    else:
        designs = [
            ((*basic, axis), results.loc[rows]) for axis, rows in star(results, axes)
        ]
        if not designs:
            reason = (
                "the settings that were tried are no complete grid (a search "
                "chose them), so effects cannot be told apart"
            )
            return Effects(reason=reason)
    grids = []
    for factors, rows in designs:
        made = make_grid(rows, factors)
        if isinstance(made, str):
            return Effects(reason=made)
        grids.append(decompose(*made))
    one_by_one = len(grids) > 1
    sentence = say_ranges(grids) if one_by_one else say_shares(grids[0])
    return Effects(tuple(grids), one_by_one, sentence=sentence)


def varied_columns(results: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Those with several values, less those that follow from one before them."""
    found: list[str] = []
    for name in names:
        if name not in results or results[name].nunique() < 2:
            continue
        pairs = (results[[name, other]].drop_duplicates() for other in found)
        if all(len(pair) > pair.iloc[:, 1].nunique() for pair in pairs):
            found.append(name)
    return tuple(found)


def star(results: pd.DataFrame, axes: Sequence[str]) -> Iterator[tuple[str, pd.Index]]:
    """Of axes varied one at a time: each, and its rows with the others at the base."""
    settings = results[list(axes)].drop_duplicates()
    counts = [results[name].nunique() - 1 for name in axes]
    for base in settings.itertuples(index=False):
        other = settings.ne(pd.Series(base, index=list(axes)))
        if other.sum(axis=1).max() > 1 or len(settings) != 1 + sum(counts):
            continue
        for axis in axes:
            rest = [name for name in axes if name != axis]
            fixed = (results[name] == getattr(base, name) for name in rest)
            yield axis, results.index[np.logical_and.reduce([*fixed])]
        return


def make_grid(
    rows: pd.DataFrame, factors: Sequence[str]
) -> tuple[np.ndarray, dict[str, tuple[Any, ...]]] | str:
    """The finished runs as a grid, with the seeds that every cell has.

    Args:
        rows: as in results.csv.
        factors: columns.

    Returns:
        Values and levels as `decompose` takes them, or why there is no complete grid.
    """
    factors = list(factors)
    levels = {name: tuple(sorted(rows[name].unique().tolist())) for name in factors}
    done = pd.to_numeric(rows["val_accuracy"], errors="coerce").notna()
    if "status" in rows:
        done &= rows["status"] == "done"
    if "frozen_intact" in rows:
        done &= rows["frozen_intact"].astype(str).str.lower() != "false"
    table = rows[done].pivot_table("val_accuracy", factors, "seed")
    whole = math.prod(map(len, levels.values()))
    if len(table) < whole:
        return (
            f"{len(table)} of the {whole} cells of the grid were trained to the end, "
            "and effects can be told apart only in a complete one"
        )
    table = table.dropna(axis=1)
    if table.empty:
        return "no seed was trained in every cell of the grid"
    return table.to_numpy().reshape(*map(len, levels.values()), -1), levels


def say_shares(grid: Variance) -> str:
    """The most important factor of a complete grid."""
    first = grid.main[0]
    others = [f"{effect.title} {share(effect.share)}" for effect in grid.main[1:]]
    if grid.pairs:
        others.append(f"{grid.pairs[0].title} {share(grid.pairs[0].share)}")
    if grid.seeds > 1:
        others.append(f"seeds {share(grid.within)}")
    rest = f" ({', '.join(others)})" if others else ""
    return (
        f"{sentence_case(first.title)} matters most: {share(first.share)} of the "
        f"variance between runs{rest}; {say_range(first)} from its worst to its best "
        "value."
    )


def say_ranges(grids: Sequence[Variance]) -> str:
    """The most important one of the axes that were varied one at a time."""
    own = [
        next(effect for effect in grid.main if effect.factors == ([*grid.levels][-1],))
        for grid in grids
    ]
    first, *others = sorted(own, key=lambda effect: -effect.range)
    listed = ", ".join(f"{effect.title} {say_range(effect)}" for effect in others)
    return (
        f"Varied one at a time, {first.title} matters most: {say_range(first)} from "
        f"its worst to its best value ({listed})."
    )


def say_range(effect: Effect) -> str:
    """A main effect as '2.3 +- 0.4 points', one standard error."""
    error = f" +- {points(effect.stderr)}" if math.isfinite(effect.stderr) else ""
    return f"{points(effect.range)}{error} points"


def share(value: float) -> str:
    """A share of the variance: 0.614 -> '61 %', 0.001 -> '<1 %'."""
    if 0 < value < 0.005:
        return "<1 %"
    return f"{100 * value:.0f} %"


def sentence_case(text: str) -> str:
    """With a capital; L2 and BatchNorm stay as they are."""
    return text[:1].upper() + text[1:]
