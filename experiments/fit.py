"""What does a table of depths and accuracies say, and what did the paper's say?

    python -m experiments.fit RESULTS.csv          fits, optimum, interval, sentence
    python -m experiments.fit RESULTS.csv --out    also recommendation.json beside it
    python -m experiments.fit --paper              every published number, recomputed

RESULTS.csv is a sweep's table or anybody's: columns `depth` (or `depth_layers`),
`accuracy` on validation data (or `val_accuracy`), optional `seed`, `bn`,
`total_layers`, `seconds`, `flops`, ... Accuracies are fractions or percent.

Two CPU cores, 5 s for --paper: the paper's ResNet152 optimum 107 is 115 by its own
equation and 153 (128-185) by least squares.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ftjax.analysis.bootstrap import bootstrap_quadratic_optimum
from ftjax.analysis.curves import clean_results
from ftjax.analysis.fits import FiellerInterval, QuadraticFit, fit_all
from ftjax.analysis.recommend import Recommendation, recommend
from ftjax.analysis.rows import check_units
from ftjax.paper.audit import audit_paper, verdict_counts
from ftjax.paper.source import VERDICTS

COLORS = {"agrees": "green", "added": "cyan", "misleading": "yellow"}


def read_results(
    path: Path, *, total_layers: int | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read anybody's table and give it this project's column names.

    Args:
        path: CSV file. total_layers: layers of the whole network, for tables that do
            not say.

    Returns:
        The table and sentences about what was assumed.

    Raises:
        ValueError: no such file, no table in it, or a column is missing or not numeric.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise ValueError(f"no file {path}: give the path of a results.csv") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read {path} as CSV: {reason}") from None
    notes = []
    table.columns = [str(column).strip() for column in table.columns]
    for name, other in (("depth_layers", "depth"), ("val_accuracy", "accuracy")):
        if name not in table and other not in table:
            raise ValueError(
                f"{path} has no column {name} or {other}; "
                f"found: {', '.join(table.columns)}"
            )
        if name not in table:
            table = table.rename(columns={other: name})
            notes.append(f"Column {other} is read as {name}.")
        # Failed trials may have gaps; text is a mistake worth naming.
        numbers = pd.to_numeric(table[name], errors="coerce")
        text = table[name][table[name].notna() & numbers.isna()].tolist()
        if text:
            raise ValueError(
                f"{path}: column {name} holds {text[0]!r}, which is no number"
            )
        table[name] = numbers
    check_units(table["val_accuracy"].to_numpy(float))
    highest = float(table["val_accuracy"].max())
    if 1 < highest <= 100:
        for name in ("val_accuracy", "accuracy", "train_mode_accuracy"):
            if name in table:
                table[name] = table[name] / 100
        notes.append(f"Accuracies up to {highest:g} are read as percent.")
    if total_layers is not None:
        table["total_layers"] = total_layers
    return table, notes


def read_correct(path: Path, trials: Sequence[str]) -> dict[str, np.ndarray]:
    """Per-image results beside the table: trials/<trial>/val_correct.npy.

    (n_val,) bool, or (epochs, n_val), of which the last epoch is taken.
    """
    found = {}
    for trial in trials:
        file = path.parent / "trials" / trial / "val_correct.npy"
        if file.is_file():
            right = np.load(file, allow_pickle=False)
            found[trial] = right[-1] if right.ndim == 2 else right
    return found


def is_run(path: Path) -> bool:
    """Whether a table is a sweep's own, in the folder of the run."""
    file = path.parent / "config.json"
    if path.name != "results.csv" or not file.is_file():
        return False
    try:
        saved = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {"config", "class_names"} <= saved.keys()


def recommend_table(
    path: Path, table: pd.DataFrame, options: argparse.Namespace
) -> Recommendation:
    """The recommendation of a table; of a run's own, with what its folder knows."""
    settings = dict(
        epsilon=options.epsilon, bootstrap=options.bootstrap, seed=options.seed
    )
    if is_run(path):
        from ftjax.report.answer import recommend_run

        return recommend_run(path.parent, table, **settings)
    trials = table["trial"].astype(str).unique() if "trial" in table else []
    return recommend(
        table,
        read_correct(path, trials),
        epochs=read_table(path.parent / "epochs.csv"),
        labels=read_array(path.parent / "val_labels.npy"),
        **settings,
    )


def read_table(path: Path) -> pd.DataFrame | None:
    """A table beside the one that is analyzed, or None."""
    return pd.read_csv(path) if path.is_file() else None


def read_array(path: Path) -> np.ndarray | None:
    """An array beside the table that is analyzed, or None."""
    return np.load(path, allow_pickle=False) if path.is_file() else None


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def fits_table(title: str, depth, accuracy, total_layers: int) -> Table:
    """Rich table of all shapes fitted to one curve."""
    table = Table(title=title)
    for name in ("shape", "parameters", "R^2", "AICc", "leave-one-out", "optimum"):
        table.add_column(name, justify="left" if name == "shape" else "right")
    for fit in fit_all(depth, accuracy, total_layers=total_layers).values():
        table.add_row(
            fit.shape,
            str(fit.num_params),
            _number(fit.r_squared, 3),
            _number(fit.aicc, 2),
            _number(fit.loo_rmse, 4),
            f"{fit.optimum} ({100 * fit.optimum / max(total_layers, 1):.0f} %)",
        )
    return table


