"""One cache folder, whoever asks."""

import subprocess
import sys
from pathlib import Path

import jax
import pooch
import pytest

from ftjax.machine import xla
from ftjax.machine.caches import cache_folder
from ftjax.weights.fetch import weights_folder


@pytest.fixture
def bare(monkeypatch):
    """Without the variables that name cache folders."""
    for name in ("FTJAX_CACHE", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_our_variable_comes_first(bare, tmp_path):
    bare.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    bare.setenv("FTJAX_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    bare.setenv("FTJAX_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    bare.setenv("FTJAX_CACHE", "")  # was the working directory for some
    assert cache_folder() != Path()


@pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
def test_the_folders_of_linux(bare, tmp_path):
    assert cache_folder() == Path.home() / ".cache" / "ftjax"
    bare.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ftjax"


def test_everywhere_the_folder_of_the_platform(bare):
    """On macOS and Windows three rules gave up to three folders."""
    bare.setattr(pooch, "os_cache", lambda project: Path("/platform") / project)
    assert cache_folder() == Path("/platform/ftjax")
    assert weights_folder() == Path("/platform/ftjax/weights")
    asked = {}
    bare.setattr(jax.config, "update", asked.__setitem__)
    xla.use_compilation_cache()
    assert asked["jax_compilation_cache_dir"] == str(Path("/platform/ftjax/programs"))


def test_jaxs_own_variable_is_left_alone(bare):
    bare.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    asked = {}
    bare.setattr(jax.config, "update", asked.__setitem__)
    xla.use_compilation_cache()
    assert "jax_compilation_cache_dir" not in asked


def test_neither_the_folder_nor_a_file_starts_jax():
    program = (
        "import sys, ftjax.machine.atomic, ftjax.machine.caches; "
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
