"""From the bytes of an image file to square RGB pixels, by one fixed rule.

OpenCV and Grain are imported where they are used: a command that only prints its help
does not wait for them.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np

from ftjax.data.index import Split
from ftjax.data.splits import quote_some

# Part of the cache key: changing how pixels are made must change this text.
RULE = "1: EXIF turn, RGB, alpha dropped, central square, area down / cubic up"


def decode_image(raw: bytes | np.ndarray) -> np.ndarray | None:
    """Decodes an image file of any kind OpenCV knows, or passes grey pixels through.

    Turned upright by its EXIF orientation; grey, palette, 16-bit and CMYK become 8-bit
    RGB; an alpha channel is dropped, as Keras and torchvision do.

    Args:
        raw: content of a file, or uint8 (height, width).

    Returns:
        uint8 (height, width, 3), RGB; None if it cannot be read in full.
    """
    import cv2

    if isinstance(raw, np.ndarray):
        return np.repeat(raw[:, :, None], 3, axis=2)
    if not raw:
        return None
    try:
        return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the central square: the shorter side becomes `size`, the rest is cut.

    A crop keeps the proportions the pretrained weights were trained on, where a squeeze
    to the square would deform every image that is not one. Pixel averages
    (INTER_AREA) when shrinking, because filters that skip pixels alias; bicubic when
    enlarging. Cutting before resizing gives the same image for less work.

    Args:
        image: uint8 (height, width, 3).

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


def decode_items(
    split: Split,
    items: np.ndarray,
    image_size: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[np.ndarray]:
    """Yields the images in the order of `items`, decoded by Grain's threads.

    Args:
        items: int (n,), item numbers of `split`.
        image_size: pixels a side.
        progress: called with (decoded, n) after every image.

    Yields:
        uint8 (image_size, image_size, 3), RGB.

    Raises:
        ValueError: after the last image, if some cannot be read; names up to five.
    """
    import cv2
    import grain

    def decode(item: int) -> tuple[int, np.ndarray | None]:
        try:
            image = decode_image(split.read(item))
        except OSError:
            image = None
        return item, None if image is None else resize_square(image, image_size)

    # Threads, not processes: OpenCV releases the interpreter lock, and Grain's workers
    # take seconds to start and need a guarded main module. Order is kept.
    images = (
        grain.MapDataset.source(items.tolist())
        .map(decode)
        .to_iter_dataset(
            grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=64)
        )
    )
    unreadable = []
    # OpenCV's own warnings do not name the file. The functions moved in version 5.
    log = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        for done, (item, image) in enumerate(images, start=1):
            if progress is not None:
                progress(done, len(items))
            if image is None:
                unreadable.append(split.name_of(item))
            else:
                yield image
    finally:
        log.setLogLevel(level)
    if unreadable:
        raise ValueError(
            f"{len(unreadable)} of {len(items)} images cannot be read: "
            f"{quote_some(sorted(unreadable))}; replace or remove them"
        )
