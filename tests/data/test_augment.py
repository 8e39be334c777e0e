"""Augmented images: the same from the same numbers, and those of Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ftjax.axes import AUGMENTATIONS, augmentations
from ftjax.data import augment as own

SIZE = 12
WORDS = ("flip", "crop", "mixup")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, SIZE, SIZE, 3), np.uint8)


def test_words_have_one_spelling():
    assert augmentations("none") == ()
    assert augmentations("crop,flip,flip") == ("flip", "crop")
    assert augmentations(",".join(reversed(AUGMENTATIONS))) == AUGMENTATIONS
    for text in ("", "flop", "none,flip", "flip,", "Flip"):
        assert augmentations(text) is None


def test_pixels_depend_on_seed_epoch_and_image_alone(images):
    rows = np.arange(16)
    whole = own.fresh_views(images, WORDS, (3,), 2)
    expected = np.asarray(whole[rows])
    assert expected.dtype == np.uint8 and expected.shape == (16, SIZE, SIZE, 3)
    parts = [np.asarray(whole[part]) for part in np.split(rows[::-1], 2)]
    np.testing.assert_array_equal(np.concatenate(parts)[::-1], expected)
    stacked = own.fresh_views(images, WORDS, (5, 3), 2)  # two seeds at once
    np.testing.assert_array_equal(np.asarray(stacked[rows * 2 + 1]), expected)
    for seed, epoch in ((3, 3), (4, 2)):
        other = np.asarray(own.fresh_views(images, WORDS, (seed,), epoch)[rows])
        assert (other != expected).any(axis=(1, 2, 3)).mean() > 0.8


def test_more_stored_views_keep_those_of_fewer(images):
    few, many = (own.stored_views(images, ("crop",), count) for count in (2, 4))
    assert len(many) == 4 * len(images)
    image = np.arange(8)
    for view in range(2):
        np.testing.assert_array_equal(few[image * 2 + view], many[image * 4 + view])
    chosen = own.chosen_views(0, 1, 4000, 4)
    assert set(chosen) == {0, 1, 2, 3}
    assert (chosen != own.chosen_views(0, 2, 4000, 4)).mean() > 0.7


def test_flip_mirrors_half_of_the_images(images):
    views = np.asarray(own.stored_views(images, ("flip",), 1)[np.arange(40)])
    mirrored = (views == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (views == images).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all() and 8 < mirrored.sum() < 32


def test_a_crop_is_a_part_of_the_image_at_its_whole_size():
    """Of a ramp it is a flatter ramp, whose slopes are the sides of the part."""
    line = np.arange(SIZE, dtype=np.float32)
    ramp = np.stack([*np.meshgrid(line, line, indexing="ij"), np.zeros((SIZE, SIZE))])
    ramp = jnp.asarray(ramp.transpose(1, 2, 0), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    crops = np.asarray(jax.jit(jax.vmap(own.crop, (0, None)))(keys, ramp))
    inner = slice(2, -2)  # beyond the border lies the border
    rows = np.diff(crops[:, inner, inner, 0], axis=1)
    columns = np.diff(crops[:, inner, inner, 1], axis=2)
    for slopes in (rows, columns):
        flat = slopes.reshape(64, -1)
        np.testing.assert_allclose(np.ptp(flat, axis=1), 0, atol=1e-4)
    height, width = rows[:, 0, 0], columns[:, 0, 0]
    assert (height * width > 0.6 - 1e-3).all() and (height * width < 1 + 1e-3).all()
    assert np.ptp(height) > 0.1 and (height / width).max() < 4 / 3 + 1e-3
    assert crops.min() >= 0 and crops.max() <= SIZE - 1 + 1e-4


@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        (lambda x: own.brightness(x, 1.3), lambda x: enhanced("Brightness", x)),
        (lambda x: own.contrast(x, 1.3), lambda x: enhanced("Contrast", x)),
        (lambda x: own.saturation(x, 1.3), lambda x: enhanced("Color", x)),
        (lambda x: own.sharpness(x, 1.3), lambda x: enhanced("Sharpness", x)),
        (lambda x: own.posterize(x, 5), lambda x: ImageOps.posterize(x, 5)),
        (lambda x: own.solarize(x, 128), lambda x: ImageOps.solarize(x, 128)),
        (own.auto_contrast, ImageOps.autocontrast),
    ],
    ids="brightness contrast saturation sharpness posterize solarize auto".split(),
)
def test_colors_are_those_of_pillow(images, operation, reference):
    image = images[0] // 2 + 40
    found = jax.jit(lambda x: own.to_pixels(operation(x)))(np.float32(image))
    expected = np.asarray(reference(Image.fromarray(image)), np.int32)
    # Pillow cuts off where this rounds, and rounds in between.
    np.testing.assert_allclose(np.asarray(found, np.int32), expected, atol=1.5)


def enhanced(name, image):
    return getattr(ImageEnhance, name)(image).enhance(1.3)


def test_shapes_are_those_of_pillow():
    smooth = np.add.outer(np.arange(24) * 4, np.arange(24) * 6).astype(np.uint8)
    image = np.stack([smooth, smooth[::-1], smooth.T], axis=-1)

    @jax.jit
    def warped(x):
        places = own.shapes_of(jnp.float32(-0.3), 24)
        return places, jax.vmap(own.warp, (None, 0))(x, places)

    for number, (place, found) in enumerate(
        zip(*warped(np.float32(image)), strict=True)
    ):
        (a, b, c), (d, e, f) = np.asarray(place, np.float64)  # of y, then of x
        # Pillow counts from the corner of a pixel, x first.
        center = np.array([12, 12])
        matrix = np.array([[e, d], [b, a]])
        shift = center - matrix @ center + (f, c)
        data = (*matrix[0], shift[0], *matrix[1], shift[1])
        expected = Image.fromarray(image).transform(
            (24, 24), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        )
        inner = slice(5, -5)
        difference = abs(np.subtract(found, np.float32(expected)))[inner, inner]
        assert difference.max() <= 1, number


def test_mixup_is_the_weighted_mean_of_two_images(images):
    views = own.stored_views(images, ("mixup",), 2)
    others, shares = views.mixing
    rows = np.arange(80)
    expected = shares.reshape(-1, 1, 1, 1) * images[rows // 2]
    expected += (1 - shares.reshape(-1, 1, 1, 1)) * images[others]
    np.testing.assert_allclose(np.asarray(views[rows]), expected, atol=0.5 + 1e-3)
    assert (shares >= 0.5).all() and (shares < 0.95).any() and (shares > 0.999).any()
    assert len(set(others)) > 20
