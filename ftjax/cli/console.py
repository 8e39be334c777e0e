"""What all commands share: arguments, errors on one line, output that never fails.

Exit codes: 2 is wrong arguments or input, 3 a file that cannot be read or written, 130
Ctrl-C; a command names its own.
"""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import (
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import is_dataclass
from typing import Annotated, Any, TextIO, TypeVar, get_type_hints

import tyro
from rich.console import Console

from ftjax.machine import peers
from ftjax.machine.console import OVERRIDE, PLAIN
from ftjax.machine.console import make_console as make_console
from ftjax.machine.files import Damaged

Options = TypeVar("Options")
HELP_ALL = "--help-all"
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
        SystemExit: 0 after --help or --help-all; 2 after a wrong argument, said in one
            line.
    """
    said = io.StringIO()
    words = sys.argv[1:] if arguments is None else [*arguments]
    hidden = overrides(options)
    if hidden and HELP_ALL in words:
        words = ["--help"]
    elif hidden and not {"-h", "--help"}.isdisjoint(words):
        options = without(options, hidden)
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in hidden)
        description = f"{description or ''}\n\n{HELP_ALL} tells also {flags}."
    try:
        with redirect_stderr(said):
            return tyro.cli(
                options, prog=prog, args=words, description=description or ""
            )
    except SystemExit as stop:
        if stop.code:
            print_error(f"error: {one_line(said.getvalue())} (--help shows the usage)")
        raise


def overrides(options: type) -> dict[str, Any]:
    """The fields that `--help` leaves out, and their types."""
    if not is_dataclass(options):  # a choice of subcommands
        return ()
    hints = get_type_hints(options, include_extras=True)
    return {
        name: hint
        for name, hint in hints.items()
        if OVERRIDE in getattr(hint, "__metadata__", ())
    }


def without(options: type[Options], hidden: dict[str, Any]) -> type[Options]:
    """The dataclass as `--help` shows it, less some fields."""
    types = {name: Annotated[own, tyro.conf.Suppress] for name, own in hidden.items()}
    own = {name: getattr(options, name) for name in ("__doc__", "__module__")}
    return type(options.__name__, (options,), {**own, "__annotations__": types})


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
    return 3 if isinstance(error, Damaged) else 2


class Output:
    """A text stream that never fails: what it cannot write is lost.

    A pipe may be closed at its other end (`| head`), the disk of a log be full, and a
    terminal have no such letters; a command that trains for hours goes on.

    Args:
        stream: that is written to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what the stream takes; returns the number of characters."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            own = self._stream.encoding
            return self.write(text.encode(own, "replace").decode(own))
        except (OSError, ValueError):
            self._let_go()
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._let_go()

    def _let_go(self) -> None:
        """What is buffered, and what comes, goes nowhere."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def guard() -> Iterator[None]:
    """Around a command, as a decorator: its output never fails, its files may.

    Raises:
        SystemExit: 3 after an error of the operating system or a damaged file, said in
            one line; 130 after Ctrl-C.
    """
    with ExitStack() as stack:
        for name, redirect in (
            ("stdout", redirect_stdout),
            ("stderr", redirect_stderr),
        ):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, Output):
                output = Output(stream)
                stack.callback(output.flush)
                stack.enter_context(redirect(output))
        try:
            yield
        except (OSError, Damaged) as error:
            print_error(f"error: {describe_error(error)}")
            peers.abandon(3)
            raise SystemExit(3) from None
        except KeyboardInterrupt:
            print_error("stopped")
            peers.abandon(130)
            raise SystemExit(130) from None
        except Exception:
            peers.abandon_after_error()
            raise


def describe_error(error: Exception) -> str:
    """An error as one line, an error of the operating system with its file."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: " if error.filename else ""
        return text + error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]
