"""Trained networks back to where the weights came from: Keras, or safetensors.

Neither Keras nor PyTorch is imported. A Keras file is for the network that
`keras_code` prints, built with `weights=None`: for EfficientNet that graph lacks the
division of `weights="imagenet"`, so the file stores the true variance of the images.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save

from ftjax.backbones.backbone import Backbone, Layer
from ftjax.backbones.heads import linear_head
from ftjax.machine.atomic import atomic_file
from ftjax.trees import Tree
from ftjax.weights import own_names
from ftjax.weights.convert import STATISTICS
from ftjax.weights.export_keras import GROUPS
from ftjax.weights.keras_names import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LEAVES,
    leaf_axes,
)

# Builder and preprocessing in keras.applications.
KERAS_NETWORKS = {
    "resnet50": ("ResNet50", "resnet"),
    "resnet101": ("ResNet101", "resnet"),
    "resnet152": ("ResNet152", "resnet"),
    "vgg16": ("VGG16", "vgg16"),
    "vgg19": ("VGG19", "vgg19"),
    **{f"effnetb{i}": (f"EfficientNetB{i}", "efficientnet") for i in range(8)},
}


def export_safetensors(
    path: Path,
    network: Backbone,
    params: Tree,
    batch_stats: Tree,
    *,
    image_size: int,
    class_names: Sequence[str] = (),
) -> None:
    """Writes all leaves by our own names; `--weights PATH` reads them back bit for bit.

    Args:
        path: of the file; replaced if it is there.
        network: a backbone, with or without its head.
        params: by unit, layer, leaf.
        batch_stats: likewise.
        image_size: height and width the network was trained at, in pixels.
        class_names: of the head, in the order of the logits.
    """
    about = {
        "model": network.name,
        "image_size": str(image_size),
        "class_names": json.dumps(list(class_names)),
        "input": "RGB in 0..255, (batch, height, width, 3)",
    }
    write_file(path, safetensors_bytes(network, params, batch_stats, about))


def safetensors_bytes(
    network: Backbone, params: Tree, batch_stats: Tree, about: dict[str, str]
) -> bytes:
    """The content of that file, with metadata: text by name."""
    return save(own_names.flatten(network.name, params, batch_stats), about)


def export_keras(
    path: Path, network: Backbone, params: Tree, batch_stats: Tree
) -> None:
    """Writes a Keras 3 `.weights.h5` for the model that `keras_code` prints.

    Args:
        path: of the file, ending in `.weights.h5`; replaced if it is there.
        network: a backbone, with or without its head.
        params: by unit, layer, leaf.
        batch_stats: likewise.

    Raises:
        ValueError: the name ends otherwise, or the graph is not one of Keras'.
    """
    if not path.name.endswith(".weights.h5"):
        raise ValueError(f"{path} must end in .weights.h5, or Keras will not load it")
    if network.source not in ("keras", "lite"):
        raise ValueError(
            f"keras.applications has no network with the graph of {network.name} "
            f"({network.source}'s strides or preprocessing); export to .keras"
        )
    counts: dict[str, int] = {}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for unit in network.units:
            for layer in unit.layers:
                arrays = keras_arrays(
                    layer,
                    params.get(unit.name, {}).get(layer.key, {}),
                    batch_stats.get(unit.name, {}).get(layer.key, {}),
                )
                if not arrays:
                    continue
                group = GROUPS[layer.kind]
                number = counts[group] = counts.get(group, -1) + 1
                name = f"{group}_{number}" if number else group
                stored = file.create_group(f"layers/{name}/vars")
                stored.attrs["name"] = layer.name
                for index, array in enumerate(arrays):
                    stored.create_dataset(str(index), data=array)
    write_file(path, buffer.getvalue())


def keras_arrays(layer: Layer, params: Tree, batch_stats: Tree) -> list[np.ndarray]:
    """A layer's arrays in the order of Keras' `layer.weights`."""
    if layer.kind == "Normalization":
        return [np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD**2), np.int32(0)]
    if not layer.key:
        return []
    values = {**params, **batch_stats}
    arrays = []
    for leaf in LEAVES[layer.kind]:
        if leaf in values:
            array = np.asarray(values[leaf], np.float32)
            if leaf not in STATISTICS:
                array = array.transpose(leaf_axes(layer.kind, array.ndim))
            arrays.append(np.ascontiguousarray(array))
    return arrays


def keras_code(network: Backbone, *, image_size: int, file_name: str) -> str:
    """The Keras code that builds the model of an exported file and loads it.

    Args:
        network: a backbone with its head.
        image_size: height and width of the images, in pixels.
        file_name: of the weights.

    Raises:
        ValueError: keras.applications does not have the network, or its head is
            another than pooling and a linear classifier.
    """
    if network.name not in KERAS_NETWORKS:
        raise ValueError(
            f"keras.applications has no {network.name}; it has "
            f"{', '.join(KERAS_NETWORKS)}: export to .keras, which takes every network"
        )
    builder, module = KERAS_NETWORKS[network.name]
    classes = network.head[-1].module.num_classes
    if network.head != linear_head(classes):
        raise ValueError(
            "Keras code can be printed for a linear head only, not for "
            f"{', '.join(unit.name for unit in network.head)}"
        )
    return f"""import keras

base = keras.applications.{builder}(
    include_top=False, weights=None, input_shape=({image_size}, {image_size}, 3)
)
x = keras.layers.GlobalAveragePooling2D()(base.output)
model = keras.Model(base.input, keras.layers.Dense({classes})(x))
model.load_weights({file_name!r})
# images: RGB in 0..255, (batch, {image_size}, {image_size}, 3)
x = keras.applications.{module}.preprocess_input(images.astype("float32"))
logits = model.predict(x)
"""


def write_file(path: Path, content: bytes) -> None:
    """Writes a file by `atomic_file`, or says in one line why not.

    Raises:
        ValueError: the folder is missing or cannot be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
