"""How much is unfrozen: a depth becomes a cut, here and nowhere else.

Depth is counted from the output. `depth_layers` counts the layers of Keras' graph
without InputLayer and classifier, as the depth paper does; `depth_units` counts
blocks. Depth 0 trains the classifier alone.
"""

from dataclasses import dataclass

from ftjax.backbones.backbone import Backbone

# Depths measured in the paper (Philip 2025, tables 3 to 5).
PAPER_DEPTHS = {
    "resnet152": (0, 10, 20, 100, 180, 207, 210, 230, 310),
    "vgg16": (0, 10, 14, 17, 18),
    "effnetb0": (0, 10, 20, 50, 100, 120, 150, 237),
}
WORDS = ("paper", "units", "layers", "spread")
SPREAD = 5
AUTO = ("auto",)  # depths are chosen from results, not here


@dataclass(frozen=True)
class Cut:
    """One depth of one network.

    Attributes:
        depth_layers: layers unfrozen, counted from the top.
        same_set: smallest depth in layers that unfreezes the same parameters; layers
            without parameters make several depths equal.
        unit: index of the first unit with anything trainable.
        depth_units: number of the body's units from there on.
        trainable: per unit from `unit` on, the keys of its trainable layers.
        blocks: names of the units that are trained where these are not the top ones;
            the numbers of layers and units are theirs then.
    """

    depth_layers: int
    same_set: int
    unit: int
    depth_units: int
    trainable: tuple[tuple[str, ...], ...]
    blocks: tuple[str, ...] = ()


def check_depth(backbone: Backbone, depth_layers: int) -> int:
    """Returns the depth if the network has that many layers, else raises ValueError."""
    total = len(backbone.layers)
    if not 0 <= depth_layers <= total:
        raise ValueError(
            f"depth {depth_layers} is out of range: {backbone.name} has {total} layers "
            f"({backbone.num_units} blocks), so --depths takes 0 to {total}"
        )
    return depth_layers


def make_cut(network: Backbone, depth_layers: int) -> Cut:
    """Turns a depth into the place where the trainable part begins.

    Args:
        network: a backbone with its head.
        depth_layers: layers to unfreeze from the top, 0 to the number of layers.

    Raises:
        ValueError: the depth is negative or larger than the network.
    """
    check_depth(network, depth_layers)
    total = len(network.layers)
    same_set = depth_layers
    while same_set and not network.layers[total - same_set].key:
        same_set -= 1
    trainable, position = [], 0
    for unit in network.body:
        layers = enumerate(unit.layers, start=position)
        unfrozen = (layer for at, layer in layers if at >= total - depth_layers)
        trainable.append(tuple(layer.key for layer in unfrozen if layer.key))
        position += len(unit.layers)
    trainable += [unit.parameter_keys for unit in network.head]
    first = next(index for index, keys in enumerate(trainable) if keys)
    return Cut(
        depth_layers=depth_layers,
        same_set=same_set,
        unit=first,
        depth_units=len(network.body[first:]),
        trainable=tuple(trainable[first:]),
    )


def unit_depths(backbone: Backbone) -> tuple[int, ...]:
    """Depths in layers that unfreeze whole units: 0 units, 1 unit, ... all."""
    depths, total = [0], 0
    for unit in reversed(backbone.body):
        total += len(unit.layers)
        depths.append(total)
    return tuple(depths)


def block_depths(backbone: Backbone) -> tuple[int, ...]:
    """`unit_depths` without those that add no parameters, such as a pooling."""
    distinct = set(distinct_depths(backbone))
    depths, total, seen = [0], 0, 0
    for unit in reversed(backbone.body):
        total += len(unit.layers)
        new = max((depth for depth in distinct if depth <= total), default=0)
        if new > seen:
            depths.append(total)
        seen = new
    return tuple(depths)


def distinct_depths(backbone: Backbone) -> tuple[int, ...]:
    """The smallest depth in layers of every distinct trainable set.

    ResNet152 has 311 of them, EfficientNetB0 131, VGG16 14.
    """
    from_the_top = enumerate(reversed(backbone.layers), start=1)
    return (0, *(depth for depth, layer in from_the_top if layer.key))


def spread_depths(backbone: Backbone) -> tuple[int, ...]:
    """Up to six block boundaries from none to all, denser near the output."""
    depths = block_depths(backbone)
    last = len(depths) - 1
    steps = (round(last * (k / SPREAD) ** 1.3) for k in range(SPREAD + 1))
    return tuple(dict.fromkeys(depths[step] for step in steps))


def parse_depths(backbone: Backbone, words: tuple[str, ...]) -> tuple[int, ...]:
    """The depths named on the command line, in layers, without repeats.

    Args:
        backbone: the network.
        words: numbers of layers, or one of `paper` (as measured in the depth paper),
            `units` (every block), `layers` (every distinct set of parameters),
            `spread` (six block boundaries, denser near the output).

    Raises:
        ValueError: a word is unknown, or a depth is larger than the network.
    """
    depths: list[int] = []
    for word in words:
        if word == "units":
            depths += unit_depths(backbone)
        elif word == "layers":
            depths += distinct_depths(backbone)
        elif word == "spread":
            depths += spread_depths(backbone)
        elif word == "paper":
            if backbone.name not in PAPER_DEPTHS:
                raise ValueError(
                    f"the paper measured no depths of {backbone.name}; --depths paper "
                    f"is for {', '.join(PAPER_DEPTHS)}: use units or spread"
                )
            depths += PAPER_DEPTHS[backbone.name]
        elif word.lstrip("-").isdigit():
            depths.append(check_depth(backbone, int(word)))
        else:
            raise ValueError(
                f"unknown depth {word!r}; --depths takes numbers of layers, "
                f"{', '.join(WORDS)}; or auto, alone"
            )
    return tuple(sorted(dict.fromkeys(depths)))
