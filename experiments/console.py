"""argparse with errors on one line, as the other commands print them."""

import argparse
from typing import NoReturn

from rich.console import Console

LOG_WIDTH = 160  # columns of a log file; a terminal has its own


class Parser(argparse.ArgumentParser):
    """A bad argument ends the program with exit code 2 and one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the usage)\n")


def print_error(line: str) -> None:
    """One line on stderr, whatever its length and characters."""
    console = Console(stderr=True)
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def refuse(error: ValueError) -> int:
    """Says what is wrong with the arguments or the input; the exit code for it."""
    print_error(f"error: {error}")
    return 2
