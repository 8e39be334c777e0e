"""What the pretrained weights expect of a picture; belongs to the source of weights."""

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
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, h, w, 3) RGB in 0..255, uint8 or float -> float32 input."""
        x = images.astype(jnp.float32)
        if self.bgr:
            x = x[..., ::-1]
        return (x - np.float32(self.mean)) / np.float32(self.std)


# keras.applications.imagenet_utils.preprocess_input, mode "caffe".
CAFFE = Preprocessing(mean=(103.939, 116.779, 123.68), bgr=True)

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
