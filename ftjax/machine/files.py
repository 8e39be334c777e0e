"""Files of a run, which survive a kill at any moment: written whole, or not at all."""

import hashlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from ftjax.machine.atomic import atomic_file


class Damaged(ValueError):
    """A file that is not what was written."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part.

    Of several processes only the first one writes. Folders above the file are made.
    """
    if not first_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(content)


def first_process() -> bool:
    """Whether this is the one of several processes that writes; starts no JAX."""
    jax = sys.modules.get("jax")
    joined = jax is not None and jax.distributed.is_initialized()
    return not joined or jax.process_index() == 0


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as indented JSON."""
    text = json.dumps(value, indent=2, allow_nan=True)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads plain values; None if there is no such file.

    Raises:
        Damaged: the file is not JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise Damaged(
            f"{path} is damaged ({error}); remove it, or choose another --out"
        ) from None


def json_digest(value: Any) -> str:
    """SHA-256 of plain values, the same before and after they were written as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def set_aside(path: Path) -> Path | None:
    """Renames what is damaged, so that it is kept but not read again; its new name.

    None if there is nothing of that name, or another process is the one that writes.
    """
    if not (path.exists() and first_process()):
        return None
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not aside.exists():
            break
    path.rename(aside)
    return aside
