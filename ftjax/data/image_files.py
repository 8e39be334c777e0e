"""Pixels of an image file as they stand in it, or why it is not read.

JPEG is decoded by simplejpeg, which raises what libjpeg only warns of; values of more
than 8 bits by OpenCV; all the rest by Pillow. They are imported where they are used: a
command that only prints its help does not wait for them.
"""

import io
import threading
import zlib
from contextlib import nullcontext
from importlib import import_module
from typing import NamedTuple

import numpy as np

from ftjax.data.formats import HEAD, recognise

MAX_PIXELS = 100_000_000
LARGE = 25_000_000  # pixels; larger images are decoded one at a time

_large_one = threading.Lock()


class Refused(ValueError):
    """An image file that is not read; `args` are what is wrong and the details."""

    def __init__(self, what: str, detail: str = ""):
        super().__init__(what, detail)
        self.what, self.detail = what, detail


class Decoded(NamedTuple):
    """Pixels as they stand in a file, upright.

    Attributes:
        pixels: uint8 or uint16 (height, width, 3), RGB.
        alpha: of the same type (height, width); None if it is the same everywhere.
        changes: what had to be converted.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    changes: tuple[str, ...]

    @property
    def peak(self) -> int:
        """The largest value of a 16-bit image; 0 for one of 8 bits."""
        return int(self.pixels.max()) if self.pixels.dtype == np.uint16 else 0


def read_pixels(
    raw: bytes, *, extension: str = "", warnings_are_errors: bool = True
) -> Decoded:
    """Decodes the content of an image file; call it within `quiet`.

    Args:
        raw: content of the file.
        extension: of the file's name, for kinds that their first bytes do not tell.
        warnings_are_errors: whether a JPEG of which the decoder says that it is corrupt
            is refused, even if it gives an image.

    Raises:
        Refused: damaged, too large, or of a kind that is not read.
    """
    kind = recognise(raw[:HEAD], extension)
    if kind is None:
        raise Refused("empty file" if not raw else "no image inside")
    if not kind.is_read:
        raise Refused(f"{kind.name}, which is not read: convert it to PNG or JPEG")
    try:
        if kind.name == "JPEG":
            return _read_jpeg(raw, strict=warnings_are_errors)
        return _read_other(raw, kind.name)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # Decoders raise many kinds for damaged files.
        detail = str(error).strip().split("\n")[0] or type(error).__name__
        if detail == "unknown pixel mode":
            raise Refused(
                f"{kind.name} with pixels of a kind that is not read"
            ) from None
        raise Refused(f"damaged {kind.name}", detail) from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Refused(
            f"more than {MAX_PIXELS // 10**6} megapixels",
            f"{width} x {height} pixels",
        )


def _read_jpeg(raw: bytes, *, strict: bool) -> Decoded:
    import simplejpeg
    from PIL.JpegImagePlugin import JpegImageFile

    height, width, colours, _ = simplejpeg.decode_jpeg_header(raw, strict=strict)
    _check_size(width, height)
    cmyk = colours in ("CMYK", "YCCK")
    with _turn(width * height):
        # The accurate transform and upsampling: the pixels of OpenCV and Pillow.
        pixels = simplejpeg.decode_jpeg(
            raw,
            "CMYK" if cmyk else "RGB",
            fastdct=False,
            fastupsample=False,
            strict=strict,
        )
        if cmyk:  # Adobe's are stored inverted: Pillow knows which ones.
            pixels = np.asarray(JpegImageFile(io.BytesIO(raw)).convert("RGB"))
    changes = ["CMYK"] if cmyk else ["grey"] if colours == "Gray" else []
    if b"Exif\0\0" in raw[:65536]:
        pixels = _upright(pixels, _orientation(JpegImageFile(io.BytesIO(raw))), changes)
    return Decoded(pixels, None, tuple(changes))


def _turn(pixels: int):
    """Many large images at once would take the memory of all of them."""
    return _large_one if pixels > LARGE else nullcontext()


def _orientation(image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # Cameras and editors damage it often; the pixels are whole.
        return 1


def _upright(pixels: np.ndarray, orientation: int, changes: list[str]) -> np.ndarray:
    """Turns and mirrors by the EXIF orientation 1 .. 8; axes 0 and 1 are the image."""
    turns = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x),
    }
    if orientation not in turns:
        return pixels
    if "turned by EXIF" not in changes:
        changes.append("turned by EXIF")
    return np.ascontiguousarray(turns[orientation](pixels))


def _read_other(raw: bytes, kind: str) -> Decoded:
    image = _open(raw, kind)
    _check_size(*image.size)
    changes: list[str] = []
    with _turn(image.size[0] * image.size[1]):
        if kind == "PNG":
            _check_png(raw)
        elif kind == "WEBP":
            _check_webp(raw)
        if _is_deep(image, raw, kind):
            changes.append("16-bit")
            pixels, alpha = _deep_pixels(raw, changes)
            orientation = _orientation(image)
        else:
            turned = kind == "TIFF" and image.tag_v2.get(0x0112, 1) in range(2, 9)
            image.load()
            pixels, alpha = _pillow_pixels(image, changes)
            orientation = _orientation(image)
            if turned and orientation == 1:  # Pillow has done it.
                changes.append("turned by EXIF")
        if getattr(image, "is_animated", False):
            changes.append("first frame")
    if alpha is not None and (alpha == alpha.flat[0]).all():
        alpha = None  # It says nothing: some programs write it, even as zeros.
    pixels = _upright(pixels, orientation, changes)
    if alpha is not None:
        alpha = _upright(alpha, orientation, changes)
        changes.append("transparency over white")
    return Decoded(pixels, alpha, tuple(changes))


def _open(raw: bytes, kind: str):
    """Pillow's image of one kind, not yet decoded: its size and mode are known."""
    from PIL import Image, features

    Image.init()
    if kind == "HEIF":
        try:
            heif = import_module("pillow_heif")
        except ImportError:
            raise Refused('HEIC: to read it, pip install "ftjax[heic]"') from None
        return heif.HeifImageFile(io.BytesIO(raw))
    if kind == "AVIF" and not features.check("avif"):
        raise Refused("AVIF, which this Pillow was built without: pip install pillow")
    # Not Image.open: it has a limit of its own, and tries other formats.
    return Image.OPEN[kind][0](io.BytesIO(raw), "")


