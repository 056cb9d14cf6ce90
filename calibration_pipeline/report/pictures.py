"""The report's figures, with what a reader who cannot see them and one who never saw their like must know."""

from collections.abc import Callable, Mapping
from functools import partial

import polars as pl
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.plots import charts as plotting
from calibration_pipeline.plots import figures
from calibration_pipeline.plots import posteriors as arviz_pictures
from calibration_pipeline.report.blocks import Picture
from calibration_pipeline.verification.cases import JUDGED

EVENTS = {
    "win": "wins",
    "top 5": "finishes in the top 5",
    "top 10": "finishes in the top 10",
    "head to head": "beats another car",
}
"""Events of the reliability diagrams, and what happens in them to a car."""
FEWEST_CHECKED = 5
"""Predictive checks of fewer races than this show nothing."""


def reliability_pictures(curves: pl.DataFrame) -> list[Picture]:
    """Return the reliability diagrams of one kind of track, raw beside recalibrated, an event a picture.

    Parameters
    ----------
    curves : polars.DataFrame
        `CalibrationCurves` rows of one archetype.
    """
    pictures = []
    for event, happens in EVENTS.items():
        curve = curves.filter(event=event)
        if not curve.is_empty():
            archetype = parse_archetype(curve["archetype"][0])
            pictures.append(
                Picture(
                    f"{archetype}-curve-{event.replace(' ', '-')}",
                    f"Reliability at {archetype.label}, {event}: raw and recalibrated side by side.",
                    f"How often a car {happens} against the forecast chance. Steps inside the grey band are "
                    "what chance makes of a calibrated forecast. Flatter than the line: too sure; steeper: "
                    "too cautious.",
                    partial(_reliability_png, curve, event),
                )
            )
    return pictures


def archetype_pictures(
    archetype: Archetype,
    metrics: pl.DataFrame,
    joint_events: pl.DataFrame,
    curves: pl.DataFrame,
    pit: pl.DataFrame,
    fit: xr.DataTree,
) -> dict[str, bytes]:
    """Return all that the report shows of one kind of track alone, as PNG images by key.

    Parameters
    ----------
    archetype : Archetype
        The kind of track.
    metrics, joint_events, curves, pit : polars.DataFrame
        As in `ReportContent`, rows of this kind of track.
    fit : xarray.DataTree
        `CalibrationPosterior`.
    """
    pictures = [
        *reliability_pictures(curves),
        *track_pictures(archetype, metrics, pit),
        *([] if joint_events.is_empty() else [joint_event_picture(joint_events)]),
        *diagnostic_pictures(fit, archetype),
    ]
    return {picture.key: picture.draw() for picture in pictures}


def track_pictures(archetype: Archetype, metrics: pl.DataFrame, pit: pl.DataFrame) -> list[Picture]:
    """Return coverage and PIT of one kind of track, as far as there are any.

    Parameters
    ----------
    archetype : Archetype
        The kind of track.
    metrics, pit : polars.DataFrame
        As in `ReportContent`, rows of this kind of track.
    """
    judged = metrics.filter(pl.col("forecast").is_in(JUDGED))
    pictures = [
        _picture(
            f"{archetype}-pit",
            f"PIT at {archetype.label}: difference from the uniform distribution, with a 95 % band.",
            "A calibrated forecast's band, drawn around its curve, contains the 0 line. Above 0 on the left "
            "and below 0 on the right, more cars finish outside the likely range than should.",
            plotting.draw_pit,
            pit,
        ),
        _picture(
            f"{archetype}-coverage",
            f"Coverage at {archetype.label}: share of finishes inside the 50, 80 and 95 % intervals.",
            "Points on the bar are right. Below it the forecast is too sure, above it too cautious.",
            plotting.draw_coverage,
            judged.filter(quantity="coverage"),
        ),
    ]
    return [picture for picture in pictures if picture is not None]


