"""Names and paths as people have them: `~`, bytes that are no text, line breaks."""

import os
from pathlib import Path


def expand_user(path: str | Path) -> Path:
    """A path that a user gave, with `~` and `~name` replaced by the home folder.

    Raises:
        ValueError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"path {printable(str(path))!r}: {error}") from None


def printable(name: str) -> str:
    """A file's name as one line that can be printed, drawn and stored as UTF-8.

    Bytes that are no UTF-8 become U+FFFD, line breaks and other control characters
    their escapes. Open the file by its path, not by this.
    """
    text = os.fsencode(name).decode("utf-8", errors="replace")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
