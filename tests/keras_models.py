"""Keras models with random weights and random BatchNorm statistics, and their files."""

import os

os.environ["KERAS_BACKEND"] = "jax"

from pathlib import Path
from unittest import mock

import h5py
import jax
import keras
import numpy as np
from keras.src.applications import efficientnet, imagenet_utils
from keras.src.legacy.saving import legacy_h5_format

from ftjax.backbones.backbone import Backbone

CLASSES = {
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
    "resnet152": keras.applications.ResNet152,
    "vgg16": keras.applications.VGG16,
    "vgg19": keras.applications.VGG19,
    **{
        f"effnetb{i}": getattr(keras.applications, f"EfficientNetB{i}")
        for i in range(8)
    },
    "effnetv2s": keras.applications.EfficientNetV2S,
    "densenet121": keras.applications.DenseNet121,
}
# Keras' variables do not yet take NumPy 2's `copy` argument.
KNOWN_WARNING = "ignore:__array__ implementation doesn't:DeprecationWarning"
# The Normalization constants that Keras' ImageNet files hold.
MEAN = np.float32([0.485, 0.456, 0.406])
VARIANCE = np.float32([0.229, 0.224, 0.225])


def make_keras(name: str, size: int, *, top: bool = False) -> keras.Model:
    """The network of keras.applications (or `tiny`) with weights 0, not downloaded.

    EfficientNets get the graph of `weights="imagenet"`, with its second Rescaling.
    """
    if name == "tiny":
        return make_keras_tiny(size)
    arguments = {"include_top": top, "input_shape": (size, size, 3)}
    if top:
        arguments["classifier_activation"] = None
    keras.backend.clear_session()
    with no_random_init():
        if not name.startswith("effnetb"):
            return CLASSES[name](weights=None, **arguments)
        with (
            mock.patch.object(efficientnet.file_utils, "get_file", return_value=""),
            mock.patch.object(keras.Model, "load_weights"),
        ):
            return CLASSES[name](weights="imagenet", **arguments)


def make_keras_tiny(size: int) -> keras.Model:
    """Our `tiny` network, built from Keras' layers; takes (x - 127) / 128."""
    layers = keras.layers
    keras.backend.clear_session()

    def conv(x, name, features, kernel=1, strides=1, use_bias=True, padding="same"):
        layer = layers.Conv2D(
            features,
            kernel,
            strides=strides,
            use_bias=use_bias,
            padding=padding,
            name=name,
        )
        return layer(x)

    def norm(x, name, epsilon=1e-3):
        layer = layers.BatchNormalization(epsilon=epsilon, momentum=0.99, name=name)
        return layer(x)

    def activation(x, name, kind="swish"):
        return layers.Activation(kind, name=name)(x)

    def bottleneck(x, name, features, projection):
        shortcut = x
        if projection:
            shortcut = conv(x, f"{name}_0_conv", 4 * features)
            shortcut = norm(shortcut, f"{name}_0_bn", 1.001e-5)
        for i, kernel in ((1, 1), (2, 3)):
            x = conv(x, f"{name}_{i}_conv", features, kernel)
            x = norm(x, f"{name}_{i}_bn", 1.001e-5)
            x = activation(x, f"{name}_{i}_relu", "relu")
        x = norm(conv(x, f"{name}_3_conv", 4 * features), f"{name}_3_bn", 1.001e-5)
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        return activation(x, f"{name}_out", "relu")

    def mbconv(inputs, name, features, kernel, strides):
        width = 2 * inputs.shape[-1]
        x = conv(inputs, f"{name}_expand_conv", width, use_bias=False)
        x = activation(norm(x, f"{name}_expand_bn"), f"{name}_expand_activation")
        if strides == 2:
            pads = imagenet_utils.correct_pad(x, kernel)
            x = layers.ZeroPadding2D(pads, name=f"{name}_dwconv_pad")(x)
        x = layers.DepthwiseConv2D(
            kernel,
            strides=strides,
            padding="valid" if strides == 2 else "same",
            use_bias=False,
            name=f"{name}_dwconv",
        )(x)
        x = activation(norm(x, f"{name}_bn"), f"{name}_activation")
        gates = layers.GlobalAveragePooling2D(name=f"{name}_se_squeeze")(x)
        gates = layers.Reshape((1, 1, width), name=f"{name}_se_reshape")(gates)
        gates = layers.Conv2D(2, 1, activation="swish", name=f"{name}_se_reduce")(gates)
        gates = layers.Conv2D(width, 1, activation="sigmoid", name=f"{name}_se_expand")(
            gates
        )
        x = layers.multiply([x, gates], name=f"{name}_se_excite")
        x = conv(x, f"{name}_project_conv", features, use_bias=False)
        x = norm(x, f"{name}_project_bn")
        if strides == 1 and features == inputs.shape[-1]:
            shape = (None, 1, 1, 1)
            x = layers.Dropout(0.2, noise_shape=shape, name=f"{name}_drop")(x)
            x = layers.add([x, inputs], name=f"{name}_add")
        return x

    with no_random_init():
        inputs = layers.Input((size, size, 3))
        x = conv(inputs, "stem_conv", 8, 3, strides=2, use_bias=False)
        x = activation(norm(x, "stem_bn"), "stem_activation")
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="plain_conv")(x)
        x = layers.MaxPooling2D(2, name="plain_pool")(x)
        x = bottleneck(x, "res_block1", 4, projection=True)
        x = bottleneck(x, "res_block2", 4, projection=False)
        x = mbconv(x, "mb_block1", 8, 3, strides=2)
        x = mbconv(x, "mb_block2", 8, 5, strides=1)
        x = conv(x, "top_conv", 16, use_bias=False)
        x = activation(norm(x, "top_bn"), "top_activation")
        return keras.Model(inputs, x, name="tiny")


