"""Charts of the report and the assets: each function draws one frame on the given axes and returns them.

Nothing is computed here. Each forecast has the same style in every chart. A chart answers one question.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.plots.figures import (
    ARCHETYPE_STYLES,
    BLACK,
    FORECAST_STYLES,
    GREY,
    SKY,
    Style,
    make_room,
)
from calibration_pipeline.plots.series import (
    archetype_label,
    by_forecast,
    count,
    dodged,
    draw_points,
    interval_ends,
    largest,
    legend_below,
    name_rows,
    only_value,
    write_no_races,
)

LABEL_STRIP = 0.09
"""Share of the axes' height above, and below, the intervals of slopes, in which a label stands."""


def draw_reliability(axes: Sequence[Axes], curve: pl.DataFrame) -> Sequence[Axes]:
    """Draw the CORP reliability diagrams of the raw and the recalibrated forecast, one on each axes.

    The steps are the isotonic recalibration of the forecast, the band is where they would lie if it were
    calibrated (Dimitriadis, Gneiting and Jordan 2021, https://doi.org/10.1073/pnas.2016191118). Steps may
    leave the frame where the largest forecasts rest on few cases.

    Parameters
    ----------
    axes : sequence of matplotlib.axes.Axes
        Where to draw: raw, recalibrated.
    curve : polars.DataFrame
        `CalibrationCurves` rows of one archetype and one event.

    Returns
    -------
    sequence of matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `curve` holds several archetypes or events.
    """
    for name in () if curve.is_empty() else ("archetype", "event"):
        only_value(curve, name)
    top = min(1.0, max(0.05, 1.25 * largest(curve, "predicted_to"))) if curve.height else 1.0
    for ax, forecast in zip(axes, ("raw", "recalibrated"), strict=True):
        ax.set(title=FORECAST_STYLES[forecast].label, xlabel="Predicted", ylabel="Observed")
        part = curve.filter(forecast=forecast).sort("predicted")
        if part.is_empty():
            write_no_races(ax)
        else:
            _steps(ax, part, FORECAST_STYLES[forecast], top)
        ax.label_outer()
    return axes


def _steps(ax: Axes, part: pl.DataFrame, style: Style, top: float) -> None:
    """Draw one forecast's isotonic steps, its blocks' centres, the diagonal and the consistency band."""
    predicted, observed = part["predicted"].to_numpy(), part["observed"].to_numpy()
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    ax.fill_between(predicted, *interval_ends(part), color=GREY, alpha=0.25, linewidth=0)
    edges = part.select("predicted_from", "predicted_to").to_numpy().ravel()
    ax.plot(edges, np.repeat(observed, 2), color=style.color, linewidth=1.8)
    share = part["n_cases"].to_numpy() / part["n_cases"].sum()
    ax.scatter(predicted, observed, s=12 + 160 * share, marker=style.marker, color=style.color, alpha=0.75)
    sizes = f"{count(part['n_races'].max(), 'race')}\n{count(part['n_cases'].sum(), 'case')}"
    ax.text(0.97, 0.03, sizes, ha="right", va="bottom", fontsize="small", transform=ax.transAxes)
    ax.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(PercentFormatter(1, 0, " %"))


def draw_calibration_curve(ax: Axes, curve: pl.DataFrame) -> Axes:
    """Draw observed share against predicted probability in bins, with the 45° line.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    curve : polars.DataFrame
        Bins of one archetype and one event, as `verification.reliability.reliability_bins` returns them, with
        archetype, forecast and event; `n_races` is optional where cases are independent.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `curve` holds several archetypes or events.
    """
    ax.set(xlabel="Predicted probability", ylabel="Observed share, 95 % interval")
    if curve.is_empty():
        return write_no_races(ax)
    ax.set_title(f"{archetype_label(curve)}: {only_value(curve, 'event')}")
    top = max(largest(curve, column) for column in ("predicted", "observed", "upper"))
    top = min(1.0, max(0.05, 1.08 * top))
    ax.plot([0, top], [0, top], color=GREY, linewidth=1, label="Predicted = observed", zorder=1)
    for style, part in by_forecast(curve):
        part = part.sort("predicted")
        counts = [count(part["n_races"].max(), "race")] if "n_races" in part.columns else []
        counts.append(count(part["n_cases"].sum(), "case"))
        label = f"{style.label} ({', '.join(counts)})"
        draw_points(ax, part["predicted"].to_numpy(), part, style, label=label, line=True)
    ax.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    legend_below(ax, 1)
    return ax


