"""The parabola of a curve in words: its optimum and three intervals of it."""

import numpy as np
from numpy.typing import ArrayLike

from ftjax.analysis.bootstrap import bootstrap_quadratic_optimum
from ftjax.analysis.fits import FiellerInterval, QuadraticFit


def _fieller_words(fieller: FiellerInterval) -> str:
    if fieller.kind == "everything":
        return "unbounded"
    span = f"{fieller.low:.1f} to {fieller.high:.1f}"
    return span if fieller.kind == "interval" else f"all but {span}"


def quadratic_words(
    bn: str,
    fit: QuadraticFit,
    depth: ArrayLike,
    accuracy: ArrayLike,
    *,
    draws: int,
    seed: int,
    total: int,
) -> str:
    """One line about the parabola of one curve: optimum and three intervals.

    Args:
        bn: BatchNorm policy of the curve.
        fit: the parabola.
        depth: (n,) unfrozen layers that were fitted.
        accuracy: (n,) values that were fitted.
        draws: number of draws of the bootstrap of residuals.
        seed: of the draws.
        total: layers of the whole network.
    """
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
