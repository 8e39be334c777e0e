"""`ftjax advise`: trains, says, resumes, and refuses in one line."""

import pandas as pd
import pytest

from ftjax.cli import advise as command

TINY = "--model tiny --weights random --image-size 16 --batch-size 8 --lr 1e-2".split()
QUICK = "--epochs 1 --scratch-epochs 1 --depths 7".split()


def test_it_advises_and_goes_on(images, tmp_path, capsys):
    arguments = [*TINY, *QUICK, "--data", str(images), "--out", str(tmp_path)]
    assert command.main([*arguments, "--train-size", "16", "32"]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "advice.csv")
    assert set(table["train_size"]) == {16, 32}
    modes = ["head alone", "some layers", "all layers", "from scratch"]
    assert list(table["mode"][:4]) == modes and len(table) == 8
    assert "tiny: case " in said and "16 images: case" in said
    assert "random weights: nothing here is about transfer" in said
    page = (tmp_path / "advice.html").read_text("utf-8")
    assert "From scratch" in page and "--train-size 16 32" in page
    trials = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("trial.json")}
    assert len(trials) == 8
    assert command.main([*arguments, "--train-size", "16", "32"]) == 0
    assert trials == {path: path.stat().st_mtime_ns for path in trials}


def test_sizes_are_halves_of_what_there_is(images, tmp_path):
    options = command.Options(
        data=str(images), model=("tiny",), weights="random", image_size=16, batch_size=8
    )
    (first, _) = command.make_configs(options, tmp_path)
    assert command.halves(first) == (48, 24, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nonet"], "nonet"),
        (["--depths", "900"], "depth 900 is out of range"),
        (["--train-size", "4"], "--batch-size 8 is larger than"),
        (["--lr", "0"], "--lr 0.0 must be a positive number"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(images, tmp_path, capsys, arguments, message):
    usual = [*TINY, *QUICK, "--data", str(images), "--out", str(tmp_path / "new")]
    for flag in arguments[::2]:
        if flag in usual:
            at = usual.index(flag)
            del usual[at : at + 2]
    assert command.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