def _check_png(raw: bytes) -> None:
    """Every chunk of a PNG carries a checksum; decoders pass over some of them."""
    at, kind = 8, b""
    while kind != b"IEND":
        size = int.from_bytes(raw[at : at + 4], "big")
        kind, end = raw[at + 4 : at + 8], at + 8 + size
        if end + 4 > len(raw):
            raise Refused("damaged PNG", "truncated")
        checksum = zlib.crc32(memoryview(raw)[at + 4 : end])
        if checksum != int.from_bytes(raw[end : end + 4], "big"):
            raise Refused("damaged PNG", f"checksum of its {kind!r} part")
        at = end + 4


def _check_webp(raw: bytes) -> None:
    """A WebP says how long it is; one that came as text is longer."""
    size = 8 + int.from_bytes(raw[4:8], "little")
    if len(raw) not in (size, size + size % 2):
        raise Refused("damaged WEBP", f"{len(raw)} bytes instead of {size}")


def _is_deep(image, raw: bytes, kind: str) -> bool:
    """Whether values have more than 8 bits and Pillow would cut them to 8."""
    if kind == "PNG":
        return raw[24] == 16
    if kind != "TIFF":
        return False
    bits = max(image.tag_v2.get(258, (1,)))
    if bits <= 8:
        return False
    signs = set(image.tag_v2.get(339, (1,)))
    if bits > 16 or signs != {1}:
        raise Refused("values without a known range", "32-bit, signed or float")
    if image.tag_v2.get(262) not in (1, 2):
        raise Refused("16-bit TIFF that is neither grey nor RGB", "convert it to PNG")
    return True


def _deep_pixels(raw: bytes, changes: list[str]):
    """uint16 (h, w, 3), RGB, and alpha or None, by OpenCV: Pillow keeps 8 bits."""
    import cv2

    stored = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise Refused("damaged 16-bit image", "its values cannot be read in full")
    if stored.ndim == 2:
        changes.append("grey")
        return np.repeat(stored[:, :, None], 3, axis=2), None
    alpha = np.ascontiguousarray(stored[..., 3]) if stored.shape[2] == 4 else None
    pixels = np.ascontiguousarray(stored[..., 2::-1])
    return pixels, alpha


def _pillow_pixels(image, changes: list[str]):
    """Pixels (h, w, 3) and alpha or None of a loaded Pillow image."""
    mode = image.mode
    if mode == "CMYK":
        changes.append("CMYK")
    elif mode in ("1", "L", "LA", "La") or mode.startswith("I"):
        changes.append("grey")
    if image.format == "PPM" and mode.startswith("I"):  # scaled by what it declares
        changes.append("16-bit")
        grey = np.asarray(image).astype(np.uint16)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if mode not in ("1", "L", "P", "RGB", "YCbCr", "CMYK") and not (
        image.has_transparency_data
    ):
        raise Refused(f"colour mode {mode}", "convert it to RGB")
    if image.has_transparency_data:
        stored = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(stored[..., :3]), stored[..., 3]
    return np.array(image.convert("RGB")), None
