"""Audit of the depth paper: every published number beside its recomputation."""

import numpy as np
import pandas as pd

from ftjax.paper.data import (
    check_blocks,
    check_datasets,
    check_grim,
    check_noise,
    check_overfitting,
)
from ftjax.paper.equations import (
    check_optimum,
    check_predictions,
    check_regression,
    check_resnet_text,
    check_shapes,
    check_shares,
)
from ftjax.paper.general_equation import fit_general_equation
from ftjax.paper.source import Check, Experiment, load_experiments
from ftjax.stats.distributions import f_survival


def general_table(experiments: dict[str, Experiment]) -> pd.DataFrame:
    """All measured rows with the columns `fit_general_equation` needs."""
    frames = [
        pd.DataFrame(
            {
                "experiment": e.name,
                "depth_layers": e.depth,
                "total_layers": e.total_layers,
                "epochs": e.epochs,
                "train_size": e.train_size,
                "parameters": e.parameters,
                "accuracy": e.val_accuracy,
            }
        )
        for e in experiments.values()
    ]
    return pd.concat(frames, ignore_index=True)


def check_general_equation(experiments: dict[str, Experiment]) -> list[Check]:
    """Equation (9): its shape, what the data identify, and its repair."""
    table = general_table(experiments)
    common = fit_general_equation(table, form="published", intercepts="common")
    alpha, beta, gamma = common.coef
    every = ("gamma", "delta", "rho")
    own = fit_general_equation(table, form="published", scales=every)
    nothing = fit_general_equation(table, form="none", scales=())
    checks = [
        Check(
            "Equation (9): captures an optimum in L",
            "alpha - beta L^2/N + gamma log E",
            own.notes[0],
            "wrong",
        ),
        Check(
            "Equation (9a), one alpha: alpha is the theoretical maximum",
            "no coefficients given",
            f"alpha {alpha:.3f} +- {common.stderr[0]:.3f}, beta {beta:.2e} +- "
            f"{common.stderr[1]:.2e}, gamma {gamma:.3f} +- {common.stderr[2]:.3f}; "
            f"R^2 {common.r_squared:.3f}, within experiments "
            f"{common.r_squared_within:.2f}",
            "misleading",
        ),
        Check(
            "Equation (9b): alpha per experiment, gamma, delta, rho",
            "a general law",
            f"{len(own.names)} coefficients, rank {own.rank}: only "
            f"{', '.join(own.identifiable)} is identified",
            "not identifiable",
        ),
    ]
    signs = []
    for name in experiments:
        one = table[table["experiment"] == name]
        fit = fit_general_equation(one, form="published", scales=())
        at = fit.names.index("beta")
        signs.append(
            f"{name} {fit.coef[at]:+.2e} (t {fit.coef[at] / fit.stderr[at]:.2f})"
        )
    checks.append(
        Check(
            "Equation (9): beta is a penalty for unfreezing",
            "beta > 0",
            f"signs disagree: {', '.join(signs)}",
            "wrong",
        )
    )
    for form in "ABCD":
        fit = fit_general_equation(table, form=form, scales=())
        numbers = dict(zip(fit.names, fit.coef, strict=True))
        optima = ", ".join(f"{name} {L}" for name, L in fit.optimum.items())
        extra = (nothing.sse - fit.sse) / 2 / (fit.sse / fit.dof)
        p_value = f_survival(extra, 2, fit.dof)
        checks.append(
            Check(
                f"Equation (9) repaired, form {form}",
                "-",
                f"kappa {numbers['kappa']:.4g}, beta {numbers['beta']:.4g}, R^2 within "
                f"{fit.r_squared_within:.3f}, AICc {fit.aicc:.1f} (no depth effect "
                f"{nothing.aicc:.1f}, p {p_value:.3f}); optimum {optima}",
                "added",
            )
        )
    return checks


def audit_paper(*, draws: int = 20000, seed: int = 0) -> list[Check]:
    """Recompute every published number of the paper that its own data determine.

    Args:
        draws: bootstrap draws of each parabola's optimum.
        seed: of the draws.

    Returns:
        Checks in the order of the paper: equations, data, blocks, general equation.
    """
    experiments = load_experiments()
    resnet, vgg = experiments["resnet152"], experiments["vgg16"]
    efficientnet = experiments["efficientnetb0"]
    checks: list[Check] = []
    for e in experiments.values():
        checks += check_optimum(e)
    checks += check_shares(resnet, efficientnet)
    checks += check_resnet_text(resnet)
    for e in experiments.values():
        checks += check_predictions(e)
    for e in experiments.values():
        checks += check_regression(e, draws=draws, seed=seed)
    checks += [check_shapes(e) for e in experiments.values()]
    checks += [check_overfitting(e) for e in experiments.values()]
    checks += check_noise(resnet, vgg)
    for e in experiments.values():
        checks += check_grim(e)
    checks += check_datasets(experiments)
    checks += check_blocks(efficientnet.total_layers)
    checks += check_general_equation(experiments)
    return checks


def verdict_counts(checks: list[Check]) -> dict[str, int]:
    """Number of checks by verdict."""
    names, counts = np.unique([c.verdict for c in checks], return_counts=True)
    return {str(n): int(c) for n, c in zip(names, counts, strict=True)}
