"""argparse with errors on one line, as the other commands print them."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A bad argument ends the program with exit code 2 and one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the usage)\n")
