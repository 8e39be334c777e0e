"""The paper's equations (2), (4)-(8), recomputed and set against its own data."""

import numpy as np

from ftjax.analysis.bootstrap import bootstrap_quadratic_optimum
from ftjax.analysis.fits import FiellerInterval, fit_all, fit_quadratic
from ftjax.paper.source import Check, Experiment, equation, equation_argmax, load_paper


def _rounds_to(value: float, printed: float, digits: int) -> bool:
    return abs(value - printed) <= 0.5 * 10**-digits + 1e-12


def _percent(layers: float, total: int) -> str:
    return f"{100 * layers / total:.1f} %"


def equation_scores(experiment: Experiment) -> dict[str, float]:
    """Errors of the printed accuracy equation on the printed data.

    mse, mae: means over the rows. r_squared = 1 - SSE / SST. baseline_mse: of the mean
    accuracy. mape: mean absolute error relative to the measurement. bias: mean signed
    error, zero for every least-squares fit with an intercept.
    """
    y = experiment.val_accuracy
    error = equation(experiment.equation_val_accuracy, experiment.depth) - y
    baseline = float(np.mean((y - y.mean()) ** 2))
    mse = float(np.mean(error**2))
    return {
        "mse": mse,
        "mae": float(np.mean(np.abs(error))),
        "r_squared": 1 - mse / baseline,
        "baseline_mse": baseline,
        "mape": float(np.mean(np.abs(error) / y)),
        "bias": float(np.mean(error)),
        "worst_share": float(np.max(error**2) / np.sum(error**2)),
        "worst_depth": float(experiment.depth[np.argmax(error**2)]),
    }


def check_optimum(e: Experiment) -> list[Check]:
    """The published best depth, its accuracy and its share of the layers."""
    coef, N = e.equation_val_accuracy, e.total_layers
    best = equation_argmax(coef, N)
    value = float(equation(coef, best))
    stated = float(equation(coef, e.optimum))
    vertex = -coef[1] / (2 * coef[2])
    right = best == e.optimum
    number = e.equation_numbers[0]
    checks = [
        Check(
            f"{e.model} optimum of equation ({number}) on 0..{N}",
            f"L = {e.optimum}, {e.optimum_val_accuracy:g}",
            f"L = {best}, {value:.6f} (vertex {vertex:.1f}; at L = {e.optimum}: "
            f"{stated:.6f})",
            "agrees" if right else "wrong",
        )
    ]
    if vertex > N:
        checks.append(
            Check(
                f"{e.model}: equation ({number}) peaks at L = N",
                f"optimum {e.optimum} of {N}",
                f"vertex {vertex:.1f} > N: an end, not a peak; {value:.4f} exceeds the "
                f"largest measurement by {value - e.val_accuracy.max():.3f}",
                "misleading",
            )
        )
    measured = int(e.depth[np.argmax(e.val_accuracy)])
    low, high = load_paper()["headline_band_percent"]
    share = 100 * e.depth / N
    inside = int(np.sum((share >= low) & (share <= high)))
    checks.append(
        Check(
            f"{e.model}: the top {low}-{high} % is optimal",
            f"{low}-{high} %",
            f"best measured depth L = {measured} ({_percent(measured, N)}); "
            f"{inside} of {len(e.depth)} measured depths lie in that band",
            "wrong",
        )
    )
    return checks


def check_shares(resnet: Experiment, efficientnet: Experiment) -> list[Check]:
    """The percentages quoted for the two optima."""
    checks = []
    for e, printed in ((resnet, ("22", "21")), (efficientnet, ("22.7", "22", "23"))):
        best = equation_argmax(e.equation_val_accuracy, e.total_layers)
        for text in printed:
            digits = len(text.partition(".")[2])
            fits = {
                L: _rounds_to(100 * L / e.total_layers, float(text), digits)
                for L in (e.optimum, best)
            }
            matching = [f"L = {L}" for L, ok in fits.items() if ok]
            shares = ", ".join(f"{L} is {_percent(L, e.total_layers)}" for L in fits)
            belongs = f"belongs to {matching[0]}" if matching else "belongs to neither"
            checks.append(
                Check(
                    f"{e.model}: share of {e.total_layers} layers",
                    f"{text} % (for L = {e.optimum})",
                    f"{shares}; {text} % {belongs}",
                    "agrees" if fits[e.optimum] else "wrong",
                )
            )
    return checks


