"""Fetch official weights from the command line, e.g. on the login node of a cluster.

`python -m ftjax.weights fetch effnetb0 [--top]` and `python -m ftjax.weights list`.
Exit codes: 0 done; 2 bad arguments or no file, with one line on standard error.
"""

import argparse
import sys
from typing import NoReturn

from ftjax.weights.fetch import LITE0, OFFICIAL, fetch, weights_folder


class _Parser(argparse.ArgumentParser):
    """argparse, but with errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the usage)\n")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = _Parser(prog="python -m ftjax.weights", description="Pretrained weights.")
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("fetch", help="download one file into the cache")
    fetching.add_argument("name", help="a network; `list` shows their names")
    fetching.add_argument(
        "--top", action="store_true", help="with the 1000-class ImageNet classifier"
    )
    fetching.add_argument(
        "--offline", action="store_true", help="only look, no network"
    )
    listing = commands.add_parser("list", help="show official files and their hashes")
    for command in (fetching, listing):
        command.add_argument(
            "--cache-dir",
            help="folder of the files (default: weights in the cache folder)",
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "fetch":
            path = fetch(
                options.name,
                top=options.top,
                cache_dir=options.cache_dir,
                offline=options.offline,
            )
            print(path)
        else:
            print(_format_list(options.cache_dir))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _format_list(cache_dir: str | None) -> str:
    """A table of all files; whether they are there is told by name, not by hash."""
    directory = weights_folder(cache_dir)
    lines = [f"weight files in {directory}", f"{LITE0:12}      in ftjax[demo]"]
    for name, files in OFFICIAL.items():
        for variant, remote in (("notop", files.notop), ("top", files.top)):
            there = (directory / remote.file_name).is_file()
            state = "cached" if there else "absent"
            lines.append(
                f"{name:12} {variant:5} {state:6} {remote.known_hash} {remote.url}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
