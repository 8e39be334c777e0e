"""Image files made for tests: whole ones of every format, and damaged ones."""

import io

import cv2
import numpy as np
from PIL import Image

FORMATS = {
    "PNG": (".png", {}),
    "JPEG": (".jpg", {"quality": 90}),
    "WEBP": (".webp", {"lossless": True}),
    "BMP": (".bmp", {}),
    "GIF": (".gif", {}),
    "TIFF": (".tif", {}),
    "PPM": (".ppm", {}),
    "AVIF": (".avif", {"quality": 80}),
}


def smooth_image(seed, height=24, width=32):
    """uint8 (height, width, 3) without noise, different for every seed."""
    coarse = np.random.default_rng(seed).integers(40, 215, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, kind="PNG", **options):
    """The file of an image: an array, or what Pillow has."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **{**FORMATS[kind][1], **options})
    return buffer.getvalue()


def flip_byte(raw, rng):
    """Another value of one byte."""
    data = bytearray(raw)
    data[rng.integers(len(data))] ^= rng.integers(1, 256)
    return bytes(data)


def flip_bit(raw, rng):
    """One bit."""
    data = bytearray(raw)
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def cut(raw, rng):
    """A download that stopped."""
    return raw[: rng.integers(len(raw))]


def lose_block(raw, rng):
    """A sector that a disk gives back as zeros."""
    start = rng.integers(len(raw))
    size = min(512, max(1, len(raw) // 4))
    return raw[:start] + bytes(len(raw[start : start + size])) + raw[start + size :]


def drop_middle(raw, rng):
    """A part that a transfer left out."""
    start = rng.integers(len(raw) - 1)
    return raw[:start] + raw[start + int(rng.integers(1, 64)) :]


def text_mode(raw, rng):
    """A transfer that took the file for text."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def error_page(raw, rng):
    """What a server sends instead of the file."""
    return b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>"


DAMAGES = [
    *(flip_byte, flip_bit, cut, lose_block, drop_middle, text_mode, error_page),
]
