"""Files of a run, which survive a kill at any moment: written whole, or not at all."""

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftjax.machine.atomic import atomic_file

SEAL = "sha256"  # key of a JSON file: digest of all else in it
DIGEST = ".sha256"  # of a file, in one beside it, as `sha256sum --check` reads it


NOT_AS_WRITTEN = (
    "is not what was written (a damaged disk, or edited by hand); the command that "
    "made it writes it anew"
)


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


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Likewise, with a digest that `read_json` compares."""
    plain = json.loads(json.dumps(value, allow_nan=True))
    write_json(path, {**plain, SEAL: json_digest(plain)})


def read_json(path: Path) -> Any:
    """Reads plain values; None if there is no such file.

    Raises:
        Damaged: the file is not JSON, or not what `write_sealed` wrote.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise Damaged(
            f"{path} is damaged ({error}); remove it, or choose another --out"
        ) from None
    digest = value.pop(SEAL, None) if isinstance(value, dict) else None
    if digest not in (None, json_digest(value)):
        raise Damaged(f"{path} {NOT_AS_WRITTEN}")
    return value


def write_checked(path: Path, content: bytes) -> None:
    """Writes a file, and its digest beside it."""
    write_atomically(path, content)
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    write_atomically(path.with_name(path.name + DIGEST), line.encode())


def read_checked(path: Path) -> bytes | None:
    """What `write_checked` wrote, or any other file's content; None if there is none.

    Raises:
        Damaged: it is not what was written.
    """
    if not path.exists():
        return None
    content, beside = path.read_bytes(), path.with_name(path.name + DIGEST)
    if beside.exists():
        digest = hashlib.sha256(content).hexdigest()
        if not beside.read_bytes().startswith(digest.encode()):
            raise Damaged(f"{path} {NOT_AS_WRITTEN}")
    return content


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