def no_random_init():
    """Weights are 0 when built: Keras would compile a program for every shape."""

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, "float32")

    return mock.patch.object(keras.initializers.VarianceScaling, "__call__", zeros)


def make_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Random patches of color, (count, size, size, 3) uint8; channels differ.

    Not noise: images of noise are all alike to a network, which would normalize
    differences of the size of rounding.
    """
    rng = np.random.default_rng(seed)
    patches = rng.uniform(0, 255, (count, 6, 6, 3)) * [1.0, 0.7, 0.4]
    cells = np.arange(size) * 6 // size
    images = patches[:, cells][:, :, cells] * rng.uniform(0.3, 1, (count, 1, 1, 1))
    noise = rng.uniform(0.8, 1, images.shape)
    return (images * noise).astype(np.uint8)


def randomize(model: keras.Model, x: np.ndarray, seed: int = 0) -> None:
    """Random weights, and the running statistics that `x` has under them.

    So activations stay near 1 through the depth and go on depending on the input, and
    a wrong statistic shows, because they differ from channel to channel. (Statistics
    drawn at random instead would make activations grow, and rounding with them.)
    Drop-connect is switched off.

    Args:
        model: whose weights are set.
        x: (batch, h, w, 3) preprocessed images; 8 or more for good statistics.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    norms = []
    for layer in model.layers:
        kind, shapes = type(layer).__name__, [w.shape for w in layer.weights]
        if kind == "Normalization":
            layer.set_weights([MEAN, VARIANCE, np.zeros(())])
            layer.finalize_state()
        elif kind == "Dropout":
            layer.rate = 0.0
        elif kind == "BatchNormalization":
            norms.append(layer)
            closing = layer.name.endswith(("3_bn", "project_bn"))
            scale = rng.uniform(0.7, 1.3, shapes[0]) * (0.1 if closing else 1)
            bias = rng.normal(0, 0.2, shapes[0])
            layer.set_weights([scale, bias, *layer.get_weights()[2:]])
            layer.momentum = 0.0
        elif shapes:
            depthwise = kind == "DepthwiseConv2D"
            fan_in = np.prod(shapes[0][:2] if depthwise else shapes[0][:-1])
            kernel = rng.normal(0, np.sqrt(2 / fan_in), shapes[0])
            if layer.name == "block1_conv1":  # VGG: no BatchNorm, and pixels up to 255
                kernel /= 64
            biases = [rng.normal(0, 0.1, shape) for shape in shapes[1:]]
            layer.set_weights([kernel, *biases])
    if norms:
        _, values = run(model, x, training=True)
        for variable, value in zip(model.non_trainable_variables, values, strict=True):
            variable.assign(value)
    for layer in norms:
        layer.momentum = 0.99


def run(model: keras.Model, x: np.ndarray, *, training: bool = False):
    """Outputs and new non-trainable values, compiled as one program."""

    @jax.jit
    def call(trainable, other, x):
        return model.stateless_call(trainable, other, x, training=training)

    trainable = [variable.value for variable in model.trainable_variables]
    other = [variable.value for variable in model.non_trainable_variables]
    with jax.numpy_rank_promotion("allow"):
        return call(trainable, other, x)


class InferenceMode(keras.layers.Layer):
    """Calls a model with `training=False`, also while the model around it trains.

    `base(inputs, training=False)` in a functional model does not: the outer call's
    `training=True` overrides it (keras/src/models/functional.py, `operation_fn`;
    https://github.com/keras-team/keras/issues/20285), unlike in Keras 2.
    """

    def __init__(self, base: keras.Model):
        super().__init__()
        self.base = base

    def call(self, inputs):
        return self.base(inputs, training=False)


def save(model: keras.Model, path: Path) -> Path:
    """Writes `.weights.h5` as Keras 3 does, any other `.h5` in the legacy layout."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        return path
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def preprocess(name: str, images: np.ndarray) -> np.ndarray:
    """What the Keras model expects: BGR minus mean, or pixels as they are."""
    x = images.astype(np.float32)
    if name == "tiny":
        return (x - 127) / 128
    if name.startswith("effnet"):
        return x
    if name == "densenet121":
        return keras.applications.densenet.preprocess_input(x.copy())
    module = keras.applications.resnet if "resnet" in name else keras.applications.vgg16
    return module.preprocess_input(x.copy())


def boundary_outputs(model: keras.Model, backbone: Backbone) -> keras.Model:
    """A model that gives the output of every unit, by the name of its last layer."""
    names = [unit.layers[-1].name for unit in backbone.units]
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def deviation(found, expected) -> float:
    """Largest difference over the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def print_lines(config, lines: list[str]) -> None:
    """Prints past pytest's capture, so that a table is seen when all tests pass."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n".join(lines))
