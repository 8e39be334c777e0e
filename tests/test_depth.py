"""Depths against lists written by hand."""

import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.depth import (
    distinct_depths,
    make_cut,
    parse_depths,
    spread_depths,
    unit_depths,
)
from ftjax.training.suffix import make_suffix

TOP = {"conv", "bn"}


def trained(network, depth):
    """{unit: trainable layers} of the backbone."""
    cut = make_cut(network, depth)
    parts = make_suffix(network, cut, "follow")
    return {
        part.unit.name: set(part.trainable)
        for part in parts
        if part.trainable and not part.head
    }


@pytest.fixture(scope="module")
def tiny():
    return with_head(make_backbone("tiny"), 3)


@pytest.fixture(scope="module")
def lite():
    return with_head(make_backbone("effnetlite0"), 10)


def test_depth_zero_is_the_head_alone(tiny):
    cut = make_cut(tiny, 0)
    assert trained(tiny, 0) == {}
    assert cut.depth_units == 0
    assert tiny.units[cut.unit].name == "predictions"
    (part,) = make_suffix(tiny, cut, "follow")
    assert part.head and part.trainable == ("predictions",)


PROJECT = {"project_bn", "project_conv"}


@pytest.mark.parametrize(
    "depth, expected",
    [
        (1, {}),  # top_activation has no parameters
        (2, {"top": {"bn"}}),
        (3, {"top": TOP}),
        (5, {"top": TOP}),  # add and drop have none
        (6, {"top": TOP, "mb_block2": {"project_bn"}}),
        (7, {"top": TOP, "mb_block2": PROJECT}),
        (8, {"top": TOP, "mb_block2": PROJECT}),  # se_excite has none
        (9, {"top": TOP, "mb_block2": PROJECT | {"se_expand"}}),
    ],
)
def test_small_depths_of_tiny(tiny, depth, expected):
    assert trained(tiny, depth) == expected


def test_cut_between_the_layers_of_a_projection(tiny):
    # Keras' order: ..., 2_relu, 0_conv, 3_conv, 0_bn, 3_bn, add, out
    start = sum(len(unit.layers) for unit in tiny.units[4:8])
    assert trained(tiny, start + 4)["res_block1"] == {"3_bn", "0_bn"}
    assert trained(tiny, start + 5)["res_block1"] == {"3_bn", "0_bn", "3_conv"}
    assert "0_conv" in trained(tiny, start + 6)["res_block1"]


@pytest.mark.parametrize(
    "name, depth, first, weight_layers",
    [
        ("resnet152", 10, "conv5_block3_1_conv", 6),
        ("resnet152", 100, "conv4_block30_1_relu", 60),
        ("resnet152", 310, "conv4_block9_1_relu", 186),
        ("vgg16", 10, "block3_conv3", 7),
        ("vgg16", 17, "block1_conv2", 12),
        ("effnetb0", 10, "block7a_se_squeeze", 6),
        ("effnetb0", 54, "block6b_se_reshape", 30),
        ("effnetb0", 150, "block4a_project_conv", 84),
    ],
)
def test_the_papers_depths(name, depth, first, weight_layers):
    network = with_head(make_backbone(name), 10)
    assert network.layers[len(network.layers) - depth].name == first
    assert sum(len(keys) for keys in trained(network, depth).values()) == weight_layers


@pytest.mark.parametrize(
    "name, count", [("resnet152", 311), ("effnetb0", 131), ("vgg16", 14)]
)
def test_distinct_depths(name, count):
    backbone = make_backbone(name)
    depths = distinct_depths(backbone)
    network = with_head(backbone, 10)
    assert len(depths) == len(set(depths)) == count
    for depth in range(len(backbone.layers) + 1):
        cut = make_cut(network, depth)
        assert cut.same_set in depths
        assert make_cut(network, cut.same_set).trainable == cut.trainable


def test_full_depth_trains_everything(lite):
    cut = make_cut(lite, 149)
    assert cut.unit == 0
    assert cut.depth_units == 18
    parts = make_suffix(lite, cut, "follow")
    assert [part.unit for part in parts] == list(lite.units)
    assert all(part.trainable == part.unit.parameter_keys for part in parts)
    assert [part.head for part in parts] == [False] * 18 + [True] * 2


def test_unit_depths_open_whole_blocks(lite):
    depths = unit_depths(lite)
    assert len(depths) == 19
    assert depths[:4] == (0, 3, 11, 21)
    for units, depth in enumerate(depths):
        assert make_cut(lite, depth).depth_units == units


def test_spread_goes_from_none_to_all():
    for name in ("effnetlite0", "vgg16", "resnet152", "tiny"):
        backbone = make_backbone(name)
        depths = spread_depths(backbone)
        assert depths[0] == 0
        assert depths[-1] == len(backbone.layers)
        assert set(depths) <= set(unit_depths(backbone))


def test_words_and_numbers():
    backbone = make_backbone("vgg16")
    assert parse_depths(backbone, ("paper",)) == (0, 10, 14, 17, 18)
    assert parse_depths(backbone, ("3", "0", "3")) == (0, 3)
    assert parse_depths(backbone, ("units",)) == tuple(range(19))


@pytest.mark.parametrize(
    "word, message",
    [
        ("19", "depth 19 is out of range: vgg16 has 18 layers.*0 to 18"),
        ("-1", "depth -1 is out of range"),
        ("all", "unknown depth 'all'.*spread"),
    ],
)
def test_bad_depths(word, message):
    with pytest.raises(ValueError, match=message):
        parse_depths(make_backbone("vgg16"), (word,))


def test_no_paper_depths_for_other_models():
    with pytest.raises(ValueError, match="the paper measured no depths of tiny"):
        parse_depths(make_backbone("tiny"), ("paper",))
