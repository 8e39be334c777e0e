"""What became of every file of a folder, as lines to print and values to store."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ftjax.data.duplicates import near_pairs
from ftjax.data.scan import CONVERTED, READ, REFUSED, SKIPPED, Scan, Scanned
from ftjax.data.splits import quote_some
from ftjax.machine.paths import printable

NAMED = 5  # examples of each kind
FOUND = "found"
IN_PARTS, IN_CLASSES, TOGETHER = " in two parts", " in two classes", " twice"
ACROSS_PARTS = "the same file" + IN_PARTS


@dataclass(frozen=True)
class Row:
    """Files of one kind.

    Attributes:
        fate: read, converted, skipped, refused, or found (what is odd about images that
            are read).
        what: the conversions, the reason, or what was found.
        count: how many; of pairs where the names are pairs.
        names: of the first five.
    """

    fate: str
    what: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class ScanReport:
    """What became of the files of a folder.

    Attributes:
        folder: its name.
        files: how many there are in it, of any kind.
        images: part (train, val, test) -> images that can be used for it.
        bits: of the values of 16-bit images; None if there are none.
        rows: all kinds; every file is counted in one of read, converted, skipped and
            refused.
    """

    folder: str
    files: int
    images: Mapping[str, int]
    bits: int | None
    rows: tuple[Row, ...]

    def count(self, fate: str, what: str = "") -> int:
        """Files of one fate whose description contains a text."""
        return sum(r.count for r in self.rows if r.fate == fate and what in r.what)

    def summary(self) -> str:
        """One line."""
        left = [
            f"{self.count(fate):,} {fate}"
            for fate in (SKIPPED, REFUSED)
            if self.count(fate)
        ]
        read = self.count(READ) + self.count(CONVERTED)
        parts = ", ".join(f"{count:,} {part}" for part, count in self.images.items())
        line = f"{self.files:,} files: {read:,} images ({parts})"
        if self.count(CONVERTED):
            line += f", {self.count(CONVERTED):,} of them converted"
        return ", ".join([line, *left])

    def lines(self) -> list[str]:
        """The summary, then a line for each kind; plain text, one line each."""
        shown = [row for row in self.rows if row.fate != READ]
        width = max((len(row.what) for row in shown), default=0)
        lines = [f"{self.folder}: {self.summary()}"]
        for row in shown:
            more = ", ..." if row.count > len(row.names) else ""
            lines.append(
                f"  {row.fate:<9}  {row.what:<{width}}  {row.count:>7,}  "
                f"{', '.join(row.names)}{more}"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the report and records."""
        return {**asdict(self), "images": dict(self.images)}

    def refuse(self) -> None:
        """What `strict` does.

        Raises:
            ValueError: a file is skipped or refused, or is in two parts.
        """
        bad = [
            row
            for row in self.rows
            if row.fate in (SKIPPED, REFUSED) or row.what == ACROSS_PARTS
        ]
        if bad:
            kinds = "; ".join(
                f"{row.count:,} {row.fate}, {row.what} ({quote_some(row.names)}"
                + (", ...)" if row.count > len(row.names) else ")")
                for row in bad
            )
            raise ValueError(
                f"--strict: not every file of {self.folder!r} is an image of its own: "
                f"{kinds}; remove or repair them, or leave --strict out"
            )


