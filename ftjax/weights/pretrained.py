"""From a model's name to its pretrained parameters.

The tensors of a file tell its layout and its network. A file for another network, or
for another variant of the same one, is refused, never loaded into the wrong graph.
"""

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax.backbones import BACKBONES, make_backbone
from ftjax.backbones.backbone import Backbone, boundary_shapes, init
from ftjax.trees import Tree
from ftjax.weights import graph_names, keras_names, own_names, torch_names
from ftjax.weights.convert import Origin, Target, convert, leaf_shapes
from ftjax.weights.fetch import fetch
from ftjax.weights.readers import read_tensors

Tensors = Mapping[str, np.ndarray]
LARGEST_SIZE = 1024  # pixels of an image


class Pretrained(NamedTuple):
    """Weights and where they are from.

    Attributes:
        params: by unit, layer, leaf; float32 host arrays.
        batch_stats: likewise.
        source: for records: the file's name and the start of its SHA-256, or `random`.
    """

    params: Tree
    batch_stats: Tree
    source: str


class Layout(NamedTuple):
    """A way to call tensors.

    Attributes:
        title: for messages.
        sources: of the networks it is for (`Backbone.source`).
        matches: whether the names of a file's tensors are of this kind.
        fits: whether a file's tensors are of a network, by their names.
    """

    title: str
    sources: tuple[str, ...]
    matches: Callable[[Collection[str]], bool]
    fits: Callable[[Backbone, Tensors], bool]


OWN = Layout(
    "ftjax .safetensors",
    ("keras", "torchvision", "timm", "lite", "caffe"),
    own_names.is_own,
    own_names.fits,
)
KERAS3 = Layout(
    "Keras 3 .weights.h5", ("keras", "lite"), keras_names.is_keras3, keras_names.fits
)
KERAS_LEGACY = Layout(
    "Keras .h5", ("keras", "lite"), keras_names.is_legacy, keras_names.fits
)
TORCH = Layout(
    "PyTorch", ("torchvision", "timm", "lite"), torch_names.is_torch, torch_names.fits
)
GRAPH = Layout(
    "Caffe .caffemodel or .onnx", ("caffe",), graph_names.is_graph, graph_names.fits
)
LAYOUTS = (OWN, GRAPH, KERAS3, KERAS_LEGACY, TORCH)


