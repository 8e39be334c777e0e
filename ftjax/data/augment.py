"""Augmented images, made on the device from a key per image.

A pixel depends on nothing but the image and three integers, so an interrupted trial
sees the same ones again, whatever the sizes of batches and the number of devices.
Results are rounded to uint8, as images are. The operations on colors are Pillow's.
"""

from collections.abc import Callable
from functools import cached_property, partial
from math import radians
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.axes import AUGMENTATIONS

SMALLEST_CROP, ASPECT = 0.6, 4 / 3  # share of the area; width over height, and inverse
JITTER = 0.4  # of brightness, contrast and saturation, around 1
OPERATIONS, STRENGTH = 2, 9 / 30  # of RandAugment: torchvision's defaults
MIXUP_ALPHA = 0.2  # Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"
LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's mode L
MIXING, CHOOSING = 1, 2  # what a host's draws are for

Pixels = Callable[[jax.Array, jax.Array], jax.Array]
ViewSet = tuple[tuple[str, ...], int]  # augmentation, stored views of each image


class Mixing(NamedTuple):
    """What mixup has done to images.

    Attributes:
        others: index of the image that each was mixed with, or that image's label.
        shares: of the image itself, in [0.5, 1], float32.
    """

    others: np.ndarray | jax.Array
    shares: np.ndarray | jax.Array


class Views:
    """Augmented views of a set of images, made when they are read.

    Row `i * len(blocks) + b` is the view of image `i` in block `b`.

    Args:
        images: uint8 (n, size, size, 3).
        words: some of `AUGMENTATIONS`.
        blocks: two integers for each view of an image; with the image's index they are
            all that its pixels depend on.
    """

    def __init__(
        self,
        images: np.ndarray,
        words: tuple[str, ...],
        blocks: tuple[tuple[int, int], ...],
    ):
        self.images, self.words, self.blocks = images, words, blocks

    def __len__(self) -> int:
        return len(self.images) * len(self.blocks)

    def __getitem__(self, rows: np.ndarray) -> jax.Array:
        """Some of the views, uint8 (k, size, size, 3) on the device."""
        index, block = np.divmod(rows, len(self.blocks))
        images = self._augmented(index, block)
        if self.mixing is None:
            return images
        others, shares = self.mixing.others[rows], self.mixing.shares[rows]
        return mix(images, self._augmented(others, block), shares)

    def _augmented(self, index: np.ndarray, block: np.ndarray) -> jax.Array:
        keys = np.column_stack([np.array(self.blocks)[block], index])
        return augment(self.words, self.images[index], keys.astype(np.uint32))

    @cached_property
    def mixing(self) -> Mixing | None:
        """By row: with which image, in the same block, mixup mixes it, and how."""
        if "mixup" not in self.words:
            return None
        count = len(self.images)
        others, shares = [], []
        for block in self.blocks:
            rng = np.random.default_rng([*block, MIXING])
            others.append(rng.integers(count, size=count))
            share = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, count)
            shares.append(np.maximum(share, 1 - share))  # a pair has no order
        return Mixing(
            np.stack(others, axis=-1).reshape(-1),
            np.stack(shares, axis=-1).reshape(-1).astype(np.float32),
        )


def stored_views(images: np.ndarray, words: tuple[str, ...], count: int) -> Views:
    """The same `count` views of every image in every trial, whatever its seed."""
    return Views(images, words, tuple((0, view) for view in range(count)))


def fresh_views(
    images: np.ndarray, words: tuple[str, ...], seeds: tuple[int, ...], epoch: int
) -> Views:
    """A view of every image that no other epoch has, one per seed."""
    return Views(images, words, tuple((seed + 1, epoch) for seed in seeds))


def chosen_views(seed: int, epoch: int, num_images: int, count: int) -> np.ndarray:
    """(n,) which of its `count` stored views each image shows in an epoch."""
    rng = np.random.default_rng([seed, epoch, CHOOSING])
    return rng.integers(count, size=num_images)


