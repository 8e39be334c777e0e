"""What do several runs say together, and what does one rule for all cost?

    ftjax compare runs/mine runs/food runs/dogs
    ftjax compare runs/*-lite0 runs/*-lite1 --metric accuracy --out runs/networks

Every run is a folder of a sweep; networks and data may differ. Depths are compared by
their share of the layers. The rule is the depth paper's: unfreeze the top 20 to 25 %.
Writes compare.csv, compare.png and .svg, and compare.html, which needs nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ftjax.cli.console import guard, make_console, parse, refuse


@dataclass(frozen=True)
class Options:
    """Several finished sweeps side by side."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")
    ]
    """Folders that --out of the sweeps named."""
    metric: (
        Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"] | None
    ) = None
    """What is compared. Default: what each run was judged by."""
    out: Path = Path("runs/compare")
    """Folder of the table, the figure and the page."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax compare", description=__doc__)
    console = make_console()
    try:
        check(options)
        # JAX starts here, so that a wrong folder is answered at once.
        from ftjax.analysis.runs import check_comparable, comparison_sentences
        from ftjax.report.comparison import read_runs, write_comparison

        runs = read_runs(options.runs, metric=options.metric)
        check_comparable(runs)
        page = write_comparison(options.out, runs)
    except (ValueError, OSError) as error:
        return refuse(error)
    console.print(run_table(page.table))
    for note in page.notes:
        console.print(f"Note: {note}", style="yellow", soft_wrap=True)
    for sentence in comparison_sentences(runs):
        console.print(sentence, style="bold", soft_wrap=True)
    print_files(console, options.out)
    return 0


def check(options: Options) -> None:
    """Raises ValueError if a folder is no sweep's, or there is nothing to compare."""
    for folder in options.runs:
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} holds no sweep (no config.json in it); give the --out "
                "folders of sweeps"
            )
        if not (folder / "results.csv").is_file():
            raise ValueError(f"{folder} has no results.csv yet: no trial is finished")
    if len({folder.resolve() for folder in options.runs}) < 2:
        raise ValueError("one run is nothing to compare: give two or more folders")


def run_table(table) -> Table:
    """The page's table for the terminal."""
    shown = Table(title=table.caption)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number < 2 else "right")
    for _, cells in table.rows:
        shown.add_row(*(cell.text for cell in cells))
    return shown


def print_files(console: Console, folder: Path) -> None:
    """Where everything is."""
    console.print(
        f"compare.csv, compare.png, compare.svg and compare.html are in {folder}",
        soft_wrap=True,
    )
