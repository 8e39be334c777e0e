"""Stored activations have another name as soon as the code that makes them changes."""

import shutil
import zipfile
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from ftjax.backbones import make_backbone
from ftjax.frozen import store
from ftjax.frozen.sources import DETERMINING, digest_sources, source_digest


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package's sources."""
    with resources.as_file(resources.files("ftjax")) as folder:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder, tmp_path / "ftjax", ignore=ignored)
    return tmp_path / "ftjax"


def test_a_copy_has_the_same_digest(package):
    assert digest_sources(package) == source_digest()
    (package / "kernels" / "__pycache__").mkdir()
    (package / "kernels" / "__pycache__" / "winograd.pyc").write_bytes(b"compiled")
    assert digest_sources(package) == source_digest()


@pytest.mark.parametrize(
    "name",
    ["kernels/winograd.py", "backbones/layers.py", "frozen/forward.py"],
)
def test_one_changed_line_changes_it(package, name):
    path = package / name
    path.write_text(path.read_text() + "\nSCALE = 2\n")
    assert digest_sources(package) != source_digest()


def test_so_does_a_new_a_renamed_and_a_moved_file(package):
    found = {source_digest()}
    (package / "kernels" / "new.py").write_text("")
    found.add(digest_sources(package))
    (package / "kernels" / "new.py").rename(package / "kernels" / "newer.py")
    found.add(digest_sources(package))
    (package / "kernels" / "newer.py").rename(package / "backbones" / "newer.py")
    found.add(digest_sources(package))
    assert len(found) == 4


def test_the_report_does_not(package):
    (package / "report" / "page.py").write_text("")
    assert digest_sources(package) == source_digest()


def test_an_archive_has_the_same_digest(package):
    path = shutil.make_archive(str(package.parent / "wheel"), "zip", package.parent)
    with zipfile.ZipFile(path) as file:
        assert digest_sources(zipfile.Path(file, "ftjax/")) == source_digest()


@pytest.mark.parametrize("place", DETERMINING)
def test_a_package_without_sources_stores_nothing(package, place):
    path = package / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=f"without the sources of {place}"):
        digest_sources(package)


def test_it_is_part_of_the_name(monkeypatch):
    name = partial(
        store.content_name,
        make_backbone("tiny"),
        3,
        start={},
        data_hash="0",
        image_size=16,
        batch_size=8,
        devices=1,
    )
    before = name()
    assert name() == before
    monkeypatch.setattr(store, "source_digest", lambda: "other")
    assert name() != before
