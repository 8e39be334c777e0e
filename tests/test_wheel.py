"""The installed package, beside a user's own folder named experiments."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# Building fetches setuptools.
pytestmark = [pytest.mark.slow, pytest.mark.network]


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves its files in the folder it is of
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("ftjax", "experiments"):
        shutil.copytree(CHECKOUT / name, source / name)
    pip("wheel", "--no-deps", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert sorted(top.partition("-")[0] for top in tops) == ["ftjax", "ftjax"]
    for name in ("py.typed", "report/page.html.j2", "paper/tables.json", "commands.py"):
        assert f"ftjax/{name}" in names


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["cuts", "--model", "tiny", "--image-size", "32"], "59 layers in 8 units"),
        (["fit", "--paper"], "impossible: no data could give this number"),
        (["sweep", "--help"], "--head-lr-factor"),
        (["fit", "gone.csv"], "error: no file gone.csv"),
    ],
)
def test_commands_run_beside_a_folder_of_that_name(wheel, tmp_path, arguments, words):
    site, mine = tmp_path / "site", tmp_path / "mine"
    pip("install", "--no-deps", "--target", site, wheel)
    (mine / "experiments").mkdir(parents=True)
    (mine / "experiments" / "__init__.py").write_text("raise SystemExit('mine')\n")
    found = subprocess.run(
        [site / "bin" / "ftjax", *arguments],
        cwd=mine,
        env={**os.environ, "PYTHONPATH": f"{site}:{mine}"},
        capture_output=True,
        text=True,
    )
    assert words in found.stdout + found.stderr
    assert found.returncode == (2 if "error" in words else 0)
