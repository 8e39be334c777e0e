"""The heat maps of a run as a part of its report page."""

import json
from pathlib import Path

import pandas as pd

from ftjax.gradcam.rule import RECORD, Suggestion, compare
from ftjax.report.inline import WideImage, inline_svg
from ftjax.report.sections import Block, Report, Section
from ftjax.report.tables import MISSING, Cell, Table

NAMES = {
    "top20_energy": "Energy in the strongest 20 % of pixels",
    "entropy": "Entropy (1: spread evenly)",
    "empty": "Images where nothing speaks for the class",
    "class_difference": "Difference to the rival class's map (1: unrelated)",
    "class_hit": "Class-specific: hit rate (0.50: chance)",
    "deletion_auc": "Deletion, area (low is good)",
    "random_deletion_auc": "Deletion of random pixels, area",
    "insertion_auc": "Insertion, area (high is good)",
    "random_insertion_auc": "Insertion of random pixels, area",
    "area_inside": "Area of the object (the energy of an even map)",
    "energy_inside": "Energy inside the object",
    "pointing_game": "Strongest pixel inside the object",
    "before_rank_correlation": "Rank correlation with the map before fine-tuning",
    "before_top20_iou": "Overlap of the strongest 20 % with those before (IoU)",
}
CAPTION = (
    "which places speak for the class, at the end of every stage. A row is a trained "
    "network with its answer. Every map is scaled to its own maximum, so strengths of "
    "different maps cannot be compared."
)
METHODS = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
}


def heat_maps(report: Report) -> Section | None:
    """The heat maps of the run, if it has any."""
    return read_heat_maps(report.folder)


def read_heat_maps(run_dir: Path) -> Section | None:
    """Reads what `ftjax gradcam` wrote into the folder of a run.

    The rule's depth is compared with the optimum as it is measured now: the run may
    have grown since.

    Returns:
        None if the command was not run, or on trials that the run no longer has.
    """
    path = run_dir / "gradcam.json"
    if not path.is_file():
        return None
    saved = json.loads(path.read_text())
    numbers = pd.read_csv(run_dir / "gradcam_numbers.csv")
    results = pd.read_csv(run_dir / "results.csv")
    done = results[results["status"] == "done"]
    if not set(numbers["trial"]) <= set(done["trial"]):
        return None
    suggestion = Suggestion(
        *(saved["suggestion"].get(name) for name in Suggestion._fields)
    )
    facts, sentences = (), [suggestion.sentence]
    advice = run_dir / "recommendation.json"
    if advice.is_file():
        measured = json.loads(advice.read_text())
        tested = sorted({int(depth) for depth in done["depth_layers"]})
        agreement = compare(suggestion, measured, tested)
        facts = agreement.facts
        sentences.append(agreement.sentence)
    ends = numbers[numbers["stage_end"]]
    depths = sorted(int(depth) for depth in set(ends["depth_layers"]))
    method = METHODS[saved["method"]]
    names = " and ".join(depth_name(depth).lower() for depth in depths)
    svg = (run_dir / "gradcam.svg").read_text(encoding="utf-8")
    figure = WideImage(
        inline_svg(svg, "gradcam"),
        "Heat maps",
        f"{method} of every stage over validation images: {names}.",
        f"{method}: {CAPTION}",
    )
    tables = (
        *(depth_table(d, ends[ends["depth_layers"] == d]) for d in depths),
        sanity_table(saved["randomization"], saved["stages"]),
    )
    numbers = tuple(
        Block("grid", table, f"maps{number}")
        for number, table in enumerate(tables, start=1)
    )
    return Section(
        "What the network looks at",
        (
            Block("figure", figure, "gradcam"),
            Block("heading", "Does it tell the depth?"),
            *((Block("facts", facts),) if facts else ()),
            *(Block("text", sentence) for sentence in (*sentences, RECORD)),
            Block("details", numbers, "Numbers of the maps"),
        ),
    )


def depth_name(depth: int) -> str:
    """What was trained, in words."""
    return "Head alone" if depth == 0 else f"Top {depth} layers unfrozen"


def depth_table(depth: int, rows: pd.DataFrame) -> Table:
    """Numbers of one depth: a row for each number, a column for each stage."""
    ends = rows.drop_duplicates("unit")
    columns = [
        f"Stage {row.stage}, {row.unit}, {row.height}×{row.width}"
        for row in ends.itertuples()
    ]
    lines = []
    for number, name in NAMES.items():
        own = rows[rows["number"] == number].set_index("unit")
        if own.empty:
            continue
        cells = [Cell(name)]
        for unit in ends["unit"]:
            mean, low, high = own.loc[unit, ["mean", "low", "high"]]
            known = pd.notna(mean)
            cells.append(
                Cell(f"{mean:.2f}\n{low:.2f} to {high:.2f}" if known else MISSING)
            )
        lines.append(("", tuple(cells)))
    count = int(rows["images"].max())
    caption = (
        f"{depth_name(depth)}: mean, and below it its 95 % interval, over {count} "
        "images"
    )
    return Table(caption, ("Number", *columns), tuple(lines))


def sanity_table(
    correlations: dict[str, dict[str, float | None]], stages: list[dict]
) -> Table:
    """Rank correlations of maps after weights were destroyed from the top down."""
    ends = [stage["end"] for stage in stages]
    lines = []
    for name, by_stage in correlations.items():
        values = (by_stage[end] for end in ends)
        texts = (MISSING if value is None else f"{value:.2f}" for value in values)
        lines.append(("", (Cell(name), *map(Cell, texts))))
    caption = (
        "Sanity check: rank correlation with the map of the intact network, after "
        "random weights from the classifier down to ... (near 0 is good)"
    )
    columns = (f"Stage {number}, {end}" for number, end in enumerate(ends, start=1))
    return Table(caption, ("Randomized down to", *columns), tuple(lines))
