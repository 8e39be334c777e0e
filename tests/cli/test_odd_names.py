"""Names as people have them, from the folder to the drawn and written answer."""

import os
import shutil

import pytest
from tiny_run import run, table

NAMES = b"$x^$ [b]", "caf\u00e9".encode("latin1")  # mathtext and markup; no UTF-8
WORDS = "--depths 0 7 --bn frozen --epochs 1".split()


@pytest.fixture
def odd(images, tmp_path):
    """The images in folders that are called so."""
    if os.name == "nt":
        pytest.skip("bytes that are no text cannot be a name there")
    folder = tmp_path / "a$b$ [x] {c}"
    for split in ("train", "val"):
        for name, odd_name in zip(("blue", "red"), NAMES, strict=True):
            target = os.path.join(os.fsencode(folder), split.encode(), odd_name)
            shutil.copytree(os.fsencode(images / split / name), target)
    return folder


def test_every_name_is_printed_drawn_and_written(odd, tmp_path, capsys):
    out = tmp_path / "out $1_2 [b]"
    assert run(odd, out, *WORDS) == 0
    said, error = capsys.readouterr()
    assert error == "" and "a$b$ [x] {c}" in said and str(out) in said
    page = (out / "report.html").read_text("utf-8")
    assert "$x^$ [b]" in page and "caf\ufffd" in page
    assert (out / "depth_curve.png").stat().st_size > 1000
    assert (table(out).status == "done").all()


@pytest.mark.usefixtures("undrawn")
def test_the_home_folder_is_not_a_folder_of_that_name(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run(images, "~/results", *WORDS) == 0
    assert len(table(tmp_path / "home" / "results")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