def draw_coverage(ax: Axes, metrics: pl.DataFrame) -> Axes:
    """Draw the share of finishes inside the central intervals, with the nominal share.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    metrics : polars.DataFrame
        `MetricTable` rows of one archetype with quantity "coverage" and levels such as "80 %".

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `metrics` holds several archetypes or another quantity.
    """
    ax.set(xlabel="Central interval of the forecast", ylabel="Finishes inside, 95 % interval")
    if metrics.is_empty():
        return write_no_races(ax)
    if (quantity := only_value(metrics, "quantity")) != "coverage":
        raise ValueError(f"Argument metrics must hold the quantity coverage, got {quantity}.")
    ax.set_title(f"{archetype_label(metrics)}: coverage")
    nominal = pl.col("level").str.extract(r"([\d.]+)").cast(pl.Float64) / 100
    metrics = metrics.with_columns(nominal=nominal).with_columns(slot=pl.col("nominal").rank("dense") - 1.0)
    levels = metrics.select("slot", "nominal", "level").unique().sort("slot")
    slots, shares = levels["slot"].to_numpy(), levels["nominal"].to_numpy()
    ax.hlines(shares, slots - 0.35, slots + 0.35, color=BLACK, linewidth=2, label="Nominal")
    for offset, (style, part) in dodged(list(by_forecast(metrics)), 0.24):
        label = f"{style.label} ({count(part['n_races'].max(), 'race')})"
        draw_points(ax, part["slot"].to_numpy() + offset, part, style, label=label)
    ax.set_xticks(slots, levels["level"].to_list())
    ax.set(xlim=(-0.6, len(slots) - 0.4), ylim=(0, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    legend_below(ax, 3)
    return ax


def draw_pit(ax: Axes, pit: pl.DataFrame) -> Axes:
    """Draw the PIT's distribution minus the uniform one; the band of a calibrated forecast holds the 0 line.

    The form is the ECDF difference plot of Säilynoja, Bürkner and Vehtari (2022,
    https://doi.org/10.1007/s11222-022-10090-6).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    pit : polars.DataFrame
        forecast, u, ecdf (share of PIT values up to u), lower and upper (its simultaneous 95 % band; null
        where unknown); optionally archetype.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `pit` holds several archetypes.
    """
    ax.set(xlabel="Forecast probability of finishing as well or better (PIT)", ylabel="Share of cars − PIT")
    if pit.is_empty():
        return write_no_races(ax)
    ax.set_title(f"{archetype_label(pit)}: PIT" if "archetype" in pit.columns else "PIT")
    ax.axhline(0, color=GREY, linewidth=1, label="Calibrated: the band holds this line")
    for style, part in by_forecast(pit):
        part = part.sort("u")
        u = part["u"].to_numpy()
        ax.plot(u, part["ecdf"].to_numpy() - u, style.dash, color=style.color, linewidth=2, label=style.label)
        lower, upper = interval_ends(part)
        if np.isfinite(lower).any():
            band = f"{style.label}, 95 % band"
            ax.fill_between(u, lower - u, upper - u, color=style.color, alpha=0.15, label=band)
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    legend_below(ax, 2)
    return ax


def draw_joint_events(ax: Axes, joint_events: pl.DataFrame) -> Axes:
    """Draw the observed share of each event with its interval, and the forecasts' probabilities.

    Events without information about dependence between cars are grey and marked with a star. Give the figure
    the height `rows_height(number of events)`.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `joint_events` holds several archetypes.
    """
    ax.set_xlabel("Probability, and observed share with its 95 % interval")
    if joint_events.is_empty():
        return write_no_races(ax)
    ax.set_title(f"{archetype_label(joint_events)}: joint events")
    events = joint_events.unique("event", maintain_order=True).with_row_index("row")
    rows = events["row"].cast(pl.Float64).to_numpy()
    observed = events["observed"].to_numpy()
    ax.hlines(rows, *interval_ends(events), color=BLACK, linewidth=2)
    ax.plot(observed, rows, "|", color=BLACK, markersize=14, markeredgewidth=2, label="Observed")
    joint_events = joint_events.join(events.select("event", "row"), on="event", maintain_order="left")
    for style, part in by_forecast(joint_events):
        predicted, row = part["predicted"].to_numpy(), part["row"].cast(pl.Float64).to_numpy()
        ax.plot(predicted, row, style.marker, color=style.color, alpha=0.85, label=style.label)
    for row, event, about_dependence in events.select("row", "event", "about_dependence").iter_rows():
        text, color = (event, BLACK) if about_dependence else (f"{event} *", GREY)
        across = ax.get_yaxis_transform()
        look: dict[str, Any] = {"va": "bottom", "color": color, "fontsize": "small", "parse_math": False}
        ax.text(0.01, row - 0.24, text, transform=across, **look)
    ax.set(yticks=[], xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.85))
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    legend_below(ax, 3)
    return ax


def draw_slope_by_season(ax: Axes, slopes: pl.DataFrame) -> Axes:
    """Draw the calibration slope season by season; 1 is calibrated.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    slopes : polars.DataFrame
        archetype, season (year), estimate, lower, upper (95 % interval).

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax.set(xlabel="Season", ylabel="Calibration slope, 95 % interval", title="Calibration slope by season")
    if slopes.is_empty():
        return write_no_races(ax)
    ax.set_yscale("log")
    ax.axhline(1, color=GREY, linewidth=1)
    present = [name for name in ARCHETYPES if name in slopes["archetype"]]
    parts = [(ARCHETYPE_STYLES[name], slopes.filter(archetype=name).sort("season")) for name in present]
    for offset, (style, part) in dodged(parts, 0.12):
        draw_points(ax, part["season"].to_numpy() + offset, part, style, label=style.label, line=True)
    first, last = int(slopes["season"].min()), int(slopes["season"].max())  # type: ignore[arg-type]
    bottom, top = _slope_limits(slopes)
    ax.set(xlim=(first - 0.5, last + 0.5), ylim=(bottom, top))
    ax.set_xticks(range(first, last + 1, math.ceil((last - first + 1) / 8)))
    linear = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])  # has no tick below 1 where the axis is long
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if top > 4 * bottom else linear)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    look: dict[str, Any] = {"ha": "right", "va": "center", "color": GREY, "fontsize": "small"}
    ax.text(0.99, 1 - LABEL_STRIP / 2, "above 1: too cautious", transform=ax.transAxes, **look)
    ax.text(0.99, LABEL_STRIP / 2, "below 1: too sure", transform=ax.transAxes, **look)
    legend_below(ax, 2)
    return ax


def _slope_limits(slopes: pl.DataFrame) -> tuple[float, float]:
    """Return limits of a logarithmic axis that leave a strip above and below all intervals for labels."""
    values = np.concatenate([slopes["estimate"].to_numpy(), *interval_ends(slopes), [0.75, 1.35]])
    lowest, highest = np.nanmin(values), np.nanmax(values)
    strip = (highest / lowest) ** (LABEL_STRIP / (1 - 2 * LABEL_STRIP))
    return float(lowest / strip), float(highest * strip)


def draw_finish_distribution(ax: Axes, forecast: pl.DataFrame) -> Axes:
    """Draw each driver's probabilities of a win, a top 5 and a top 10 as nested bars, favourite on top.

    Give the figure the height `rows_height(number of drivers, 0.24)`.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    forecast : polars.DataFrame
        driver, win, top5, top10 (probabilities), one row a driver.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax.set_xlabel("Probability")
    if forecast.is_empty():
        return write_no_races(ax)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    forecast = forecast.sort("win", descending=True, maintain_order=True)
    rows = np.arange(len(forecast), dtype=float)
    shades = {"top10": ("#B7DBF3", "Top 10"), "top5": (SKY, "Top 5"), "win": ("#004B77", "Win")}
    for column, (color, label) in shades.items():
        ax.barh(rows, forecast[column].to_numpy(), 0.8, color=color, label=label)
    for row, win in zip(rows, forecast["win"], strict=True):
        ax.text(
            1.01,
            row,
            f"{win:.1%}".replace("%", " %"),
            va="center",
            fontsize="small",
            transform=ax.get_yaxis_transform(),
        )
    ax.text(1.01, -0.8, "Win", va="bottom", fontsize="small", transform=ax.get_yaxis_transform())
    name_rows(ax, forecast["driver"].to_list())
    make_room(ax, right=0.6)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, min(1.0, 1.08 * max(0.05, largest(forecast, "top10"))))
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    ax.legend(loc="lower right", frameon=True, reverse=True)
    return ax


