"""Images that show the same: by a difference hash of 256 bits."""

import numpy as np

SIDE = 16  # rows of the hash, and bits of each
# Of the bits set in both that may differ. Photos have about 115 set: 16 bits. Of 2,500
# photos (dogs, food) no two are that near; a photo and itself at JPEG quality 50 differ
# in 4 bits (median), 20 (most), at half the size too in 8 and 22.
NEAR_SHARE = 0.07
MIN_BITS = 16  # set in a hash: flatter images all look alike
STEP = 2  # grey levels that a pixel must be brighter by than its left neighbour
WINDOW = 64  # hashes that share a row and are compared with each


def look_hash(image: np.ndarray) -> str:
    """Which pixels of the image, at 16 x 17, are brighter than their left neighbours.

    Krawetz, "Kind of like that", 2013, with more bits and a margin against noise.
    It survives another size, format or quality; no cropping, turning or mirroring.

    Args:
        image: uint8 (height, width, 3).

    Returns:
        256 bits as hex; "" of an image that is nearly flat.
    """
    import cv2

    step = max(1, min(image.shape[:2]) // 96)  # 36 samples a cell are enough
    image = np.ascontiguousarray(image[::step, ::step])
    small = cv2.resize(image, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    grey = small.astype(np.int32) @ np.array([299, 587, 114], np.int32)  # (16, 17)
    bits = np.diff(grey, axis=1) > 1000 * STEP
    return np.packbits(bits).tobytes().hex() if bits.sum() >= MIN_BITS else ""


def near_pairs(hashes: np.ndarray) -> np.ndarray:
    """Pairs of hashes that differ in few of the bits that are set in them.

    Hashes that differ in so few bits share a row of 16; only those that share one, and
    are among the next `WINDOW` in the order from that row on, are compared. So it takes
    time in proportion to n, and in a set of images that are all alike finds some pairs
    only.

    Args:
        hashes: uint8 (n, 32).

    Returns:
        int (m, 2), rows i < j in ascending order.
    """
    words = np.ascontiguousarray(hashes).view("<u8")  # (n, 4)
    counts = np.bitwise_count(words).sum(1, dtype=np.int64)
    pairs = [np.empty((0, 2), np.int64)]
    for row in range(SIDE):
        rolled = np.ascontiguousarray(np.roll(hashes, -2 * row, axis=1)).view(">u8")
        order = np.lexsort(rolled.T[::-1])
        value = rolled[order, 0] >> np.uint64(48)
        for ahead in range(1, WINDOW + 1):
            at = np.flatnonzero(value[:-ahead] == value[ahead:])
            if not len(at):
                break
            i, j = order[at], order[at + ahead]
            differ = np.bitwise_count(words[i] ^ words[j]).sum(1, dtype=np.int64)
            near = differ <= NEAR_SHARE * (counts[i] + counts[j])
            pairs.append(np.sort(np.stack([i[near], j[near]], 1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
