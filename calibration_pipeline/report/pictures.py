"""The report's figures, with what a reader who cannot see them and one who never saw their like must know."""

from collections.abc import Callable
from functools import partial

import polars as pl
from matplotlib.axes import Axes

from calibration_pipeline import figures, plotting
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.report.blocks import Picture
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.verification.cases import JUDGED

CURVE_EVENTS = ("top 10", "head to head")


def track_pictures(content: ReportContent, archetype: Archetype) -> list[Picture]:
    """Return calibration curves, coverage and PIT of one kind of track, as far as there are any.

    Parameters
    ----------
    content : ReportContent
        The whole report's content.
    archetype : Archetype
        The kind of track.
    """
    judged = content.metrics.filter(pl.col("forecast").is_in(JUDGED))
    curves = content.curves.filter(archetype=archetype)
    pictures = [_curve(curves.filter(event=event), archetype, event) for event in CURVE_EVENTS]
    pictures += [
        _picture(
            f"{archetype}-coverage",
            f"Coverage at {archetype.label}: share of finishes inside the 50, 80 and 95 % intervals.",
            "Points on the black bar are right. Below it the forecast is too sure of itself, above it too "
            "cautious.",
            plotting.draw_coverage,
            judged.filter(archetype=archetype, quantity="coverage"),
        ),
        _picture(
            f"{archetype}-pit",
            f"PIT at {archetype.label}: difference from the uniform distribution, with a 95 % band.",
            "A calibrated forecast's band, drawn around its curve, contains the 0 line. Above 0 on the left "
            "and below 0 on the right, more cars finish outside the likely range than should.",
            plotting.draw_pit,
            content.pit.filter(archetype=archetype),
        ),
    ]
    return [picture for picture in pictures if picture is not None]


def joint_event_picture(joint_events: pl.DataFrame, archetype: Archetype) -> Picture:
    """Return the chart of joint events.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of `archetype`, at least one.
    archetype : Archetype
        The kind of track.
    """
    return Picture(
        f"{archetype}-joint-events",
        f"Joint events at {archetype.label}: observed shares with intervals, beside the forecasts.",
        "A forecast off the black line disagrees with what happened. Among many events one in twenty does so "
        "by chance, so the verdict judges them together.",
        partial(
            _png,
            plotting.draw_joint_events,
            joint_events,
            figures.rows_height(joint_events["event"].n_unique()),
        ),
    )


def slope_picture(slopes: pl.DataFrame) -> Picture:
    """Return the chart of the calibration slope by season.

    Parameters
    ----------
    slopes : polars.DataFrame
        archetype, season, estimate, lower, upper.
    """
    return Picture(
        "slope-by-season",
        "Calibration slope of each kind of track by season, with 95 % intervals.",
        "1 is calibrated. A jump from one season to the next says that racing changed, for example with a "
        "new car.",
        partial(_png, plotting.draw_slope_by_season, slopes),
    )


def forecast_picture(forecast: pl.DataFrame, title: str) -> Picture:
    """Return the chart of every car's chances in the next race.

    Parameters
    ----------
    forecast : polars.DataFrame
        driver, win, top5, top10.
    title : str
        Which race it is.
    """
    return Picture(
        "next-race",
        f"Chances of a win, a top 5 and a top 10 of every driver: {title}",
        "Made exactly as the forecasts that were judged above.",
        partial(_png, plotting.draw_finish_distribution, forecast, figures.rows_height(len(forecast), 0.24)),
    )


def _curve(curve: pl.DataFrame, archetype: Archetype, event: str) -> Picture | None:
    return _picture(
        f"{archetype}-curve-{event.replace(' ', '-')}",
        f"Calibration curve at {archetype.label}, {event}: predicted probability against observed share.",
        "On the diagonal, things happen as often as forecast; below it less often, above it more often.",
        plotting.draw_calibration_curve,
        curve,
    )


def _picture(
    key: str, alt: str, caption: str, draw: Callable[[Axes, pl.DataFrame], Axes], frame: pl.DataFrame
) -> Picture | None:
    return None if frame.is_empty() else Picture(key, alt, caption, partial(_png, draw, frame))


def _png(draw: Callable[[Axes, pl.DataFrame], Axes], frame: pl.DataFrame, height: float = 4.6) -> bytes:
    figure, ax = figures.figure_axes(height=height)
    draw(ax, frame)
    return figures.figure_png(figure)
