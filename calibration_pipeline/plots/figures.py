"""Figures and styles that all charts share: sizes that suit a phone, colours and markers of the series.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can
distinguish; every series also has a marker of its own, so that a picture survives a grey printer.

Figures are plain `matplotlib.figure.Figure` objects, never pyplot's global state: drawing needs no display,
and nothing has to be closed.
"""

import io
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from PIL import Image

from calibration_pipeline.archetypes import ARCHETYPES, Archetype

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"

PHONE_WIDTH = 5.2
ROW_HEIGHT = 0.5
POINTS = 72
"""Points of an inch."""
XLABEL_BELOW = 24
"""Distance of a horizontal label from its axes, points."""
YLABEL_LEFT = 0.2
"""Distance of a vertical label's base from the left edge of the figure, inches."""
LARGEST_LEFT = 0.7
"""Largest share of a figure's width left of its axes."""


class Style(NamedTuple):
    """Style of a series in every chart."""

    label: str
    color: str
    marker: str
    dash: str


FORECAST_STYLES = {
    "raw": Style("Raw", VERMILION, "o", "--"),
    "recalibrated": Style("Recalibrated", BLUE, "s", "-"),
    "climatology": Style("Climatology", GREY, "^", ":"),
    "start_order": Style("Start order", PURPLE, "D", "-."),
    "forecast": Style("Forecast", BLACK, "o", "-"),
}
ARCHETYPE_STYLES = dict(
    zip(
        ARCHETYPES,
        (
            Style(Archetype.SUPERSPEEDWAY.label, VERMILION, "o", "-"),
            Style(Archetype.INTERMEDIATE.label, BLUE, "s", "--"),
            Style(Archetype.SHORT_TRACK.label, GREEN, "^", "-."),
            Style(Archetype.ROAD_COURSE.label, PURPLE, "D", ":"),
        ),
        strict=True,
    )
)


def figure_axes(width: float = PHONE_WIDTH, height: float = 4.6) -> tuple[Figure, Axes]:
    """Return a new figure with one pair of axes, with room for a title, labels and tick labels.

    Parameters
    ----------
    width, height : float
        Size, inches.

    Returns
    -------
    tuple of matplotlib.figure.Figure and matplotlib.axes.Axes
    """
    figure, (ax,) = figure_panels(1, 1, width, height)
    return figure, ax


def figure_pair(title: str) -> tuple[Figure, list[Axes]]:
    """Return a new figure with a title and two pairs of axes side by side that have the same scales.

    Parameters
    ----------
    title : str
        Title of the figure.

    Returns
    -------
    tuple of matplotlib.figure.Figure and list of two matplotlib.axes.Axes
    """
    figure, panels = figure_panels(1, 2, height=3.05, top=0.65, gaps=(0.3, 0), sharex=True, sharey=True)
    figure.suptitle(title)
    return figure, panels


def figure_panels(
    n_rows: int,
    n_columns: int,
    width: float = PHONE_WIDTH,
    height: float = 4.6,
    *,
    left: float = 0.84,
    right: float = 0.28,
    bottom: float = 0.64,
    top: float = 0.4,
    gaps: tuple[float, float] = (0, 0),
    **subplots: Any,
) -> tuple[Figure, list[Axes]]:
    """Return a new figure with a grid of axes in given margins, row by row.

    Positions of axes and of their labels are given, not searched for: the search (Matplotlib's constrained
    layout) takes a third of the time of a picture.

    Parameters
    ----------
    n_rows, n_columns : int
        Size of the grid.
    width, height : float
        Size, inches.
    left, right, bottom, top : float
        Margins, inches.
    gaps : tuple of two floats
        Horizontal and vertical distance between axes, inches.
    **subplots
        Further arguments of `matplotlib.figure.Figure.subplots`.

    Returns
    -------
    tuple of matplotlib.figure.Figure and list of matplotlib.axes.Axes
    """
    figure = Figure(figsize=(width, height))
    across, upwards = gaps
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=across * n_columns / (width - left - right - across * (n_columns - 1)),
        hspace=upwards * n_rows / (height - bottom - top - upwards * (n_rows - 1)),
    )
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False, **subplots).flat)
    below = ScaledTranslation(0, -XLABEL_BELOW / POINTS, figure.dpi_scale_trans)
    for ax in panels:
        ax.xaxis.set_label_coords(0.5, 0, ax.transAxes + below)
        beside = blended_transform_factory(figure.dpi_scale_trans, ax.transAxes)
        ax.yaxis.set_label_coords(YLABEL_LEFT, 0.5, beside)
    return figure, panels


def make_room(
    ax: Axes, *, left: float | None = None, right: float | None = None, bottom: float | None = None
) -> None:
    """Set margins of the figure of `ax`, unless a layout engine of the figure sets them.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Axes whose labels need the room.
    left, right, bottom : float, optional
        Margins, inches; the others stay as they are. The left one is at most `LARGEST_LEFT` of the width.
    """
    figure = ax.get_figure(root=True)
    if figure is None or figure.get_layout_engine() is not None:
        return
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=None if left is None else min(left / width, LARGEST_LEFT),
        right=None if right is None else 1 - right / width,
        bottom=None if bottom is None else bottom / height,
    )


def rows_height(n_rows: int, row_height: float = ROW_HEIGHT) -> float:
    """Return the height of a figure with `n_rows` rows, inches.

    Parameters
    ----------
    n_rows : int
        Number of rows: events, or drivers.
    row_height : float
        Height of a row, inches.

    Examples
    --------
    >>> rows_height(10)
    6.5
    """
    return 1.5 + row_height * max(n_rows, 2)


def figure_png(figure: Figure, dpi: int = 144) -> bytes:
    """Return `figure` as the bytes of a PNG image of at most 128 colours, a third of the full image's size.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure to encode.
    dpi : int
        Dots per inch.

    Examples
    --------
    >>> figure, _ = figure_axes()
    >>> figure_png(figure)[1:4]
    b'PNG'
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    size = canvas.get_width_height()
    image = Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    small = io.BytesIO()
    image.convert("RGB").quantize(128, Image.Quantize.FASTOCTREE).save(small, format="png")
    return small.getvalue()
