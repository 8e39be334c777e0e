"""Numbers of made maps, checks of made networks, and the rule."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from ftjax.data.boxes import box_masks
from ftjax.gradcam import checks as gradcam_checks
from ftjax.gradcam import maps as gradcam
from ftjax.gradcam import numbers as gradcam_numbers
from ftjax.gradcam.rule import compare, suggest_depth

POINT = np.zeros((1, 10, 10))
POINT[0, 2, 7] = 3.0
FLAT = np.ones((1, 10, 10))
EMPTY = np.zeros((1, 10, 10))


def test_concentration_of_known_maps():
    np.testing.assert_allclose(gradcam_numbers.top_energy(POINT), 1)
    np.testing.assert_allclose(gradcam_numbers.top_energy(FLAT), 0.2)
    np.testing.assert_allclose(gradcam_numbers.top_energy(FLAT[:, :3, :3]), 0.2)
    np.testing.assert_allclose(gradcam_numbers.entropy(POINT), 0)
    np.testing.assert_allclose(gradcam_numbers.entropy(FLAT), 1)
    for number in (gradcam_numbers.top_energy, gradcam_numbers.entropy):
        assert np.isnan(number(EMPTY)).all()


def test_numbers_do_not_depend_on_the_scale_of_a_map():
    rng = np.random.default_rng(0)
    maps, other = rng.random((2, 5, 9, 9)) ** 3
    tiny = maps * 1e-20
    for number in (gradcam_numbers.top_energy, gradcam_numbers.entropy):
        np.testing.assert_allclose(number(tiny), number(maps), rtol=1e-6)
    for number in (
        gradcam_numbers.rank_correlation,
        gradcam_numbers.top_iou,
        gradcam_numbers.class_difference,
    ):
        np.testing.assert_allclose(number(tiny, other), number(maps, other), rtol=1e-5)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 4, 7, 5)).astype(float)  # with many ties
    found = gradcam_numbers.rank_correlation(a, b)
    expected = [spearmanr(x.ravel(), y.ravel())[0] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(gradcam_numbers.rank_correlation(POINT, EMPTY)).all()


def test_overlap_of_strongest_pixels():
    ramp = np.arange(100.0).reshape(1, 10, 10)
    np.testing.assert_allclose(gradcam_numbers.top_iou(ramp, ramp), 1)
    np.testing.assert_allclose(gradcam_numbers.top_iou(ramp, 99 - ramp), 0)
    np.testing.assert_allclose(gradcam_numbers.top_iou(POINT, POINT), 1)
    assert np.isnan(gradcam_numbers.top_iou(ramp, EMPTY)).all()


def test_overlap_with_an_object():
    mask = np.zeros((1, 20, 20), bool)
    mask[:, :10, 10:] = True
    np.testing.assert_allclose(gradcam_numbers.energy_inside(POINT, mask), 1)
    np.testing.assert_allclose(gradcam_numbers.energy_inside(FLAT, mask), 0.25)
    np.testing.assert_allclose(gradcam_numbers.pointing_game(POINT, mask), 1)
    np.testing.assert_allclose(gradcam_numbers.pointing_game(POINT, ~mask), 0)
    assert np.isnan(gradcam_numbers.pointing_game(EMPTY, mask)).all()
    np.testing.assert_allclose(gradcam_numbers.area_inside(mask), 0.25)
    unknown = np.zeros_like(mask)
    assert np.isnan(gradcam_numbers.energy_inside(POINT, unknown)).all()
    assert np.isnan(gradcam_numbers.pointing_game(POINT, unknown)).all()
    assert np.isnan(gradcam_numbers.area_inside(unknown)).all()


def test_boxes_follow_the_central_square():
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.5], [0.5, 0, 1, 0.1]])
    sizes = np.array([[100, 200], [100, 200], [100, 200]])
    masks = box_masks(boxes, sizes, 8)
    assert masks[0].all()
    # Width 200 keeps columns 50 to 150; the box 50 to 100 is its left half.
    assert masks[1, :, :4].all()
    assert not masks[1, :, 4:].any()
    assert not masks[2].any()  # cut away


def test_difference_of_classes():
    rng = np.random.default_rng(0)
    maps = rng.random((3, 7, 7))
    same = gradcam_numbers.class_difference(maps, 2 * maps)
    opposite = gradcam_numbers.class_difference(maps, 1 - maps)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    np.testing.assert_allclose(opposite, 2, atol=1e-6)


def test_interval_draws_within_classes_and_leaves_undefined_out():
    labels = np.array([0, 0, 0, 1, 1, 1])
    by_class = np.array([1.0, 1, 1, 5, 5, 5])
    assert gradcam_numbers.bootstrap_mean(by_class, labels) == (3, 3, 3, 6)
    values = np.array([1.0, 2, np.nan, 5, 6, 7])
    found = gradcam_numbers.bootstrap_mean(values, labels)
    assert found.mean == pytest.approx(4.2)
    assert found.low < 4.2 < found.high
    assert found.images == 5
    nothing = gradcam_numbers.bootstrap_mean(np.full(6, np.nan), labels)
    assert np.isnan(nothing.mean)
    assert nothing.images == 0


def corner_network(images):
    """Class 0 sees the brightness of the left half, class 1 that of the right."""
    x = np.asarray(images, float).mean(-1) - gradcam_checks.HIDDEN
    half = x.shape[2] // 2
    return np.stack([x[:, :, :half].mean((1, 2)), x[:, :, half:].mean((1, 2))], 1) / 20


def halves():
    """Bright images, and maps of the left and the right half."""
    left = np.zeros((4, 2, 2))
    left[:, :, 0] = 1
    return np.full((4, 8, 8, 3), 220, np.uint8), left, left[:, :, ::-1].copy()


def test_hidden_pixels_tell_right_maps_from_wrong_ones():
    images, left, right = halves()
    labels, others = np.zeros(4, int), np.ones(4, int)
    arguments = {"classes": labels, "others": others}
    good = gradcam_checks.margin_effect(
        corner_network, images, class_maps=left, other_maps=right, **arguments
    )
    bad = gradcam_checks.margin_effect(
        corner_network, images, class_maps=right, other_maps=left, **arguments
    )
    assert (good > 0.1).all()
    np.testing.assert_allclose(bad, -good)
    empty = gradcam_checks.margin_effect(
        corner_network, images, class_maps=0 * left, other_maps=left, **arguments
    )
    assert np.isnan(empty).all()


def test_deletion_and_insertion_of_right_and_wrong_maps():
    images, left, right = halves()
    # The evidence for class 0 lies on the left and must go first.
    images[:, :, 4:] = gradcam_checks.HIDDEN
    labels = np.zeros(4, int)
    good, bad = (
        gradcam_checks.deletion_insertion(corner_network, images, labels, maps)
        for maps in (left, right)
    )
    assert (good.deletion < bad.deletion).all()
    assert ((good.insertion >= 0) & (good.insertion <= 1)).all()
    empty = gradcam_checks.deletion_insertion(corner_network, images, labels, 0 * left)
    assert np.isnan(empty.deletion).all()


def test_pixels_of_equal_strength_come_in_no_order():
    order = gradcam_checks.pixel_order(np.ones((2, 4, 4)), (16, 16))
    assert sorted(order[0]) == list(range(256))
    assert 90 < order[0][:50].mean() < 165  # not the first rows


STAGES = tuple(
    gradcam.Stage((f"a{number}", f"b{number}"), f"b{number}", 10 * number, 8, 8)
    for number in (1, 2, 3, 4)
)


@pytest.mark.parametrize(
    ("rates", "layers", "first"),
    [
        ((0.5, 0.5, 0.5, 0.5), 0, None),
        ((0.9, 0.9, 0.9, 0.5), 0, None),  # nothing below a stage that knows nothing
        ((0.9, 0.5, 0.8, 0.9), 70, 3),
        ((0.9, 0.9, 0.9, 0.9), 100, 1),
        ((0.9, np.nan, np.nan, 0.7), 40, 4),
    ],
)
def test_rule(rates, layers, first):
    found = suggest_depth(STAGES, rates)
    assert (found.depth_layers, found.first_stage) == (layers, first)
    assert ("head alone" in found.sentence) == (layers == 0)


def test_coarse_maps_are_not_judged():
    coarse = (*STAGES[:3], STAGES[3]._replace(height=3, width=3))
    found = suggest_depth(coarse, (0.5, 0.5, 0.9, 0.1))
    assert (found.depth_layers, found.first_stage) == (70, 3)
    assert "maps after stage 3 have fewer than 16 pixels" in found.sentence
    assert suggest_depth(coarse, (0.9, 0.9, 0.5, 0.9)).depth_layers == 0
    blind = tuple(stage._replace(height=2, width=2) for stage in STAGES)
    found = suggest_depth(blind, (0.9,) * 4)
    assert (found.depth_layers, found.first_stage) == (0, None)
    assert "nothing can be judged" in found.sentence


def test_rule_refuses_nonsense():
    with pytest.raises(ValueError, match="3 hit rates for 4 stages"):
        suggest_depth(STAGES, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("not_worse", "interval", "verdict", "words"),
    [
        ([40, 65], [40, 65], "agrees", "not worse than the best"),
        ([40], [0, 75], "inside", "does not agree"),
        ([40], [0, 45], "disagrees", "does not agree"),
        ([40], None, "disagrees", "without an interval"),
        ([40], [0, 100], "inside", "proves little"),
    ],
)
def test_agreement(not_worse, interval, verdict, words):
    suggestion = suggest_depth(STAGES, (0.9, 0.5, 0.8, 0.9))
    measured = {
        "depth_layers": 40,
        "total_layers": 100,
        "not_worse": not_worse,
        "interval_layers": interval,
    }
    found = compare(suggestion, measured, (0, 40, 65, 100))
    assert found.verdict == verdict
    assert words in found.sentence and "nearest tested: 65" in found.sentence
    facts = dict(found.facts)
    assert facts["Suggested by Grad-CAM"] == "70 layers"
    assert facts["Measured optimum"] == "40 layers"
    shown = f"{interval[0]} to {interval[1]} layers" if interval else "none"
    assert facts["Its interval"] == shown
    assert facts["Agreement"] == ("yes" if verdict == "agrees" else "no")
    by_chance = compare(suggestion, {**measured, "shape": "chance"}, (0, 40, 65, 100))
    assert dict(by_chance.facts)["Agreement"] == "cannot be judged"
    found = compare(suggestion, measured, (0, 40, 100))
    assert found.verdict == "untested"
    assert "add 70 to the sweep's --depths" in found.sentence
