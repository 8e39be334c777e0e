"""Where can a network be cut, and what does a depth unfreeze?

    python -m experiments.cuts --model effnetb0 --depth 54
    python -m experiments.cuts --model resnet152 --image-size 96

Prints one row per unit: its layers by their index in Keras' `model.layers` (InputLayer
is 0), parameters, share of the FLOPs of a forward pass, and the bytes of one image's
activation where the network would be cut before it. Exit codes: 0 done, 2 bad
arguments.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from experiments.console import Parser

LOG_WIDTH = 120  # columns of a log file; a terminal has its own
PAPER_MODEL = "effnetb0"  # the network whose blocks the depth paper lists


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


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m experiments.cuts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=PAPER_MODEL, help="a name of --model")
    parser.add_argument("--depth", type=int, help="layers unfrozen from the top")
    parser.add_argument("--image-size", type=int, help="pixels; default: the weights'")
    options = parser.parse_args(arguments)
    # JAX starts here, not at import, so that a wrong argument is answered at once.
    from ftjax.backbones import make_backbone
    from ftjax.depth import check_depth

    try:
        backbone = make_backbone(options.model)
        size = options.image_size
        if size is None:
            size = backbone.native_size
        if not backbone.smallest_size <= size <= 1024:
            raise ValueError(
                f"--image-size {size} is out of range: {backbone.name} takes "
                f"{backbone.smallest_size} to 1024 pixels"
            )
        if options.depth is not None:
            check_depth(backbone, options.depth)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = list_units(backbone, size, options.depth or 0)
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    console.print(unit_table(rows, options.depth), highlight=False)
    console.print(
        f"{backbone.name} at {size} pixels: {len(backbone.layers)} layers in "
        f"{backbone.num_units} units, {sum(row.params for row in rows):,} trainable "
        "parameters, without the classifier",
        highlight=False,
    )
    if options.depth is not None:
        console.print(describe_depth(backbone, rows, options.depth), highlight=False)
    if backbone.name == PAPER_MODEL:
        for note in paper_notes(backbone, rows):
            console.print(note, highlight=False)
    return 0


def list_units(backbone, size: int, depth: int) -> list[Row]:
    """One row per unit of a backbone.

    Args:
        backbone: without its head.
        size: height and width of the images, in pixels.
        depth: layers unfrozen from the top.
    """
    from ftjax.frozen.placement import boundary_bytes
    from ftjax.sweep.cost import measure_cost

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


def unit_table(rows: list[Row], depth: int | None) -> Table:
    """The rows as a table; what is unfrozen is shown if a depth is given."""
    table = Table("Unit")
    for name in ("Keras index", "Layers", "Parameters", "FLOPs", "Bytes before it"):
        table.add_column(name, justify="right")
    if depth is not None:
        table.add_column(f"Top {depth} layers unfreeze")
    for row in rows:
        cells = [
            row.name,
            f"{row.first}-{row.last}",
            str(row.num_layers),
            f"{row.params:,}",
            f"{row.flops_share:.1%}",
            f"{row.bytes_before:,}",
        ]
        if depth is not None:
            cells.append(describe_unfrozen(row))
        table.add_row(*cells)
    return table


def describe_unfrozen(row: Row) -> str:
    """How much of a unit is unfrozen."""
    if not row.unfrozen:
        return ""
    if row.unfrozen == row.num_layers:
        return "all"
    return (
        f"{row.unfrozen} of {row.num_layers} layers, {row.unfrozen_params:,} parameters"
    )


def describe_depth(backbone, rows: list[Row], depth: int) -> str:
    """What a depth amounts to, in every unit of measurement."""
    from ftjax.backbones.heads import with_head
    from ftjax.depth import make_cut

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


def paper_notes(backbone, rows: list[Row]) -> list[str]:
    """What is wrong in the depth paper's table of EfficientNetB0's blocks.

    Philip 2025, section 4.3. Everything is counted from our layer table, which is
    Keras'; only the printed numbers are taken from the paper.
    """
    from ftjax.paper.source import load_paper

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


if __name__ == "__main__":
    sys.exit(main())