def _fieller_words(fieller: FiellerInterval) -> str:
    if fieller.kind == "everything":
        return "unbounded"
    span = f"{fieller.low:.1f} to {fieller.high:.1f}"
    return span if fieller.kind == "interval" else f"all but {span}"


def quadratic_words(
    bn: str, fit: QuadraticFit, depth, accuracy, *, draws: int, seed: int, total: int
) -> str:
    """One line about the parabola of one curve: optimum and three intervals."""
    kind = "maximum" if fit.is_maximum else "minimum"
    low, high = fit.vertex_interval
    text = (
        f"Parabola ({bn}): optimum {fit.optimum} on 0..{total}; {kind} at "
        f"{fit.vertex:.1f}, delta method {low:.1f} to {high:.1f}, Fieller "
        f"{_fieller_words(fit.vertex_fieller)}"
    )
    if fit.num_points > 3:
        optima = bootstrap_quadratic_optimum(
            depth, accuracy, total_layers=total, draws=draws, seed=seed
        )
        low, high = np.quantile(optima, [0.025, 0.975], method="inverted_cdf")
        text += f", bootstrap of residuals {low} to {high}"
    return text + "."


def analyze(console: Console, options: argparse.Namespace) -> None:
    """Print fits and recommendation of a table; write JSON when asked.

    Raises:
        ValueError: the table cannot be read or compared.
    """
    path = Path(options.results)
    table, notes = read_results(path, total_layers=options.total_layers)
    best = recommend_table(path, table, options)
    clean, _ = clean_results(table)
    for bn, rows in clean.groupby("bn", sort=False):
        depth, accuracy = rows["depth_layers"], rows["val_accuracy"]
        title = f"{path.name}: validation accuracy over depth, bn {bn}"
        console.print(fits_table(title, depth, accuracy, best.total_layers))
        fit = best.quadratic.get(str(bn))
        if fit is not None:
            line = quadratic_words(
                str(bn),
                fit,
                depth,
                accuracy,
                draws=options.bootstrap,
                seed=options.seed,
                total=best.total_layers,
            )
            console.print(line, highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f"Note: {note}", highlight=False, soft_wrap=True)
    for warning in best.warnings:
        console.print(
            f"[yellow]Warning:[/yellow] {warning}", highlight=False, soft_wrap=True
        )
    for sentence in best.explanation:
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"[bold]{best.sentence}[/bold]", highlight=False, soft_wrap=True)
    if options.out is not None:
        target = path.parent if options.out == "" else Path(options.out)
        file = target if target.suffix == ".json" else target / "recommendation.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(best.to_json(), indent=1) + "\n", encoding="utf-8")
        console.print(f"Written: {file}", highlight=False, soft_wrap=True)


def show_paper(console: Console, options: argparse.Namespace) -> None:
    """Print published, recomputed and verdict of every number of the depth paper."""
    checks = audit_paper(seed=options.seed)
    table = Table(title="Philip 2025, Fine-Tuning Depth Analysis", show_lines=True)
    for name, ratio in (("item", 3), ("published", 2), ("recomputed", 5)):
        table.add_column(name, ratio=ratio)
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        color = COLORS.get(check.verdict, "red")
        table.add_row(*check[:3], f"[{color}]{check.verdict}[/{color}]")
    console.print(table)
    counts = verdict_counts(checks)
    for verdict, meaning in VERDICTS.items():
        console.print(
            f"{counts.get(verdict, 0):3d} {verdict}: {meaning}", soft_wrap=True
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.fit",
        description="Analyze a table of depths and accuracies, or audit the paper.",
    )
    parser.add_argument(
        "results", nargs="?", help="CSV: depth, accuracy, seed, bn, ..."
    )
    parser.add_argument("--paper", action="store_true", help="audit the depth paper")
    parser.add_argument(
        "--out",
        nargs="?",
        const="",
        metavar="PATH",
        help="write recommendation.json: beside the table, or into PATH",
    )
    parser.add_argument("--total-layers", type=int, help="layers of the whole network")
    parser.add_argument(
        "--epsilon",
        type=float,
        help="accuracy (0..1) that does not matter: a depth leaves the set only if it "
        "is worse by more; default: none",
    )
    parser.add_argument("--bootstrap", type=int, default=2000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 with one line on bad input."""
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a pipe has no width; 80 breaks the table
    if options.paper == (options.results is not None):
        print("error: give either RESULTS.csv or --paper", file=sys.stderr)
        return 2
    try:
        (show_paper if options.paper else analyze)(console, options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
