"""What does a table of depths and accuracies say, and what did the paper's say?

    ftjax fit RESULTS.csv          fits, optimum, interval, sentence
    ftjax fit RESULTS.csv --out    also recommendation.json and fits.csv beside it
    ftjax fit RUN ... --general    the paper's equation (9) on one's own runs
    ftjax fit --paper              every published number, recomputed

RESULTS.csv is a sweep's table or anybody's: columns `depth` (or `depth_layers`),
`accuracy` on validation data (or `val_accuracy`), optional `seed`, `bn`,
`total_layers`, `seconds`, `flops`, ... Accuracies are fractions or percent. fits.csv
holds what every equation predicts for every row, with squared and absolute error.

Two CPU cores, 5 s for --paper: the paper's ResNet152 optimum 107 is 115 by its own
equation and 153 (128-185) by least squares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftjax.analysis.curves import clean_results
from ftjax.analysis.fit_errors import CurveFits, all_errors, curve_fits
from ftjax.analysis.quadratic_words import quadratic_words
from ftjax.analysis.recommend import Recommendation, recommend
from ftjax.analysis.results_file import (
    is_run,
    read_array,
    read_correct,
    read_results,
    read_table,
)
from ftjax.cli.console import guard, make_console, parse, refuse
from ftjax.paper.audit import audit_paper, verdict_counts
from ftjax.paper.general_equation import GeneralFit
from ftjax.paper.run_equation import (
    FORMS,
    coefficient,
    equation_sentences,
    equation_table,
    fit_equations,
)
from ftjax.paper.source import VERDICTS

COLORS = {"agrees": "green", "added": "cyan", "misleading": "yellow"}


@dataclass(frozen=True)
class Options:
    """Analyzes a table of depths and accuracies, or audits the depth paper."""

    results: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS.csv")
    ] = ()
    """CSV file: depth, accuracy, seed, bn, ...; or the folder of a run. Several with
    --general."""
    general: bool = False
    """Fit the depth paper's general equation (9): accuracy over depth, epochs and
    training images. Its gamma and delta are known where these vary within a run."""
    paper: bool = False
    """Audit the depth paper."""
    out: tuple[Path, ...] | None = None
    """Write recommendation.json and fits.csv: beside the table, or into the path given
    here."""
    total_layers: int | None = None
    """Layers of the whole network, for tables that do not say."""
    epsilon: float | None = None
    """Accuracy (0..1) that does not matter: a depth leaves the set only if it is worse
    by more. Default: none."""
    bootstrap: int = 2000
    """Bootstrap draws."""
    seed: int = 0
    """Seed of the draws."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax fit", description=__doc__)
    console = make_console()
    try:
        if options.paper == bool(options.results):
            raise ValueError("give either RESULTS.csv or --paper")
        if options.paper:
            show_paper(console, options.seed)
        elif options.general:
            show_general(console, options)
        else:
            analyze(console, only_table(options.results), options)
    except (ValueError, OSError) as error:
        return refuse(error)
    return 0


def analyze(console: Console, path: Path, options: Options) -> None:
    """Print fits and recommendation of a table; write JSON when asked.

    Raises:
        ValueError: the table cannot be read or compared.
    """
    target = out_file(path, options.out)
    table, notes = read_results(path, total_layers=options.total_layers)
    best = recommend_table(path, table, options)
    clean, _ = clean_results(table)
    curves = curve_fits(clean, best.total_layers, best.setting)
    for bn, curve in curves.items():
        title = f"{path.name}: validation accuracy over depth, bn {bn}"
        console.print(fits_table(title, curve, best.total_layers))
        fit = best.quadratic.get(bn)
        if fit is not None and "quadratic" in curve.fits:
            console.print(errors_table(curve, "quadratic", bn))
            own = curve.rows[curve.rows["equation"] == "quadratic"]
            line = quadratic_words(
                bn,
                fit,
                own["depth_layers"],
                own["val_accuracy"],
                draws=options.bootstrap,
                seed=options.seed,
                total=best.total_layers,
            )
            console.print(line, soft_wrap=True)
    for note in notes:
        console.print(f"Note: {note}", soft_wrap=True)
    for warning in best.warnings:
        console.print(f"Warning: {warning}", style="yellow", soft_wrap=True)
    for sentence in best.explanation:
        console.print(sentence, soft_wrap=True)
    console.print(best.sentence, style="bold", soft_wrap=True)
    if target is not None:
        from ftjax.machine.files import write_json  # starts JAX

        write_json(target, best.to_json())
        errors = target.with_name("fits.csv")
        all_errors(curves).to_csv(errors, index=False)
        console.print(f"Written: {target}, {errors}", soft_wrap=True)


def table_file(path: Path) -> Path:
    """The table itself, or that of the run in a folder."""
    return path / "results.csv" if path.is_dir() else path


def only_table(paths: Sequence[Path]) -> Path:
    """The one table to analyze.

    Raises:
        ValueError: there are several.
    """
    if len(paths) > 1:
        raise ValueError(
            f"one table is analyzed, not {len(paths)}: ftjax compare sets runs side by "
            "side, and --general fits one equation to all of them"
        )
    return table_file(paths[0])


