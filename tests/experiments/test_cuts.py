"""The table of cuts against Keras' own layers, and the paper's table against it."""

import json
from pathlib import Path

import pytest

from ftjax.backbones import make_backbone
from ftjax.cli import cuts
from ftjax.report import units

KERAS = json.loads((Path(__file__).parents[1] / "keras_layers.json").read_text())


@pytest.fixture(scope="module")
def rows():
    return units.list_units(make_backbone("effnetb0"), 32, 54)


def test_ranges_and_parameters_are_those_of_keras(rows):
    layers = [line.split() for line in KERAS["effnetb0"]]
    first = 1
    for row in rows:
        assert row.first == first
        own = layers[row.first - 1 : row.last]
        assert row.params == sum(int(line[2]) for line in own)
        if row.name.startswith("block"):
            assert all(line[0].startswith(f"{row.name}_") for line in own)
        first = row.last + 1
    assert first == len(layers) + 1
    assert sum(row.flops_share for row in rows) == pytest.approx(1)


def test_what_a_depth_unfreezes_is_the_end_of_keras_layers(rows):
    layers = [line.split() for line in KERAS["effnetb0"]][-54:]
    assert sum(row.unfrozen for row in rows) == 54
    trained = sum(row.unfrozen_params for row in rows)
    assert trained == sum(int(line[2]) for line in layers) == 2638656
    shown = {row.name: row.words for row in rows}
    assert shown["block6b"] == "8 of 15 layers, 333,360 parameters"
    assert (shown["block6a"], shown["block6c"], shown["top"]) == ("", "all", "all")


def test_depth_0_and_the_whole_network():
    backbone = make_backbone("tiny")
    total = len(backbone.layers)
    assert not any(row.unfrozen for row in units.list_units(backbone, 32, 0))
    rows = units.list_units(backbone, 32, total)
    assert all(row.unfrozen == row.num_layers for row in rows)
    assert [row.unfrozen_params for row in rows] == [row.params for row in rows]


def test_notes_on_the_papers_table(rows):
    notes = " ".join(units.paper_notes(make_backbone("effnetb0"), rows))
    assert "0 of 15 counts match; block4c is missing" in notes
    assert "6a + 6b + 7a are the top 54 layers. They are 42 layers" in notes
    assert "not contiguous, and do not reach the output" in notes
    assert "last 8 of 15 of block6b and all above it" in notes


def test_command(capsys):
    assert cuts.main(["--model", "tiny", "--depth", "20", "--image-size", "32"]) == 0
    shown = capsys.readouterr().out
    assert "Top 20 layers unfreeze" in shown
    assert "tiny at 32 pixels: 59 layers in 8 units" in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "resnet9"], "unknown model 'resnet9'"),
        (["--model", "tiny", "--depth", "60"], "depth 60 is out of range: tiny has 59"),
        (["--model", "tiny", "--image-size", "8"], "tiny takes 16 to 1024 pixels"),
    ],
)
def test_bad_arguments_end_with_2_and_one_line(arguments, message, capsys):
    assert cuts.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
