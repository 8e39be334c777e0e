"""The heat maps of a run as a part of its report page."""

import base64
import json
from pathlib import Path

import pandas as pd
from markupsafe import Markup, escape

from ftjax.analysis.report_content import MISSING

NAMES = {
    "top20_energy": "Energy in the strongest 20 % of pixels",
    "entropy": "Entropy (1: spread evenly)",
    "class_difference": "Difference to the rival class's map (1: unrelated)",
    "class_hit": "Class-specific: hit rate (0.50: chance)",
    "deletion_auc": "Deletion, area (low is good)",
    "random_deletion_auc": "Deletion of random pixels, area",
    "insertion_auc": "Insertion, area (high is good)",
    "random_insertion_auc": "Insertion of random pixels, area",
    "energy_inside": "Energy inside the object",
    "pointing_game": "Strongest pixel inside the object",
    "before_rank_correlation": "Rank correlation with the map before fine-tuning",
    "before_top20_iou": "Overlap of the strongest 20 % with those before (IoU)",
}


def gradcam_section(run_dir: Path) -> Markup:
    """The figure, the rule with the measured optimum, and the numbers, as HTML.

    Args:
        run_dir: where `python -m experiments.gradcam` has written its files.

    Returns:
        A fragment that needs nothing else: a heading, a figure with the PNG inlined,
        paragraphs, and one table for each depth.

    Raises:
        ValueError: the command has not been run on this folder.
    """
    path = run_dir / "gradcam.json"
    if not path.is_file():
        raise ValueError(
            f"{run_dir} has no gradcam.json; run python -m experiments.gradcam on it"
        )
    saved = json.loads(path.read_text())
    table = pd.read_csv(run_dir / "gradcam_numbers.csv")
    picture = base64.b64encode((run_dir / "gradcam.png").read_bytes()).decode()
    sentences = [saved["suggestion"]["sentence"]]
    if saved["agreement"]:
        sentences.append(saved["agreement"]["sentence"])
    parts = [
        "<h2>What the stages look at</h2>",
        f'<figure><img src="data:image/png;base64,{picture}" style="max-width:100%" '
        f'alt="Heat maps ({escape(saved["method"])}) of every stage, by depth">'
        f"<figcaption>{escape(saved['method'])}; every map is scaled to its own "
        "maximum.</figcaption></figure>",
        *(f"<p>{escape(sentence)}</p>" for sentence in sentences),
    ]
    for depth, rows in table[table["stage_end"]].groupby("depth_layers"):
        parts.append(depth_table(int(depth), rows))
    return Markup("\n".join(parts))


def depth_table(depth: int, rows: pd.DataFrame) -> str:
    """Numbers of one depth: a row for each number, a column for each stage."""
    title = "Head alone" if depth == 0 else f"Top {depth} layers unfrozen"
    ends = rows.drop_duplicates("unit")
    heads = "".join(
        f"<th>stage {row.stage}<br>{escape(row.unit)}</th>" for row in ends.itertuples()
    )
    lines = []
    for number, name in NAMES.items():
        own = rows[rows["number"] == number].set_index("unit")
        if own.empty:
            continue
        cells = []
        for unit in ends["unit"]:
            mean, low, high = own.loc[unit, ["mean", "low", "high"]]
            text = MISSING if pd.isna(mean) else f"{mean:.2f} ({low:.2f}–{high:.2f})"
            cells.append(f"<td>{text}</td>")
        lines.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    return (
        f"<table><caption>{title}: mean and 95 % interval over "
        f"{int(rows['pictures'].max())} pictures</caption>"
        f"<thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
