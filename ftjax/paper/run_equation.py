"""The general equation of Philip 2025 on tables of one's own.

The paper's experiments have one number of epochs and one training size each, so its
gamma and delta cannot be told from the intercepts. They can where a run varies them.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ftjax.analysis.tuning import tuned_rows
from ftjax.paper.general_equation import (
    SCALE_TERMS,
    GeneralFit,
    fit_general_equation,
)

# The forms of `general_equation`, as they are written in a table.
FORMS = {
    "published": "-beta L²/N",
    "A": "kappa L - beta L²/N",
    "B": "kappa L/N - beta (L/N)²",
    "C": "kappa L/N - beta L²/N",
    "D": "kappa log(1+L) - beta L/N",
}
EFFECTS = {"gamma": "epochs", "delta": "training images"}


def equation_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Finished rows of several runs with the columns of `fit_general_equation`.

    An experiment is a run under one BatchNorm policy. Where other settings vary, each
    depth has its best one, at every number of epochs and every training size.

    Args:
        tables: name -> rows as in results.csv.

    Raises:
        ValueError: a table has no finished row, or does not say how many layers the
            network has or how long was trained.
    """
    frames = []
    for name, table in tables.items():
        needed = ("depth_layers", "val_accuracy", "total_layers", "epochs")
        missing = [column for column in needed if column not in table]
        if missing:
            raise ValueError(f"{name} lacks {', '.join(missing)} for the equation")
        done = table[np.isfinite(table["val_accuracy"].to_numpy(float))]
        if "status" in done:
            done = done[done["status"] == "done"]
        if done.empty:
            raise ValueError(f"{name} has no finished row")
        scales = [column for column in ("epochs", "train_size") if column in done]
        cells = [tuned_rows(rows) for _, rows in done.groupby(scales, dropna=False)]
        rows = pd.concat(cells)
        policies = rows["bn"].astype(str) if "bn" in rows else pd.Series("", rows.index)
        several = policies.nunique() > 1
        frames.append(
            pd.DataFrame(
                {
                    "experiment": name + (" " + policies if several else ""),
                    "depth_layers": rows["depth_layers"],
                    "total_layers": rows["total_layers"],
                    "accuracy": rows["val_accuracy"],
                    **{scale: rows[scale] for scale in scales},
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def fit_equations(table: pd.DataFrame) -> dict[str, GeneralFit]:
    """The published form and its repairs, one intercept per experiment.

    gamma and delta are in it where the column is there for all rows; whether the data
    identify them is told by each fit.

    Args:
        table: of `equation_table`.
    """
    scales = tuple(
        name
        for name in EFFECTS
        if SCALE_TERMS[name] in table and table[SCALE_TERMS[name]].notna().all()
    )
    return {
        form: fit_general_equation(table, form=form, scales=scales) for form in FORMS
    }


def coefficient(fit: GeneralFit, name: str) -> tuple[float, float] | None:
    """A coefficient and its standard error; None where the data do not identify it."""
    if name not in fit.identifiable:
        return None
    at = fit.names.index(name)
    return float(fit.coef[at]), float(fit.stderr[at])


def equation_sentences(fits: Mapping[str, GeneralFit]) -> tuple[str, ...]:
    """What the fits say: the effect of epochs and images, the best form, the notes."""
    best = min(fits, key=lambda form: fits[form].aicc)
    fit = fits[best]
    sentences = []
    for name, words in EFFECTS.items():
        found = coefficient(fit, name)
        if found is None:
            sentences.append(
                f"{name} is not identified: no run varies the {words}, so their effect "
                "cannot be told from the intercepts."
            )
            continue
        gain, error = (100 * math.log(2) * value for value in found)
        sentences.append(
            f"Twice the {words} add {gain:.1f} ± {error:.1f} points "
            f"({name} {found[0]:.4f} ± {found[1]:.4f})."
        )
    optima = ", ".join(f"{name} {depth}" for name, depth in fit.optimum.items())
    where = f"; its optima: {optima}" if optima else ""
    shown = "the published form" if best == "published" else f"form {best}"
    sentences.append(
        f"By AICc {shown} fits best, R² within experiments "
        f"{fit.r_squared_within:.2f}{where}."
    )
    sentences += fits["published"].notes[:1]
    return (
        *sentences,
        "Errors are those of least squares, which takes rows of one training (epochs "
        "read off its way) for independent ones.",
    )
