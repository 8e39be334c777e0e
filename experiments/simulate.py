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

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ftjax.search.simulate import NOISES, SHAPES, Sweep, simulate

LOG_WIDTH = 120  # columns; a terminal has its own


def unit_costs(model: str, kind: str, *, size: int, epochs: int = 5) -> list[float]:
    """FLOPs of one image in a trial at each candidate depth, frozen part cached.

    Args:
        model: of `backbones`. kind: `units` or `layers`, as for --depths.
        size: height and width of the images, in pixels.
    """
    from ftjax.backbones import make_backbone
    from ftjax.backbones.backbone import with_head
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
