"""The console script."""

import json
import subprocess
import sys

import pytest

import ftjax
from ftjax import commands

# One process for all of them: each start of Python takes as long as ten commands.
WITHOUT_JAX = """
import contextlib, io, json, sys
from ftjax import commands
found = {}
for name in commands.COMMANDS:
    for word in ("--help", "--nonsense"):
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = commands.main([name, word])
            except SystemExit as stop:
                code = stop.code
        starts = "jax" in sys.modules
        found[f"{name} {word}"] = code, starts, out.getvalue(), error.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers():
    """By command and argument: its code, whether JAX is imported, what it said."""
    run = [sys.executable, "-c", WITHOUT_JAX]
    found = subprocess.run(run, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_help_names_every_command(capsys):
    assert commands.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in commands.COMMANDS)
    assert commands.main([]) == 2
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"ftjax {ftjax.__version__}\n")


def test_unknown_command_is_one_line(capsys):
    assert commands.main(["sweeep"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'sweeep'; ftjax takes sweep, ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", sorted(set(commands.COMMANDS)))
def test_help_and_bad_arguments_do_not_start_jax(answers, name):
    code, starts_jax, out, _ = answers[f"{name} --help"]
    assert (code, starts_jax) == (0, False)
    assert f"ftjax {name}" in out
    code, starts_jax, out, error = answers[f"{name} --nonsense"]
    assert (code, starts_jax, out) == (2, False, "")
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_command_runs(capsys):
    assert commands.main(["cuts", "--model", "tiny", "--image-size", "32"]) == 0
    assert "tiny at 32 pixels: 59 layers in 8 units" in capsys.readouterr().out


@pytest.mark.parametrize("words, code", [(["--version"], 0), (["sweeep"], 2), ([], 2)])
def test_the_package_runs_as_the_console_script(words, code, capsys):
    python = [sys.executable, "-m", "ftjax", *words]
    found = subprocess.run(python, capture_output=True, text=True)
    assert found.returncode == commands.main(words) == code
    said = capsys.readouterr()
    assert (found.stdout, found.stderr) == (said.out, said.err)
