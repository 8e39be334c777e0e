"""Decoding: every kind of image becomes upright, square, 8-bit RGB."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ftjax.data.decode import decode_image, resize_square


def smooth_image(seed, height=24, width=32):
    coarse = np.random.default_rng(seed).integers(40, 215, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode_pil(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "LA", "1"])
def test_every_colour_mode_becomes_the_rgb_that_pillow_gives(mode):
    image = Image.fromarray(smooth_image(1)).convert(mode)
    data = encode_pil(image, "TIFF" if mode == "CMYK" else "PNG")
    pixels = decode_image(data)
    assert pixels.shape == (24, 32, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_has_the_colours_of_the_original():
    original = smooth_image(2)
    image = Image.fromarray(original).convert("CMYK")
    pixels = decode_image(encode_pil(image, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - original).mean() < 4


def test_16_bit_images_are_scaled_not_clipped():
    grey = smooth_image(3)[..., 0]
    data = encode_pil(Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    assert np.array_equal(decode_image(data)[..., 1], grey)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_exif_orientation_turns_the_image_upright(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(smooth_image(4))
    plain = decode_image(encode_pil(stored, "JPEG", quality=95))
    turned = decode_image(encode_pil(stored, "JPEG", quality=95, exif=exif))
    assert np.array_equal(turned, turn(plain))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_image_is_never_half_decoded(kind, part):
    data = encode_pil(Image.fromarray(smooth_image(5, 96, 128)), kind)
    assert decode_image(data) is not None
    assert decode_image(data[: int(part * len(data))]) is None


@pytest.mark.parametrize("shape", [(20, 40), (40, 20), (20, 20), (21, 40), (7, 90)])
@pytest.mark.parametrize("size", [8, 20, 64])
def test_resize_keeps_the_central_square_and_its_proportions(shape, size):
    height, width = shape
    side = min(shape)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    square = resize_square(image, size)
    assert square.shape == (size, size, 3) and square.dtype == np.uint8
    middle = square.astype(float).mean(axis=(0, 1))
    expected = [(height - side) // 2 + (side - 1) / 2, (width - side) // 2]
    assert middle[0] == pytest.approx(expected[0], abs=0.6)
    assert middle[1] == pytest.approx(expected[1] + (side - 1) / 2, abs=0.6)
    steps = np.diff(square[size // 2, :, 1].astype(float))
    assert steps.mean() == pytest.approx(side / size, rel=0.15, abs=0.06)


def test_shrinking_averages_and_enlarging_keeps_flat_areas():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    assert np.all(resize_square(stripes, 8) == 100)
    assert np.all(resize_square(np.full((8, 8, 3), 77, np.uint8), 40) == 77)
