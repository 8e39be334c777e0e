"""Fetch official weights, e.g. on the login node of a cluster.

    ftjax weights fetch effnetb0 [--top]
    ftjax weights list

Exit codes: 0 done; 2 bad arguments or no file, with one line on standard error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ftjax.cli.console import guard, make_console, parse, refuse


@dataclass(frozen=True)
class Fetch:
    """Download one file into the cache."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A network; `list` shows their names."""
    top: bool = False
    """With the 1000-class ImageNet classifier."""
    offline: bool = False
    """Only look, no network."""
    cache_dir: Path | None = None
    """Folder of the files. Default: $FTJAX_CACHE/weights."""


@dataclass(frozen=True)
class List:
    """Show official files and their hashes."""

    cache_dir: Path | None = None
    """Folder of the files. Default: $FTJAX_CACHE/weights."""


Options = (
    Annotated[Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax weights", description=__doc__)
    from ftjax.weights.fetch import fetch

    console = make_console()
    try:
        if isinstance(options, Fetch):
            path = fetch(
                options.name,
                top=options.top,
                cache_dir=options.cache_dir,
                offline=options.offline,
            )
            console.print(str(path), soft_wrap=True)
        else:
            console.print(format_list(options.cache_dir), soft_wrap=True)
    except ValueError as error:
        return refuse(error)
    return 0


def format_list(cache_dir: Path | None) -> str:
    """A table of all files; whether they are there is told by name, not by hash."""
    from ftjax.weights.fetch import OFFICIAL, PACKAGED, weights_folder

    directory = weights_folder(cache_dir)
    lines = [f"weight files in {directory}"]
    for name, packaged in PACKAGED.items():
        lines.append(f"{name:12}       in ftjax[{packaged.extra}]")
    for name, files in OFFICIAL.items():
        for variant, remote in (("notop", files.notop), ("top", files.top)):
            there = (directory / remote.file_name).is_file()
            state = "cached" if there else "absent"
            lines.append(
                f"{name:12} {variant:5} {state:6} {remote.known_hash} {remote.url}"
            )
    return "\n".join(lines)
