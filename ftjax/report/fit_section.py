"""The section of the fitted equations: the columns of the paper's tables 6 to 8."""

import math

from ftjax.analysis.curves import clean_results
from ftjax.analysis.fit_errors import CurveFits, curve_fits
from ftjax.report.sections import Block, Report, Section
from ftjax.report.tables import MISSING, Cell, Table

PARABOLA = "quadratic"  # the paper's equation
ABOUT_FITS = (
    "Least squares over all seeds. MSE and MAE are means of the squared and of the "
    "absolute error over the measured rows (fractions of 1); the more parameters, the "
    "smaller they are, so equations are compared by AICc. What the other equations "
    "predict for every row: ftjax fit RUN --out writes fits.csv."
)


def fitted_curves(report: Report) -> Section | None:
    """Equations, their errors, and the parabola's prediction for every row."""
    if report.best is None or len(report.best.tested) < 3:
        return None
    table, _ = clean_results(report.results)
    curves = curve_fits(table, report.best.total_layers, report.best.setting)
    blocks = []
    for bn, curve in curves.items():
        blocks.append(Block("grid", equations(bn, curve), f"equations-{bn}"))
        if PARABOLA in curve.fits:
            blocks.append(Block("grid", predictions(bn, curve), f"predicted-{bn}"))
    shown = (*blocks, Block("small", ABOUT_FITS))
    title = "Equations fitted to the curve, with predicted values and errors"
    return Section("Fitted curves", (Block("details", shown, title),))


def equations(bn: str, curve: CurveFits) -> Table:
    """A row for each equation."""
    rows = []
    for shape, fit in curve.fits.items():
        mse, mae = curve.means.loc[shape]
        cells = (
            Cell(shape),
            Cell(str(fit.num_params)),
            Cell(_number(fit.r_squared, ".3f")),
            Cell(_number(fit.aicc, ".2f")),
            Cell(_number(mse, ".6f")),
            Cell(_number(mae, ".4f")),
            Cell(str(fit.optimum)),
        )
        rows.append(("", cells))
    columns = "Equation", "Parameters", "R²", "AICc", "MSE", "MAE", "Optimum (layers)"
    return Table(f"Equations of the curve, BatchNorm {bn}", columns, tuple(rows))


def predictions(bn: str, curve: CurveFits) -> Table:
    """A row for each measured value: what the parabola predicts, and its errors."""
    own = curve.rows[curve.rows["equation"] == PARABOLA]
    rows = [
        (
            "",
            (
                Cell(str(row.depth_layers)),
                Cell(_number(row.val_accuracy, ".4f")),
                Cell(_number(row.predicted, ".4f")),
                Cell(_number(row.squared_error, ".6f")),
                Cell(_number(row.absolute_error, ".4f")),
            ),
        )
        for row in own.itertuples()
    ]
    columns = "Layers", "Measured", "Predicted", "Squared error", "Absolute error"
    caption = f"Measured and predicted by the parabola, BatchNorm {bn}"
    return Table(caption, columns, tuple(rows))


def _number(value, digits: str) -> str:
    return format(value, digits) if math.isfinite(value) else MISSING
