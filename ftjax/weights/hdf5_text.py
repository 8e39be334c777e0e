"""Read lists of variable-length text from an HDF5 file without the HDF5 library.

The library believes the 32-bit length that stands before each text and allocates that
much: a damaged file of 30 kB was measured to take 4 GB. These few structures of the
"HDF5 File Format Specification, version 3" (IV.A.1.a version 1 object headers, IV.A.2.m
attribute messages, III.E global heap) are enough to read the names in Keras files.
"""

import struct
from collections.abc import Iterator
from mmap import mmap

ATTRIBUTE = 0x000C
CONTINUATION = 0x0010
MAX_MESSAGES = 100_000
MAX_TEXT = 4096  # bytes in one name


def read_text_attribute(
    content: mmap | bytes, address: int, name: str, *, count: int
) -> list[str]:
    """The elements of a 1-d attribute of variable-length text.

    Args:
        content: the whole file, without user block.
        address: of the object header of the group that has the attribute.
        name: of the attribute.
        count: its number of elements.

    Raises:
        ValueError: damaged, or a variant of HDF5 that Keras does not write.
    """
    heaps: dict[int, dict[int, bytes]] = {}
    left = len(content)  # heaps that do not overlap are not longer together
    for kind, message in _list_messages(content, address):
        if kind != ATTRIBUTE:
            continue
        found, data = _split_attribute(message)
        if found != name.encode():
            continue
        texts = []
        for length, heap, index in struct.iter_unpack(
            "<IQI", _cut(data, 0, 16 * count)
        ):
            if heap not in heaps:
                heaps[heap], size = _read_heap(content, heap)
                left -= size
            text = heaps[heap].get(index, b"")
            if not length == len(text) <= MAX_TEXT or left < 0:
                raise ValueError(f"damaged HDF5: bad length of a text in {name!r}")
            texts.append(text.rstrip(b"\0").decode())
        return texts
    raise ValueError(f"HDF5 with {name!r} stored in a way that Keras does not use")


def _cut(content: mmap | bytes, start: int, size: int) -> bytes:
    if start + size > len(content):
        raise ValueError("damaged or truncated HDF5: text lies behind its end")
    return content[start : start + size]


def _list_messages(content: mmap | bytes, address: int) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each message of a version 1 object header."""
    version, size = struct.unpack("<B7xI", _cut(content, address, 12))
    if version != 1:
        raise ValueError("HDF5 of a newer layout than Keras writes (libver='latest')")
    blocks = [(address + 16, size)]
    left = MAX_MESSAGES
    for start, length in blocks:  # grows while it is read
        block = _cut(content, start, length)
        position = 0
        while position + 8 <= len(block) and left:
            left -= 1
            kind, size = struct.unpack_from("<HH", block, position)
            message = _cut(block, position + 8, size)
            position += 8 + size
            if kind == CONTINUATION:
                blocks.append(struct.unpack("<QQ", _cut(message, 0, 16)))
            else:
                yield kind, message


def _split_attribute(message: bytes) -> tuple[bytes, bytes]:
    """Name and data of an attribute message, versions 1 to 3."""
    version, *sizes = struct.unpack("<BxHHH", _cut(message, 0, 8))
    start = 9 if version == 3 else 8  # version 3 has a byte for the name's encoding
    name = _cut(message, start, sizes[0]).rstrip(b"\0")
    for size in sizes:  # of the name, the datatype and the dataspace
        start += (size + 7) // 8 * 8 if version == 1 else size
    return name, message[start:]


def _read_heap(content: mmap | bytes, address: int) -> tuple[dict[int, bytes], int]:
    """The objects of a global heap collection, by index, and its size in bytes."""
    signature, size = struct.unpack("<4s4xQ", _cut(content, address, 16))
    if signature != b"GCOL":
        raise ValueError("damaged HDF5: a text points to no heap")
    collection = _cut(content, address, size)
    objects: dict[int, bytes] = {}
    position = 16
    while position + 16 <= len(collection):
        index, length = struct.unpack_from("<H6xQ", collection, position)
        if index == 0:  # the free space at the end
            break
        objects[index] = _cut(collection, position + 16, length)
        position += 16 + (length + 7) // 8 * 8
    return objects, size
