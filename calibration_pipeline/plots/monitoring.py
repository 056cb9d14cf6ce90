"""Charts of sequential monitoring: e-values over time, and rank histograms."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.plots.figures import GREY
from calibration_pipeline.plots.series import archetype_label, by_forecast, legend_below, write_no_races
from calibration_pipeline.verification.monitoring import ALARM, LOG10_ALARM


def draw_evidence(ax: Axes, monitoring: pl.DataFrame) -> Axes:
    """Draw the e-values of all markets after each race: restarted at each season, and since the start.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    monitoring : polars.DataFrame
        `CalibrationMonitoring` of one archetype.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `monitoring` holds several archetypes.
    """
    ax.set(xlabel="Races, by season", ylabel="E-value of all markets")
    if monitoring.is_empty():
        return write_no_races(ax)
    ax.set_title(f"{archetype_label(monitoring)}: evidence against calibration")
    ax.axhline(LOG10_ALARM, color=GREY, linewidth=1, label=f"Alarm: {ALARM:g}")
    for style, part in by_forecast(monitoring.filter(market=ALL_MARKETS)):
        part = part.sort("race_order")
        starts = np.flatnonzero(np.diff(part["season"].to_numpy(), prepend=0))
        race = np.arange(1.0, part.height + 1)
        # A missing value before each season breaks the line where the process restarts.
        x, season = (
            np.insert(values, starts, np.nan) for values in (race, part["log10_e_season"].to_numpy())
        )
        ax.plot(x, season, "-", color=style.color, linewidth=1.8, label=f"{style.label}, by season")
        since_start = part["log10_e_start"].to_numpy()
        ax.plot(race, since_start, ":", color=style.color, linewidth=1.5, label=f"{style.label}, since start")
        ax.set_xticks(race[starts], part["season"].to_numpy()[starts].astype(str), rotation=45)
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$10^{{{power:.0f}}}$"))
    ax.set_ylim(top=max(ax.get_ylim()[1], LOG10_ALARM + 0.3))
    legend_below(ax, 2)
    return ax


def draw_rank_histograms(panels: Sequence[Axes], histograms: pl.DataFrame) -> Sequence[Axes]:
    """Draw the rank histogram of each market, raw and recalibrated, with the range of uniform ranks.

    Parameters
    ----------
    panels : sequence of matplotlib.axes.Axes
        One for each market, and one more for the legend.
    histograms : polars.DataFrame
        As from `verification.monitoring.rank_histograms`, of one archetype.

    Returns
    -------
    sequence of matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `histograms` holds several archetypes.
    """
    *of_markets, legend = panels
    legend.axis("off")
    if histograms.is_empty():
        for ax in of_markets:
            write_no_races(ax)
        return panels
    of_markets[0].figure.suptitle(f"{archetype_label(histograms)}: ranks of results among their scenarios")
    edges = np.linspace(0, 1, histograms["bin"].n_unique() + 1)
    for ax, market in zip(of_markets, RACE_MARKETS, strict=True):
        ax.set_title(market.capitalize(), fontsize="small")
        own = histograms.filter(market=market).sort("bin")
        for lower, upper in own.select("lower", "upper").unique().iter_rows():
            ax.axhspan(lower, upper, color=GREY, alpha=0.2, linewidth=0, label="Calibrated, 95 %")
        for style, part in by_forecast(own):
            share = part["share"].to_numpy()
            ax.stairs(share, edges, color=style.color, linestyle=style.dash, label=style.label, linewidth=1.6)
        ax.set(xlim=(0, 1), ylim=(0, None), xticks=[0, 0.5, 1])
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    handles = dict(zip(*reversed(of_markets[0].get_legend_handles_labels()), strict=True))
    legend.legend(handles.values(), handles.keys(), loc="center", frameon=False, fontsize="small")
    return panels
