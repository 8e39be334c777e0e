"""Heat maps as figures: stages from left to right, depths from top to bottom.

Every map is divided by its own largest value, so one scale holds for the whole figure:
how strong a place is within its map. Sizes of different maps cannot be compared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from ftjax.gradcam.maps import Maps, Stage
from ftjax.gradcam.numbers import resize
from ftjax.report.drawing import INK, MUTED, STYLE, WIDE, new_figure

COLORS = "plasma"  # perceptually uniform, safe for color-blind readers
OPACITY = (0.1, 0.75)  # of the map over the image, where it is 0 and where it is 1
NOTHING = "nothing speaks\nfor the class"
ON_IMAGE = "#fefefe"  # white in every scheme; a page turns `PAPER` dark
# Inches: the figure's edge; room for the turned labels; between maps; above an image;
# for the names of the stages; for the color scale.
MARGIN, LABELS, GAP, CAPTION, HEADER, FOOT = 0.1, 0.36, 0.04, 0.2, 0.2, 0.66
DPI = 150  # images are stored in the SVG at this resolution


class Row(NamedTuple):
    """One trained network.

    Attributes:
        title: e.g. `head alone`.
        maps: of the images shown.
        answers: what it predicts for each of them, e.g. `baklava 83 %`.
    """

    title: str
    maps: Maps
    answers: tuple[str, ...]


@matplotlib.rc_context(STYLE)
def stage_figure(
    images: np.ndarray,
    captions: Sequence[str],
    rows: Sequence[Row],
    stages: Sequence[Stage],
    *,
    title: str,
    overlay: bool = True,
    width: float = WIDE,
) -> Figure:
    """Images with the map of every stage, a row for each network.

    Args:
        images: uint8 (n, size, size, 3).
        captions: one for each image, e.g. its class.
        rows: networks by depth, at least one.
        stages: of the network, input first.
        title: the finding.
        overlay: draw the maps, smoothed, over the grey image; otherwise their own
            pixels.
        width: of the figure, in inches.

    Raises:
        ValueError: no images or no networks.
    """
    if not len(images) or not rows:
        raise ValueError("nothing to draw: give at least one image and one network")
    side = (width - 2 * MARGIN - LABELS - GAP * (len(stages) - 1)) / (len(stages) + 1)
    block = CAPTION + len(rows) * (side + GAP)  # height of one image's part
    figure = new_figure(width, 1, title)
    head = 0.22 * (1 + str(figure.get_suptitle()).count("\n")) + HEADER
    height = head + len(images) * block + FOOT
    figure.set_layout_engine("none")
    figure.set_size_inches(width, height)
    figure.set_dpi(DPI)
    figure._suptitle.set_y(1 - 0.06 / height)

    def panel(left: float, top: float, across: float, down: float) -> Axes:
        """Axes at a place in inches from the left and the top."""
        place = (left / width, 1 - (top + down) / height)
        return figure.add_axes((*place, across / width, down / height))

    first_map = MARGIN + side + LABELS
    for index, image in enumerate(images):
        top = head + index * block + CAPTION
        ax = panel(MARGIN, top, side, side)
        _show(ax, image)
        ax.set_title(captions[index], color=INK, size=8, weight="bold", pad=3)
        for number, row in enumerate(rows):
            for column, stage in enumerate(stages):
                left = first_map + column * (side + GAP)
                ax = panel(left, top + number * (side + GAP), side, side)
                _draw_map(ax, image, row.maps.maps[stage.end][index], overlay)
                if column == 0:
                    label = f"{row.title}\n{row.answers[index]}"
                    ax.set_ylabel(label, color=INK, size=6.5, labelpad=2)
                if index == number == 0:
                    where = f"stage {column + 1}, {stage.end}"
                    size = f"{stage.height}×{stage.width} pixels"
                    ax.set_title(f"{where}\n{size}", size=7, color=MUTED, pad=4)
    scale = panel(first_map, height - FOOT + 0.08, width - MARGIN - first_map, 0.09)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), color_scale(overlay)),
        cax=scale,
        orientation="horizontal",
    )
    bar.set_label("evidence for the class, as a share of the map's maximum", size=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.grid(False)
    bar.outline.set_visible(False)
    return figure


def color_scale(overlay: bool) -> ListedColormap:
    """Colors of the scale; for the overlay, as they look over middle grey."""
    values = np.linspace(0, 1, 256)[None]
    colors = cover(np.full_like(values, 0.5), values) if overlay else heat(values)
    return ListedColormap(colors[0])


def heat(values: np.ndarray) -> np.ndarray:
    """Colors of a map: (h, w) in 0..1 -> (h, w, 3) in 0..1."""
    return matplotlib.colormaps[COLORS](values)[..., :3]


def blend(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map over the grey image.

    Args:
        image: uint8 (height, width, 3).
        values: (h, w) in 0..1, smoothed to the image's size.

    Returns:
        (height, width, 3) in 0..1.
    """
    size = image.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) / 255
    return cover(grey, np.clip(resize(values[None], *size)[0], 0, 1))


def cover(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Colors over grey, the denser the stronger, so that weak places show the image.

    Args:
        grey: (h, w) in 0..1.
        values: (h, w) in 0..1.
    """
    low, high = OPACITY
    opacity = (low + (high - low) * values)[..., None]
    return (1 - opacity) * grey[..., None] + opacity * heat(values)


def _draw_map(ax: Axes, image: np.ndarray, values: np.ndarray, overlay: bool) -> None:
    strongest = float(values.max())
    scaled = values / strongest if strongest > 0 else np.zeros_like(values)
    _show(ax, blend(image, scaled) if overlay else heat(scaled))
    if strongest <= 0:
        ax.text(
            0.5,
            0.5,
            NOTHING,
            size=6,
            color=ON_IMAGE,
            ha="center",
            va="center",
            transform=ax.transAxes,
        )


def _show(ax: Axes, pixels: np.ndarray) -> None:
    ax.imshow(pixels, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
