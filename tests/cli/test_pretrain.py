"""`pretrain`: weights that --weights takes; bad arguments are one line."""

import numpy as np
import pytest
from tiny_run import run

from experiments import pretrain as command
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.weights.pretrained import load_pretrained
from ftjax.weights.readers import read_tensors

# The programs that other tests compile as well.
WORDS = "--model tiny --image-size 16 --batch-size 16 --epochs 1 --l2 0 --warmup 0 "
WORDS = [*WORDS.split(), "--schedule", "constant"]


def test_the_trained_weights_are_a_start(images, cache, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    words = [*WORDS, "--data", str(images), "--out", str(out)]
    assert command.main(words) == 0
    assert f"{out}: validation accuracy " in capsys.readouterr().out
    backbone = make_backbone("tiny")
    trained = load_pretrained(backbone, str(out), size=16)
    start, _ = init(backbone.units, 0, 16)
    for unit in backbone.units:  # every layer has learned
        for key in unit.parameter_keys:
            for leaf, value in trained.params[unit.name][key].items():
                assert (value != start[unit.name][key][leaf]).any(), (unit.name, key)
    first = dict(read_tensors(out))
    assert "tiny/params/predictions/predictions/kernel" in first
    assert command.main(words) == 0  # nothing is left to train
    assert "kept 1 of 1" in capsys.readouterr().out
    np.testing.assert_equal(dict(read_tensors(out)), first)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--out", "mine.pth"], "error: --out mine.pth must end in .safetensors"),
        (
            ["--out", "none/a.safetensors"],
            "error: --out none/a.safetensors: there is n",
        ),
        (
            ["--out", "a.safetensors", "--model", "alexnet", "--image-size", "66"],
            "error: --image-size 66 is too small for alexnet: it takes 67 pixels or m",
        ),
    ],
)
def test_refused(words, line, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([*WORDS, "--data", str(images), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(line) and error.count("\n") == 1


def test_a_sweep_refuses_an_unknown_class(images, cache, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--classes", "blue", "green") == 2
    error = capsys.readouterr().err
    assert "has no class 'green'; it has 'blue', 'red'" in error
    assert error.count("\n") == 1