def show_general(console: Console, options: Options) -> None:
    """Print the general equation's fits to one or several tables.

    Raises:
        ValueError: a table cannot be read or lacks a column.
    """
    if options.out is not None:
        raise ValueError("--out goes with one table, not with --general")
    tables = {}
    for path in map(table_file, options.results):
        name = path.parent.name if path.name == "results.csv" else path.stem
        name = str(path) if name in tables else name
        tables[name], notes = read_results(path, total_layers=options.total_layers)
        for note in notes:
            console.print(f"Note: {name}: {note}", soft_wrap=True)
    table = equation_table(tables)
    fits = fit_equations(table)
    console.print(equation_fits(fits, len(table)))
    for sentence in equation_sentences(fits):
        console.print(sentence, soft_wrap=True)


def equation_fits(fits: Mapping[str, GeneralFit], num_rows: int) -> Table:
    """Rich table of all forms: coefficients with standard errors, and quality."""
    table = Table(
        title=f"Equation (9) of Philip 2025 on {num_rows} rows: accuracy (0..1) = "
        "alpha + depth term + gamma log epochs + delta log images"
    )
    table.add_column("depth term")
    names = ("kappa", "beta", "gamma", "delta")
    for name in (*names, "R² within", "AICc"):
        table.add_column(name, justify="right")
    for form, fit in fits.items():
        found = (coefficient(fit, name) for name in names)
        cells = ("-" if c is None else f"{c[0]:.3g} ± {c[1]:.2g}" for c in found)
        quality = _number(fit.r_squared_within, 3), _number(fit.aicc, 2)
        table.add_row(f"{form}: {FORMS[form]}", *cells, *quality)
    return table


def out_file(path: Path, out: tuple[Path, ...] | None) -> Path | None:
    """Where --out wants the recommendation; None without it."""
    if out is None:
        return None
    if len(out) > 1:
        raise ValueError(f"--out takes one path, not {len(out)}")
    target = out[0] if out else path.parent
    return target if target.suffix == ".json" else target / "recommendation.json"


def recommend_table(
    path: Path, table: pd.DataFrame, options: Options
) -> Recommendation:
    """The recommendation of a table; of a run's own, with what its folder knows."""
    settings = dict(
        epsilon=options.epsilon, bootstrap=options.bootstrap, seed=options.seed
    )
    if is_run(path):
        from ftjax.report.answer import recommend_run  # starts JAX

        return recommend_run(path.parent, table, **settings)
    trials = table["trial"].astype(str).unique() if "trial" in table else []
    return recommend(
        table,
        read_correct(path, trials),
        epochs=read_table(path.parent / "epochs.csv"),
        labels=read_array(path.parent / "val_labels.npy"),
        **settings,
    )


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def fits_table(title: str, curve: CurveFits, total_layers: int) -> Table:
    """Rich table of all shapes fitted to one curve."""
    table = Table(title=title)
    names = "shape", "parameters", "R^2", "AICc", "leave-one-out", "MSE", "MAE"
    for name in (*names, "optimum"):
        table.add_column(name, justify="left" if name == "shape" else "right")
    for fit in curve.fits.values():
        mse, mae = curve.means.loc[fit.shape]
        table.add_row(
            fit.shape,
            str(fit.num_params),
            _number(fit.r_squared, 3),
            _number(fit.aicc, 2),
            _number(fit.loo_rmse, 4),
            _number(mse, 6),
            _number(mae, 4),
            f"{fit.optimum} ({100 * fit.optimum / max(total_layers, 1):.0f} %)",
        )
    return table


def errors_table(curve: CurveFits, shape: str, bn: str) -> Table:
    """Rich table of one equation against every measured row, as the paper's."""
    table = Table(title=f"Measured and predicted by the {shape} fit, bn {bn}")
    names = "depth", "measured", "predicted", "squared error", "absolute error"
    for name in names:
        table.add_column(name, justify="right")
    own = curve.rows[curve.rows["equation"] == shape]
    for row in own.itertuples():
        numbers = (row.val_accuracy, 4), (row.predicted, 4), (row.squared_error, 6)
        cells = (_number(float(value), digits) for value, digits in numbers)
        error = _number(float(row.absolute_error), 4)
        table.add_row(f"{row.depth_layers}", *cells, error)
    mse, mae = curve.means.loc[shape]
    table.add_section()
    table.add_row("MSE, MAE", "", "", _number(mse, 6), _number(mae, 4))
    return table


def show_paper(console: Console, seed: int) -> None:
    """Print published, recomputed and verdict of every number of the depth paper."""
    checks = audit_paper(seed=seed)
    table = Table(title="Philip 2025, Fine-Tuning Depth Analysis", show_lines=True)
    for name, ratio in (("item", 3), ("published", 2), ("recomputed", 5)):
        table.add_column(name, ratio=ratio)
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        color = COLORS.get(check.verdict, "red")
        table.add_row(*check[:3], Text(check.verdict, style=color))
    console.print(table)
    counts = verdict_counts(checks)
    for verdict, meaning in VERDICTS.items():
        console.print(
            f"{counts.get(verdict, 0):3d} {verdict}: {meaning}", soft_wrap=True
        )
