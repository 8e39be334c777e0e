"""The page of `ftjax advise`: sentences, one figure, one table."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ftjax.analysis.advice import (
    MODES,
    SCRATCH,
    SizeAdvice,
    Way,
    advice_table,
    case_words,
    change_sentence,
    rank_sentence,
    size_sentence,
)
from ftjax.machine.files import write_atomically
from ftjax.report.comparison import COLORS, MARKERS
from ftjax.report.drawing import (
    AS_PERCENT,
    MUTED,
    PAPER,
    STYLE,
    WIDE,
    new_figure,
    percent,
    save,
)
from ftjax.report.inline import draw_image
from ftjax.report.page import render
from ftjax.report.sections import Block, Section
from ftjax.report.tables import Cell, Table

PAGE = "advice.html"
ABOUT = (
    "Case 1: the head alone on frozen features. Case 2: lower layers frozen, the "
    "others trained. Case 3: from scratch. Case 4: all layers from the pretrained "
    "weights (Petrovska et al. 2018, figure 5). At each size the case holds that "
    "trains least anew among those that may be the best (95 % set over the validation "
    "images and the noise between runs). Smaller sets are parts of larger ones; every "
    "way has its best rate."
)
CAPTION = (
    "Validation accuracy over the number of training images. Filled: as good as can be "
    "told at that size. Whiskers are one standard error of the difference to the best."
)


def sentences(advices: Sequence[SizeAdvice], ranked: Sequence[Way]) -> tuple[str, ...]:
    """What is said, the answer first."""
    networks = list(dict.fromkeys(own.network for own in advices))
    by_network = {
        name: [own for own in advices if own.network == name] for name in networks
    }
    said = [f"{change_sentence(own)}." for own in by_network.values()]
    if len(networks) > 1:
        size = max(own.size for own in advices)
        said.insert(0, rank_sentence(ranked, size))
    for name, own in by_network.items():
        before = f"{name}, " if len(networks) > 1 else ""
        said += [before + size_sentence(one) for one in own]
    if not all(own.measured for own in advices):
        said.append(
            "How far two runs differ was not measured, and is assumed: give --seeds 3."
        )
    return tuple(said)


def write_advice(
    folder: Path,
    advices: Sequence[SizeAdvice],
    ranked: Sequence[Way],
    *,
    subject: str,
    command: str,
) -> tuple[str, ...]:
    """Writes advice.csv, advice.png, advice.svg and the page; returns what it says.

    Args:
        folder: of the files.
        advices: of all networks and sizes.
        ranked: of `rank_networks`.
        subject: networks and data, for the title.
        command: the command line.
    """
    said = sentences(advices, ranked)
    content = advice_table(advices).to_csv(index=False).encode()
    write_atomically(folder / "advice.csv", content)
    save(advice_curves(advices), folder / "advice")
    image = draw_image(
        "advice", lambda width: advice_curves(advices, width=width), CAPTION
    )
    shown = tuple(text.replace("+-", "±") for text in said)
    text = render(
        "advice.html.j2",
        subject=subject,
        answer=shown,
        main=image,
        sections=(
            Section(
                "Size by size",
                (Block("wide", size_table(advices), "sizes"), Block("small", ABOUT)),
            ),
            Section("Command", (Block("code", command),)),
        ),
    )
    write_atomically(folder / PAGE, text.encode())
    return said


def size_table(advices: Sequence[SizeAdvice]) -> Table:
    """A row for each network and size, a column for each mode."""
    rows = []
    for own in advices:
        best: dict[str, Way] = {}
        for way in own.ways:
            known = best.get(way.mode)
            best[way.mode] = way if known is None or way.loss < known.loss else known
        cells = [
            Cell(percent(best[mode].accuracy) if mode in best else "–")
            for mode in MODES
        ]
        similarity = f"{100 * own.similarity:+.1f} ± {100 * own.similarity_stderr:.1f}"
        known = own.similar != "unknown"
        first = Cell(f"{own.network}, {own.size:,} images")
        last = Cell(similarity if known else "–"), Cell(case_words(own))
        rows.append(("", (first, *cells, *last)))
    columns = (
        "Network and size",
        *(mode.capitalize() for mode in MODES),
        "Similarity (points)",
        "Case",
    )
    return Table("The four ways at every size", columns, tuple(rows))


@matplotlib.rc_context(STYLE)
def advice_curves(advices: Sequence[SizeAdvice], *, width: float = WIDE) -> Figure:
    """A panel for each network: a line for each way, over the number of images.

    Args:
        advices: of all networks and sizes.
        width: of the figure, in inches.
    """
    networks = list(dict.fromkeys(own.network for own in advices))
    height = 0.8 + 3.0 * len(networks)
    figure = new_figure(width, height, "Which layers, how many images")
    panels = figure.subplots(len(networks), squeeze=False, sharex=True).ravel()
    lines = {}
    for ax, name in zip(panels, networks, strict=True):
        own = sorted((a for a in advices if a.network == name), key=lambda a: a.size)
        kinds = {(way.mode, way.depth) for one in own for way in one.ways}
        kinds = sorted(kinds, key=lambda kind: (MODES.index(kind[0]), kind[1]))
        for number, (mode, depth) in enumerate(kinds):
            found = [
                (one.size, way)
                for one in own
                for way in one.ways
                if (way.mode, way.depth) == (mode, depth)
            ]
            color = COLORS[number % len(COLORS)]
            label = mode if mode != "some layers" else f"top {depth} layers"
            sizes = [size for size, _ in found]
            values = [way.accuracy for _, way in found]
            style = "--" if mode == SCRATCH else "-"
            (line,) = ax.plot(sizes, values, color=color, ls=style, lw=1.5, label=label)
            errors = [way.stderr for _, way in found]
            ax.errorbar(sizes, values, errors, fmt="none", ecolor=color, lw=0.9)
            for (size, way), value in zip(found, values, strict=True):
                face = color if way.inside else PAPER
                marker = MARKERS[number % len(MARKERS)]
                ax.plot(size, value, marker, color=color, mfc=face, ms=6)
            lines.setdefault(label, line)
        ax.set_xscale("log")
        sizes = [one.size for one in own]
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(AS_PERCENT)
        ax.set_title(f"{name}: validation accuracy", color=MUTED)
    panels[-1].set_xlabel("training images")
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside lower left",
        ncols=min(len(lines), 5 if width > 6 else 2),
    )
    return figure
