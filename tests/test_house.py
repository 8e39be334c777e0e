"""The house: rooms import only downward, and few calls lead to a compiled program."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from traceback import extract_stack
from unittest.mock import Mock

from tiny_run import run

from ftjax.training import step

FLOORS = """trees batch_norm stats / machine analysis / kernels data search paper /
backbones / weights frozen depth / block_sets / training config / gradcam probes
defaults / sweep / report predictor exports study / session keywords / api ftjax cli /
commands / experiments""".split("/")
FLOOR = {room: number for number, row in enumerate(FLOORS) for room in row.split()}
room = re.compile(r"(?:ftjax\.)?(\w+)").match
ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("ftjax/**/*.py"), *ROOT.glob("experiments/**/*.py")]
ENTRY = "__main__"  # hands on to the command line
MODULES = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in FILES}
MODULES = {n.removesuffix(".__init__"): f for n, f in MODULES.items()}
MODULES = {n: f for n, f in MODULES.items() if not n.endswith(ENTRY)}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            parents = [p] if (p := getattr(node, "module", "")) else []
            paths = {".".join([*parents, alias.name]) for alias in node.names}
            yield from paths & MODULES.keys() or parents or paths


def test_imports_run_downward_without_a_circle():
    graph = {name: set(imports(file)) - {name} for name, file in MODULES.items()}
    pairs = {(room(a)[1], room(b)[1]) for a in graph for b in graph[a]}
    own = {(a, b) for a, b in pairs if b in FLOOR and a != b}
    assert not {(a, b) for a, b in own if FLOOR[a] < FLOOR[b]}
    assert {a for a, b in pairs if b == "flax"} == {"backbones"}
    TopologicalSorter(graph).prepare()  # raises at a circle
    TopologicalSorter({a: {y for x, y in own if x == a} for a in FLOOR}).prepare()


def test_numbers_need_no_jax():
    free = [m for m in MODULES if room(m)[1] in "analysis search stats paper".split()]
    code = f"import sys, {','.join(free)}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_from_main_to_a_program_are_at_most_five_calls(images, tmp_path, monkeypatch):
    stacks, program = [], step.forward_program
    seen = Mock(side_effect=lambda *x: stacks.append(extract_stack()) or program(*x))
    monkeypatch.setattr(step, "forward_program", seen)
    words = "--depths 3 --bn follow --epochs 1 --trials-at-once 1"
    run(images, tmp_path, *words.split())
    chain = [frame.name for frame in stacks[-1] if Path(frame.filename) in FILES]
    assert chain == ["main", "run", "train_trials", "train_step"]  # then the program
