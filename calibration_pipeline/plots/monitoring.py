"""Charts of sequential monitoring: e-values over time, and rank histograms."""

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.plots.figures import BLACK, GREY
from calibration_pipeline.plots.series import (
    archetype_label,
    by_forecast,
    largest,
    legend_below,
    write_no_races,
)
from calibration_pipeline.verification.monitoring import ALARM, LOG10_ALARM

BAND = "Calibrated, 95 %"
ROW_PITCH = 1.3
"""Distance of the rows of histograms, in heights of a row: the rest is for the label."""
SEASON_WIDTH = 0.1
"""Width of a season's label, as a share of all races."""


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
        labelled = _apart(starts, SEASON_WIDTH * part.height)
        ax.set_xticks(race[labelled], part["season"].to_numpy()[labelled].astype(str))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$10^{{{power:.0f}}}$"))
    ax.set_ylim(top=max(ax.get_ylim()[1], LOG10_ALARM + 0.3))
    legend_below(ax, 2)
    return ax


def _apart(starts: np.ndarray, distance: float) -> list[int]:
    """Return the starts that lie at least `distance` behind the one before."""
    kept: list[int] = []
    for start in starts.tolist():
        if not kept or start - kept[-1] >= distance:
            kept.append(start)
    return kept


def draw_rank_histograms(ax: Axes, histograms: pl.DataFrame) -> Axes:
    """Draw the rank histogram of each market in a row, raw and recalibrated, with the range of uniform ranks.

    Give the figure the height `rows_height(number of markets, 0.6)`.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    histograms : polars.DataFrame
        As from `verification.monitoring.rank_histograms`, of one archetype.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `histograms` holds several archetypes.
    """
    ax.set_xlabel("Rank among the scenarios, as a share of all ranks")
    if histograms.is_empty():
        return write_no_races(ax)
    ax.set_title(f"{archetype_label(histograms)}: ranks among the scenarios")
    edges = np.linspace(0, 1, histograms["bin"].n_unique() + 1)
    highest = max(largest(histograms, "share"), largest(histograms, "upper"))
    step = math.ceil(10 * highest) / 10
    ax.set_ylabel(f"Share of races; a row is {step:.0%} high".replace("%", " %"))
    rows = np.arange(len(RACE_MARKETS))[::-1] * step * ROW_PITCH
    for row, market in zip(rows, RACE_MARKETS, strict=True):
        own = histograms.filter(market=market).sort("bin")
        for lower, upper in own.select("lower", "upper").unique().iter_rows():
            ax.fill_between([0, 1], row + lower, row + upper, color=GREY, alpha=0.2, linewidth=0, label=BAND)
        for style, part in by_forecast(own):
            share = row + part["share"].to_numpy()
            ax.stairs(
                share,
                edges,
                baseline=row,
                color=style.color,
                linestyle=style.dash,
                label=style.label,
                linewidth=1.6,
            )
    ax.hlines(rows, 0, 1, color=BLACK, linewidth=0.8)
    for row, market in zip(rows, RACE_MARKETS, strict=True):
        ax.text(0.01, row + 1.03 * step, market.capitalize(), va="bottom", fontsize="small")
    ax.set(xlim=(0, 1), ylim=(0, rows[0] + ROW_PITCH * step), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[])
    legend_below(ax, 3)
    return ax
