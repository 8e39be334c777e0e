"""Images: what they draw, on made data, and that files repeat byte for byte."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from made_sweep import LAYERS, SHAPE, made_epochs, made_results, unfinish
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ftjax.analysis.recommend import recommend
from ftjax.batch_norm import POLICIES
from ftjax.report import depth_plot as plots
from ftjax.report import drawing
from ftjax.report.axis_plots import depth_by_axis


def texts(figure: Figure) -> list[str]:
    found = [figure.get_suptitle().replace("\n", " ")]
    for ax in figure.axes:
        found += [text.get_text() for text in ax.texts]
        found += [ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel()]
        for child in ax.child_axes:
            found.append(child.get_xlabel())
            found += [label.get_text() for label in child.get_xticklabels()]
        found += [label.get_text() for label in ax.get_xticklabels()]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return found


def line_of(figure: Figure, color: str, style: str = "-") -> np.ndarray:
    (line,) = [
        line
        for line in figure.axes[0].lines
        if to_hex(line.get_color()) == color
        and line.get_linestyle() == style
        and len(line.get_xdata()) > 2
    ]
    return np.asarray(line.get_xydata())


@pytest.fixture(scope="module")
def answer():
    return recommend(made_results(), bootstrap=200)


def test_depth_curve_draws_the_measured_means(answer):
    figure = plots.depth_curve(made_results(), answer)
    for bn, shape in SHAPE.items():
        if bn != "recalibrate":
            drawn = line_of(figure, POLICIES[bn].color)
            np.testing.assert_allclose(drawn, np.transpose([LAYERS, shape]))
    training = line_of(figure, POLICIES["follow"].color, "--")
    np.testing.assert_allclose(training[:, 1], np.array(SHAPE["follow"]) + 0.012)


def test_depth_curve_says_its_finding_and_shows_both_units(answer):
    found = texts(plots.depth_curve(made_results(), answer))
    assert "98.5" in found[0] and "top 84 layers" in found[0]
    assert "can be told from the others" in found[0]  # one seed: no depth stands out
    assert "recommended: 84 layers, 10 blocks" in found
    phone = plots.depth_curve(made_results(), answer, width=plots.NARROW)
    assert "recommended: 84 layers" in texts(phone)
    assert {"follow", "frozen", "blocks unfrozen (of 18)"} <= set(found)
    assert "149\n100 %" in found  # layers and their share below
    assert {"1", "2", "4", "7", "10", "13", "16", "18"} <= set(found)  # blocks above
    assert "fitted quadratic, its vertex" in found
    assert any("as good as can be told: run noise assumed" in text for text in found)


def test_a_crowded_top_is_drawn_again(answer):
    whole, top = plots.depth_curve(made_results(), answer).axes
    assert top.get_title("left") == "the top of it, enlarged"
    low, high = top.get_ylim()
    assert low > 0.85 > 0.6 > whole.get_ylim()[0] and high > 0.985
    flat = made_results(bn=("frozen",))
    assert len(plots.depth_curve(flat).axes) == 1
    assert len(plots.depth_curve(made_results(), metric="val_loss").axes) == 1


def test_stopped_depths_leave_a_mark():
    results = unfinish(made_results(), [4], "stopped")
    assert "stopped early" in texts(plots.depth_curve(results))


def test_quadratic_is_drawn_at_its_vertex(answer):
    figure = plots.depth_curve(made_results(), answer)
    fit = answer.quadratic["follow"]
    drawn = line_of(figure, POLICIES["follow"].color, ":")
    assert drawn[np.argmax(drawn[:, 1]), 0] == pytest.approx(fit.vertex, abs=1.0)
    diamonds = [m for m in figure.axes[0].lines if m.get_marker() == "D"]
    assert any(m.get_xdata() == pytest.approx(fit.vertex) for m in diamonds)


def test_intervals_and_replicates_only_with_seeds():
    one = plots.depth_curve(made_results())
    three = plots.depth_curve(made_results(seeds=3))
    assert "95 % t interval of the mean" not in texts(one)
    assert "one seed" not in texts(one)
    assert {"95 % t interval of the mean", "one seed"} <= set(texts(three))
    dots = [line for line in three.axes[0].lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in dots] == [27, 27]


def test_a_parabola_through_three_points_is_not_drawn():
    few = made_results(bn=("follow",), depths=LAYERS[:3])
    more = made_results(bn=("follow",), depths=LAYERS[:4])
    names = {}
    for table in (few, more):
        figure = plots.depth_curve(table, recommend(table, bootstrap=100))
        names[len(table)] = "fitted quadratic, its vertex" in texts(figure)
    assert names == {3: False, 4: True}


def test_both_panels_shade_the_depths_of_the_recommended_policy():
    """The other policies may have been tried at fewer depths, as after a search."""
    results = made_results()
    results = results[(results["bn"] == "frozen") | (results["depth_layers"] % 3 == 0)]
    results["val_accuracy"] = results["val_accuracy"].where(
        results["bn"] == "frozen", 0.5
    )
    best = recommend(results, bootstrap=100)
    depths = np.unique(results.loc[results["bn"] == "frozen", "depth_layers"])
    panels = plots.depth_curve(results, best).axes
    shades = [
        [(p.get_x(), p.get_x() + p.get_width()) for p in panel.patches]
        for panel in panels
        if panel.patches
    ]
    assert len(shades) == 2 and shades[0] == shades[1]
    within = [any(low < L < high for low, high in shades[0]) for L in depths]
    assert tuple(depths[within]) == best.not_worse
    bars = [
        line.get_xdata()
        for line in panels[0].lines
        if line.get_marker() == "|" and line.get_linewidth() == 2.5
    ]
    covered = [any(low <= L <= high for low, high in bars) for L in depths]
    assert tuple(depths[covered]) == best.not_worse  # the bar says what the shade says


def test_the_set_says_when_the_run_noise_is_assumed():
    one = made_results().assign(val_size=400)
    found = texts(plots.depth_curve(one, recommend(one, bootstrap=100)))
    assert "as good as can be told: run noise assumed" in found
    three = made_results(seeds=3)
    found = texts(plots.depth_curve(three, recommend(three, bootstrap=100)))
    assert "as good as can be told: 95 % set, 3 seeds" in found


def test_the_image_names_the_conditions_and_what_was_not_trained_to_the_end():
    results = made_results(seeds=3).assign(lr=1e-4, image_size=32, train_size=1400)
    best = recommend(results, bootstrap=100, epochs=made_epochs(results))
    for width in (plots.WIDE, plots.NARROW):
        found = " ".join(texts(plots.depth_curve(results, best, width=width)))
        found = " ".join(found.split())
        assert "rate 1e-4, 5 epochs, 32 pixels, 1,400 images of made digits" in found
        assert found.startswith("Not trained to the end: ")


def test_another_rate_is_not_drawn_into_the_same_curve():
    low, high = made_results().assign(lr=1e-5), made_results().assign(lr=1e-3)
    high["trial"] += "x"
    high["val_accuracy"] -= 0.05
    both = pd.concat([low, high], ignore_index=True)
    drawn = line_of(
        plots.depth_curve(both, recommend(both, bootstrap=100)),
        drawing.look_of("frozen").color,
    )
    np.testing.assert_allclose(drawn, np.transpose([LAYERS, SHAPE["frozen"]]))
    np.testing.assert_allclose(
        line_of(plots.depth_curve(both), drawing.look_of("frozen").color), drawn
    )


def test_seed_interval_equals_scipy_on_pooled_neighbors():
    stats = pytest.importorskip("scipy.stats")
    values = [np.array([0.1, 0.3]), np.array([0.5, 0.4, 0.6]), np.array([0.7])]
    half = drawing.seed_interval(values)
    pooled = np.sum((values[0] - 0.2) ** 2) + np.sum((values[1] - 0.5) ** 2)
    expected = [
        stats.t.ppf(0.975, 3) * np.sqrt(pooled / 3 / 2),
        stats.t.ppf(0.975, 3) * np.sqrt(pooled / 3 / 3),
    ]
    np.testing.assert_allclose(half[:2], expected, rtol=1e-9)
    assert np.isnan(half[2])


def test_batchnorm_gap_names_where_the_modes_part():
    figure = plots.batchnorm_gap(made_results(bn=("follow", "frozen", "recalibrate")))
    title = texts(figure)[0]
    assert "149 layers, BatchNorm follow" in title
    assert "99.5" in title and "55.4" in title
    assert [ax.get_title("left") for ax in figure.axes] == [
        f"BatchNorm {bn}" for bn in SHAPE
    ]
    assert [len(ax.collections) for ax in figure.axes] == [1, 1, 1]


def test_the_gap_is_filled_from_the_crossing_on():
    """Also where only one of two neighboring depths has a gap."""
    table = made_results(bn=("follow",))
    depths = sorted(table.depth_layers.unique())
    last = table.depth_layers == depths[-1]
    table["accuracy"] = table.train_mode_accuracy + 0.01
    table.loc[last, "accuracy"] = table.train_mode_accuracy[last] - 0.2
    (filled,) = plots.batchnorm_gap(table).axes[0].collections
    (path,) = filled.get_paths()
    assert (
        depths[-2] < path.vertices[:, 0].min() < depths[-1] == path.vertices[:, 0].max()
    )


def test_batchnorm_gap_without_a_gap_or_with_frozen_statistics():
    agree = made_results(bn=("recalibrate",))
    agree["train_mode_accuracy"] = agree["accuracy"]
    title = texts(plots.batchnorm_gap(agree))[0]
    assert "No lag" in title and "0.0 points" in title and "frozen" not in title
    both = made_results()
    both["train_mode_accuracy"] = both["accuracy"]
    assert "yet BatchNorm frozen gains up to" in " ".join(
        texts(plots.batchnorm_gap(both))[0].split()
    )
    frozen = plots.batchnorm_gap(made_results(bn=("frozen",)))
    assert "same running statistics" in texts(frozen)[0]


def test_learning_curves_keep_the_recommended_panel_among_many(answer):
    results = made_results(depths=range(0, 150, 3))
    figure = plots.learning_curves(made_epochs(results), answer, max_panels=6)
    titles = [ax.get_title("left") for ax in figure.axes]
    assert len(titles) == 6 and "recommended: 84" in titles
    few = plots.learning_curves(made_epochs(made_results()))
    assert [ax.get_title("left") for ax in few.axes][:2] == ["head alone", "3 layers"]


def test_pareto_front_has_no_beaten_point(answer):
    results = made_results()
    figure = plots.pareto(results, answer)
    (front,) = [
        line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"
    ]
    for cost, accuracy in front.get_xydata():
        cheaper = results["seconds"] <= cost
        assert results.loc[cheaper, "val_accuracy"].max() == pytest.approx(accuracy)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "seconds of training",
        "FLOPs of training",
    ]
    assert "6.8 points" in texts(figure)[0] and "2.8x" in texts(figure)[0]
    only_time = plots.pareto(results.assign(flops=np.nan))
    assert len(only_time.axes) == 1


@pytest.mark.parametrize(
    "results",
    [
        made_results(bn=("follow",), depths=[30]),
        made_results(depths=[0, 149], seeds=2),
        made_results(depths=np.linspace(0, 149, 50).round().astype(int)),
        unfinish(made_results(model="long $name$ " * 9), [1, 2, 9], "failed"),
        unfinish(made_results(), list(range(18)), "pending"),
        made_results()[["depth_layers", "val_accuracy"]].iloc[:9],
    ],
    ids=["one", "two", "fifty", "failed", "pending", "bare"],
)
def test_every_image_stands_odd_tables(results):
    best = None
    if results["val_accuracy"].notna().any():
        best = recommend(results, bootstrap=100)
    width = plots.NARROW
    figures = [
        plots.depth_curve(results, best, width=width),
        plots.batchnorm_gap(results, width=width),
        plots.pareto(results, best, width=width),
    ]
    if "val_loss" in results:
        figures.append(plots.depth_curve(results, metric="val_loss", width=width))
    for figure in figures:
        assert ElementTree.fromstring(drawing.svg_text(figure)).tag.endswith("svg")
        assert figure.get_figwidth() == width


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
def test_no_text_leaves_the_image(width, answer):
    results = made_results(seeds=2, bn=tuple(SHAPE), model="a_long_model_name_" * 5)
    for figure in (
        plots.depth_curve(results, answer, width=width),
        plots.batchnorm_gap(results, width=width),
        plots.learning_curves(made_epochs(results), answer, width=width),
        plots.pareto(results, answer, width=width),
    ):
        figure.set_dpi(72)
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        assert box.x0 >= -0.01 and box.x1 <= figure.get_figwidth() + 0.01
        assert box.y0 >= -0.01 and box.y1 <= figure.get_figheight() + 0.01


def test_failed_depths_leave_a_cross_and_equal_policies_share_a_line():
    results = unfinish(made_results(), [4], "failed")
    assert "a trial failed here" in texts(plots.depth_curve(results))
    twins = made_results(bn=("follow",))
    both = twins.assign(bn="frozen")
    figure = plots.depth_curve(pd.concat([twins, both], ignore_index=True))
    assert "follow = frozen" in texts(figure)


def test_save_writes_the_same_bytes_twice(tmp_path, answer):
    first = plots.save(plots.depth_curve(made_results(), answer), tmp_path / "a" / "x")
    again = plots.save(plots.depth_curve(made_results(), answer), tmp_path / "y.v2")
    assert [p.name for p in first + again] == ["x.png", "x.svg", "y.v2.png", "y.v2.svg"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    head = first[0].read_bytes()
    assert int.from_bytes(head[16:20], "big") == round(plots.WIDE * 200)


def test_bad_input_is_named():
    results = made_results()
    with pytest.raises(ValueError, match="unknown metric 'speed'; choose one of"):
        plots.depth_curve(results, metric="speed")
    with pytest.raises(ValueError, match="results lack the columns"):
        plots.pareto(results.drop(columns="val_accuracy"))
    with pytest.raises(ValueError, match="model"):
        plots.batchnorm_gap(results.assign(model=["a", "b"] * 9))


def test_what_diverged_is_drawn_at_chance():
    results = made_results(bn=("frozen",))
    lost = results["depth_layers"] == 149
    results.loc[lost, ["val_accuracy", "accuracy"]] = np.nan
    results.loc[lost, "status"] = "diverged"
    answer = recommend(results, num_classes=10)
    figure = plots.depth_curve(results, answer)
    (cross,) = [x for x in figure.axes[0].lines if x.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[149, 0.1]]
    assert figure.axes[0].get_ylim()[0] < 0.1
    other = made_results(bn=("frozen",)).assign(lr=1e-3)
    several = pd.concat([results.assign(lr=1e-2), other], ignore_index=True)
    heat = depth_by_axis(several, "lr", chance=0.1)
    shown = heat.axes[0].images[0].get_array()
    assert shown[1, -1] == pytest.approx(0.1) and shown[0, -1] == SHAPE["frozen"][-1]
    assert "10.0 \N{MULTIPLICATION SIGN}" in texts(heat)
    # Tuned depths stay in the curve even if none of their rates was good.
    alone = pd.concat([results.assign(lr=1e-2), other[~lost]], ignore_index=True)
    kept = drawing.rows_of(alone, recommend(alone, num_classes=10))
    assert kept.loc[kept["depth_layers"] == 149, "status"].tolist() == ["diverged"]
