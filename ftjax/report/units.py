"""The units of a backbone: where it can be cut, and what a depth unfreezes."""

from collections.abc import Mapping
from typing import NamedTuple

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import with_head
from ftjax.depth import make_cut
from ftjax.frozen.placement import boundary_bytes
from ftjax.paper.source import load_paper
from ftjax.sweep.cost import measure_cost

LARGEST_SIZE = 1024  # pixels


class Row(NamedTuple):
    """One unit.

    Attributes:
        name: of the unit.
        first: index of its first layer in `model.layers`, InputLayer being 0.
        last: of its last one.
        params: trainable values.
        flops_share: of the backbone's forward pass, 0..1.
        bytes_before: of one image's activation before it.
        unfrozen: how many of its layers the depth unfreezes.
        unfrozen_params: their trainable values.
    """

    name: str
    first: int
    last: int
    params: int
    flops_share: float
    bytes_before: int
    unfrozen: int
    unfrozen_params: int

    @property
    def num_layers(self) -> int:
        """How many layers it has."""
        return self.last - self.first + 1

    @property
    def words(self) -> str:
        """How much of it the depth unfreezes."""
        if not self.unfrozen:
            return ""
        if self.unfrozen == self.num_layers:
            return "all"
        return (
            f"{self.unfrozen} of {self.num_layers} layers, "
            f"{self.unfrozen_params:,} parameters"
        )


def image_size(backbone: Backbone, asked: int | None) -> int:
    """Height and width of the images, in pixels; by default the weights' own.

    Raises:
        ValueError: the network cannot take them.
    """
    size = backbone.native_size if asked is None else asked
    if not backbone.smallest_size <= size <= LARGEST_SIZE:
        raise ValueError(
            f"--image-size {size} is out of range: {backbone.name} takes "
            f"{backbone.smallest_size} to {LARGEST_SIZE} pixels"
        )
    return size


def list_units(backbone: Backbone, size: int, depth: int) -> list[Row]:
    """One row per unit of a backbone.

    Args:
        backbone: without its head.
        size: height and width of the images, in pixels.
        depth: layers unfrozen from the top.
    """
    cost = measure_cost(backbone, size)
    sizes = boundary_bytes(backbone, size)
    total = sum(cost.forward)
    frozen = len(backbone.layers) - depth
    rows, first = [], 1
    for unit, flops, stored in zip(backbone.units, cost.forward, sizes, strict=True):
        last = first + len(unit.layers) - 1
        unfrozen = max(0, min(len(unit.layers), last - frozen))
        keys = [layer.key for layer in unit.layers]
        counts = [cost.parameters.get((unit.name, key), 0) for key in keys]
        rows.append(
            Row(
                name=unit.name,
                first=first,
                last=last,
                params=sum(counts),
                flops_share=flops / total,
                bytes_before=stored,
                unfrozen=unfrozen,
                unfrozen_params=sum(counts[len(counts) - unfrozen :]),
            )
        )
        first = last + 1
    return rows


def describe_depth(backbone: Backbone, rows: list[Row], depth: int) -> str:
    """What a depth amounts to, in every unit of measurement."""
    cut = make_cut(with_head(backbone, 2), depth)
    trained = sum(row.unfrozen_params for row in rows)
    total = sum(row.params for row in rows)
    text = (
        f"The top {depth} layers ({depth / len(backbone.layers):.1%}) reach into "
        f"{cut.depth_units} of {backbone.num_units} units and unfreeze {trained:,} "
        f"parameters ({trained / total:.1%})"
    )
    if cut.same_set != depth:
        text += f"; the top {cut.same_set} layers unfreeze the same"
    return f"{text}."


def paper_notes(backbone: Backbone, rows: list[Row]) -> list[str]:
    """What is wrong in the depth paper's table of EfficientNetB0's blocks.

    Philip 2025, section 4.3. Everything is counted from our layer table, which is
    Keras'; only the printed numbers are taken from the paper.
    """
    printed = load_paper()["efficientnetb0_blocks"]
    counts: Mapping[str, list[int]] = printed["printed"]
    blocks = {row.name: row for row in rows}
    right = [name for name in counts if counts[name][0] == blocks[name].num_layers]
    missing = [row.name for row in rows[1:-1] if row.name not in counts]
    notes = [
        f"The paper's table of blocks: {len(right)} of {len(counts)} counts match"
        + (f"; {', '.join(missing)} is missing." if missing else ".")
    ]
    claimed = [blocks[name] for name in printed["claimed"]]
    said = printed["claimed_layers"]
    layers = sum(row.num_layers for row in claimed)
    names = " + ".join(row.name.removeprefix("block") for row in claimed)
    span = claimed[-1].last - claimed[0].first + 1
    top = len(backbone.layers) - claimed[0].first + 1
    is_top = claimed[-1].last == len(backbone.layers)
    reach = "reach" if is_top else "do not reach"
    ranges = ", ".join(f"{row.first}-{row.last}" for row in claimed)
    inside = next(row for row in rows if row.last > len(backbone.layers) - said)
    inside_layers = inside.last - (len(backbone.layers) - said)
    notes.append(
        f"It says that {names} are the top {said} layers. They are {layers} layers "
        f"({ranges}), {'contiguous' if span == layers else 'not contiguous'}, and "
        f"{reach} the output; from the first of them to "
        f"the output there are {top}. The top {said} layers are the last "
        f"{inside_layers} of {inside.num_layers} of {inside.name} and all above it."
    )
    return notes
