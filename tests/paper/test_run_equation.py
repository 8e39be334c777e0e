"""The general equation on tables of one's own, against planted coefficients."""

import numpy as np
import pandas as pd
import pytest

from experiments import fit as command
from ftjax.paper.run_equation import (
    coefficient,
    equation_sentences,
    equation_table,
    fit_equations,
)

KAPPA, BETA, GAMMA, DELTA = 0.4, 0.3, 0.05, 0.02


def planted(total, *, alpha, epochs=(1, 2, 4), sizes=(100, 1000), rates=(1e-4,)):
    """Form B; every rate but the first loses 0.1."""
    rows = [
        {
            "depth_layers": depth,
            "total_layers": total,
            "bn": "frozen",
            "epochs": count,
            "train_size": size,
            "lr": rate,
            "status": "done",
            "val_accuracy": alpha
            + KAPPA * depth / total
            - BETA * (depth / total) ** 2
            + GAMMA * np.log(count)
            + DELTA * np.log(size)
            - 0.1 * (rate != rates[0]),
        }
        for depth in (0, total // 4, total // 2, total)
        for count in epochs
        for size in sizes
        for rate in rates
    ]
    return pd.DataFrame(rows)


def known(fit, name):
    found = coefficient(fit, name)
    assert found is not None
    return found[0]


def test_planted_coefficients_are_found_where_epochs_and_size_vary():
    table = equation_table(
        {
            "one": planted(100, alpha=0.2, rates=(1e-4, 1e-3)),
            "two": planted(40, alpha=0.1, epochs=(3,), sizes=(500,)),
        }
    )
    assert len(table) == 4 * 3 * 2 + 4  # each depth's best rate alone
    fit = fit_equations(table)["B"]
    for name, value in zip(
        ("kappa", "beta", "gamma", "delta"), (KAPPA, BETA, GAMMA, DELTA), strict=True
    ):
        assert known(fit, name) == pytest.approx(value, abs=1e-9)
    # N kappa / (2 beta)
    assert fit.optimum == {"one": 67, "two": 27}
    epochs, images, best, *_ = equation_sentences(fit_equations(table))
    assert epochs.startswith("Twice the epochs add 3.5 ± 0.0 points (gamma 0.0500")
    assert images.startswith("Twice the training images add 1.4 ± 0.0 points")
    assert "form B fits best" in best and "one 67, two 27" in best


def test_gamma_is_not_identified_where_each_run_has_its_own_epochs():
    tables = {
        "one": planted(100, alpha=0.2, epochs=(2,)),
        "two": planted(40, alpha=0.1, epochs=(4,)),
    }
    fit = fit_equations(equation_table(tables))["B"]
    assert coefficient(fit, "gamma") is None
    assert known(fit, "delta") == pytest.approx(DELTA, abs=1e-9)
    said = equation_sentences({"published": fit, "B": fit})[0]
    assert said.startswith("gamma is not identified: no run varies the epochs")


def test_command(tmp_path, capsys):
    for name, total in (("one", 100), ("two", 40)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "results.csv"
        planted(total, alpha=0.2).to_csv(path, index=False)
    runs = [str(tmp_path / "one"), str(tmp_path / "two" / "results.csv")]
    assert command.main([*runs, "--general"]) == 0
    shown = capsys.readouterr().out
    assert "on 48 rows" in shown and "Twice the epochs add 3.5" in shown
    assert command.main(runs) == 2
    assert "one table is analyzed, not 2: ftjax compare" in capsys.readouterr().err
    table = pd.read_csv(runs[1]).drop(columns="epochs")
    table.to_csv(runs[1], index=False)
    assert command.main([*runs, "--general"]) == 2
    assert "two lacks epochs for the equation" in capsys.readouterr().err
    assert command.main(["--general"]) == 2
    assert "give either RESULTS.csv or --paper" in capsys.readouterr().err
