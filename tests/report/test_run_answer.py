"""From the tables of a run to its recommendation."""

import json
import shutil

import pytest
from tiny_run import run

SHARED = "2 validation images are also training images"


@pytest.mark.usefixtures("cache")
def test_images_in_both_splits_are_warned_of_everywhere(images, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    for name in ("0.png", "1.png"):
        shutil.copy(data / "train" / "red" / name, data / "val" / "red" / f"b{name}")
    assert run(data, out, "--depths", 0, "--epochs", 1, "--plan") == 0
    assert SHARED in capsys.readouterr().out
    assert run(data, out, "--depths", 0, "--epochs", 1) == 0
    assert capsys.readouterr().out.count(SHARED) == 2  # the plan, and the answer
    answer = json.loads((out / "recommendation.json").read_text())
    assert sum(SHARED in warning for warning in answer["warnings"]) == 1
    page = (out / "report.html").read_text()
    assert "<h2>Warnings</h2>" in page and SHARED in page
