"""Bounding boxes of objects as masks of the square images made from the originals."""

import numpy as np

from ftjax.data.decode import decode_image
from ftjax.data.index import Split


def box_masks(boxes: np.ndarray, sizes: np.ndarray, size: int) -> np.ndarray:
    """Boxes of the original images as masks of the square ones made from them.

    The data loader keeps the central square and resizes it; so does this.

    Args:
        boxes: (n, 4) top, left, bottom, right as shares 0..1 of the original height and
            width, TFDS' BBox.
        sizes: (n, 2) height and width of the originals, in pixels.
        size: height and width of the square images, in pixels.

    Returns:
        bool (n, size, size); a pixel belongs to the box if its center does.
    """
    sizes = np.asarray(sizes, float).reshape(-1, 2)
    side = sizes.min(1, keepdims=True)  # (n, 1)
    start = (sizes - side) / 2  # (n, 2) top, left of the square
    corners = np.asarray(boxes, float).reshape(-1, 2, 2) * sizes[:, None]
    corners = (corners - start[:, None]) / side[:, None] * size
    centers = np.arange(size) + 0.5
    inside = (centers >= corners[:, 0, :, None]) & (centers < corners[:, 1, :, None])
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def object_masks(split: Split, items: np.ndarray, size: int) -> np.ndarray:
    """Where the objects of some images are: the union of each image's boxes.

    Args:
        split: with boxes.
        items: int (n,), item numbers of `split`.
        size: height and width of the square images, in pixels.

    Returns:
        bool (n, size, size); False everywhere in an image without a box.

    Raises:
        ValueError: an image cannot be read; names it.
    """
    assert split.boxes is not None
    masks = np.zeros((len(items), size, size), bool)
    for mask, item in zip(masks, items.tolist(), strict=True):
        boxes = split.boxes(item)
        image = decode_image(split.read(item), strict=not split.published)
        if image is None:
            raise ValueError(f"{split.name_of(item)} cannot be read")
        sizes = np.tile(image.shape[:2], (len(boxes), 1))
        mask[:] = box_masks(boxes, sizes, size).any(0)
    return masks
