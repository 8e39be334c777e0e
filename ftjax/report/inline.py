"""Figures that stand inside the page, in the colors of its scheme."""

import re
from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from ftjax.batch_norm import POLICIES
from ftjax.report import depth_plot as plots
from ftjax.report import drawing

# Colors of the drawings -> the CSS variables that hold them in the page; those of the
# BatchNorm policies are called as the policies.
VARIABLES = {
    drawing.INK: "ink",
    drawing.MUTED: "muted",
    drawing.GRID: "grid",
    drawing.PAPER: "paper",
    drawing.MARK: "mark",
    drawing.OTHER.color: "other",
}


class Image(NamedTuple):
    """One figure of the page: drawn wide for pages, narrow for phones."""

    name: str
    caption: str
    alt: str
    wide: Markup
    narrow: Markup


class WideImage(NamedTuple):
    """One figure that keeps its width and is scrolled: label, alt text, caption."""

    image: Markup
    label: str
    alt: str
    caption: str


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
    policies = {policy.color: policy.name for policy in POLICIES.values()}
    for color, name in {**VARIABLES, **policies}.items():
        svg = svg.replace(f": {color}", f": var(--{name})")
    return Markup(svg.replace("<svg", '<svg aria-hidden="true"', 1))


def draw_image(
    name: str, draw: Callable[[float], Figure], caption: str, alt: str = ""
) -> Image:
    """Both drawings of a figure.

    Args:
        name: of the element in the page.
        draw: makes the figure for a width in inches.
        caption: below it.
        alt: what it shows, after its title; the caption if not given.
    """
    wide = draw(plots.WIDE)
    finding = str(wide.get_suptitle()).replace("\n", " ").replace(r"\$", "$")
    return Image(
        name,
        caption,
        f"{finding}. {alt or caption}",
        inline_svg(drawing.svg_text(wide), f"{name}-wide"),
        inline_svg(drawing.svg_text(draw(plots.NARROW)), f"{name}-narrow"),
    )
