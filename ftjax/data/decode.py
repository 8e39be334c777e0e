"""From the bytes of an image file to square RGB pixels, by one fixed rule.

OpenCV is imported where it is used: a command that only prints its help does not wait
for it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from ftjax.data.image_files import Decoded, Refused, read_pixels

# Part of the cache key: changing how pixels are made must change this text.
RULE = (
    "2: EXIF turn, RGB, transparency over white, 16 bit by the bits of the data set, "
    "central square, area down / cubic up"
)
BIT_DEPTHS = (8, 10, 12, 14, 16)  # that cameras and scanners deliver


def decoder_versions() -> str:
    """The libraries that make the pixels: part of the cache key."""
    names = ("pillow", "simplejpeg", "opencv-python-headless")
    found = [f"{name} {metadata.version(name)}" for name in names]
    try:
        found.append(f"pillow-heif {metadata.version('pillow-heif')}")
    except metadata.PackageNotFoundError:
        pass
    return ", ".join(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, decoders print no warnings of their own, which name no file.

    The settings are those of the process: enter it in the main thread, around the
    threads that decode.
    """
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # The functions moved in version 5.
    pillow = logging.getLogger("PIL")
    levels = log.getLogLevel(), pillow.level
    log.setLogLevel(0)
    pillow.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
            yield
    finally:
        log.setLogLevel(levels[0])
        pillow.setLevel(levels[1])


def decode_image(
    raw: bytes | np.ndarray, *, bits: int | None = None, strict: bool = True
) -> np.ndarray | None:
    """Decodes an image file of any kind that is read, or passes pixels through.

    Args:
        raw: content of a file, or uint8 (height, width) or (height, width, 3).
        bits: of the values of 16-bit images, one number for a whole data set
            (`Dataset.bits`); None: the fewest of 8, 10, 12, 14, 16 that hold this one.
        strict: whether a JPEG that decoders warn of is taken for unreadable.

    Returns:
        uint8 (height, width, 3), RGB; None if it cannot be read in full.
    """
    if isinstance(raw, np.ndarray):
        return raw if raw.ndim == 3 else np.repeat(raw[:, :, None], 3, axis=2)
    with quiet():
        try:
            return finish(read_pixels(raw, warnings_are_errors=strict), bits)
        except Refused:
            return None


def bits_for(peak: int) -> int:
    """The fewest bits of `BIT_DEPTHS` that hold a value."""
    return next(bits for bits in BIT_DEPTHS if peak < 2**bits)


def finish(decoded: Decoded, bits: int | None = None) -> np.ndarray:
    """8-bit RGB: 16-bit values over 2**bits - 1, transparent ones over white.

    A drawing that white would erase altogether is put on black.

    Returns:
        uint8 (height, width, 3).
    """
    pixels, alpha, _ = decoded
    if pixels.dtype == np.uint16:
        top = 2 ** (bits or bits_for(decoded.peak)) - 1
        pixels = np.minimum((pixels.astype(np.uint32) * 255 + top // 2) // top, 255)
        pixels = pixels.astype(np.uint8)
    if alpha is None:
        return pixels
    top = np.iinfo(alpha.dtype).max
    weight = alpha[..., None].astype(np.uint32)
    drawn = pixels * weight
    white = ((drawn + 255 * (top - weight) + top // 2) // top).astype(np.uint8)
    if is_constant(white):
        return ((drawn + top // 2) // top).astype(np.uint8)
    return white


def is_constant(image: np.ndarray) -> bool:
    """Whether all pixels are equal."""
    first = image[0, 0]
    return bool((image[0] == first).all() and (image == first).all())


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the central square: the shorter side becomes `size`, the rest is cut.

    A crop keeps the proportions the pretrained weights were trained on, where a squeeze
    to the square would deform every image that is not one. Pixel averages
    (INTER_AREA) when shrinking, because filters that skip pixels alias; bicubic when
    enlarging. Cutting before resizing gives the same image for less work.

    Args:
        image: uint8 (height, width, 3).
        size: pixels a side of the result.

    Returns:
        uint8 (size, size, 3).
    """
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    filter_ = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=filter_)
