"""Sets of blocks: any of them are trained, the others frozen; not only the top ones.

The depth paper names the blocks 6a, 6b and 7a, which no depth unfreezes; Lee et al.
2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", train single
blocks. A block is a unit of the body; the head is trained in any case.
"""

from collections.abc import Sequence

from ftjax.backbones.backbone import Backbone
from ftjax.depth import Cut, distinct_depths, make_cut

EACH = "each"  # of --sets: every block alone
JOIN = "+"


def block_names(backbone: Backbone) -> tuple[str, ...]:
    """The blocks with parameters, input first."""
    return tuple(unit.name for unit in backbone.body if unit.parameter_keys)


def parse_sets(backbone: Backbone, words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sets named on the command line, without repeats, each in network order.

    Args:
        backbone: the network.
        words: names of blocks joined by +, or `each`.

    Raises:
        ValueError: a block is unknown.
    """
    names = block_names(backbone)
    sets: list[tuple[str, ...]] = []
    for word in words:
        if word == EACH:
            sets += [(name,) for name in names]
            continue
        asked = word.split(JOIN)
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ValueError(
                f"--sets {word}: {backbone.name} has no block {unknown[0]!r}; its "
                f"blocks are {' '.join(names)}: join some by +, or say {EACH}"
            )
        sets.append(tuple(name for name in names if name in asked))
    return tuple(dict.fromkeys(sets))


def make_set_cut(network: Backbone, blocks: Sequence[str]) -> Cut:
    """The place where the lowest block of a set begins, and what is trained from there.

    A set that is the same as a depth is that depth.

    Args:
        network: a backbone with its head.
        blocks: names of some of its blocks.
    """
    own = [unit.name in blocks for unit in network.body]
    trainable = [
        unit.parameter_keys if chosen else ()
        for unit, chosen in zip(network.body, own, strict=True)
    ]
    count = sum(
        len(unit.layers)
        for unit, chosen in zip(network.body, own, strict=True)
        if chosen
    )
    first = next(index for index, keys in enumerate(trainable) if keys)
    trainable += [unit.parameter_keys for unit in network.head]
    if all(
        keys or not unit.parameter_keys
        for unit, keys in zip(network[first:], trainable[first:], strict=True)
    ):
        layers = sum(len(unit.layers) for unit in network.body[first:])
        depths = distinct_depths(network)
        return make_cut(network, max(depth for depth in depths if depth <= layers))
    return Cut(
        depth_layers=count,
        same_set=count,
        unit=first,
        depth_units=sum(own),
        trainable=tuple(trainable[first:]),
        blocks=tuple(blocks),
    )


def set_name(blocks: Sequence[str]) -> str:
    """As `--sets` takes it."""
    return JOIN.join(blocks)
