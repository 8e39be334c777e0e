"""What kind of image a file holds, by its first bytes; its name only breaks ties."""

from typing import NamedTuple

HEAD = 64  # bytes that are enough to tell

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
TOOL_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx")

_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_NOT_READ = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"DDS ", "DDS"),
    (b"<svg", "SVG"),
    (b"%PDF", "PDF"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class Kind(NamedTuple):
    """A kind of image file.

    Attributes:
        name: as Pillow calls it, or the name of a kind that is not read.
        is_read: whether ftjax reads it.
    """

    name: str
    is_read: bool


def recognise(head: bytes, extension: str) -> Kind | None:
    """The kind of image that a file holds; None if it holds none.

    Args:
        head: the first `HEAD` bytes, fewer of a shorter file.
        extension: of the file's name with its dot; "" if it has none.
    """
    known = extension.lower() in EXTENSIONS
    for start, name in _STARTS:
        if head.startswith(start):
            # Raw files of cameras are TIFF inside, with a thumbnail as first image.
            if name == "TIFF" and extension and not known:
                return Kind(f"TIFF inside a {extension.lower()} file", False)
            return Kind(name, True)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind("WEBP", True)
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))]
        if head[8:12] in (b"avif", b"avis") or b"avif" in brands:
            return Kind("AVIF", True)
        if head[8:12] in _HEIF_BRANDS:
            return Kind("HEIF", True)
    for start, name in _NOT_READ:
        if head.startswith(start):
            return Kind(name, False)
    # Two bytes are too few to tell an image from text, unless the name says so too.
    if known or not extension:
        if head[:2] == b"BM" and head[6:10] == bytes(4):
            return Kind("BMP", True)
        if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
            return Kind("PPM", True)
    return None