def make_report(scan: Scan, parts: Mapping[str, str]) -> ScanReport:
    """Counts and names what became of the files.

    Args:
        scan: of the folder.
        parts: name of an image -> train, val or test, as it is used in this run; images
            that are not used are missing.
    """
    listing = scan.listing
    names = [listing.name_of(member.path) for member in listing.members]
    kinds: dict[tuple[str, str], list[str]] = {}
    for path, reason in listing.left:
        kinds.setdefault((SKIPPED, reason), []).append(listing.name_of(path))
    for name, found in zip(names, scan.found, strict=True):
        detail = f" ({printable(found.detail)})" if found.detail else ""
        kinds.setdefault((found.fate, found.what), []).append(name + detail)
    order = (READ, CONVERTED, SKIPPED, REFUSED)
    rows = [
        Row(fate, what, len(names), tuple(names[:NAMED]))
        for (fate, what), names in sorted(
            kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    ]
    images = [
        (name, member, found)
        for name, member, found in zip(names, listing.members, scan.found, strict=True)
        if found.is_image
    ]
    counts = {
        part: count
        for part in listing.folders
        if (count := sum(member.part == part for _, member, _ in images))
    }
    rows += _found(
        "constant: all pixels equal", [n for n, _, f in images if f.constant]
    )
    rows += _found("no class: a folder without images", _no_classes(scan))
    rows += _duplicates(
        [name for name, _, _ in images],
        [(parts.get(name), member.group) for name, member, _ in images],
        [found for _, _, found in images],
    )
    return ScanReport(
        folder=printable(listing.root.resolve().name),
        files=len(names) + len(listing.left),
        images=counts,
        bits=scan.bits,
        rows=tuple(rows),
    )


def _found(what: str, names: list[str]) -> list[Row]:
    return [Row(FOUND, what, len(names), tuple(names[:NAMED]))] if names else []


def _no_classes(scan: Scan) -> list[str]:
    listing = scan.listing
    filled = {
        (member.part, member.group)
        for member, found in zip(listing.members, scan.found, strict=True)
        if found.is_image
    }
    return [
        listing.name_of(listing.folders[part] / group) + "/"
        for part, groups in listing.groups.items()
        for group in groups
        if (part, group) not in filled
    ]


def _duplicates(
    names: list[str], places: list[tuple[str | None, str]], found: list[Scanned]
) -> list[Row]:
    """Rows of images that are the same, or look so, by where they are.

    Args:
        names: of the images.
        places: (part or None, class) of each.
        found: what became of each.
    """
    exact: list[tuple[int, int]] = []
    members: dict[str, list[int]] = {}
    for index, image in enumerate(found):
        members.setdefault(image.digest, []).append(index)
    for group in members.values():
        # Each with the first of every other place, so that a pair tells where it is.
        seen: dict[tuple[str | None, str], int] = {}
        for index in group:
            others = [at for place, at in seen.items() if place != places[index]]
            exact += [(at, index) for at in others or list(seen.values())[:1]]
            seen.setdefault(places[index], index)
    looks = [index for index, image in enumerate(found) if image.look]
    near: list[tuple[int, int]] = []
    if looks:
        hashes = b"".join(bytes.fromhex(found[index].look) for index in looks)
        pairs = near_pairs(np.frombuffer(hashes, np.uint8).reshape(-1, 32))
        near = [(looks[i], looks[j]) for i, j in pairs.tolist()]
        near = [(i, j) for i, j in near if found[i].digest != found[j].digest]
    rows = _pair_rows("the same file", " = ", exact, names, places)
    alike = _pair_rows("images that look alike", " ~ ", near, names, places)
    # Frames of one scene are no fault as long as they stay together.
    return rows + [row for row in alike if not row.what.endswith(TOGETHER)]


def _pair_rows(
    what: str,
    between: str,
    pairs: list[tuple[int, int]],
    names: list[str],
    places: list[tuple[str | None, str]],
) -> list[Row]:
    kinds: dict[str, list[str]] = {IN_PARTS: [], IN_CLASSES: [], TOGETHER: []}
    for i, j in pairs:
        (part, group), (other, other_group) = places[i], places[j]
        across = part is not None and other is not None and part != other
        pair = names[i] + between + names[j]
        if across:
            kinds[IN_PARTS].append(pair)
        if group != other_group:
            kinds[IN_CLASSES].append(pair)
        elif not across:
            kinds[TOGETHER].append(pair)
    return [row for kind, found in kinds.items() for row in _found(what + kind, found)]