def check_predictions(e: Experiment) -> list[Check]:
    """Tables 6, 7 and 8: predicted column, MSE, MAE, R^2 and what they mean."""
    values = equation(e.equation_val_accuracy, e.depth)
    wrong = [
        i for i, v in enumerate(values) if not _rounds_to(v, float(e.predicted[i]), 4)
    ]
    copied = int(np.sum(e.predicted_actual == e.val_accuracy))
    checks = [
        Check(
            f"{e.model} table {e.predicted_table}, L = {e.depth[i]:.0f}",
            f"{e.predicted[i]:.4f}",
            f"{values[i]:.6f}, that is {values[i]:.4f}",
            "wrong",
        )
        for i in wrong
    ]
    right = len(values) - len(wrong)
    checks.append(
        Check(
            f"{e.model} table {e.predicted_table}, the other predictions",
            f"{right} values",
            f"{right} of {right} right; {copied} of {len(values)} measured values as "
            "in the results table",
            "agrees" if copied == len(values) else "wrong",
        )
    )
    scores = equation_scores(e)
    for name in ("mse", "mae"):
        printed = getattr(e, name)
        digits = len(f"{printed:g}".partition(".")[2])
        checks.append(
            Check(
                f"{e.model} {name.upper()} of equation ({e.equation_numbers[0]})",
                f"{printed:g}",
                f"{scores[name]:.6f}",
                "agrees" if _rounds_to(scores[name], printed, digits) else "wrong",
            )
        )
    ratio = scores["mse"] / scores["baseline_mse"]
    against = (
        f"{ratio:.1f}x worse than" if ratio > 1 else f"{1 / ratio:.2f}x better than"
    )
    checks.append(
        Check(
            f"{e.model}: 'performs excellently', R^2 never given",
            "MSE and MAE judged small",
            f"R^2 = {scores['r_squared']:.3f}; MSE {against} the plain mean; relative "
            f"error {100 * scores['mape']:.1f} %; RMSE (not MSE) "
            f"{100 * scores['mse'] ** 0.5:.1f} points; mean signed error "
            f"{100 * scores['bias']:+.1f} points (0 for a regression)",
            "misleading",
        )
    )
    if scores["worst_share"] > 0.8:
        checks.append(
            Check(
                f"{e.model}: the MSE of equation ({e.equation_numbers[0]})",
                f"{e.mse:g}",
                f"{100 * scores['worst_share']:.1f} % of it comes from "
                f"L = {scores['worst_depth']:.0f}",
                "misleading",
            )
        )
    return checks


def _region(fieller: FiellerInterval) -> str:
    if fieller.kind == "everything":
        return "everywhere"
    span = f"{fieller.low:.1f} to {fieller.high:.1f}"
    return span if fieller.kind == "interval" else f"everywhere outside {span}"


