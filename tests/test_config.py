"""The configuration completes itself."""

from pathlib import Path

import pytest

from ftjax.config import Config
from ftjax.defaults import complete


def test_the_home_folder_is_expanded_wherever_a_path_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = complete(
        Config(
            model="tiny",
            data="~/pets",
            data_dir=Path("~/tfds"),
            weights="~/w.h5",
            out=Path("~/results"),
        )
    )
    assert config.data == str(tmp_path / "pets")
    assert config.data_dir == tmp_path / "tfds"
    assert config.weights == str(tmp_path / "w.h5")
    assert config.out == tmp_path / "results"


def test_a_home_folder_that_does_not_exist_is_told():
    with pytest.raises(ValueError, match="~nobody-of-that-name/x.*home"):
        complete(Config(model="tiny", out=Path("~nobody-of-that-name/x")))


def test_without_a_tilde_nothing_changes():
    config = complete(Config(model="tiny", data="digits", weights="random"))
    assert (config.data, config.weights) == ("digits", "random")
    assert config.out == Path("runs/tiny-digits")
