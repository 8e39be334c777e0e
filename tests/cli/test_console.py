"""Arguments and errors that all commands share."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from rich.console import Console

from ftjax.cli import console
from ftjax.machine.console import LOG_WIDTH, OVERRIDE


@dataclass(frozen=True)
class Options:
    """Something."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where."""
    depth: int | None = None
    """Layers."""
    kind: Literal["keras", "torch"] = "keras"
    """Which."""


def parse(*arguments):
    return console.parse(Options, arguments, prog="ftjax x", description="What?")


class Ascii(io.StringIO):
    """Standard output that is not UTF-8."""

    encoding = "ascii"


class Utf8(io.StringIO):
    """Standard output where tyro draws round boxes."""

    encoding = "utf-8"


@pytest.mark.parametrize("stdout", [Ascii, Utf8])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "missing: FOLDER Where. (required)"),
        (["f", "--depth", "deep"], "no type matching INT could be instantiated from"),
        (["f", "--depth"], "missing value for argument '--depth'"),
        (["f", "--kind", "onnx"], "invalid choice 'onnx' for argument '--kind'"),
        (["f", "--dpeth", "3"], "unrecognized options: --dpeth, 3 (--help"),
        (["f", "g"], "unrecognized options: g (--help"),
    ],
)
def test_a_wrong_argument_is_one_line_and_2(
    stdout, arguments, message, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", stdout())
    with pytest.raises(SystemExit, match="2"):
        parse(*arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error and error.endswith(" (--help shows the usage)\n")


def test_help_is_said_on_standard_output_and_ends_with_0(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    out, error = capsys.readouterr()
    assert "What?" in out and "Layers." in out and error == ""


@dataclass(frozen=True)
class Overridden:
    """Something."""

    depth: int = 1
    """Layers."""
    mesh: Annotated[str, OVERRIDE] = "auto"
    """Devices."""


def test_overrides_are_on_the_second_page_of_the_help(capsys):
    def shown(*arguments):
        with pytest.raises(SystemExit, match="0"):
            console.parse(Overridden, arguments, prog="ftjax x", description="What?")
        return capsys.readouterr().out

    first, second = shown("--help"), shown("--help-all")
    assert "Layers." in first and "Devices." not in first
    assert "--help-all tells also --mesh" in first
    assert "Layers." in second and "Devices." in second
    words = "--mesh", "data=2"
    parsed = console.parse(Overridden, words, prog="ftjax x", description="What?")
    assert parsed.mesh == "data=2"


def test_right_arguments():
    expected = Options(Path("f"), depth=3)
    assert parse("f", "--depth", "3") == parse("--depth", "3", "f") == expected


NAMES = "[/x] [bold]b[/bold] :dog:"  # of a class, a file, an error


def test_names_are_printed_as_they_are(capsys):
    console.make_console().print(NAMES)
    assert console.refuse(ValueError(NAMES)) == 2
    out, error = capsys.readouterr()
    assert out == f"{NAMES}\n" and error == f"error: {NAMES}\n"


def test_a_log_has_its_width_and_a_terminal_its_own(monkeypatch):
    assert console.make_console().width == LOG_WIDTH
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "93")
    assert console.make_console().width == 93


class Broken(io.StringIO):
    """A pipe that nobody reads, or a log on a full disk."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        self.write("")


def test_output_that_fails_ends_no_command(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", Broken())

    @console.guard()
    def command():
        print("said")
        console.make_console().print(NAMES)
        console.print_error(NAMES)
        return "goes on"

    assert command() == "goes on"
    assert isinstance(sys.stdout, Broken)


def test_letters_that_a_terminal_has_not():
    bare = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console.Output(bare).write("Käse ┃\n")
    bare.seek(0)
    assert bare.read() == "K?se ?\n"


@pytest.mark.parametrize(
    "error, code, said",
    [
        (OSError(28, "No space left", "a/[b]"), 3, "error: a/[b]: No space left\n"),
        (console.Damaged("x is not what was written"), 3, "error: x is not what was "),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_errors_of_files_are_one_line_and_3(error, code, said, capsys):
    @console.guard()
    def command():
        raise error

    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == code
    text = capsys.readouterr().err
    assert text.startswith(said) and text.count("\n") == 1