def check_regression(e: Experiment, *, draws: int, seed: int) -> list[Check]:
    """What least squares gives on the printed tables, for accuracy and loss."""
    checks = []
    pairs = (
        ("accuracy", e.val_accuracy, e.equation_val_accuracy, 1),
        ("loss", e.val_loss, e.equation_val_loss, -1),
    )
    for index, (what, y, coef, sign) in enumerate(pairs):
        fit = fit_quadratic(e.depth, sign * y, total_layers=e.total_layers)
        optima = bootstrap_quadratic_optimum(
            e.depth, sign * y, total_layers=e.total_layers, draws=draws, seed=seed
        )
        low, high = np.quantile(optima, [0.025, 0.975], method="inverted_cdf")
        ols = sign * fit.coef
        same = bool(np.all(np.abs(ols / coef - 1) < 0.01))
        printed = equation_argmax(sign * coef, e.total_layers)
        checks.append(
            Check(
                f"{e.model}: equation ({e.equation_numbers[index]}) is a regression "
                f"of validation {what}",
                f"optimum L = {printed}",
                f"least squares {ols[0]:.4f} {ols[1]:+.3e} L {ols[2]:+.3e} L^2: "
                f"optimum L = {fit.optimum} ({_percent(fit.optimum, e.total_layers)}), "
                f"R^2 {fit.r_squared:.3f}, bootstrap interval {low}-{high}, Fieller "
                f"{_region(fit.vertex_fieller)}",
                "agrees" if same else "wrong",
            )
        )
        least = int(e.depth[np.argmin(e.val_loss)])
        if what == "loss":
            checks.append(
                Check(
                    f"{e.model}: at the best depth the loss is minimal too",
                    f"L = {e.optimum}",
                    f"equation ({e.equation_numbers[1]}) has its minimum at L = "
                    f"{printed}; the smallest measured loss is at L = {least} "
                    f"({_percent(least, e.total_layers)})",
                    "wrong",
                )
            )
    return checks


def check_shapes(e: Experiment) -> Check:
    """Whether the measured accuracies support a parabola at all."""
    fits = fit_all(e.depth, e.val_accuracy, total_layers=e.total_layers)
    ranked = [f for f in fits.values() if np.isfinite(f.aicc)]
    best = min(ranked, key=lambda f: f.aicc)
    quadratic, sqrt = fits["quadratic"], fits["sqrt+linear"]
    criterion = f"{quadratic.aicc - best.aicc:+.2f} against {best.shape}"
    if not np.isfinite(quadratic.aicc):
        criterion = f"undefined with {quadratic.num_points} points"
    return Check(
        f"{e.model}: accuracy is a parabola in L",
        "assumed",
        f"AICc {criterion}; leave-one-out error {quadratic.loo_rmse:.4f} (constant "
        f"{fits['constant'].loo_rmse:.4f}); sqrt+linear: R^2 {sqrt.r_squared:.3f} "
        f"(quadratic {quadratic.r_squared:.3f}), optimum L = {sqrt.optimum} instead of "
        f"{quadratic.optimum}",
        "misleading",
    )


def check_resnet_text(e: Experiment) -> list[Check]:
    """Equation (2) against the values the text reads off its own curve."""
    anchors = load_paper()["text_anchors_resnet152"]
    depth = np.asarray(anchors["depth"], dtype=float)
    a0, a1, a2 = e.equation_val_accuracy
    values = equation(e.equation_val_accuracy, depth)
    x, y = e.depth, e.val_accuracy
    slope = float(x @ (y - a0 - a2 * x * x) / (x @ x))
    repaired = np.array([a0, a1 + 0.0005, a2])
    error = equation(repaired, x) - y
    r_squared = 1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2)
    grid = np.arange(e.total_layers + 1)
    negative = int(grid[equation(e.equation_val_accuracy, grid) < 0][0])
    end = float(equation(e.equation_val_accuracy, e.total_layers))

    def listed(numbers):
        return ", ".join(f"{n:.3f}" for n in numbers)

    return [
        Check(
            "ResNet152: equation (2) at L = 0, 150, 310",
            listed(anchors["val_accuracy"]),
            f"{listed(values)}; with slope {a1 + 0.0005:.6f} for {a1:.6f} (least "
            f"squares {slope:.6f}): {listed(equation(repaired, depth))}, optimum L = "
            f"{equation_argmax(repaired, e.total_layers)}, R^2 {r_squared:.3f}: "
            "probably a misprinted digit that all later numbers inherit",
            "wrong",
        ),
        Check(
            f"ResNet152: equation (2) on 0..{e.total_layers}",
            "searched for the optimum",
            f"negative from L = {negative} on, {end:.3f} at L = {e.total_layers}; no "
            f"data beyond L = {x.max():.0f}",
            "misleading",
        ),
    ]