@partial(jax.jit, static_argnums=0)
def augment(words: tuple[str, ...], images: jax.Array, keys: jax.Array) -> jax.Array:
    """All operations but mixup, which takes two images.

    Args:
        words: some of `AUGMENTATIONS`.
        images: uint8 (k, size, size, 3).
        keys: uint32 (k, 3), three integers for each.
    """
    chosen = {word: OPERATION[word] for word in words if word in OPERATION}

    def one(image, numbers):
        key = jax.random.key(0)
        for number in numbers:
            key = jax.random.fold_in(key, number)
        x = image.astype(jnp.float32)
        for word, operation in chosen.items():
            x = operation(jax.random.fold_in(key, AUGMENTATIONS.index(word)), x)
        return to_pixels(x)

    return jax.vmap(one)(images, keys)


@jax.jit
def mix(images: jax.Array, others: jax.Array, shares: jax.Array) -> jax.Array:
    """Weighted means of pairs of images, uint8."""
    share = shares.reshape(-1, 1, 1, 1)
    x = images.astype(jnp.float32) * share
    return to_pixels(x + others.astype(jnp.float32) * (1 - share))


def to_pixels(x: jax.Array) -> jax.Array:
    """Rounds to uint8."""
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


def uniform(key: jax.Array, low: float, high: float) -> jax.Array:
    """One float32."""
    return jax.random.uniform(key, (), jnp.float32, low, high)


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """Mirrors half of the images left to right."""
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def crop(key: jax.Array, x: jax.Array) -> jax.Array:
    """A random part of the image, resized to its whole size, bilinear.

    Of 60 to 100 % of its area and 3:4 to 4:3, as far as it fits ("random resized crop",
    Szegedy et al. 2015; from 8 % on there, for training from scratch).
    """
    area_key, aspect_key, *place_keys = jax.random.split(key, 4)
    area = uniform(area_key, SMALLEST_CROP, 1.0)
    aspect = jnp.exp(uniform(aspect_key, -np.log(ASPECT), np.log(ASPECT)))
    shape = jnp.array(x.shape[:2], jnp.float32)
    sides = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)])
    sides = jnp.minimum(sides, 1.0) * shape
    corner = jnp.stack([uniform(key, 0, 1) for key in place_keys]) * (shape - sides)
    scale = shape / sides
    return jax.image.scale_and_translate(
        x, x.shape, (0, 1), scale, -corner * scale, "linear", antialias=False
    )


def color(key: jax.Array, x: jax.Array) -> jax.Array:
    """Brightness, contrast and saturation times 0.6 to 1.4 each, in this order."""
    keys = jax.random.split(key, 3)
    for operation, own in zip((brightness, contrast, saturation), keys, strict=True):
        x = operation(x, uniform(own, 1 - JITTER, 1 + JITTER))
    return x


def blend(other: jax.Array, x: jax.Array, factor: jax.Array) -> jax.Array:
    """From another image (factor 0) over this one (1) and beyond; within 0..255."""
    return jnp.clip(other + factor * (x - other), 0, 255)


def gray(x: jax.Array) -> jax.Array:
    """(h, w, 3) -> (h, w, 1)."""
    return jnp.sum(x * LUMA.reshape(1, 1, 3), axis=-1, keepdims=True)