def joint_event_picture(joint_events: pl.DataFrame) -> Picture:
    """Return the chart of joint events.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype, at least one.
    """
    archetype = parse_archetype(joint_events["archetype"][0])
    return Picture(
        f"{archetype}-joint-events",
        f"Joint events at {archetype.label}: observed shares with intervals, beside the forecasts.",
        "The line is what was observed, with its 95 % interval; a forecast off it disagrees with what "
        "happened. Among many events one in twenty does so by chance, so the verdict judges them together. "
        "Grey, with *: says next to nothing about dependence.",
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
        "new car. The last season is the coming one.",
        partial(_png, plotting.draw_slope_by_season, slopes),
    )


def forest_picture(fits: Mapping[str, xr.DataTree]) -> Picture:
    """Return ArviZ's forest of slopes by kind of track and season.

    Parameters
    ----------
    fits : mapping of str to xarray.DataTree
        `CalibrationPosterior` by archetype.
    """
    return Picture(
        "slope-forest",
        "Forest plot of the calibration slope by kind of track and season, with 50 and 95 % intervals.",
        "Dots are posterior medians, thick lines hold 50 %, thin lines 95 %. The line at 1 is calibrated.",
        partial(_drawn, arviz_pictures.draw_slope_forest, fits),
    )


def diagnostic_pictures(fit: xr.DataTree, archetype: Archetype) -> list[Picture]:
    """Return ArviZ's pictures of one fit: predictive checks, where there are races enough, and chains.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.
    archetype : Archetype
        The kind of track.
    """

    def picture(
        name: str, what: str, caption: str, draw: Callable[[xr.DataTree], Figure], tree: xr.DataTree
    ) -> Picture:
        return Picture(
            f"{archetype}-{name}", f"{what}: {archetype.label}.", caption, partial(_drawn, draw, tree)
        )

    chains = [
        picture(
            "ranks",
            "Posterior and rank plots of every chain",
            "Left, every chain's posterior, which should agree; right, the ranks of its draws, thinned to "
            "near independence, which should stay together. A p-value below α says that chains differ.",
            arviz_pictures.draw_ranks,
            fit,
        ),
        picture(
            "energy",
            "Energy plot of the sampler",
            "Both distributions should overlap. Left, a chain's BFMI should lie right of the broken line.",
            arviz_pictures.draw_energy,
            fit,
        ),
    ]
    if fit["observed_data"].sizes["race"] < FEWEST_CHECKED:
        return chains
    races = arviz_pictures.checkable(fit)
    return [
        picture(
            "ppc-dist",
            "Posterior predictive distribution of the rank correlation",
            "How well the forecast order agrees with the finish, over races: the strong line as observed, "
            "the thin blue ones as the fit says it comes.",
            arviz_pictures.draw_predictive_distribution,
            races,
        ),
        picture(
            "ppc-pit",
            "Posterior predictive PIT of the rank correlation",
            "Stays near 0 where the fit describes the races. A p-value below α says that it does not.",
            arviz_pictures.draw_predictive_pit,
            races,
        ),
        picture(
            "loo-pit",
            "Leave-one-out PIT of the rank correlation",
            "The same, with each race judged by the fit to all others.",
            arviz_pictures.draw_loo_pit,
            races,
        ),
        picture(
            "ppc-pava",
            "Isotonic calibration of many incidents in a race",
            "Chance that a race has more incidents than the median race, against how often it had. The line "
            "should follow the diagonal within the band.",
            arviz_pictures.draw_predictive_pava,
            races,
        ),
        *chains,
    ]


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


def _picture(
    key: str, alt: str, caption: str, draw: Callable[[Axes, pl.DataFrame], Axes], frame: pl.DataFrame
) -> Picture | None:
    return None if frame.is_empty() else Picture(key, alt, caption, partial(_png, draw, frame))


def _png(draw: Callable[[Axes, pl.DataFrame], Axes], frame: pl.DataFrame, height: float = 4.2) -> bytes:
    figure, ax = figures.figure_axes(height=height)
    draw(ax, frame)
    return figures.figure_png(figure)


def _reliability_png(curve: pl.DataFrame, event: str) -> bytes:
    figure, panels = figures.figure_pair()
    figure.suptitle(f"{parse_archetype(curve['archetype'][0]).label}: {event}")
    plotting.draw_reliability(panels, curve)
    return figures.figure_png(figure)


def _drawn[T](draw: Callable[[T], Figure], fits: T) -> bytes:
    return figures.figure_png(draw(fits))
