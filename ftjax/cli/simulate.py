"""Does a search with few trials find the depth that a full grid finds?

    ftjax simulate                   200 sweeps of each kind
    ftjax simulate --sweeps 20 --first 1000    other curves

Plants curves of known shape, adds noise, and lets `search.next_depths` choose the
trials. Printed per shape and noise: how often the search's interval (97 % of its
posterior) holds a planted optimum, how much of the axis it takes, the accuracy lost to
the optimum (regret) by the search and by the full grid, which names its highest
measurement, and the trials and FLOPs of the search over the grid's.
"""

from dataclasses import dataclass

import numpy as np
from rich.progress import track
from rich.table import Table

from ftjax.cli.console import make_console, parse, refuse
from ftjax.search.simulate import NOISES, SHAPES, Sweep, simulate

GRIDS = (
    ("effnetb0, layers, 1 seed", "effnetb0", "layers", 1),
    ("effnetb0, layers, 3 seeds", "effnetb0", "layers", 3),
    ("effnetlite0, units, 1 seed", "effnetlite0", "units", 1),
    ("effnetlite0, units, 3 seeds", "effnetlite0", "units", 3),
)
COLUMNS = (
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
)


@dataclass(frozen=True)
class Options:
    """Simulates searches beside full grids."""

    sweeps: int = 200
    """Of each kind."""
    first: int = 0
    """Number of the first sweep; it seeds curve and noise."""
    grids: tuple[int, ...] = tuple(range(len(GRIDS)))
    """Which tables, from 0."""


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
    options = parse(Options, arguments, prog="ftjax simulate", description=__doc__)
    try:
        check(options)
    except ValueError as error:
        return refuse(error)
    console = make_console()
    for name, model, kind, seeds in (GRIDS[index] for index in options.grids):
        costs = unit_costs(model, kind, size=96)
        table = Table(title=f"{name}: full grid of {len(costs) * seeds} trials")
        for column in COLUMNS:
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


def check(options: Options) -> None:
    """Raises ValueError if a number is out of range."""
    if options.sweeps < 1:
        raise ValueError(f"--sweeps {options.sweeps} is too small: 1 or more")
    if options.first < 0:
        raise ValueError(f"--first {options.first} is too small: 0 or more")
    wrong = [index for index in options.grids if not 0 <= index < len(GRIDS)]
    if wrong:
        raise ValueError(f"--grids {wrong[0]} is unknown: 0 to {len(GRIDS) - 1}")
