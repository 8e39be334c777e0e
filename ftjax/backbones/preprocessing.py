"""What the pretrained weights expect of an image; belongs to the source of weights."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Preprocessing:
    """Maps RGB in 0..255 to a network's input: channel order, then (x - mean) / std.

    Attributes:
        mean: per channel, in units of 0..255, in the network's channel order.
        std: per channel, likewise.
        bgr: whether the network expects blue first.
        dtype: of the result; the network computes in it.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False
    dtype: str = "float32"

    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, h, w, 3) RGB in 0..255, uint8 or float -> input of the network."""
        x = images.astype(jnp.float32)
        if self.bgr:
            x = x[..., ::-1]
        mean, std = (
            np.float32(value).reshape(1, 1, 1, 3) for value in (self.mean, self.std)
        )
        return ((x - mean) / std).astype(self.dtype)


# keras.applications.imagenet_utils.preprocess_input, mode "caffe".
CAFFE = Preprocessing(mean=(103.939, 116.779, 123.68), bgr=True)

# Mean of Caffe's imagenet_mean.binaryproto, of BVLC's AlexNet and CaffeNet.
BVLC = Preprocessing(mean=(104.007, 116.669, 122.679), bgr=True)

# tensorflow/tpu efficientnet lite: (x - 127) / 128.
LITE = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))

# keras.applications.efficientnet with weights="imagenet": x / 255, then Normalization
# by mean and sqrt(variance) where the file stores the standard deviation as variance,
# then Rescaling by 1 / sqrt(std). Together this is (x / 255 - mean) / std.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
EFFICIENTNET = Preprocessing(
    mean=tuple(255 * value for value in _IMAGENET_MEAN),
    std=tuple(255 * value for value in _IMAGENET_STD),
)

# torchvision.transforms.Normalize as its ImageNet weights expect it: the same numbers.
TORCHVISION = EFFICIENTNET


def check_range(images: np.ndarray) -> np.ndarray:
    """Returns images whose values can be 0..255, else says what is wrong.

    Every backbone takes 0..255 and scales by itself. Images divided by 255 before
    would be scaled twice, and the network would see almost black without an error.

    Args:
        images: (..., h, w, 3) RGB, integers or floats.

    Raises:
        ValueError: not images, not finite, outside 0..255, or floats in 0..1.
    """
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[-1] != 3 or images.size == 0:
        raise ValueError(
            f"images of shape {images.shape}; allowed is (..., height, width, 3), RGB"
        )
    if images.dtype.kind not in "uif":
        raise ValueError(
            f"images of type {images.dtype}; allowed are integers and floats, 0..255"
        )
    low, high = float(images.min()), float(images.max())
    if not (0 <= low and high <= 255):
        raise ValueError(
            f"pixel values from {low:g} to {high:g}; allowed is 0..255: give the "
            "pixels as they are in the file, the network does its own preprocessing"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"pixel values from {low:g} to {high:g} look like images divided by 255; "
            "give 0..255, the network does its own scaling"
        )
    return images
