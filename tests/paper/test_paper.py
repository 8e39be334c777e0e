"""The audit of the depth paper, and the command that prints it and reads any table."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from ftjax.analysis.fits import fit_all, fit_quadratic
from ftjax.cli import fit as command
from ftjax.paper import audit as paper
from ftjax.paper import data as paper_data
from ftjax.paper import equations as paper_equations
from ftjax.paper.general_equation import fit_general_equation
from ftjax.paper.source import (
    VERDICTS,
    equation,
    equation_argmax,
    load_experiments,
    load_paper,
)


@pytest.fixture(scope="module")
def experiments():
    return load_experiments()


@pytest.fixture(scope="module")
def checks():
    return paper.audit_paper(draws=2000)


def find(checks, *words):
    """The one check whose item holds all words."""
    found = [c for c in checks if all(word in c.item for word in words)]
    assert len(found) == 1, [c.item for c in found]
    return found[0]


def test_every_check_has_a_known_verdict_and_a_name_of_its_own(checks):
    assert {c.verdict for c in checks} == set(VERDICTS)
    names = [(c.item, c.published) for c in checks]
    assert len(set(names)) == len(names)
    assert sum(paper.verdict_counts(checks).values()) == len(checks)


def test_published_optima(experiments, checks):
    resnet = experiments["resnet152"]
    coef = resnet.equation_val_accuracy
    assert equation_argmax(coef, 514) == 115
    assert equation(coef, 115) == pytest.approx(0.43970575)
    assert equation(coef, 107) == pytest.approx(0.439226, abs=5e-7)
    assert -coef[1] / (2 * coef[2]) == pytest.approx(115.4532, abs=1e-4)
    assert find(checks, "ResNet152 optimum").verdict == "wrong"
    eff = find(checks, "EfficientNetB0 optimum")
    assert eff.verdict == "wrong" and eff.recomputed.startswith("L = 53, 0.667665")
    vgg = find(checks, "VGG16 optimum")
    assert vgg.verdict == "agrees" and "vertex 21.9" in vgg.recomputed
    assert "exceeds the largest measurement by 0.107" in (
        find(checks, "VGG16", "peaks at L = N").recomputed
    )


def test_shares_of_layers(checks):
    shares = {c.published: c.verdict for c in checks if "ResNet152: share of" in c.item}
    assert shares == {"22 % (for L = 107)": "wrong", "21 % (for L = 107)": "agrees"}
    text = " ".join(c.recomputed for c in checks if "share of 514" in c.item)
    assert "22 % belongs to L = 115" in text and "21 % belongs to L = 107" in text
    eff = {c.published[:6]: c.verdict for c in checks if "share of 237" in c.item}
    assert eff == {"22.7 %": "wrong", "22 % (": "wrong", "23 % (": "agrees"}


def test_table_six_has_one_wrong_value(checks):
    wrong = [c for c in checks if " table " in c.item and ", L = " in c.item]
    assert [c.item for c in wrong] == ["ResNet152 table 6, L = 210"]
    assert wrong[0].published == "0.3796"
    assert wrong[0].recomputed == "0.379547, that is 0.3795"
    others = [c for c in checks if "the other predictions" in c.item]
    assert [c.verdict for c in others] == ["agrees"] * 3


@pytest.mark.parametrize(
    ("name", "r_squared", "mse", "mae", "mape", "bias"),
    [
        ("resnet152", -0.716, 0.009751, 0.082848, 0.192, -0.0710),
        ("efficientnetb0", -38.360, 0.024692, 0.079279, 0.131, -0.0783),
        ("vgg16", 0.137, 0.006029, 0.066460, 0.080, 0.0658),
    ],
)
def test_published_equations_on_their_own_data(
    experiments, name, r_squared, mse, mae, mape, bias
):
    scores = paper_equations.equation_scores(experiments[name])
    assert scores["r_squared"] == pytest.approx(r_squared, abs=5e-4)
    assert scores["mse"] == pytest.approx(mse, abs=5e-7)
    assert scores["mae"] == pytest.approx(mae, abs=5e-7)
    assert scores["mape"] == pytest.approx(mape, abs=1e-3)
    assert scores["bias"] == pytest.approx(bias, abs=1e-4)


def test_one_point_makes_the_efficientnet_error(experiments):
    scores = paper_equations.equation_scores(experiments["efficientnetb0"])
    assert scores["worst_depth"] == 237
    assert scores["worst_share"] == pytest.approx(0.915, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "optimum", "vertex", "r_squared", "loo", "kind", "low", "high", "p"),
    [
        ("resnet152", 153, 153.23, 0.6668, 0.0759, "interval", 118.6, 228.6, 0.0175),
        ("vgg16", 15, 15.43, 0.9986, 0.0256, "interval", 13.7, 18.8, 0.0058),
        (
            "efficientnetb0",
            61,
            61.37,
            0.735,
            0.0199,
            "complement",
            104.5,
            403.3,
            0.0776,
        ),
    ],
)
def test_least_squares_optima(
    experiments, name, optimum, vertex, r_squared, loo, kind, low, high, p
):
    e = experiments[name]
    fit = fit_quadratic(e.depth, e.val_accuracy, total_layers=e.total_layers)
    assert fit.optimum == optimum and fit.is_maximum
    assert fit.vertex == pytest.approx(vertex, abs=0.005)
    assert fit.r_squared == pytest.approx(r_squared, abs=5e-5)
    assert fit.loo_rmse == pytest.approx(loo, abs=5e-5)
    assert fit.vertex_fieller.kind == kind
    assert fit.vertex_fieller[1:] == pytest.approx((low, high), abs=0.05)
    assert fit.curvature_p == pytest.approx(p, abs=5e-5)


def test_bootstrap_intervals_of_the_optima(checks):
    for name, low, high in (
        ("ResNet152", 128, 184),
        ("VGG16", 15, 17),
        ("EfficientNetB0", 0, 96),
    ):
        text = find(checks, name, "regression of validation accuracy").recomputed
        found = re.search(r"bootstrap interval (\d+)-(\d+)", text)
        assert [int(g) for g in found.groups()] == pytest.approx([low, high], abs=3)


def test_only_equation_four_is_a_regression(checks):
    verdicts = {
        c.item[c.item.index("(") :][:3]: c.verdict
        for c in checks
        if "is a regression of" in c.item
    }
    right = {number for number, verdict in verdicts.items() if verdict == "agrees"}
    assert len(verdicts) == 6 and right == {"(4)"}


def test_loss_minima(checks):
    texts = [c.recomputed for c in checks if "the loss is minimal too" in c.item]
    minima = [re.findall(r"L = (\d+)", text) for text in texts]
    assert minima == [["159", "210"], ["16", "14"], ["50", "10"]]


def test_shapes_by_aicc(experiments):
    best = {}
    for name, e in experiments.items():
        fitted = fit_all(e.depth, e.val_accuracy, total_layers=e.total_layers)
        known = {k: f for k, f in fitted.items() if np.isfinite(f.aicc)}
        best[name] = min(known, key=lambda shape: known[shape].aicc)
        if name == "vgg16":
            assert {"constant", "linear"} == set(known)
    assert best["resnet152"] == "constant" and best["efficientnetb0"] == "log1p+linear"


def test_text_anchors_point_to_a_misprinted_slope(checks):
    text = find(checks, "equation (2) at L = 0, 150, 310").recomputed
    assert text.startswith("0.350, 0.432, 0.185; with slope 0.002054")
    assert "0.350, 0.507, 0.340, optimum L = 153, R^2 0.666" in text
    outside = find(checks, "ResNet152: equation (2) on 0..514").recomputed
    assert outside.startswith("negative from L = 372 on, -0.629 at L = 514")


def test_grim_by_counting_every_fraction():
    for size in (7, 40, 333):
        possible = {round(k / size, 4) for k in range(size + 1)}
        for value in np.round(np.linspace(0, 1, 400), 4):
            assert paper_data.grim_possible(value, size) == (value in possible)


def test_grim_on_the_paper(experiments, checks):
    food = experiments["efficientnetb0"]
    impossible = [a for a in food.val_accuracy if not paper_data.grim_possible(a, 2525)]
    assert impossible == [0.6243, 0.6635, 0.6662, 0.6452, 0.5867]
    assert paper_data.smallest_possible_size(food.val_accuracy) == 4104
    resnet = experiments["resnet152"].val_accuracy
    assert paper_data.smallest_possible_size(resnet) == 5432
    assert sum(not paper_data.grim_possible(a, 5000) for a in resnet) == 5
    dogs = experiments["vgg16"].val_accuracy
    for size in (1200, 2400):
        assert sum(not paper_data.grim_possible(a, size) for a in dogs) == 4
    assert find(checks, "Food-101", "k / 2525").verdict == "impossible"
    with pytest.raises(ValueError, match="no size up to 10 fits"):
        paper_data.smallest_possible_size(resnet, limit=10)


def test_noise_of_neighbouring_depths(checks):
    assert "z = 20.6" in find(checks, "falls from L = 210 to 230").recomputed
    assert "z = 0.21" in find(checks, "all 18 layers are needed").recomputed


def test_block_table(checks):
    counts = find(checks, "table 8: layers of each block").recomputed
    assert counts.startswith("0 of 15 right; block4c is missing; index 216 is in no")
    assert "block7a counts 21 but 217-236 is 20" in counts
    assert "sum to 235, true 227" in counts
    assert find(checks, "blocks 6a + 6b + 7a").recomputed == "42 layers (17.7 %)"
    top = find(checks, "54 layers closest to the output").recomputed
    assert "share 21 layers (Jaccard 0.28)" in top and "nothing of block6a" in top


def test_general_equation(experiments, checks):
    table = paper.general_table(experiments)
    common = fit_general_equation(table, form="published", intercepts="common")
    assert common.coef == pytest.approx([-0.04184, 1.543e-4, 0.3611], rel=1e-3)
    assert common.stderr == pytest.approx([0.175, 4.34e-4, 0.0936], rel=2e-3)
    assert common.rank == 3
    assert common.r_squared_within == pytest.approx(-2.041, abs=1e-3)
    for scales, intercepts, columns in (
        (("gamma",), "experiment", 5),
        (("gamma", "delta", "rho"), "common", 5),
        (("gamma", "delta", "rho"), "experiment", 7),
    ):
        fit = fit_general_equation(
            table, form="published", scales=scales, intercepts=intercepts
        )
        assert len(fit.names) == columns and fit.rank == 4
        assert fit.identifiable == ("beta",)
        assert fit.aicc == pytest.approx(-107.17, abs=5e-3)
    expected = {"A": -109.37, "B": -108.34, "C": -116.54, "D": -109.79}
    for form, aicc in expected.items():
        fit = fit_general_equation(table, form=form, scales=())
        assert fit.aicc == pytest.approx(aicc, abs=5e-3)
    assert "only beta is identified" in find(checks, "Equation (9b)").recomputed
    assert "p 0.006" in find(checks, "repaired, form C").recomputed


def test_shipped_tables_equal_the_reference(shared):
    reference = json.loads((shared / "reference/paper_tables.json").read_text("utf-8"))
    printed = load_paper()["experiments"]
    tables = {
        "resnet152": "table3_resnet152_cifar10",
        "vgg16": "table4_vgg16_dogs",
        "efficientnetb0": "table5_efficientnetb0_food101",
    }
    predictions = {
        "resnet152": "table6_resnet152_actual_vs_predicted_val_acc",
        "vgg16": "table8a_vgg16_actual_vs_predicted_val_acc",
        "efficientnetb0": "table7_efficientnetb0_actual_vs_predicted_val_acc",
    }
    for name, key in tables.items():
        ours, theirs = printed[name], reference[key]
        assert ours["total_layers"] == theirs["N_published"]
        assert ours["epochs"] == theirs["epochs"]
        rows = sorted(theirs["rows"], key=lambda row: row["L"])
        assert ours["depth"] == [row["L"] for row in rows]
        for column in ("accuracy", "loss", "val_accuracy", "val_loss"):
            assert ours[column] == [row[column] for row in rows]
        rows = sorted(reference[predictions[name]]["rows"], key=lambda row: row["L"])
        assert ours["predicted"] == [row["predicted"] for row in rows]
        assert ours["optimum"] == reference["published_optimum"][name]["L"]
        number, loss = ours["equation_numbers"]
        for key, column in (
            (f"eq{number}_{name}_val_acc", "equation_val_accuracy"),
            (f"eq{loss}_{name}_val_loss", "equation_val_loss"),
        ):
            printed_equation = reference["equations"][key]
            assert ours[column] == [printed_equation[c] for c in ("a0", "a1", "a2")]
    blocks = load_paper()["efficientnetb0_blocks"]["printed"]
    rows = reference["table8b_efficientnetb0_blocks"]["rows"]
    assert blocks == {r["block"]: [r["count"], r["first"], r["last"]] for r in rows}


def test_shipped_block_counts_equal_the_keras_graph(shared):
    graphs = json.loads((shared / "reference/keras_layers.json").read_text("utf-8"))
    found = {}
    for layer in graphs["EfficientNetB0_imagenet_graph"]:
        if layer["name"].startswith("block"):
            found.setdefault(layer["name"].split("_")[0], []).append(layer["index"])
    expected = {name: [len(i), i[0], i[-1]] for name, i in found.items()}
    assert load_paper()["efficientnetb0_blocks"]["keras"] == expected


@pytest.fixture
def table(tmp_path):
    """A foreign CSV: percent, other column names, two seeds."""
    depth = [0, 10, 20, 40, 80] * 2
    accuracy = [80, 85, 88, 87, 70, 81, 84, 88.5, 87.2, 72]
    file = tmp_path / "results.csv"
    frame = pd.DataFrame(
        {"depth": depth, "accuracy": accuracy, "seed": [0] * 5 + [1] * 5}
    )
    frame.to_csv(file, index=False)
    return file


def test_command_prints_the_audit(capsys):
    assert command.main(["--paper"]) == 0
    text = capsys.readouterr().out
    for words in ("L = 115", "0.3796", "R^2 = -0.716", "R^2 = -38.360", "R^2 = 0.137"):
        assert words in text
    assert "impossible: no data could give this number" in text


def test_command_analyzes_a_foreign_table(table, capsys):
    assert command.main([str(table), "--out", "--total-layers", "100"]) == 0
    text = capsys.readouterr().out
    assert "Unfreeze the top 20 of 100 layers: " in text
    assert "95 % set over 2 seeds, number of images unknown" in text
    assert "Accuracies up to 88.5 are read as percent" in text
    assert "Fieller" in text and "unimodal" in text and "BatchNorm" not in text
    written = json.loads((table.parent / "recommendation.json").read_text("utf-8"))
    assert written["depth_layers"] == 20
    low, high = written["interval_layers"]
    assert low <= 20 and high >= 40 and set(written["not_worse"]) >= {20, 40}
    errors = pd.read_csv(table.parent / "fits.csv")
    own = errors[errors["equation"] == "quadratic"]
    assert list(own["depth_layers"]) == [0, 0, 10, 10, 20, 20, 40, 40, 80, 80]
    shown = text[text.index("squared error") : text.index("MSE, MAE")]
    assert all(f"{value:.4f}" in shown for value in own["predicted"])
    mse, mae = own[["squared_error", "absolute_error"]].mean()
    assert f"{mse:.6f}" in text and f"{mae:.4f}" in text


@pytest.mark.parametrize("by_epoch", [False, True])
def test_command_uses_images_beside_the_table(by_epoch, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "somebody else\'s"}')
    rng = np.random.default_rng(0)
    rows = []
    for depth, share in ((0, 0.5), (5, 0.9), (10, 0.6)):
        right = rng.random(400) < share
        folder = tmp_path / "trials" / f"t{depth}"
        folder.mkdir(parents=True)
        known = np.stack([~right, right]) if by_epoch else right
        np.save(folder / "val_correct.npy", known)
        rows.append((f"t{depth}", depth, right.mean(), "frozen"))
    frame = pd.DataFrame(rows, columns=["trial", "depth_layers", "val_accuracy", "bn"])
    frame.to_csv(tmp_path / "results.csv", index=False)
    target = tmp_path / "answers" / "best.json"
    arguments = [str(tmp_path / "results.csv"), "--out", str(target)]
    assert command.main(arguments) == 0
    words = "BatchNorm held in inference mode: "
    printed = capsys.readouterr().out
    assert words in printed and "As good as can be told: 5 layers" in printed
    assert "how far two runs differ was not measured" in printed
    assert json.loads(target.read_text("utf-8"))["interval_source"] == "images"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        ("", "cannot read"),
        ("depth,loss\n1,2\n", "no column val_accuracy or accuracy"),
        ("depth,accuracy\n1,high\n", "holds 'high', which is no number"),
        ("depth,accuracy\n1,\n", "no finished trial"),
        ("depth,accuracy\n1,250\n", "must be a fraction"),
        ("depth,accuracy\n1,0.93\n2,91\n", "mixes fractions and percent"),
        ("depth,accuracy\n-1,0.5\n", "whole numbers of layers"),
        ("depth,accuracy\n1,2,3,4\n1\n\n1,2,3,4,5,6\n", "error: "),
    ],
)
def test_command_ends_with_one_line_on_bad_input(tmp_path, capsys, content, message):
    file = tmp_path / "results.csv"
    if content is not None:
        file.write_text(content)
    assert command.main([str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_command_needs_one_thing_to_do(table, capsys):
    assert command.main([]) == 2
    assert command.main([str(table), "--paper"]) == 2
    assert command.main([str(table), "--total-layers", "30"]) == 2
    assert "total_layers = 30 is below the deepest depth 80" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(["--bogus"])