def brightness(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards black."""
    return blend(jnp.zeros_like(x), x, factor)


def contrast(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards the mean gray of the image."""
    return blend(jnp.full_like(x, jnp.round(gray(x).mean())), x, factor)


def saturation(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards shades of gray."""
    return blend(jnp.broadcast_to(gray(x), x.shape), x, factor)


def sharpness(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards a 3x3 blur; the border stays."""
    rows = x[:-2] + x[1:-1] + x[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    blurred = (sums + 4 * x[1:-1, 1:-1]) / 13
    return blend(x.at[1:-1, 1:-1].set(blurred), x, factor)


def posterize(x: jax.Array, bits: int) -> jax.Array:
    """Keeps the upper bits."""
    step = 2 ** (8 - bits)
    return jnp.floor(x / step) * step


def solarize(x: jax.Array, threshold: float) -> jax.Array:
    """Inverts values from the threshold on."""
    return jnp.where(x < threshold, x, 255 - x)


def auto_contrast(x: jax.Array) -> jax.Array:
    """Stretches each channel to 0..255."""
    low, high = (f(x, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    stretched = (x - low) * (255 / jnp.maximum(high - low, 1))
    return jnp.where(high > low, stretched, x)


def shapes_of(amount: jax.Array, size: int) -> jax.Array:
    """The geometric operations of RandAugment: (5, 2, 3) maps of (y, x, 1).

    From a pixel of the result to one of the image, both counted from its center: shear
    x, shear y, translate x, translate y, rotate.

    Args:
        amount: -1 or 1 times the strength.
        size: of the image, in pixels.
    """
    one, zero = jnp.ones_like(amount), jnp.zeros_like(amount)
    angle, shear, shift = radians(30) * amount, 0.3 * amount, 150 / 331 * size * amount
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    maps = (
        (one, zero, zero, shear, one, zero),
        (one, shear, zero, zero, one, zero),
        (one, zero, zero, zero, one, shift),
        (one, zero, shift, zero, one, zero),
        (cosine, -sine, zero, sine, cosine, zero),
    )
    return jnp.stack([jnp.stack(own) for own in maps]).reshape(-1, 2, 3)


def recolored(x: jax.Array, sign: jax.Array) -> jax.Array:
    """The other operations of RandAugment: (8, h, w, 3), the image itself first."""
    factor = 1 + 0.9 * STRENGTH * sign
    return jnp.stack(
        [
            x,
            brightness(x, factor),
            saturation(x, factor),
            contrast(x, factor),
            sharpness(x, factor),
            posterize(x, 8 - round(4 * STRENGTH)),
            solarize(x, 255 * (1 - STRENGTH)),
            auto_contrast(x),
        ]
    )


def randaugment(key: jax.Array, x: jax.Array) -> jax.Array:
    """Two of 13 operations at magnitude 9 of 30 (Cubuk et al. 2020, RandAugment).

    Those of torchvision with its defaults, less equalize. The geometric ones are
    composed, so that the image is resampled once, after the others; beyond its border
    lies its last row or column.
    """
    size = x.shape[0]
    place = jnp.eye(2, 3, dtype=jnp.float32)
    for own in jax.random.split(key, OPERATIONS):
        choice_key, sign_key = jax.random.split(own)
        sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0).astype(jnp.float32)
        colors, maps = recolored(x, sign), shapes_of(STRENGTH * sign, size)
        number = jax.random.randint(choice_key, (), 0, len(colors) + len(maps))
        moves = number >= len(colors)
        x = jnp.where(moves, x, colors[jnp.where(moves, 0, number)])
        chosen = maps[jnp.where(moves, number - len(colors), 0)]
        moved = place[:, :2] @ chosen + jnp.pad(place[:, 2:], ((0, 0), (2, 0)))
        place = jnp.where(moves, moved, place)
    return warp(x, place)


def warp(x: jax.Array, place: jax.Array) -> jax.Array:
    """The image resampled, bilinear, by a map as of `shapes_of`."""
    center = (x.shape[0] - 1) / 2
    line = jnp.arange(x.shape[0], dtype=jnp.float32) - center
    grid = jnp.stack([*jnp.meshgrid(line, line, indexing="ij"), jnp.ones(x.shape[:2])])
    found = jnp.tensordot(place, grid, 1) + center

    def channel(plane):
        return jax.scipy.ndimage.map_coordinates(plane, [*found], 1, mode="nearest")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(x)


OPERATION: dict[str, Pixels] = {
    "flip": flip,
    "crop": crop,
    "color": color,
    "randaugment": randaugment,
}
