"""The console that is printed on: plain text, as wide as what shows it."""

from rich.console import Console

LOG_WIDTH = 160  # columns of a log file or pipe
# Names of classes, files and errors come from outside, and Rich would read a `[/x]` in
# them as markup.
PLAIN = {"markup": False, "highlight": False, "emoji": False}
# Marks a field of a configuration that overrides what is chosen by itself: `--help-all`
# tells it, `--help` does not.
OVERRIDE = "override"


def make_console(*, quiet: bool = False) -> Console:
    """Standard output: a terminal or notebook has its own width, a log LOG_WIDTH.

    Args:
        quiet: print nothing.
    """
    console = Console(**PLAIN, quiet=quiet)
    if console.is_terminal or console.is_jupyter:
        return console
    return Console(width=LOG_WIDTH, **PLAIN, quiet=quiet)
