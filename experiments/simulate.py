"""Does a search with few trials find the depth that a full grid finds?

    python -m experiments.simulate                   200 sweeps of each kind
    python -m experiments.simulate --sweeps 20 --first 1000    other curves

Plants curves of known shape, adds noise, and lets `search.next_depths` choose the
trials. Printed per shape and noise: how often the search's interval (97 % of its
posterior) holds a planted optimum, how much of the axis it takes, the accuracy lost to
the optimum (regret) by the search and by the full grid, which names its highest
measurement, and the trials and FLOPs of the search over the grid's.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ftjax.analysis.decision import Decision
from ftjax.search.depths import next_depths

SHAPES = ("plateau", "unimodal", "monotone", "steps")
NOISES = (0.003, 0.005, 0.007)  # accuracy of one trial, standard deviation
LOG_WIDTH = 120  # columns; a terminal has its own
NARROWEST = 0.12  # share of the depth axis that a planted step takes at least


class Sweep(NamedTuple):
    """One simulated search beside the full grid on the same planted curve.

    covered: whether the interval holds a planted optimum. regret, grid_regret:
    accuracy below the planted optimum of the depth named by the search and by the
    highest measurement of the full grid. trials: of the search. cost: of the search
    over the grid's. width: of the interval as a share of the depth axis.
    """

    covered: bool
    regret: float
    grid_regret: float
    trials: int
    cost: float
    width: float


def planted_curve(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """True accuracies (size,) of a shape, of random height and place.

    Heights are 3 to 8 points; the plateau begins, and the peak lies, between 15 and 85
    percent of the axis; monotone curves saturate, upwards or downwards; steps are four,
    of random order, the highest never first.

    Raises:
        ValueError: unknown shape.
    """
    x = np.linspace(0, 1, size)
    height, place = rng.uniform(0.03, 0.08), rng.uniform(0.15, 0.85)
    if shape == "plateau":
        return 0.85 + height * np.minimum(x / place, 1)
    if shape == "unimodal":
        sides = np.where(x < place, place, 1 - place)
        steep = np.where(x < place, 1, rng.uniform(0.3, 1))
        return 0.85 + height * (1 - steep * ((x - place) / sides) ** 2)
    if shape == "monotone":
        rise = 0.85 + height * (1 - np.exp(-3 * x))
        return rise if rng.random() < 0.5 else rise[::-1]
    if shape == "steps":
        spare = np.sort(rng.uniform(0, 1 - 4 * NARROWEST, 3))
        edges = spare + NARROWEST * np.arange(1, 4)
        levels = np.concatenate([[0], rng.permutation([0.35, 0.6, 1])])
        return 0.85 + height * levels[np.searchsorted(edges, x)]
    raise ValueError(f"unknown shape {shape!r}: choose from {', '.join(SHAPES)}")


def search_curve(
    truth: np.ndarray, noise: np.ndarray, *, max_trials: int | None = None
) -> tuple[Decision, pd.DataFrame]:
    """Run the search on a planted curve to its end.

    Args:
        truth: (m,) true accuracy by depth. noise: (m, s) of each depth and seed.

    Returns:
        The last decision and the table of trials.
    """
    depths = range(len(truth))
    table = pd.DataFrame(columns=["depth_layers", "bn", "seed", "val_accuracy"])
    while True:
        decision = next_depths(
            table, depths, seeds=noise.shape[1], max_trials=max_trials
        )
        if decision.done:
            return decision, table
        rows = [
            {**trial._asdict(), "val_accuracy": truth[depth] + noise[depth, trial.seed]}
            for trial in decision.trials
            for depth in [trial.depth_layers]
        ]
        new = pd.DataFrame(rows)
        table = new if table.empty else pd.concat([table, new], ignore_index=True)


def simulate(
    shape: str, sigma: float, costs: Sequence[float], *, seeds: int, number: int
) -> Sweep:
    """One sweep; `number` seeds its curve and its noise.

    Args:
        costs: (m,) of one trial at each candidate depth.
    """
    size = len(costs)
    rng = np.random.default_rng([number, round(1e5 * sigma), SHAPES.index(shape)])
    truth = planted_curve(shape, size, rng)
    # A seed moves all depths together as well, by as much as its own noise.
    noise = rng.normal(0, sigma, (size, seeds)) + rng.normal(0, sigma, seeds)
    decision, table = search_curve(truth, noise)
    assert decision.best is not None and decision.interval is not None
    optima = np.flatnonzero(truth >= truth.max() - 1e-12)
    low, high = decision.interval
    named = int(np.argmax(truth + noise.mean(axis=1)))
    return Sweep(
        covered=bool(np.any((optima >= low) & (optima <= high))),
        regret=float(truth.max() - truth[decision.best[0]]),
        grid_regret=float(truth.max() - truth[named]),
        trials=len(table),
        cost=float(np.asarray(costs)[table["depth_layers"].astype(int)].sum())
        / float(np.sum(costs) * seeds),
        width=(high - low) / (size - 1),
    )


def unit_costs(model: str, kind: str, *, size: int, epochs: int = 5) -> list[float]:
    """FLOPs of one image in a trial at each candidate depth, frozen part cached.

    Args:
        model: of `backbones`. kind: `units` or `layers`, as for --depths.
        size: height and width of the images, in pixels.
    """
    from ftjax.backbones import make_backbone
    from ftjax.backbones.heads import with_head
    from ftjax.depth import make_cut, parse_depths
    from ftjax.sweep.cost import measure_cost, trial_flops

    backbone = make_backbone(model)
    network = with_head(backbone, 10)
    cost = measure_cost(network, size)
    cuts = [make_cut(network, depth) for depth in parse_depths(backbone, (kind,))]
    return [
        trial_flops(
            cut,
            cost,
            boundary=cut.unit,
            epochs=epochs,
            steps=1,
            batch_size=1,
            evaluated=1,
        ).total
        for cut in cuts
    ]


GRIDS = (
    ("effnetb0, layers, 1 seed", "effnetb0", "layers", 1),
    ("effnetb0, layers, 3 seeds", "effnetb0", "layers", 3),
    ("effnetlite0, units, 1 seed", "effnetlite0", "units", 1),
    ("effnetlite0, units, 3 seeds", "effnetlite0", "units", 3),
)


def add_row(table: Table, shape: str, sigma: float, grid: int, sweeps: list[Sweep]):
    """One line of the printed table; regrets in points with their standard errors."""
    columns = {
        name: np.array(values)
        for name, values in zip(Sweep._fields, zip(*sweeps, strict=True), strict=True)
    }

    columns["worse"] = columns["regret"] - columns["grid_regret"]

    def points(name: str) -> str:
        stderr = columns[name].std() / np.sqrt(len(sweeps))
        return f"{100 * columns[name].mean():.2f} ± {100 * stderr:.2f}"

    trials = columns["trials"].mean()
    table.add_row(
        shape,
        f"{100 * sigma:.1f}",
        f"{100 * columns['covered'].mean():.1f} %",
        f"{100 * columns['width'].mean():.0f} %",
        points("regret"),
        points("grid_regret"),
        points("worse"),
        f"{trials:.1f}",
        f"{100 * trials / grid:.0f} %",
        f"{100 * columns['cost'].mean():.0f} %",
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sweeps", type=int, default=200, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--grids", type=int, nargs="*", default=range(len(GRIDS)))
    options = parser.parse_args(arguments)
    if options.sweeps < 1 or options.first < 0:
        print("error: --sweeps must be 1 or more, --first 0 or more", file=sys.stderr)
        return 2
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    for name, model, kind, seeds in (GRIDS[index] for index in options.grids):
        costs = unit_costs(model, kind, size=96)
        table = Table(title=f"{name}: full grid of {len(costs) * seeds} trials")
        for column in (
            "shape",
            "noise",
            "covered",
            "width",
            "regret",
            "grid's regret",
            "difference",
            "trials",
            "of the grid",
            "FLOPs",
        ):
            table.add_column(column, justify="left" if column == "shape" else "right")
        for shape in SHAPES:
            for sigma in NOISES:
                numbers = range(options.first, options.first + options.sweeps)
                if console.is_terminal:
                    numbers = track(numbers, f"{shape} {sigma}", transient=True)
                sweeps = [
                    simulate(shape, sigma, costs, seeds=seeds, number=number)
                    for number in numbers
                ]
                add_row(table, shape, sigma, len(costs) * seeds, sweeps)
        console.print(table)
        console.print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
