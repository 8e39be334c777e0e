"""Names as they are on disk become names that can be printed, drawn and stored."""

import json
import os

import pytest

from ftjax.machine.paths import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\N{REPLACEMENT CHARACTER}"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("$x$ [bold] {y}", "$x$ [bold] {y}"),
        ("Müller 犬", "Müller 犬"),
    ],
)
def test_every_name_becomes_one_printable_line(name, shown):
    assert printable(name) == shown
    assert printable(name).isprintable()
    assert json.loads(json.dumps(printable(name)).encode()) == shown
    assert os.fsencode(name)  # the path itself is as it was
