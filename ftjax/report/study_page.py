"""The page of the second study: its figures from our runs, and its claims judged."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ftjax.analysis.wording import points
from ftjax.machine.files import write_atomically
from ftjax.report.drawing import percent, save
from ftjax.report.inline import draw_image
from ftjax.report.page import render
from ftjax.report.sections import Block, Section
from ftjax.report.study_plots import ABOUT, FIGURES, movement_figure
from ftjax.report.tables import MISSING, Cell, Table
from ftjax.study.points import MODES, Arm, plain
from ftjax.study.results import Study
from ftjax.study.spans import axis_spans
from ftjax.study.verdicts import (
    CONTRADICTED,
    OPEN,
    SUPPORTED,
    UNTESTED,
    Finding,
    claims_table,
    say_region,
)

PAGE = "study.html"
MARKS = {SUPPORTED: "good", CONTRADICTED: "bad", OPEN: "open", UNTESTED: ""}
HEADINGS = (
    "Figure",
    "The paper says",
    "Measured as",
    "Asserted",
)
MOVED = (
    "The base with all layers trained, after the last epoch that it was trained to; "
    "white dots are single seeds."
)


def write_study(
    folder: Path,
    study: Study,
    findings: Sequence[Finding],
    *,
    subject: str,
    answer: str,
    caveats: Sequence[str],
    command: str,
) -> None:
    """Writes the tables, every figure as PNG and SVG, and the page.

    Args:
        folder: of the run.
        study: what the figures show.
        findings: what became of the claims.
        subject: network and data.
        answer: the recommended settings, in a sentence.
        caveats: what to know before it.
        command: the command line.
    """
    table = claims_table(findings)
    write_atomically(folder / "claims.csv", table.to_csv(index=False).encode())
    moved = study.moved.to_csv(index=False).encode()
    write_atomically(folder / "movement.csv", moved)
    figures = [*FIGURES]
    if len(study.moved):
        figures.append(("movement", movement_figure, MOVED))
    blocks = []
    for name, draw, caption in figures:
        save(draw(study), folder / name)
        text = caption if draw is movement_figure else f"{caption} {ABOUT}"
        drawn = partial(draw_at, draw, study)
        blocks.append(Block("image", draw_image(name, drawn, text)))
    sections = (
        Section("The claims", (Block("sentences", shown_claims(findings), "claims"),)),
        Section("What matters", (Block("wide", shown_spans(study), "axes"),)),
        Section("The figures", tuple(blocks)),
        Section(
            "How it was made",
            (Block("code", command), Block("pairs", base_settings(study), "base")),
        ),
    )
    text = render(
        "study.html.j2",
        subject=subject,
        answer=answer.replace("+-", "±"),
        caveats=caveats,
        facts=verdict_counts(findings),
        main=None,
        sections=sections,
    )
    write_atomically(folder / PAGE, text.encode())


def draw_at(draw, study: Study, width: float):
    """A figure of some width in inches."""
    return draw(study, width=width)


def verdict_counts(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """How many claims have which verdict, in both modes."""
    counts = Counter(finding.verdict for finding in findings)
    return [(verdict.capitalize(), str(counts[verdict])) for verdict in MARKS]


def shown_claims(findings: Sequence[Finding]) -> Table:
    """The table of the page: a row for each claim, its modes side by side."""
    modes = [mode for mode in MODES if any(own.mode == mode for own in findings)]
    by_claim: dict[tuple[str, ...], dict[str, Finding]] = {}
    for finding in findings:
        claim = finding.claim
        said = claim.figure, claim.statement, claim.contrast
        words = (*said, say_region(claim.region, claim.unit))
        by_claim.setdefault(words, {})[finding.mode] = finding
    rows = []
    for words, own in by_claim.items():
        cells = [*map(Cell, words)]
        for mode in modes:
            found = own.get(mode)
            cells.append(Cell(MISSING) if found is None else verdict_cell(found))
        rows.append(("", tuple(cells)))
    caption = "Sentences of the paper with a number or a direction, and our difference"
    columns = (*HEADINGS, *(MODES[mode].capitalize() for mode in modes))
    return Table(caption, columns, tuple(rows))


def verdict_cell(finding: Finding) -> Cell:
    """E.g. `supported: +2.1 ± 0.8 points`."""
    text = f"{finding.verdict}: {say_difference(finding)}"
    return Cell(text, MARKS[finding.verdict])


def say_difference(finding: Finding) -> str:
    """E.g. `+2.1 ± 0.8 points`; a dash where it was not measured."""
    if not math.isfinite(finding.difference):
        return MISSING
    value = f"{round(100 * finding.difference, 1) + 0.0:+.1f}"  # no -0.0
    return f"{value} ± {points(finding.stderr)} {finding.claim.unit}"


def shown_spans(study: Study) -> Table:
    """What every axis does around the base, in both modes."""
    rows = []
    for mode in study.modes:
        base = study.measured.cells.get((mode, Arm()))
        for span in axis_spans(study.design, study.measured, mode):
            best = study.measured.cells[mode, span.best]
            gain = MISSING
            if base is not None and best != base:
                means, error = study.evidence.means, study.evidence.stderr[best, base]
                gain = f"{100 * (means[best] - means[base]):+.1f} ± {points(error)}"
            cells = (
                MODES[mode],
                span.title,
                percent(span.share, 0),
                points(span.range),
                span.label,
                gain,
            )
            rows.append(("", tuple(map(Cell, cells))))
    columns = (
        "Mode",
        "Axis",
        "Share",
        "Best less worst, points",
        "Best value",
        "Best less base, points",
    )
    return Table("Each axis varied alone around the base", columns, tuple(rows))


def base_settings(study: Study) -> tuple[str, list[tuple[str, str]]]:
    """Title and values of the base."""
    values = [(name, plain(value)) for name, value in study.design.base.items()]
    return "The base, which every setting shares but for what it varies", values
