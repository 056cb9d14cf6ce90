"""Figures and styles that all charts share: sizes that suit a phone, colours and markers of the series.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can
distinguish; every series also has a marker of its own, so that a picture survives a grey printer.

Figures are plain `matplotlib.figure.Figure` objects, never pyplot's global state: drawing needs no display,
and nothing has to be closed.
"""

import io
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from calibration_pipeline.archetypes import ARCHETYPES, Archetype

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"

PHONE_WIDTH = 5.2
ROW_HEIGHT = 0.5


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
    """Return a new figure with one pair of axes, laid out so that no label is cut.

    Parameters
    ----------
    width, height : float
        Size, inches.

    Returns
    -------
    tuple of matplotlib.figure.Figure and matplotlib.axes.Axes
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def figure_pair(width: float = PHONE_WIDTH, height: float = 3.1) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return a new figure with two pairs of axes side by side that have the same scales.

    Parameters
    ----------
    width, height : float
        Size, inches.

    Returns
    -------
    tuple of matplotlib.figure.Figure and two matplotlib.axes.Axes
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    return figure, (left, right)


def figure_grid(n_rows: int, n_columns: int, width: float = PHONE_WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a new figure with a grid of small axes, row by row.

    Parameters
    ----------
    n_rows, n_columns : int
        Size of the grid.
    width : float
        Width, inches.

    Returns
    -------
    tuple of matplotlib.figure.Figure and list of matplotlib.axes.Axes
    """
    figure = Figure(figsize=(width, 0.6 + 1.35 * n_rows), layout="constrained")
    return figure, list(figure.subplots(n_rows, n_columns).flat)


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
    canvas.draw()  # once; `savefig` draws a figure of this layout twice
    size = canvas.get_width_height()
    image = Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    small = io.BytesIO()
    image.convert("RGB").quantize(128, Image.Quantize.FASTOCTREE).save(small, format="png")
    return small.getvalue()
