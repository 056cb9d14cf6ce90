"""Chart of the leaderboard: gains over the network of every forecaster and market."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from calibration_pipeline.comparison.leaderboard import archetype_label
from calibration_pipeline.comparison.race_probabilities import CLIMATOLOGY
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.plots.figures import GREY, figure_panels
from calibration_pipeline.plots.series import by_forecast, dodged, interval_ends, name_rows, only_value
from calibration_pipeline.schemas.comparison import COMPARED_MARKETS

THOUSANDTHS = 1000
"""Differences of scores are shown in thousandths."""
HEIGHT = 6.0
"""Height of the chart of up to five forecasters, inches."""
PANEL_HEIGHT = 0.875
"""Height of a market's axes in it, inches."""
ROW_HEIGHT = 0.175
"""Least height of a forecaster's row, inches."""
TITLE_BELOW = 0.12
"""Distance of the title from the upper edge, inches."""


def leaderboard_figure(leaderboard: pl.DataFrame) -> Figure:
    """Return the chart of the gain over the network of every ranked forecaster, market by market.

    Climatology is left out: its distance would hide the differences between forecasters.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard` rows of one archetype, or of all archetypes.

    Returns
    -------
    matplotlib.figure.Figure
        Axes: one for each of `COMPARED_MARKETS`, and one more for the legend.

    Raises
    ------
    ValueError
        If `leaderboard` holds several archetypes.
    """
    others = ~pl.col("forecaster").is_in([NETWORK, CLIMATOLOGY])
    shown = leaderboard.filter(others & pl.col("rank").is_not_null())
    names = sorted(shown["forecaster"].unique())
    height = HEIGHT + 4 * max(0.0, ROW_HEIGHT * len(names) - PANEL_HEIGHT)
    figure, panels = figure_panels(4, 2, height=height, bottom=0.35, top=0.65, gaps=(0.3, 0.5))
    *of_markets, legend = panels
    legend.axis("off")
    handles = {}
    for place, (ax, market) in enumerate(zip(of_markets, COMPARED_MARKETS, strict=True)):
        ax.set_title(market.capitalize(), fontsize="small")
        ax.set_ylim(len(names) - 0.4, -0.6)
        if place % 2 == 0:
            name_rows(ax, names)
        else:
            ax.set_yticks([])
        own = shown.filter(market=market)
        if own.is_empty():
            ax.set_xticks([])
            ax.text(0.5, 0.5, "no comparison", ha="center", va="center", color=GREY, transform=ax.transAxes)
            continue
        ax.axvline(0, color=GREY, linewidth=1)
        for offset, (style, part) in dodged(list(by_forecast(own)), 0.24):
            row = np.array([names.index(name) for name in part["forecaster"]]) + offset
            gain = part.select(
                estimate=pl.col("gain_over_network") * THOUSANDTHS,
                lower=pl.col("gain_over_network_lower") * THOUSANDTHS,
                upper=pl.col("gain_over_network_upper") * THOUSANDTHS,
            )
            ax.hlines(row, *interval_ends(gain), color=style.color, linewidth=1.5)
            (handles[style.label],) = ax.plot(
                gain["estimate"].to_numpy(), row, style.marker, color=style.color, markersize=4
            )
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.tick_params(axis="x", labelsize="small")
    if shown.height:
        name = archetype_label(only_value(shown, "archetype"))
        title = f"{name}: gain over the network, thousandths"
        figure.suptitle(title, y=1 - TITLE_BELOW / height, fontsize="medium")
        legend.legend(handles.values(), handles.keys(), loc="center", frameon=False, fontsize="small")
    return figure
