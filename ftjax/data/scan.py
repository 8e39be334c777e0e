"""Every file of a folder of images is read once: hashed, decoded, and judged.

What was found is kept in the cache folder, so that a second scan only asks the file
system whether a file is still the one that was read.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax.data import decode, image_files
from ftjax.data.duplicates import look_hash
from ftjax.data.formats import EXTENSIONS, HEAD, recognise
from ftjax.data.layout import Listing, Member
from ftjax.data.threads import map_ordered
from ftjax.machine.files import write_atomically

READ, CONVERTED, SKIPPED, REFUSED = "read", "converted", "skipped", "refused"
MAX_BYTES = 2**30


class Scanned(NamedTuple):
    """What became of one file.

    Attributes:
        fate: read, converted, skipped or refused.
        what: the conversions, or the reason.
        detail: of this file, e.g. what the decoder said.
        digest: SHA-256 (hex) of the content; "" if it was not read in full.
        look: a hash (hex) of what the image shows; "" if there is none.
        peak: largest value of a 16-bit image, else 0.
        constant: whether all pixels are equal.
    """

    fate: str
    what: str = ""
    detail: str = ""
    digest: str = ""
    look: str = ""
    peak: int = 0
    constant: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it was read or converted."""
        return self.fate in (READ, CONVERTED)


class Scan(NamedTuple):
    """A folder and what became of its files: `found[i]` of `listing.members[i]`."""

    listing: Listing
    found: list[Scanned]

    @property
    def bits(self) -> int | None:
        """Of the values of all 16-bit images together; None if there are none.

        One number for all parts and all sizes of subsets, so that brightness can be
        compared between images and an image stays the same when others join in.
        """
        peak = max((scanned.peak for scanned in self.found), default=0)
        deep = any("16-bit" in scanned.what for scanned in self.images())
        return decode.bits_for(peak) if deep else None

    def images(self) -> Iterator[Scanned]:
        """What was read or converted."""
        return (scanned for scanned in self.found if scanned.is_image)


Keep = Callable[[bytes, np.ndarray], None]
ScanFolder = Callable[..., Scan]  # scan_folder, or with some of its arguments


