"""The general equation: what data can identify of it, and where it has its maximum."""

import math

import numpy as np
import pandas as pd
import pytest

from ftjax.paper import general_equation


def pooled(form, coef, *, noise=0.0, epochs=(5,), seed=0):
    """Rows of three networks that follow one form of the general equation."""
    rng, rows = np.random.default_rng(seed), []
    for name, total, alpha in (("a", 100, 0.5), ("b", 20, 0.8), ("c", 300, 0.6)):
        for each in epochs:
            for L in np.linspace(0, total, 7):
                value = alpha + 0.05 * math.log(each)
                for term, column in general_equation.DEPTH_TERMS[form]:
                    value += coef[term] * column(L, total)
                rows.append((name, L, total, each, value + noise * rng.normal()))
    names = ["experiment", "depth_layers", "total_layers", "epochs", "accuracy"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize("form", ["A", "B", "C", "D"])
def test_repairs_recover_planted_coefficients(form):
    planted = {"kappa": 0.004, "beta": 0.005}
    table = pooled(form, planted, epochs=(3, 9))
    fit = general_equation.fit_general_equation(table, form=form)
    numbers = dict(zip(fit.names, fit.coef, strict=True))
    assert numbers["kappa"] == pytest.approx(0.004)
    assert numbers["beta"] == pytest.approx(0.005)
    assert numbers["gamma"] == pytest.approx(0.05)
    assert fit.unidentifiable == () and fit.rank == 6


def test_epochs_that_never_vary_are_named_as_unidentifiable():
    table = pooled("B", {"kappa": 0.2, "beta": 0.3}, noise=0.01)
    fit = general_equation.fit_general_equation(table, form="B")
    assert fit.unidentifiable == ("alpha_a", "alpha_b", "alpha_c", "gamma")
    assert fit.identifiable == ("kappa", "beta") and fit.rank == 5
    assert np.isnan(fit.stderr[:3]).all() and np.isfinite(fit.stderr[3:5]).all()
    assert any("cannot identify" in note for note in fit.notes)
    assert any("do not vary within any experiment" in note for note in fit.notes)
    without = general_equation.fit_general_equation(table, form="B", scales=())
    assert fit.stderr[3:5] == pytest.approx(without.stderr[3:])


@pytest.mark.parametrize(("beta", "end"), [(0.001, 0), (-0.001, "N")])
def test_published_form_has_its_maximum_at_an_end(beta, end):
    table = pooled("published", {"beta": beta}, noise=0.001)
    fit = general_equation.fit_general_equation(table, form="published", scales=())
    totals = {"a": 100, "b": 20, "c": 300}
    assert fit.optimum == {k: N if end == "N" else 0 for k, N in totals.items()}
    assert "at L = 0 (beta > 0) or L = N (beta < 0) only" in fit.notes[0]


def test_a_negative_beta_of_a_repair_is_called_a_minimum():
    table = pooled("B", {"kappa": -0.2, "beta": -0.3}, noise=0.001)
    fit = general_equation.fit_general_equation(table, form="B", scales=())
    assert any("gives a minimum" in note for note in fit.notes)


def test_general_equation_names_bad_input():
    table = pooled("B", {"kappa": 0.2, "beta": 0.3})
    with pytest.raises(ValueError, match="unknown 'E': choose from none, published"):
        general_equation.fit_general_equation(table, form="E")
    with pytest.raises(ValueError, match="the table lacks train_size"):
        general_equation.fit_general_equation(table, scales=("delta",))
