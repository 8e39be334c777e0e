"""Weights from Keras HDF5 files, legacy `.h5` and Keras 3 `.weights.h5`.

Legacy files (all of keras.applications; keras/src/legacy/saving/legacy_h5_format.py)
list layer names and, per layer, weight names, in model order. The weight *names* say
nothing reliable (`stem_conv/kernel`, `stem_conv/kernel:0`, and `block1_conv1_W_1:0` in
the real VGG16 file), so a weight is called `<layer>/<i>` by its place in that list:
trainable weights first, e.g. kernel 0, bias 1; BatchNormalization gamma 0, beta 1,
moving mean 2, moving variance 3; Normalization mean 0, variance 1, count 2.

Keras 3 files (keras/src/saving/saving_lib.py) count layers per class instead:
`layers/conv2d_3/vars/0` is weight 0 of the fourth Conv2D in `model.layers`. Those keys
are returned as stored; `name_keras3_layers` turns them into `<layer>/<i>`.

HDF5 can point into other files and declare arrays it does not hold, so links, external
or virtual storage and filters (compression, plug-ins) are refused before data is read.
"""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from mmap import mmap
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from ftjax.weights.hdf5_text import read_text_attribute

MAX_NESTING = 32
LEGACY_TOP_LEVEL = "top_level_model_weights"
NOT_WEIGHTS = ("optimizer", "seed_generator")
# The order of a layer's arrays in a legacy file, whatever is trained.
LEAVES = (
    *("kernel", "depthwise_kernel", "bias"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
    *("mean", "variance", "count"),
)
# HDF5 has no bfloat16; h5py, and so Keras, writes it as two opaque bytes.
OPAQUE_BFLOAT16 = np.dtype("V2")


def read_keras_h5(
    source: Path | BytesIO, content: mmap | bytes
) -> dict[str, np.ndarray]:
    """Reads a Keras HDF5 file of either layout.

    Args:
        source: the file, for the HDF5 library.
        content: all its bytes; the arrays may not be larger together.

    Returns:
        Read-only arrays in native byte order. Legacy: `<layer>/<i>` in model order.
        Keras 3: `layers/<class>[_n]/vars/<i>` in natural order, without optimizer and
        random state.

    Raises:
        ValueError: not a Keras file, damaged, links or storage outside the file,
            compressed, not numbers, or more declared than stored.
    """
    try:
        # No lock: the file may lie on a read-only or network file system.
        with h5py.File(source, "r", locking=False) as file:
            group = file
            if _has_link(file, "model_weights"):  # a whole model, not its weights alone
                group = _child(file, "model_weights")
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                datasets = _list_legacy(group, content)
            else:
                datasets = _list_keras3(file)
            if not datasets:
                raise ValueError(
                    "HDF5, but without Keras weights; allowed are files written by "
                    "model.save_weights() or model.save()"
                )
            for name, dataset in datasets.items():
                _check_storage(name, dataset)
            declared = sum(dataset.nbytes for dataset in datasets.values())
            if declared > len(content):
                raise ValueError(
                    f"it declares {declared} bytes of weights in a file of "
                    f"{len(content)} bytes"
                )
            return {name: _read(dataset) for name, dataset in datasets.items()}
    except (
        *(OSError, RuntimeError, LookupError, TypeError, AttributeError),
        *(ArithmeticError, MemoryError),
    ) as error:  # what h5py raises, depending on where the damage is
        raise ValueError(f"damaged or truncated HDF5 ({error})") from error


def natural_key(name: str) -> list[str | int]:
    """Sort key that puts conv2d_2 before conv2d_10."""
    return [int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", name))]


def name_keras3_layers(
    tensors: Mapping[str, np.ndarray], layers: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """Gives the weights of a Keras 3 file the names a legacy file would give them.

    Args:
        tensors: as `read_keras_h5` returns them for a Keras 3 file.
        layers: (name, class name) of every layer in `model.layers` order, e.g.
            ('stem_conv', 'Conv2D'). Layers of a class without weights may be left out.

    Returns:
        The same arrays as `<layer>/<i>`, layers in the order of `layers`.

    Raises:
        ValueError: the file has weights of layers that `layers` does not have.
    """
    numbers: dict[str, int] = {}
    names: dict[str, str] = {}
    for name, class_name in layers:
        # Conv2D -> conv2d, DepthwiseConv2D -> depthwise_conv2d, ReLU -> re_lu
        group = re.sub("(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", class_name)
        group = group.lower()
        number = numbers[group] = numbers.get(group, -1) + 1
        names[f"layers/{group}_{number}" if number else f"layers/{group}"] = name
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names.values()}
    unknown = []
    for key, tensor in tensors.items():
        group, _, index = key.rpartition("/vars/")
        if group in names:
            found[names[group]][index] = tensor
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"the file has {len(unknown)} weights of layers this network does not "
            f"have: {', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}; allowed "
            "are the weights of the same network, not nested in another model"
        )
    return {
        f"{name}/{index}": tensor
        for name, weights in found.items()
        for index, tensor in weights.items()
    }


def _list_legacy(group: h5py.Group, content: mmap | bytes) -> dict[str, Any]:
    layers = _read_names(group, "layer_names", content)
    if len(set(layers)) != len(layers):
        raise ValueError("damaged: a layer name occurs twice")
    if _has_link(group, LEGACY_TOP_LEVEL):
        layers.append(LEGACY_TOP_LEVEL)
    datasets: dict[str, Any] = {}
    for layer in layers:
        layer_group = _child(group, layer)
        if not isinstance(layer_group, h5py.Group):
            raise ValueError(f"damaged: layer {layer!r} is not an HDF5 group")
        weights = _read_names(layer_group, "weight_names", content)
        for weight, name in zip(weights, legacy_names(layer, weights), strict=True):
            if name in datasets:
                raise ValueError(
                    f"it holds two layers called {name.rpartition('/')[0]!r}; allowed "
                    "are the weights of one network, alone or nested in one model"
                )
            datasets[name] = _child(layer_group, weight)
    return datasets


def legacy_names(layer: str, weights: Sequence[str]) -> list[str]:
    """What to call the arrays of a layer of a legacy file: `<layer>/<i>`.

    A model that stands in another one as a layer lists the arrays of all its layers,
    those that are trained before the others: gamma and beta of a BatchNormalization,
    and its moving statistics somewhere behind. They are called as in a file of their
    own.

    Args:
        layer: its name in the file.
        weights: names of its arrays, e.g. `stem_bn/gamma`; of Keras 2, `.../gamma:0`.
    """
    parts = [weight.partition(":")[0].rpartition("/")[::2] for weight in weights]
    if len({path for path, _ in parts}) < 2:
        return [f"{layer}/{i}" for i in range(len(weights))]
    arrays: dict[str, list[str]] = {}
    for path, leaf in parts:
        arrays.setdefault(path, []).append(leaf)
    for own in arrays.values():
        own.sort(key=lambda leaf: LEAVES.index(leaf) if leaf in LEAVES else len(LEAVES))
    return [
        f"{path.rpartition('/')[2]}/{arrays[path].index(leaf)}" for path, leaf in parts
    ]


def _list_keras3(file: h5py.File) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(group: h5py.Group, path: tuple[str, ...]) -> None:
        # A hard link may lead back to a group above it.
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or len(path) > MAX_NESTING:
            raise ValueError("damaged: its HDF5 groups are linked in a circle")
        seen.add(address)
        for name in group:
            if name in NOT_WEIGHTS:
                continue
            child = _child(group, name)
            if isinstance(child, h5py.Group):
                walk(child, (*path, name))
            elif path and path[-1] == "vars" and name.isdecimal():
                datasets["/".join((*path, name))] = child

    walk(file, ())
    # Keras 2.13 wrote the same layout under another name.
    renamed = {
        re.sub("^_layer_checkpoint_dependencies/", "layers/", name): dataset
        for name, dataset in datasets.items()
    }
    return {name: renamed[name] for name in sorted(renamed, key=natural_key)}


def _has_link(group: h5py.Group, name: str) -> bool:
    # `name in group` would follow the link, into another file if need be.
    return group.id.links.exists(name.encode())


def _child(group: h5py.Group, path: str) -> Any:
    """The object at `path` below `group`, reached by hard links only."""
    child: Any = group
    for part in path.split("/"):
        if part in ("", ".") or not isinstance(child, h5py.Group):
            raise ValueError(f"damaged: the HDF5 path {path!r} leads nowhere")
        if not _has_link(child, part):
            raise ValueError(f"damaged or incomplete: {path!r} is missing")
        if child.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(
                f"{path!r} is a soft or external link; allowed are weights inside the "
                "file"
            )
        child = child[part]
    return child


def _read_names(group: h5py.Group, name: str, content: mmap | bytes) -> list[str]:
    """A list of names; Keras splits long ones into `<name>0`, `<name>1`, ..."""
    if name in group.attrs:
        return _read_attribute(group, name, content)
    names: list[str] = []
    part = 0
    while f"{name}{part}" in group.attrs:
        names += _read_attribute(group, f"{name}{part}", content)
        part += 1
    return names


def _read_attribute(group: h5py.Group, name: str, content: mmap | bytes) -> list[str]:
    stored = group.attrs.get_id(name)
    if stored.shape == (0,):  # Keras writes an empty list as floats
        return []
    text = h5py.check_string_dtype(stored.dtype)
    if text is None or len(stored.shape) != 1:
        raise ValueError(f"damaged: the attribute {name!r} is no list of names")
    (count,) = stored.shape
    if text.length is None:
        address = h5py.h5o.get_info(group.id).addr
        return read_text_attribute(content, address, name, count=count)
    if count * text.length > len(content):
        raise ValueError(f"damaged: the list {name!r} is longer than the file")
    values: Any = group.attrs[name]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _check_storage(name: str, dataset: Any) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError(f"damaged: {name!r} is not an HDF5 array")
    properties = dataset.id.get_create_plist()
    if (
        properties.get_layout() == h5py.h5d.VIRTUAL
        or properties.get_external_count()
        or properties.get_nfilters()
    ):
        raise ValueError(
            f"{name!r} is stored in another file, or compressed; allowed are plain "
            "arrays, as Keras writes them (h5repack -f NONE makes them plain)"
        )
    if dataset.dtype.kind not in "fiub" and dataset.dtype != OPAQUE_BFLOAT16:
        raise ValueError(
            f"{name!r} is of type {dataset.dtype}; allowed are floats, integers and "
            "booleans"
        )
    stored = dataset.id.get_storage_size()
    if stored < dataset.nbytes:
        raise ValueError(
            f"{name!r} declares {dataset.nbytes} bytes but stores {stored}; the file "
            "is damaged"
        )


def _read(dataset: h5py.Dataset) -> np.ndarray:
    array = np.asarray(dataset[()])
    if array.dtype == OPAQUE_BFLOAT16:
        array = array.view(ml_dtypes.bfloat16)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return array
