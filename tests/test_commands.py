"""The console script."""

import subprocess
import sys

import pytest

import ftjax
from ftjax import commands

WITHOUT_JAX = """
import sys
from ftjax import commands
code = "returned"
try:
    code = commands.main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
assert "jax" not in sys.modules
print("exit code", code)
"""


def run(*arguments):
    """A command in a process of its own, which must not import JAX."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, *arguments], capture_output=True, text=True
    )


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
def test_help_and_bad_arguments_do_not_start_jax(name):
    found = run(name, "--help")
    assert found.stdout.endswith("exit code 0\n"), found.stderr
    assert f"ftjax {name}" in found.stdout
    found = run(name, "--nonsense")
    assert found.stdout == "exit code 2\n"
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1


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
