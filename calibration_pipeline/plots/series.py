"""Drawing helpers for series of estimates, intervals and legends, shared by `charts`."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.plots.figures import FORECAST_STYLES, GREY, POINTS, Style, make_room

LEGEND_BELOW = 38
"""Distance of a legend from the axes above it, points."""
LEGEND_ROW = 15
"""Height of a row of a legend, points."""
LONGEST_NAME = 30
"""Characters of the longest name beside a row; a longer one loses characters of its middle."""


def draw_points(
    ax: Axes, x: np.ndarray, part: pl.DataFrame, style: Style, *, label: str, line: bool = False
) -> None:
    """Draw `estimate` (or `observed`) at `x` with its interval; hollow where there is no interval."""
    y = part["estimate" if "estimate" in part.columns else "observed"].to_numpy()
    lower, upper = interval_ends(part)
    known = np.isfinite(lower)
    if line:
        ax.plot(x, y, style.dash, color=style.color, linewidth=1, alpha=0.6)
    ax.vlines(x, lower, upper, color=style.color, linewidth=1.5)
    ax.plot(x[known], y[known], style.marker, color=style.color, label=label if known.any() else None)
    ax.plot(
        x[~known],
        y[~known],
        style.marker,
        color=style.color,
        fillstyle="none",
        label=None if known.any() else label,
    )


def interval_ends(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the intervals, NaN where unknown."""
    lower, upper = (frame[end].cast(pl.Float64).fill_null(math.nan).to_numpy() for end in ("lower", "upper"))
    return lower, upper


def by_forecast(frame: pl.DataFrame) -> Iterator[tuple[Style, pl.DataFrame]]:
    """Yield the forecasts that `frame` has, always in the same order."""
    for forecast, style in FORECAST_STYLES.items():
        part = frame.filter(forecast=forecast)
        if not part.is_empty():
            yield style, part


def dodged(
    parts: list[tuple[Style, pl.DataFrame]], step: float
) -> Iterator[tuple[float, tuple[Style, pl.DataFrame]]]:
    """Yield series side by side, centred: pairs of offset and series."""
    centre = (len(parts) - 1) / 2
    for index, part in enumerate(parts):
        yield (index - centre) * step, part


def only_value(frame: pl.DataFrame, column: str) -> str:
    """Return the one value of a column.

    Raises
    ------
    ValueError
        If there are several.
    """
    values = frame[column].unique().sort().to_list()
    if len(values) > 1:
        raise ValueError(f"A plot shows one {column}, got {', '.join(values)}.")
    return str(values[0])


def archetype_label(frame: pl.DataFrame) -> str:
    """Return the name of the one archetype of a frame, for display."""
    return Archetype(only_value(frame, "archetype")).label


def largest(frame: pl.DataFrame, column: str) -> float:
    """Return the largest value, 0 where all are null."""
    return float(frame[column].cast(pl.Float64).fill_null(0).max())  # type: ignore[arg-type]


def count(n: Any, noun: str) -> str:
    """Return a number with its noun; the plural of `noun` ends in s.

    Examples
    --------
    >>> count(1, "race"), count(1296, "car")
    ('1 race', '1,296 cars')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def legend_below(ax: Axes, ncols: int) -> None:
    """Put the legend below the axes, where it covers no data, with each label once, and make room for it."""
    by_label = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    below = ScaledTranslation(0, -LEGEND_BELOW / POINTS, ax.figure.dpi_scale_trans)
    ax.legend(
        by_label.values(),
        by_label.keys(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
        frameon=False,
        ncols=ncols,
        fontsize="small",
    )
    make_room(ax, bottom=(LEGEND_BELOW + LEGEND_ROW * math.ceil(len(by_label) / ncols) + 12) / POINTS)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Write the name of each row, from 0, left of the axes, and make room for the longest there."""
    ax.set_yticks(range(len(names)), map(shorten_name, names), fontsize="small", parse_math=False)
    widest = max((label.get_window_extent().width for label in ax.get_yticklabels()), default=0)
    make_room(ax, left=0.2 + widest / ax.figure.dpi)


def shorten_name(name: str) -> str:
    """Return a name of at most `LONGEST_NAME` characters.

    The start and the end stay, since versions of one forecaster often differ at the end.

    Examples
    --------
    >>> shorten_name("Ty"), shorten_name("a-simulator-of-races-with-weather-v2")
    ('Ty', 'a-simulator-of-…ith-weather-v2')
    """
    if len(name) <= LONGEST_NAME:
        return name
    tail = LONGEST_NAME // 2 - 1
    return f"{name[: LONGEST_NAME - 1 - tail]}…{name[-tail:]}"


def write_no_races(ax: Axes) -> Axes:
    """Write on empty axes that there are no races yet."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    ax.text(0.5, 0.5, "no races yet", ha="center", va="center", color=GREY, fontsize="large")
    return ax