def draw_weights(ax: Axes, weights: pl.DataFrame) -> Axes:
    """Draw the weights of a fitted network's covariates, by archetype.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    weights : polars.DataFrame
        archetype, covariate, estimate, lower, upper (95 % interval).

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax.set(xlabel="Weight in the log-strength, 95 % interval", title="Weights of the covariates")
    if weights.is_empty():
        return write_no_races(ax)
    covariates = weights["covariate"].unique(maintain_order=True)
    row = weights["covariate"].replace_strict(covariates, range(len(covariates)), return_dtype=pl.Float64)
    weights = weights.with_columns(row=row)
    ax.axvline(0, color=GREY, linewidth=1)
    present = [name for name in ARCHETYPES if name in weights["archetype"]]
    parts = [(ARCHETYPE_STYLES[name], weights.filter(archetype=name)) for name in present]
    for offset, (style, part) in dodged(parts, 0.18):
        rows = part["row"].to_numpy() + offset
        ax.hlines(rows, *interval_ends(part), color=style.color, linewidth=1.5)
        ax.plot(part["estimate"].to_numpy(), rows, style.marker, color=style.color, label=style.label)
    name_rows(ax, [name.replace("_", " ") for name in covariates])
    ax.invert_yaxis()
    legend_below(ax, 2)
    return ax
