"""The "general equation" of Philip 2025 and what data can and cannot say about it.

Published (equations 9a, 9b), for L of N layers unfrozen, E epochs, S training
images and P parameters:

    y = alpha - beta L^2 / N + gamma log E (+ delta log S + rho log P)

L enters through -beta L^2 / N alone, so the curve falls from L = 0 on (beta > 0) or
rises up to L = N (beta < 0): it has no interior optimum whatever the data. A linear
term of opposite sign repairs it; four versions:

    A   + kappa L     - beta L^2 / N      optimum N kappa / (2 beta), a share of N
    B   + kappa L / N - beta (L / N)^2    the same, without units
    C   + kappa L / N - beta L^2 / N      optimum kappa / (2 beta), a number of layers
    D   + kappa log(1 + L) - beta L / N   optimum N kappa / beta - 1
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.stats.least_squares import corrected_aic, least_squares

# name -> ((coefficient, signed column of L and N), ...)
DEPTH_TERMS = {
    "none": (),
    "published": (("beta", lambda L, N: -L * L / N),),
    "A": (("kappa", lambda L, N: L), ("beta", lambda L, N: -L * L / N)),
    "B": (("kappa", lambda L, N: L / N), ("beta", lambda L, N: -((L / N) ** 2))),
    "C": (("kappa", lambda L, N: L / N), ("beta", lambda L, N: -L * L / N)),
    "D": (("kappa", lambda L, N: np.log1p(L)), ("beta", lambda L, N: -L / N)),
}
SCALE_TERMS = {"gamma": "epochs", "delta": "train_size", "rho": "parameters"}
INTERCEPTS = ("common", "experiment")


class GeneralFit(NamedTuple):
    """A pooled fit over several experiments.

    Attributes:
        names: of the p coefficients.
        coef: (p,), nan where the data cannot identify it.
        stderr: (p,), nan where the data cannot identify it.
        rank: of the (n, p) design.
        identifiable: names of coefficients that the data identify.
        unidentifiable: names of the others.
        r_squared: over all rows.
        r_squared_within: against one mean per experiment, below zero when the curve is
            worse than those means.
        sse: sum of squared residuals.
        dof: n - rank.
        aicc: with the rank as number of mean parameters.
        optimum: experiment -> best L on 0..N, empty where kappa and beta are not
            identified.
        notes: sentences on rank and shape.
    """

    names: tuple[str, ...]
    coef: np.ndarray
    stderr: np.ndarray
    rank: int
    identifiable: tuple[str, ...]
    unidentifiable: tuple[str, ...]
    r_squared: float
    r_squared_within: float
    sse: float
    dof: int
    aicc: float
    optimum: dict[str, int]
    notes: tuple[str, ...]


def identifiable_columns(design: np.ndarray) -> np.ndarray:
    """Which coefficients (p,) of a design (n, p) the data determine.

    A coefficient is determined if no direction of the null space moves it (Seber and
    Lee 2003, section 3.9).
    """
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    _, s, vt = np.linalg.svd(design / scale, full_matrices=True)
    rank = int(np.sum(s > s[0] * max(design.shape) * np.finfo(float).eps * 8))
    null = vt[rank:]
    return np.sum(null**2, axis=0) < 1e-12


def _columns(table: pd.DataFrame, form: str, scales, intercepts: str) -> dict:
    L = table["depth_layers"].to_numpy(float)
    N = table["total_layers"].to_numpy(float)
    columns = {}
    if intercepts == "common":
        columns["alpha"] = np.ones(len(table))
    else:
        for name in pd.unique(table["experiment"]):
            columns[f"alpha_{name}"] = (table["experiment"] == name).to_numpy(float)
    for name, term in DEPTH_TERMS[form]:
        columns[name] = term(L, N)
    for name in scales:
        columns[name] = np.log(table[SCALE_TERMS[name]].to_numpy(float))
    return columns


def _notes(table, form, scales, lacking: list[str], coef: dict) -> list[str]:
    notes = []
    if form == "published":
        place = "at L = 0 or at L = N"
        if "beta" not in lacking:
            place = "at L = 0" if coef["beta"] >= 0 else "at L = N"
        notes.append(
            "The published form is monotone in L: its maximum is at L = 0 (beta > 0) "
            f"or L = N (beta < 0) only, here {place}; it cannot express an interior "
            "optimum."
        )
    if lacking:
        notes.append(f"The data cannot identify {', '.join(lacking)}.")
    within = table.groupby("experiment")
    constant = [
        SCALE_TERMS[name]
        for name in scales
        if (within[SCALE_TERMS[name]].nunique() <= 1).all()
    ]
    if constant:
        notes.append(
            f"{', '.join(constant)} do not vary within any experiment: their effect is "
            "confounded with the intercepts; vary them within one network and data set."
        )
    if "kappa" in coef and not {"kappa", "beta"} & set(lacking) and coef["beta"] <= 0:
        notes.append(
            "beta <= 0: the curve bends upwards, so kappa / beta gives a minimum, not "
            "an optimum; use one intercept per experiment."
        )
    return notes


def fit_general_equation(
    table: pd.DataFrame,
    *,
    form: str = "B",
    scales: tuple[str, ...] = ("gamma",),
    intercepts: str = "experiment",
) -> GeneralFit:
    """Fit the general equation, as published or repaired, to several experiments.

    Plain least squares over all rows. Source: Philip 2025, equations (9a) and (9b);
    repairs at the top of the file.

    Args:
        table: columns experiment, depth_layers (L), total_layers (N), accuracy, and
            epochs, train_size, parameters as `scales` needs them.
        form: depth terms, a key of DEPTH_TERMS.
        scales: which of gamma (log E), delta (log S), rho (log P) to include.
        intercepts: 'common' (one alpha) or 'experiment' (one each, the paper's own
            definition of alpha).

    Raises:
        ValueError: unknown form, scale or intercepts, or a missing column.
    """
    for value, allowed in ((form, DEPTH_TERMS), (intercepts, INTERCEPTS)):
        if value not in allowed:
            raise ValueError(f"unknown {value!r}: choose from {', '.join(allowed)}")
    unknown = [name for name in scales if name not in SCALE_TERMS]
    if unknown:
        raise ValueError(f"unknown {unknown}: choose from {', '.join(SCALE_TERMS)}")
    needed = ["experiment", "depth_layers", "total_layers", "accuracy"]
    needed += [SCALE_TERMS[name] for name in scales]
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"the table lacks {', '.join(missing)}")
    columns = _columns(table, form, scales, intercepts)
    design = np.stack(list(columns.values()), axis=1)
    y = table["accuracy"].to_numpy(float)
    ols = least_squares(design, y)
    known = identifiable_columns(design)
    names = tuple(columns)
    lacking = [n for n, ok in zip(names, known, strict=True) if not ok]
    coef = np.where(known, ols.coef, np.nan)
    by_name = dict(zip(names, coef, strict=True))
    cell = table.groupby("experiment")["accuracy"].transform("mean").to_numpy(float)
    sst, within = float(np.sum((y - y.mean()) ** 2)), float(np.sum((y - cell) ** 2))
    optimum = {}
    terms = DEPTH_TERMS[form]
    if terms and not set(lacking) & {name for name, _ in terms}:
        for name, rows in table.groupby("experiment", sort=False):
            total = float(rows["total_layers"].iloc[0])
            grid = np.arange(int(total) + 1, dtype=float)
            curve = sum(by_name[term] * column(grid, total) for term, column in terms)
            optimum[str(name)] = int(np.argmax(curve))
    return GeneralFit(
        names=names,
        coef=coef,
        stderr=_identified_stderr(design, ols.sse, ols.dof, known),
        rank=ols.rank,
        identifiable=tuple(n for n, ok in zip(names, known, strict=True) if ok),
        unidentifiable=tuple(lacking),
        r_squared=1 - ols.sse / sst if sst > 0 else math.nan,
        r_squared_within=1 - ols.sse / within if within > 0 else math.nan,
        sse=ols.sse,
        dof=ols.dof,
        aicc=corrected_aic(ols.sse, len(y), ols.rank),
        optimum=optimum,
        notes=tuple(_notes(table, form, scales, lacking, by_name)),
    )


def _identified_stderr(design, sse: float, dof: int, known) -> np.ndarray:
    """Standard errors s sqrt([(X'X)^+]_jj) of the identified coefficients, else nan."""
    if dof <= 0:
        return np.full(design.shape[1], np.nan)
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    scaled = design / scale
    inverse = np.linalg.pinv(scaled.T @ scaled, rcond=1e-12, hermitian=True)
    stderr = np.sqrt(sse / dof * np.diag(inverse)) / scale
    return np.where(known, stderr, np.nan)