def scan_folder(
    listing: Listing,
    *,
    cache_dir: Path,
    size: int | None = None,
    keep: Keep | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Reads, hashes and decodes the files of a folder, each once.

    Args:
        listing: of the folder's files.
        cache_dir: keeps what was found, by path, size and times of the files.
        size: of the square images that `keep` gets.
        keep: called with (digest, square image) of every 8-bit image decoded now.
        progress: called with (done, total) while files are being decoded.
    """
    members = listing.members
    store = _store_path(listing.root, cache_dir)
    known = _read_store(store)
    names = [member.path.relative_to(listing.root).as_posix() for member in members]
    found: list[Scanned | None] = [
        _known(known.get(name), member.path)
        for name, member in zip(names, members, strict=True)
    ]
    missing = [index for index, scanned in enumerate(found) if scanned is None]
    if not missing:
        return Scan(listing, found)

    def examine(index: int) -> _Answer:
        asked = size if keep else None
        return _examine(members[index], known.get(names[index]), asked)

    fresh = {name: known[name] for name in names if name in known}
    try:
        with decode.quiet():
            answers = zip(missing, map_ordered(examine, missing), strict=True)
            for done, (index, answer) in enumerate(answers, start=1):
                found[index] = answer.scanned
                if answer.stamp is not None:
                    # A file as young as the tick of its clock is hashed again.
                    stamp = [] if _is_recent(answer.stamp) else answer.stamp
                    fresh[names[index]] = [stamp, *answer.scanned]
                if keep is not None and answer.square is not None:
                    keep(bytes.fromhex(answer.scanned.digest), answer.square)
                if progress is not None and answer.decoded:
                    progress(done, len(missing))
    finally:
        _write_store(store, fresh)
    return Scan(listing, found)


class _Answer(NamedTuple):
    scanned: Scanned
    stamp: list[int] | None  # None: not to be kept
    square: np.ndarray | None
    decoded: bool


def _examine(member: Member, known: list | None, size: int | None) -> _Answer:
    """Reads a file once; decodes it unless its content is known."""
    path = member.path
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            scanned, raw = _read(file, path.suffix, before.st_size)
            after = os.fstat(file.fileno())
    except OSError as error:
        scanned = Scanned(REFUSED, "cannot be read", error.strerror or str(error))
        return _Answer(scanned, None, None, False)
    if _stamp(before) != _stamp(after):
        scanned = Scanned(REFUSED, "changed while it was being read")
        return _Answer(scanned, None, None, False)
    if scanned is not None:
        return _Answer(scanned, _stamp(before), None, False)
    digest = hashlib.sha256(raw).hexdigest()
    if known is not None and known[1:][3] == digest:
        return _Answer(Scanned(*known[1:]), _stamp(before), None, False)
    scanned, square = _judge(raw, path.suffix, digest, size)
    return _Answer(scanned, _stamp(before), square, True)


def _read(file, extension: str, size: int) -> tuple[Scanned | None, bytes]:
    """The content of an image file; what becomes of the others."""
    head = file.read(HEAD)
    kind = recognise(head, extension)
    if kind is None and extension.lower() not in EXTENSIONS:
        return Scanned(SKIPPED, "no image, by its name and content"), b""
    if kind is not None and not kind.is_read:
        what = f"{kind.name}, which is not read: convert it to PNG or JPEG"
        return Scanned(SKIPPED, what), b""
    if size > MAX_BYTES:
        return Scanned(REFUSED, "more than 1 GiB", f"{size:,} bytes"), b""
    return None, head + file.read()


def _judge(
    raw: bytes, extension: str, digest: str, size: int | None
) -> tuple[Scanned, np.ndarray | None]:
    try:
        decoded = image_files.read_pixels(raw, extension=extension)
    except image_files.Refused as error:
        return Scanned(REFUSED, error.what, error.detail, digest), None
    except MemoryError:
        return Scanned(REFUSED, "not enough memory", "", digest), None
    image = decode.finish(decoded)
    square = None
    if size is not None and decoded.pixels.dtype == np.uint8:
        square = decode.resize_square(image, size)
    scanned = Scanned(
        fate=CONVERTED if decoded.changes else READ,
        what=", ".join(decoded.changes),
        digest=digest,
        look=look_hash(image),
        peak=decoded.peak,
        constant=decode.is_constant(image),
    )
    return scanned, square


def _stamp(status: os.stat_result) -> list[int]:
    # The change time too: the modification time can be set back.
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [status.st_size, *times, status.st_ino]


def _known(known: list | None, path: Path) -> Scanned | None:
    """What was found, if the file is for certain the one that was read."""
    if known is None:
        return None
    try:
        stamp = _stamp(path.stat())
    except OSError:
        return None
    return Scanned(*known[1:]) if stamp == known[0] else None


def _is_recent(stamp: list[int]) -> bool:
    """Whether a file could change again without another time: in the same tick."""
    newest = max(stamp[1:3])
    tick = 2 * 10**9 if newest % 10**9 == 0 else 20 * 10**6
    return newest > time.time_ns() - tick


def _store_path(root: Path, cache_dir: Path) -> Path:
    # By device and number, so that a folder that is moved keeps its scan.
    status = root.stat()
    recipe = f"{decode.RULE}; {decode.decoder_versions()}; {Scanned._fields}"
    key = f"{recipe}; {status.st_dev} {status.st_ino}"
    return cache_dir / "scans" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read_store(path: Path) -> dict[str, list]:
    """Rows by name, [stamp, *Scanned]; none if the file is missing or was altered."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return {}
    return json.loads(text)


def _write_store(path: Path, rows: dict[str, list]) -> None:
    text = json.dumps(rows).encode()
    digest = hashlib.sha256(text).hexdigest().encode()
    try:
        write_atomically(path, digest + b"\n" + text)
    except OSError:  # The next scan takes longer; the images say so if they must.
        pass
