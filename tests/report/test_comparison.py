"""The comparison of runs, from their folders to its files."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from html_page import Page
from made_sweep import made_results

from experiments import compare as command


@pytest.fixture
def runs(tmp_path):
    """Two runs of other networks and data, made."""
    folders = []
    for name, model in (("food", "effnetlite0"), ("<dogs>", "resnet50")):
        folder = tmp_path / name
        folder.mkdir()
        table = made_results(seeds=2, bn=("frozen",), model=model)
        table.assign(data=name).to_csv(folder / "results.csv", index=False)
        config = {"model": model, "data": f"images/{name}", "depths": [0, 149]}
        saved = {"config": config, "class_names": list("abcdefghij")}
        (folder / "config.json").write_text(json.dumps(saved))
        folders.append(folder)
    return folders


def test_command_writes_table_figure_and_page(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main([*map(str, runs), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "In 2 of 2 runs a depth of 20 to 25 % of the layers" in shown
    table = pd.read_csv(out / "compare.csv")
    assert list(table["run"]) == ["food", "<dogs>"]
    assert list(table["data"]) == ["food", "<dogs>"]
    best = made_results(seeds=2, bn=("frozen",)).groupby("depth_layers")["val_accuracy"]
    assert set(table["depth_layers"]) == {best.mean().idxmax()}
    # 30 of 149 layers are 20.1 %
    assert set(table["rule_depth"]) == {30} and table["rule_tested"].all()
    loss = best.mean().max() - best.mean()[30]
    assert table["rule_loss"].to_list() == pytest.approx([loss, loss])
    ElementTree.parse(out / "compare.svg")
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = Page((out / "compare.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    text = " ".join(page.text)
    assert "<dogs>" in text and "Cost of full fine-tuning" in text
    assert text.count("Method") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("twice", "one run is nothing to compare"),
        ("table", "has no results.csv yet"),
        ("folder", "holds no sweep (no config.json in it)"),
        ("metric", "metric macro_f1 needs the labels"),
        ("unfinished", "no finished trial"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs, change, message, tmp_path, capsys):
    words = []
    if change == "twice":
        runs[1] = runs[0]
    elif change == "table":
        (runs[1] / "results.csv").unlink()
    elif change == "folder":
        shutil.rmtree(runs[1])
    elif change == "metric":
        words = ["--metric", "macro_f1"]
    else:
        table = pd.read_csv(runs[1] / "results.csv").assign(status="pending")
        table.to_csv(runs[1] / "results.csv", index=False)
    words += ["--out", str(tmp_path / "out")]
    assert command.main([*map(str, runs), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
