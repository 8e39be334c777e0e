"""Where can a network be cut, and what does a depth unfreeze?

    ftjax cuts --model effnetb0 --depth 54
    ftjax cuts --model resnet152 --image-size 96

Prints one row per unit: its layers by their index in Keras' `model.layers` (InputLayer
is 0), parameters, share of the FLOPs of a forward pass, and the bytes of one image's
activation where the network would be cut before it. Exit codes: 0 done, 2 bad
arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ftjax.cli.console import guard, make_console, parse, refuse

PAPER_MODEL = "effnetb0"  # the network whose blocks the depth paper lists


@dataclass(frozen=True)
class Options:
    """Shows the units of a network."""

    model: str = PAPER_MODEL
    """A network, as for the sweep."""
    depth: int | None = None
    """Layers unfrozen from the top."""
    image_size: int | None = None
    """Height and width in pixels. Default: the weights' own."""


@guard()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax cuts", description=__doc__)
    # JAX starts here, not at import: a wrong argument is answered at once.
    from ftjax.backbones import make_backbone
    from ftjax.depth import check_depth
    from ftjax.report import units

    try:
        backbone = make_backbone(options.model)
        size = units.image_size(backbone, options.image_size)
        if options.depth is not None:
            check_depth(backbone, options.depth)
    except ValueError as error:
        return refuse(error)
    rows = units.list_units(backbone, size, options.depth or 0)
    lines = [
        f"{backbone.name} at {size} pixels: {len(backbone.layers)} layers in "
        f"{backbone.num_units} units, {sum(row.params for row in rows):,} trainable "
        "parameters, without the classifier"
    ]
    if options.depth is not None:
        lines.append(units.describe_depth(backbone, rows, options.depth))
    if backbone.name == PAPER_MODEL:
        lines += units.paper_notes(backbone, rows)
    console = make_console()
    console.print(unit_table(rows, options.depth))
    for line in lines:
        console.print(line)
    return 0


def unit_table(rows: Sequence, depth: int | None) -> Table:
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
            cells.append(row.words)
        table.add_row(*cells)
    return table
