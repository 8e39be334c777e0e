"""The report page of a run: one HTML file that needs nothing else.

Images are inlined as SVG whose colors are CSS variables, so they follow the light
or dark scheme of the reader; a second, narrow drawing serves phones.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ftjax.analysis.recommend import Recommendation
from ftjax.report import batchnorm_plots, drawing
from ftjax.report import depth_plot as plots
from ftjax.report.content import (
    MISSING,
    Table,
    answer_parts,
    batchnorm_advice,
    further_warnings,
    key_facts,
    notices,
    trial_table,
)
from ftjax.report.probe_plots import probe_curves
from ftjax.search.depths import MASS

# Colors of the drawings -> the CSS variables that hold them in the page.
VARIABLES = {
    drawing.INK: "ink",
    drawing.MUTED: "muted",
    drawing.GRID: "grid",
    drawing.PAPER: "paper",
    drawing.MARK: "mark",
    drawing.OTHER.color: "other",
    **{look.color: name for name, look in drawing.LOOKS.items()},
}


class Image(NamedTuple):
    """One figure of the page: drawn wide for pages, narrow for phones."""

    name: str
    caption: str
    alt: str
    wide: Markup
    narrow: Markup


class HeatMaps(NamedTuple):
    """What the page says about heat maps.

    Attributes:
        image: the figure as an `<svg>` element.
        alt: what stands in its place.
        method: e.g. `Grad-CAM`.
        facts: the rule's depth beside the measured one, as (name, value).
        sentences: the same in plain words, and how far to trust the rule.
        tables: the numbers of each depth, then the sanity check.
    """

    image: Markup
    alt: str
    method: str
    facts: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


def inline_svg(svg: str, prefix: str) -> Markup:
    """A drawing's SVG file as an `<svg>` element to stand inside a page.

    Identifiers get the prefix, because two drawings share glyph names; colors become
    CSS variables; the XML head and the metadata, with their addresses, are left out.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="image\w+"', "", svg)  # equal images have one, unused
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for color, name in VARIABLES.items():
        svg = svg.replace(f": {color}", f": var(--{name})")
    return Markup(svg.replace("<svg", '<svg aria-hidden="true"', 1))


def _image(
    name: str, draw: Callable[[float], Figure], caption: str, alt: str = ""
) -> Image:
    wide = draw(plots.WIDE)
    finding = str(wide.get_suptitle()).replace("\n", " ").replace(r"\$", "$")
    return Image(
        name,
        caption,
        f"{finding}. {alt or caption}",
        inline_svg(drawing.svg_text(wide), f"{name}-wide"),
        inline_svg(drawing.svg_text(draw(plots.NARROW)), f"{name}-narrow"),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            pairs.append((f"{prefix}{key}", text))
    return pairs


def write_report(
    path: str | Path,
    *,
    results: pd.DataFrame,
    epochs: pd.DataFrame,
    recommendation: Recommendation | None,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    command: str,
    heat_maps: HeatMaps | None = None,
    probes: pd.DataFrame | None = None,
    correlations: Sequence = (),
    classes: Sequence[Table] = (),
) -> Path:
    """Write the self-contained page of a run.

    Args:
        path: the HTML file; missing folders are made.
        results, epochs: as in results.csv and epochs.csv; rows may be unfinished.
        recommendation: None as long as no trial has finished.
        config: the whole configuration of the run, nested mappings allowed.
        environment: versions, device, git commit and so on.
        command: the exact command line.
        heat_maps: None if there are none.
        probes: of `ftjax.probes.probe_curve`, None where they were not made.
        correlations: of `ftjax.probes.rank_correlation`, with these results.
        classes: of `content.class_tables`; empty where no labels were kept.

    Returns:
        The path written.
    """
    best = recommendation
    results = drawing.rows_of(results, best)
    if "trial" in epochs and "trial" in results:
        epochs = epochs[epochs["trial"].isin(results["trial"])]
    done = drawing.finished(results)
    named = best.named if best else None
    main, gap, others = None, None, []
    if len(done):
        main = _image(
            "depth",
            lambda width: plots.depth_curve(results, named, width=width),
            "Accuracy on the validation images over the number of unfrozen layers.",
        )
        if drawing.measured(done, *batchnorm_plots.MODES):
            gap = _image(
                "batchnorm",
                lambda width: plots.batchnorm_gap(results, width=width),
                "The same training images in training mode and in evaluation mode. "
                "Training mode is the running mean over the last epoch.",
            )
        if drawing.measured(done, "val_loss"):
            others.append(
                _image(
                    "loss",
                    lambda width: plots.depth_curve(
                        results, named, metric="val_loss", width=width
                    ),
                    "Cross-entropy loss on the validation images over depth.",
                )
            )
        if drawing.measured(done, "seconds") or drawing.measured(done, "flops"):
            others.append(
                _image(
                    "cost",
                    lambda width: plots.pareto(results, named, width=width),
                    "Accuracy over the cost of training; on the front no depth is both "
                    "cheaper and better. Numbers are unfrozen layers.",
                )
            )
    if drawing.measured(epochs, "val_accuracy"):
        others.append(
            _image(
                "epochs",
                lambda width: plots.learning_curves(epochs, named, width=width),
                "Validation accuracy over epochs, one panel for each depth; dashed, "
                "that of the training batches as trained. Means over the seeds.",
            )
        )
    if probes is not None:
        others.append(
            _image(
                "probes",
                lambda width: probe_curves(probes, results, correlations, width=width),
                "What closed forms say of every cut before any training, below what "
                "training made of it. The rank correlation (Spearman; p by permutation "
                "of the depths) is measured on this run and promises nothing for "
                "another.",
            )
        )
    first = results.iloc[0].to_dict() if len(results) else {}
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.j2")
    text = page.render(
        subject=f"{first.get('model', 'model')} on {first.get('data', 'data')}",
        best=best,
        answer=answer_parts(best) if best else (),
        caveats=best.caveats if best else (),
        classes=classes,
        facts=key_facts(results, named) if named else (),
        main=main,
        gap=gap,
        others=others,
        advice=batchnorm_advice(results) if gap else "",
        table=trial_table(results, named),
        notices=notices(results),
        heat_maps=heat_maps,
        warnings=further_warnings(best) if best else (),
        command=command,
        config=_flat(config),
        environment=_flat(environment),
        data_hash=first.get("data_hash", MISSING),
        search_mass=round(100 * MASS),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
