"""Zip archives whose members are read in place, never extracted or decompressed."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., name and extra lengths


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie in the archive, and whether they are plain."""

    name: str
    start: int
    stop: int
    crc: int
    plain: bool


def list_members(path: Path, buffer: mmap) -> dict[str, Member]:
    """Locates the members of a zip archive in `buffer`, the mapped file at `path`.

    Raises:
        ValueError: damaged or overlapping members, names that occur twice or lead out
            of the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        OverflowError,
        struct.error,
        UnicodeDecodeError,
        EOFError,
    ) as error:
        raise ValueError(f"damaged or truncated zip archive ({error})") from error
    members: dict[str, Member] = {}
    for info in infos:
        name = info.filename
        if name.endswith("/"):
            continue
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or "" in parts or ":" in parts[0]:
            raise ValueError(f"the archive has a member with the unsafe name {name!r}")
        if name in members:
            raise ValueError(f"the archive has two members called {name!r}")
        header = buffer[info.header_offset : info.header_offset + LOCAL_HEADER.size]
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise ValueError(f"damaged zip archive: member {name!r} has no header")
        _, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        stop = start + info.compress_size
        if stop > len(buffer):
            raise ValueError(
                f"member {name!r} declares {info.compress_size} bytes, which are not "
                "in the file"
            )
        plain = (
            info.compress_type == zipfile.ZIP_STORED
            and info.compress_size == info.file_size
            and not info.flag_bits & 1
        )
        members[name] = Member(name, start, stop, info.CRC, plain)
    if sum(member.stop - member.start for member in members.values()) > len(buffer):
        raise ValueError("damaged zip archive: its members overlap")
    return members


def read_member(buffer: mmap, member: Member) -> memoryview:
    """The bytes of `member` as a view of `buffer`, their checksum verified.

    torch and Keras store members as they are. Requiring that makes a zip bomb
    impossible: all members together are no larger than the file.

    Raises:
        ValueError: the member is compressed or encrypted, or its checksum is wrong.
    """
    if not member.plain:
        raise ValueError(
            f"member {member.name!r} is compressed or encrypted; allowed are archives "
            "as torch.save and Keras write them, which do neither"
        )
    view = memoryview(buffer)[member.start : member.stop]
    if zlib.crc32(view) != member.crc:
        raise ValueError(f"damaged: the checksum of member {member.name!r} is wrong")
    return view
