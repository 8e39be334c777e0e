"""Folders of images, one folder a class."""

from pathlib import Path

import numpy as np

from ftjax.data.formats import EXTENSIONS
from ftjax.data.index import Source, Split
from ftjax.data.layout import LAYOUTS, Listing, list_folder
from ftjax.data.scan import SKIPPED, Scan, ScanFolder, Scanned
from ftjax.data.splits import quote_some
from ftjax.machine.paths import expand_user, printable


def open_folder(path: str, *, cache_dir: Path, scan: ScanFolder) -> Source:
    """Scans and indexes a folder of images.

    Layouts: train/<class>/* with val/<class>/* and optionally test/<class>/*; the same
    without val/; or <class>/*. Splits may be called train, training, val, valid,
    validation and test, in any case. Images are the direct members of a class folder
    that are images by their content; what becomes of all the others is in `scan`.

    A class without an image in train and val is none. Images in test/ of classes that
    train/ does not have are left out.

    Args:
        path: of the folder.
        cache_dir: keeps the scan.
        scan: `scan_folder`, or with some of its arguments.

    Raises:
        ValueError: no such folder, no images, fewer than two classes, splits with
            different classes.
    """
    root = expand_user(path)
    shown = repr(printable(path))
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ValueError(f"folder {shown} {what}; allowed: a folder {LAYOUTS}")
    listing = list_folder(root)
    scanned = scan(listing, cache_dir=cache_dir)
    real = {
        member.group
        for member, found in zip(listing.members, scanned.found, strict=True)
        if found.is_image and member.part != "test"
    }
    if not real:
        raise ValueError(
            f"folder {shown} has no images where they are looked for"
            f"{_refusals(scanned)}; allowed: {LAYOUTS}, files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    groups = {
        part: [name for name in names if name in real]
        for part, names in listing.groups.items()
    }
    _check_classes(shown, groups)
    scanned = _leave_out_unknown(scanned, set(groups["train"]))
    names = _class_names(groups["train"])
    splits = {
        part: _file_split(scanned, part, groups["train"]) for part in listing.folders
    }
    test = splits.get("test")
    name = printable(root.resolve().name)
    return Source(
        name=name,
        class_names=names,
        train=splits["train"],
        val=splits.get("val"),
        test=test if test is not None and len(test.labels) else None,
        note=f"images of the folder {name!r}",
        scan=scanned,
    )


def _refusals(scan: Scan) -> str:
    names = [
        scan.listing.name_of(member.path)
        for member, found in zip(scan.listing.members, scan.found, strict=True)
        if not found.is_image
    ]
    return f" ({len(names)} files cannot be read: {quote_some(names)})" if names else ""


def _check_classes(shown: str, groups: dict[str, list[str]]) -> None:
    if len(groups["train"]) == 1 and groups.get("val") in (None, groups["train"]):
        raise ValueError(
            f"folder {shown} has one class, {printable(groups['train'][0])!r}: at "
            f"least two are needed; allowed: {LAYOUTS}"
        )
    if "val" not in groups or groups["val"] == groups["train"]:
        return
    train, val = set(groups["train"]), set(groups["val"])
    parts = [
        f"only in {part}/: {quote_some([printable(name) for name in sorted(names)])}"
        for part, names in (("train", train - val), ("val", val - train))
        if names
    ]
    raise ValueError(
        f"folder {shown}: train/ and val/ have different classes ({'; '.join(parts)}); "
        "both need the same class folders"
    )


def _leave_out_unknown(scan: Scan, classes: set[str]) -> Scan:
    """Test images of a class that is not learned cannot be right."""
    found = [
        Scanned(SKIPPED, "of a class that train/ does not have")
        if result.is_image and member.group not in classes
        else result
        for member, result in zip(scan.listing.members, scan.found, strict=True)
    ]
    return scan._replace(found=found)


def _class_names(groups: list[str]) -> tuple[str, ...]:
    """Printable names, all different."""
    names: dict[str, None] = {}
    for group in groups:
        name, number = printable(group), 2
        while name in names:
            name, number = f"{printable(group)} ({number})", number + 1
        names[name] = None
    return tuple(names)


def _file_split(scan: Scan, part: str, groups: list[str]) -> Split:
    number = {group: index for index, group in enumerate(groups)}
    chosen = [
        (member, found)
        for member, found in zip(scan.listing.members, scan.found, strict=True)
        if member.part == part and found.is_image
    ]
    paths = [member.path for member, _ in chosen]
    hashed = b"".join(bytes.fromhex(found.digest) for _, found in chosen)
    digests = np.frombuffer(hashed, np.uint8).reshape(-1, 32)
    listing: Listing = scan.listing
    return Split(
        labels=np.array([number[member.group] for member, _ in chosen], np.int32),
        read=lambda item: paths[item].read_bytes(),
        name_of=lambda item: listing.name_of(paths[item]),
        digests=lambda items: digests[items],
    )
