"""Every notebook runs from top to bottom with a small setting, and holds no output."""

import ast
import json
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
TINY = "--weights random --image-size 16 --train-size 64 --val-size 20 --epochs 1"
TINY += " --lr 1e-4 --no-replicate"
SMALL = {
    "quickstart": f"""
DATA = "digits"
OUT = {{out!r}}
OPTIONS = "--model tiny {TINY} --depths 0 3 --bn frozen".split()
""",
    "reproduce_depth_paper": f"""
import sys
from pathlib import Path
STORE, TFDS = Path({{out!r}}), Path({{out!r}}) / "none"
PREPARE = []
PAIRS = {{{{"tiny": "{TINY} --data digits --depths 0 3 7 --bn frozen"}}}}
""",
    "why_deeper_hurts": f"""
OUT = {{out!r}}
OPTIONS = "--model tiny {TINY} --data digits --depths 0 18".split()
DEEP, POLICIES, IMAGES = "18", ["follow"], "10"
""",
}


def read(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(code, tag):
    (cell,) = (cell for cell in code if tag in cell.metadata.get("tags", []))
    return cell


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebook_runs(name, tmp_path):
    notebook, code = read(name)
    tagged(code, "settings").source = SMALL[name].format(out=str(tmp_path))
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(FOLDER.parent))
    printed = "".join(
        output.get("text", "") for cell in code for output in cell.get("outputs", [])
    )
    answers = list(tmp_path.rglob("recommendation.json"))
    assert len(answers) == 1
    assert json.loads(answers[0].read_text())["sentence"] in printed
    report = answers[0].with_name("report.html").read_text()
    assert ("What the network looks at" in report) == ("gradcam" in str(code))
    assert "kernel" not in report  # the command is the sweep's, not Jupyter's


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_stored_clean_and_defines_nothing(name):
    _, code = read(name)
    assert not any(cell.outputs or cell.execution_count for cell in code)
    for cell in code:
        lines = [line.replace("%pip", "pass  #") for line in cell.source.split("\n")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            assert not isinstance(node, kinds)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_opens_and_installs_in_colab(name):
    """The badge opens this file of the repository that the install cell takes."""
    notebook, code = read(name)
    install = tagged(code, "install").source
    repository = install.split('REPOSITORY = "https://github.com/')[1].split('"')[0]
    link = f"colab.research.google.com/github/{repository}/blob/main/notebooks/{name}"
    assert f"{link}.ipynb" in notebook.cells[0].source
    assert 'find_spec("ftjax") is None' in install
    for word in install.split('"ftjax[')[1].split("]")[0].split(","):
        assert f"\n{word} = [" in (FOLDER.parent / "pyproject.toml").read_text()
