"""Folders of images, one folder a class."""

from functools import partial
from pathlib import Path

import numpy as np

from ftjax.data.index import Source, Split, digest_items
from ftjax.data.splits import quote_some

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm"),
)
LAYOUTS = "train/<class>/* with val/<class>/* (optional test/<class>/*), or <class>/*"


def open_folder(path: str, *, with_test: bool) -> Source:
    """Indexes a folder of images.

    Layouts: train/<class>/* with val/<class>/* and optionally test/<class>/*; the same
    without val/; or <class>/*. Images are the direct members of a class folder that
    end in .jpg .jpeg .png .webp .bmp .gif .tif .tiff .ppm .pgm in either case; other
    files, hidden ones and __MACOSX are ignored.

    Args:
        with_test: also index test/, where there is one.

    Raises:
        ValueError: no such folder, no images, fewer than two classes, splits with
            different classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ValueError(f"folder {path!r} {what}; allowed: a folder {LAYOUTS}")
    has_splits = (root / "train").is_dir()
    if not has_splits and (root / "val").is_dir():
        raise ValueError(f"folder {path!r} has val/ but no train/; allowed: {LAYOUTS}")
    files = _list_classes(root / "train" if has_splits else root)
    if not any(files.values()):
        raise ValueError(
            f"folder {path!r} has no images where they are looked for; allowed: "
            f"{LAYOUTS}, files ending in {' '.join(EXTENSIONS)}"
        )
    if len(files) == 1:
        raise ValueError(
            f"folder {path!r} has one class, {next(iter(files))!r}: at least two are "
            f"needed; allowed: {LAYOUTS}"
        )
    val = test = None
    if has_splits and (root / "val").is_dir():
        val = _folder_split(root, "val", files)
    if has_splits and with_test and (root / "test").is_dir():
        test = _folder_split(root, "test", files)
    name = root.resolve().name
    return Source(
        name=name,
        class_names=tuple(files),
        train=_file_split(root, files),
        val=val,
        test=test,
        note=f"images of the folder {name!r}",
    )


def _folder_split(root: Path, split: str, train: dict[str, list[Path]]) -> Split:
    files = _list_classes(root / split)
    if files.keys() != train.keys():
        missing = sorted(train.keys() - files.keys())
        extra = sorted(files.keys() - train.keys())
        parts = [f"only in train/: {quote_some(missing)}"] if missing else []
        parts += [f"only in {split}/: {quote_some(extra)}"] if extra else []
        raise ValueError(
            f"folder {str(root)!r}: train/ and {split}/ have different classes "
            f"({'; '.join(parts)}); both need the same class folders"
        )
    return _file_split(root, files)


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its images, both sorted by name: listings come in any order."""

    def visible(path: Path) -> list[Path]:
        entries = [entry for entry in path.iterdir() if entry.name[0] != "."]
        return sorted(entries, key=lambda entry: entry.name)

    return {
        entry.name: [
            file
            for file in visible(entry)
            if file.suffix.lower() in EXTENSIONS and file.is_file()
        ]
        for entry in visible(folder)
        if entry.is_dir() and entry.name != "__MACOSX"
    }


def _file_split(root: Path, files: dict[str, list[Path]]) -> Split:
    paths = [path for members in files.values() for path in members]
    sizes = [len(members) for members in files.values()]
    return Split(
        labels=np.repeat(np.arange(len(files), dtype=np.int32), sizes),
        read=lambda item: paths[item].read_bytes(),
        name_of=lambda item: paths[item].relative_to(root).as_posix(),
        digests=partial(digest_items, read=lambda item: paths[item].read_bytes()),
    )
