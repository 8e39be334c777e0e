"""Every command in the README and the docs is one that ftjax takes."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ftjax.cli import console
from ftjax.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = re.compile(r"`((?:ftjax|python -m experiments\.)[^`]*)`")


class Parsed(Exception):
    """The command line was understood."""


def commands_of(page):
    """(command, words) of fenced blocks and of code in sentences."""
    text = page.read_text("utf-8")
    fenced = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()]
    # A name alone, as `ftjax predict`, speaks of the command.
    lines += [" ".join(own.split()) for own in INLINE.findall(text) if "-" in own]
    for line in lines:
        line = line.rpartition("&&")[2]
        found = re.match(r"\s*(?:\S*python -m experiments\.|ftjax )([\w-]+)(.*)", line)
        if found and found[1].replace("_", "-") in COMMANDS:
            yield found[1].replace("-", "_"), found[2]


LINES = sorted({own for page in PAGES for own in commands_of(page)})


def test_commands_are_found():
    assert len(LINES) > 25
    assert any("--budget 10m" in words for _, words in LINES)


@pytest.mark.parametrize(("name", "words"), LINES)
def test_a_command_in_the_docs_parses(name, words, monkeypatch):
    module = import_module(f"ftjax.cli.{name}")

    def parse(*arguments, **options):
        console.parse(*arguments, **options)
        raise Parsed

    monkeypatch.setattr(module, "parse", parse)
    words = words.replace(" ...", "").replace("[", "").replace("]", "")
    with pytest.raises((Parsed, SystemExit)) as stopped:
        module.main(shlex.split(words))
    if stopped.type is SystemExit:
        assert stopped.value.code == 0 and "--help" in words
