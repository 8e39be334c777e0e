"""Sets of blocks: how they are named, and which parameters they train."""

import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.block_sets import block_names, make_set_cut, parse_sets, set_name
from ftjax.depth import make_cut

LITE = make_backbone("effnetlite0")
TINY = with_head(make_backbone("tiny"), 3)


def test_words_become_sets_in_network_order_without_repeats():
    assert parse_sets(LITE, ["block7a+block6a+block6b", "top", "top+top"]) == (
        ("block6a", "block6b", "block7a"),
        ("top",),
    )
    each = parse_sets(LITE, ["each", "stem"])
    assert each == tuple((unit.name,) for unit in LITE.body) and len(each) == 18
    assert "plain_pool" not in block_names(TINY)  # it has no parameters
    assert set_name(("block6a", "top")) == "block6a+top"


@pytest.mark.parametrize("word", ["block8a", "block6a+block8a"])
def test_an_unknown_block_is_told_with_those_that_there_are(word):
    message = f"--sets .*{word.split('+')[-1]}'; its blocks are stem block1a .* top: "
    with pytest.raises(ValueError, match=message) as error:
        parse_sets(LITE, [word])
    assert "\n" not in str(error.value)


def test_the_named_blocks_and_the_head_are_trained_and_nothing_else():
    cut = make_set_cut(TINY, ("plain_conv", "res_block2"))
    assert cut.blocks == ("plain_conv", "res_block2")
    assert TINY.units[cut.unit].name == "plain_conv"
    units = TINY.units[cut.unit :]
    trained = {
        unit.name: keys for unit, keys in zip(units, cut.trainable, strict=True) if keys
    }
    whole = {unit.name: unit.parameter_keys for unit in units}
    expected = ["plain_conv", "res_block2", TINY.head[-1].name]
    assert trained == {name: whole[name] for name in expected}
    assert (cut.depth_layers, cut.depth_units) == (11, 2)


def test_a_set_of_the_top_blocks_is_a_depth():
    names = block_names(TINY)
    for count in range(1, len(names) + 1):
        cut = make_set_cut(TINY, names[-count:])
        depth = make_cut(TINY, cut.depth_layers)
        assert cut == depth and not cut.blocks
        assert TINY.units[cut.unit].name == names[-count]
    assert make_set_cut(TINY, names[-2:-1]).blocks
