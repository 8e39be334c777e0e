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
    "quickstart": """
DATA, IMAGES = "digits", None
OUT = {out!r}
OPTIONS = dict(model="tiny", weights="random", image_size=16, train_size=64)
OPTIONS |= dict(val_size=20, epochs=1, lr=1e-4, replicate=False)
OPTIONS |= dict(depths=[0, 3], bn="frozen")
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


@pytest.mark.slow  # minutes
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
def test_the_source_of_ftjax_is_one_field(name):
    """Where ftjax is not found, the cell says so; a given source is installed."""
    notebook, code = read(name)
    assert "OWNER" not in (FOLDER / f"{name}.ipynb").read_text()
    install = tagged(code, "install").source
    assert 'SOURCE = ""  # @param {type:"string"}' in install
    for word in install.split("ftjax[")[1].split("]")[0].split(","):
        assert f"\n{word} = [" in (FOLDER.parent / "pyproject.toml").read_text()


@pytest.mark.parametrize("source", ["", "git+https://example.org/ftjax"])
def test_the_install_cell_says_what_is_missing(source, tmp_path, monkeypatch):
    _, code = read("quickstart")
    install = tagged(code, "install").source.replace(
        'SOURCE = ""', f"SOURCE = {source!r}"
    )
    lines = [line.replace("%pip install", "#") for line in install.split("\n")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="write into SOURCE where it is"):
        exec("\n".join(lines), {})
    checkout = tmp_path / "ftjax"
    checkout.mkdir()
    (checkout / "api.py").touch()
    found = {"jax", "flax", "optax", "orbax", "tyro", "ftjax"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name in found else None
    )
    with pytest.raises(SystemExit, match="missing: safetensors, cv2; run: pip"):
        exec("\n".join(lines), {})