def load_pretrained(
    network: Backbone, weights: str, *, size: int, offline: bool = False
) -> Pretrained:
    """Reads and converts a network's weights.

    Args:
        network: a backbone without its head; with the 1000-class head for logits
            (`with_head`; VGG's own classifier is another one and not read).
        weights: `imagenet`, `random`, or the path of a file.
        size: height and width of the images, in pixels.
        offline: open no network connection.

    Raises:
        ValueError: the weights are not at hand, damaged, or of another network.
    """
    if weights == "random":
        params, batch_stats = init(network.units, 0, size)
        return Pretrained(params, batch_stats, "random")
    if weights == "imagenet":
        if network.name == "tiny":
            raise ValueError("tiny has no ImageNet weights; add --weights random")
        path = fetch(network.name, top=bool(network.head), offline=offline)
    else:
        path = Path(weights).expanduser()
    tensors = read_tensors(path)
    params, batch_stats = convert_tensors(network, tensors, size=size, source=path.name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Pretrained(params, batch_stats, f"{path.name} {digest[:12]}")


def convert_tensors(
    network: Backbone, tensors: Tensors, *, size: int, source: str
) -> tuple[Tree, Tree]:
    """Fills a network from the tensors of a file of any known layout.

    Args:
        network: a backbone, with or without its head.
        tensors: as `read_tensors` returns them.
        size: height and width of the images, in pixels.
        source: what to call the file in an error.

    Returns:
        `params`, `batch_stats`: dicts by unit, layer, leaf; float32.

    Raises:
        ValueError: the layout is unknown, the file is of another network, or tensors
            are missing, unused or of the wrong shape.
    """
    layout = recognize(tensors, source)
    if layout is TORCH and network.source in layout.sources:
        if why := torch_names.problem(network, tensors):
            raise ValueError(f"{source} {why}")
    if network.source not in layout.sources or not layout.fits(network, tensors):
        refuse(network, layout, tensors, size, source)
    shapes = leaf_shapes(network, size)
    origins, ignored, named = plan_conversion(network, layout, tensors, shapes)
    if layout in (KERAS3, KERAS_LEGACY):
        keras_names.check_normalization(named, source)
    try:
        return convert(named, origins, shapes, ignored=ignored, source=source)
    except ValueError as error:
        sizes = fitting_sizes(network, origins, named)
        if sizes and size not in sizes:
            raise ValueError(
                f"{source} holds weights for images of {sizes[0]} to {sizes[-1]} "
                f"pixels, not of {size}: use --image-size {sizes[0]}"
            ) from error
        others = candidates(layout, tensors, size, but=network.name)
        if not others:
            raise
        raise ValueError(describe(source, layout, others, network)) from error


def fitting_sizes(
    network: Backbone, origins: Mapping[Target, Origin], tensors: Tensors
) -> range:
    """Sizes of images, in pixels, for which the first dense layer fits a file's.

    Empty if there are none, or the network takes images of any size.
    """
    smallest = network.smallest_size
    reads = next(
        (
            index
            for index, shape in enumerate(boundary_shapes(network.body, smallest)[1:])
            if len(shape) == 1
        ),
        None,
    )
    if reads is None:
        return range(0)
    target = Target(network.body[reads].name, network.body[reads].parameter_keys[0], "")
    kernel = tensors.get(origins[target._replace(leaf="kernel")].name)
    bias = tensors.get(origins[target._replace(leaf="bias")].name)
    if kernel is None or bias is None or not bias.size:
        return range(0)

    def inputs(size: int) -> int:
        return math.prod(boundary_shapes(network.body[:reads], size)[-1])

    sizes, wanted = range(smallest, LARGEST_SIZE + 1), kernel.size // bias.size
    low = bisect_left(sizes, wanted, key=inputs)
    high = bisect_right(sizes, wanted, key=inputs)
    return sizes[low:high]


def plan_conversion(
    network: Backbone,
    layout: Layout,
    tensors: Tensors,
    shapes: Mapping[Target, tuple[int, ...]],
) -> tuple[dict[Target, Origin], set[str], Tensors]:
    """Where every leaf comes from, what is left out, and the tensors by those names."""
    if layout is OWN:
        ignored = own_names.ignored(network, tensors)
        return own_names.origins(network, shapes), ignored, tensors
    if layout is TORCH:
        tensors = torch_names.unwrap(network, tensors)
        ignored = torch_names.ignored(network, tensors)
        return torch_names.origins(network, shapes), ignored, tensors
    if layout is GRAPH:
        ignored = graph_names.ignored(network, tensors)
        return graph_names.origins(network, tensors, shapes), ignored, tensors
    named = keras_names.name_layers(network, tensors)
    ignored = keras_names.ignored(network, named)
    return keras_names.origins(network, shapes), ignored, named


def recognize(tensors: Tensors, source: str) -> Layout:
    """The layout of a file.

    Raises:
        ValueError: none of those known.
    """
    for layout in LAYOUTS:
        if layout.matches(tensors.keys()):
            return layout
    first = ", ".join(list(tensors)[:3])
    raise ValueError(
        f"{source} calls its tensors {first}, ...; allowed are files of "
        f"{', '.join(layout.title for layout in LAYOUTS)}"
    )


def candidates(layout: Layout, tensors: Tensors, size: int, but: str) -> list[str]:
    """Names of the other networks that the file is of, tried by names, then shapes."""
    found = []
    for name in BACKBONES:
        backbone = make_backbone(name)
        if name == but or backbone.source not in layout.sources:
            continue
        if not layout.fits(backbone, tensors):
            continue
        at = backbone.native_size if backbone.flat else size
        shapes = leaf_shapes(backbone, at)
        origins, ignored, named = plan_conversion(backbone, layout, tensors, shapes)
        try:
            convert(named, origins, shapes, ignored=ignored, source=name)
        except ValueError:
            continue
        found.append(name)
    return found


def refuse(
    network: Backbone, layout: Layout, tensors: Tensors, size: int, source: str
) -> None:
    """Says what the file is for, or that nothing is known about it.

    Returns if the file may be a damaged one of this network, so that what is missing
    can be listed.
    """
    others = candidates(layout, tensors, size, but=network.name)
    if others:
        raise ValueError(describe(source, layout, others, network))
    if layout is GRAPH and network.source in layout.sources:
        raise ValueError(f"{source} {graph_names.problem(network, tensors)}")
    if network.source not in layout.sources:
        first = ", ".join(list(tensors)[:3])
        raise ValueError(
            f"{source} ({layout.title}; {first}, ...) is of no network that --model "
            f"knows, and {network.name} takes no weights of that layout"
        )


def describe(source: str, layout: Layout, others: list[str], network: Backbone) -> str:
    """What the file is, instead of the network's weights."""
    names = " or ".join(others)
    message = (
        f"{source} ({layout.title}) holds weights of {names}, not of {network.name}: "
        f"use --model {names}"
    )
    if make_backbone(others[0]).source != network.source:
        message += " (strides, padding and preprocessing belong to the weights)"
    return message
