"""Where the images of a folder are looked for, and what else lies there.

Every file is listed: as one to be read, or with the reason why it is not. Nothing is
opened here.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ftjax.data.formats import TOOL_FILES
from ftjax.machine.paths import printable

LAYOUTS = "train/<class>/* with val/<class>/* (optional test/<class>/*), or <class>/*"
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


class Member(NamedTuple):
    """A file in the folder of a class.

    Attributes:
        part: train, val or test.
        group: name of the class folder, as it is on disk.
    """

    path: Path
    part: str
    group: str


class Listing(NamedTuple):
    """All files of a folder.

    Attributes:
        folders: part -> the folder it is read from.
        members: files in class folders, sorted by part, class and name.
        groups: part -> names of its class folders.
        left: (path, reason) of every other file.
    """

    root: Path
    folders: dict[str, Path]
    members: list[Member]
    groups: dict[str, list[str]]
    left: list[tuple[Path, str]]

    def name_of(self, path: Path) -> str:
        """A path within the folder, for messages."""
        return printable(path.relative_to(self.root).as_posix())


def list_folder(root: Path) -> Listing:
    """Lists all that lies in a folder of images.

    Raises:
        ValueError: two folders for one split, or a validation folder without a training
            folder.
    """
    folders = _find_splits(root)
    listing = Listing(root, folders, [], {}, [])
    tops = list(folders.values())
    for part, folder in folders.items():
        groups = listing.groups[part] = []
        for entry in _entries(folder):
            reason = _not_looked_at(entry)
            if entry in tops:
                continue
            if not entry.is_dir():
                reason = reason or _no_file(entry) or "not in the folder of a class"
                listing.left.append((entry, reason))
            elif reason:
                listing.left.extend((path, reason) for path in _walk(entry))
            else:
                groups.append(entry.name)
                _list_class(listing, part, entry)
    if root not in tops:
        for entry in _entries(root):
            if entry not in tops:
                reason = _not_looked_at(entry) or "beside the folders of the splits"
                listing.left.extend((path, reason) for path in _walk(entry))
    return listing


def _find_splits(root: Path) -> dict[str, Path]:
    """Part -> folder; names of splits count in any case."""
    found: dict[str, list[Path]] = {part: [] for part in SPLIT_NAMES}
    for entry in _entries(root):
        for part, names in SPLIT_NAMES.items():
            if entry.name.lower() in names and entry.is_dir():
                found[part].append(entry)
    shown = printable(str(root))
    train = bool(found["train"])
    for part, folders in found.items():
        if len(folders) > 1:
            names = " and ".join(f"{folder.name}/" for folder in folders)
            raise ValueError(
                f"folder {shown!r} has {names}: only one of them can be the {part} "
                "split; rename or move the others"
            )
    if not train and found["val"]:
        raise ValueError(
            f"folder {shown!r} has {found['val'][0].name}/ but no train/; allowed: "
            f"{LAYOUTS}"
        )
    single = {part: folders[0] for part, folders in found.items() if folders}
    # Beside classes, test/ is no class either: it would be told from the others.
    return single if train else {"train": root, **single}


def _entries(folder: Path) -> list[Path]:
    """Sorted by name: listings come in any order."""
    return sorted(folder.iterdir(), key=lambda entry: entry.name)


def _list_class(listing: Listing, part: str, folder: Path) -> None:
    for entry in _entries(folder):
        reason = _not_looked_at(entry)
        if entry.is_dir():
            reason = reason or "in a sub-folder of a class"
            listing.left.extend((path, reason) for path in _walk(entry))
        elif reason := reason or _no_file(entry):
            listing.left.append((entry, reason))
        else:
            listing.members.append(Member(entry, part, folder.name))


def _not_looked_at(entry: Path) -> str | None:
    if entry.name.lower() in TOOL_FILES:
        return "file of another tool"
    return "hidden" if entry.name.startswith(".") else None


def _no_file(entry: Path) -> str | None:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link"
    # Opening a pipe would wait for whoever writes to it.
    return None if stat.S_ISREG(mode) else "no regular file"


def _walk(entry: Path) -> Iterator[Path]:
    """An entry, or all files below it; linked folders count as one."""
    if entry.is_symlink() or not entry.is_dir():
        yield entry
        return
    for folder, names, files in os.walk(entry):
        names.sort()
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        yield from (Path(folder, name) for name in sorted(files + links))
