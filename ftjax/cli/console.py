"""What all commands share: arguments, and errors on one line."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, TypeVar

import tyro
from rich.console import Console

from ftjax.machine.console import PLAIN
from ftjax.machine.console import make_console as make_console

Options = TypeVar("Options")
Where = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="COLUMN=VALUE ..."),
]


def parse(
    options: type[Options],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    description: str | None,
) -> Options:
    """The command line as a dataclass, whose field docstrings are the help.

    Args:
        options: the dataclass.
        arguments: words of the command line; None: those of this process.
        prog: the command, as the help spells it.
        description: what the help says first.

    Raises:
        SystemExit: 0 after --help; 2 after a wrong argument, said in one line.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                options, prog=prog, args=arguments, description=description or ""
            )
    except SystemExit as stop:
        if stop.code:
            print_error(f"error: {one_line(said.getvalue())} (--help shows the usage)")
        raise


def conditions(where: Where) -> tuple[str, ...]:
    """What all `--where` of a command line ask for together."""
    return tuple(condition for words in where for condition in words)


def one_line(box: str) -> str:
    """What tyro says in a box: title, content, rule, advice. The content, as one line.

    Where the output is not UTF-8 the box is drawn with dashes alone, and there is a
    rule below its title as well.
    """
    _, *lines = [line.strip("│ ") for line in box.strip().splitlines()] or [""]
    rules = [not line.strip("─-╰╯") for line in lines]
    start = 1 if rules[:1] == [True] else 0
    end = rules.index(True, start) if True in rules[start:] else len(lines)
    text = " ".join(" ".join(lines[start:end]).split())
    text = text.partition(" Got errors:")[0].replace("{None}|", "")
    text = re.sub(r"^Missing from .*?: ", "missing: ", text)
    return text[:1].lower() + text[1:].rstrip(".")


def print_error(line: str) -> None:
    """One line on standard error, whatever its length and characters."""
    Console(stderr=True, **PLAIN).print(line, soft_wrap=True)


def refuse(error: Exception) -> int:
    """Says what is wrong with the arguments or the input; the exit code for it."""
    print_error(f"error: {error}")
    return 2
