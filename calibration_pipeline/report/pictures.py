"""Figures of the report, with alternative texts and captions."""

from collections.abc import Callable, Mapping
from functools import partial

import polars as pl
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.markets import EVENT_MARKETS, RACE_MARKETS
from calibration_pipeline.plots import charts, figures, posteriors
from calibration_pipeline.plots.leaderboard import leaderboard_figure
from calibration_pipeline.plots.monitoring import draw_evidence, draw_rank_histograms
from calibration_pipeline.plots.state import state_figure
from calibration_pipeline.report.blocks import Picture
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.monitoring import rank_histograms

EVENTS = {
    **{market: f"finishes in the {market}" for market in EVENT_MARKETS},
    "win": "wins",
    "head to head": "beats another car",
}
"""Event of a reliability diagram to the verb of its caption."""
FEWEST_CHECKED = 5
"""Least number of races for predictive checks."""
RANKS_HEIGHT = figures.rows_height(len(RACE_MARKETS), 0.6)


def reliability_pictures(curves: pl.DataFrame) -> list[Picture]:
    """Return the reliability diagrams of one archetype, raw beside recalibrated, one picture an event.

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
            has_band = curve["lower"].null_count() < curve.height
            band = "Steps inside the grey band agree with a calibrated forecast. " if has_band else ""
            pictures.append(
                Picture(
                    f"{archetype}-curve-{event.replace(' ', '-')}",
                    f"Reliability at {archetype.label}, {event}: raw and recalibrated side by side.",
                    f"Share of cases in which a car {happens}, against the forecast probability. {band}"
                    "Flatter than the line: too sure; steeper: too cautious.",
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
    monitoring: pl.DataFrame,
    fit: xr.DataTree,
) -> dict[str, bytes]:
    """Return the report's figures of one archetype as PNG images by key.

    Parameters
    ----------
    archetype : Archetype
        Archetype of the figures.
    metrics, joint_events, curves, pit, monitoring : polars.DataFrame
        As in `ReportContent`, rows of this archetype.
    fit : xarray.DataTree
        `CalibrationPosterior`.
    """
    joint_events = joint_events.filter(era=ALL_RACES)
    pictures = [
        *reliability_pictures(curves),
        *track_pictures(archetype, metrics, pit),
        *([] if joint_events.is_empty() else [joint_event_picture(joint_events)]),
        *([] if monitoring.is_empty() else [evidence_picture(monitoring), rank_picture(monitoring)]),
        *diagnostic_pictures(fit, archetype),
    ]
    return {picture.key: picture.draw() for picture in pictures}


def track_pictures(archetype: Archetype, metrics: pl.DataFrame, pit: pl.DataFrame) -> list[Picture]:
    """Return the coverage and PIT figures of one archetype, where there are data.

    Parameters
    ----------
    archetype : Archetype
        Archetype of the figures.
    metrics, pit : polars.DataFrame
        As in `ReportContent`, rows of this archetype.
    """
    judged = metrics.filter(pl.col("forecast").is_in(JUDGED))
    pictures = [
        _picture(
            f"{archetype}-pit",
            f"PIT at {archetype.label}: difference from the uniform distribution, with a 95 % band.",
            "A calibrated forecast's band, drawn around its curve, contains the 0 line. Above 0 on the left "
            "and below 0 on the right, too many cars finish outside the likely range.",
            charts.draw_pit,
            pit,
        ),
        _picture(
            f"{archetype}-coverage",
            f"Coverage at {archetype.label}: share of finishes inside the 50, 80 and 95 % intervals.",
            "Points on the bar are calibrated. Below it the forecast is too sure, above it too cautious.",
            charts.draw_coverage,
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
        "The line is the 95 % interval of the observed share; a forecast off the line disagrees with the "
        "results. One event in twenty disagrees by chance, so the verdict judges all events together. "
        "Grey, with *: almost no information about dependence.",
        partial(
            _png,
            charts.draw_joint_events,
            joint_events,
            figures.rows_height(joint_events["event"].n_unique()),
        ),
    )


def evidence_picture(monitoring: pl.DataFrame) -> Picture:
    """Return the chart of the evidence against calibration over time.

    Parameters
    ----------
    monitoring : polars.DataFrame
        `CalibrationMonitoring` rows of one archetype, at least one.
    """
    archetype = parse_archetype(monitoring["archetype"][0])
    return Picture(
        f"{archetype}-evidence",
        f"Evidence against calibration at {archetype.label}: e-values after each race.",
        "Each season starts again at 1, dotted lines run since the first scored race. Above the grey line is "
        "an alarm; a calibrated forecast stays below it in at least 95 of 100 seasons.",
        partial(_png, draw_evidence, monitoring),
    )


def rank_picture(monitoring: pl.DataFrame) -> Picture:
    """Return the rank histograms of all markets.

    Parameters
    ----------
    monitoring : polars.DataFrame
        `CalibrationMonitoring` rows of one archetype, at least one.
    """
    archetype = parse_archetype(monitoring["archetype"][0])
    return Picture(
        f"{archetype}-rank-histograms",
        f"Rank histograms at {archetype.label}: each result's rank among the scenarios of its race.",
        "All ranks are equally common if the forecast is calibrated. Many small ranks: too many upsets, the "
        "forecast is too sure; at “how many retire”, fewer cars retire than forecast.",
        partial(_png, draw_rank_histograms, rank_histograms(monitoring), RANKS_HEIGHT),
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
        "Calibration slope of each archetype by season, with 95 % intervals.",
        "1 is calibrated. A jump from one season to the next means that racing changed, for example with a "
        "new car. The last season is the next one.",
        partial(_png, charts.draw_slope_by_season, slopes),
    )


def state_pictures(states: pl.DataFrame) -> list[Picture]:
    """Return the charts of the calibration slope before every race, and of the front tilt where it is known.

    Parameters
    ----------
    states : polars.DataFrame
        As in `ReportContent`; one chart a market where there is the column market.
    """
    if "market" in states.columns:
        by_market = states.partition_by("market", as_dict=True, maintain_order=True)
        return [_sharpness_picture(own, str(market)) for (market,), own in by_market.items()]
    sharpness = _sharpness_picture(states)
    if "tilt" not in states.columns:
        return [sharpness]
    front = Picture(
        "front-tilt-over-time",
        "Factor on the sharpness of the front group before every race, with 95 % intervals.",
        "1 is calibrated; below 1 the forecasts were too sure of the order among the leading cars.",
        partial(_drawn, partial(state_figure, quantity="tilt"), states),
    )
    return [sharpness, front]


def _sharpness_picture(states: pl.DataFrame, market: str = "") -> Picture:
    of_market = f", {market}" if market else ""
    return Picture(
        f"sharpness-over-time{market and '-' + market.replace(' ', '-')}",
        f"Calibration slope of each archetype before every race{of_market}, with 95 % intervals.",
        f"{f'{market.capitalize()}: ' if market else ''}1 is calibrated; below 1 the forecasts were too "
        "sure. Each race moves the slopes of all archetypes. "
        "Dotted lines separate seasons. The recalibrated forecast of a race uses the slope before it.",
        partial(_drawn, partial(state_figure, quantity="slope"), states),
    )


def forest_picture(fits: Mapping[str, xr.DataTree]) -> Picture:
    """Return ArviZ's forest of slopes by archetype and season.

    Parameters
    ----------
    fits : mapping of str to xarray.DataTree
        `CalibrationPosterior` by archetype.
    """
    return Picture(
        "slope-forest",
        "Forest plot of the calibration slope by archetype and season, with 50 and 95 % intervals.",
        "Dots are posterior medians, thick lines 50 % intervals, thin lines 95 % intervals. The line at 1 is "
        "calibrated.",
        partial(_drawn, posteriors.draw_slope_forest, fits),
    )


def diagnostic_pictures(fit: xr.DataTree, archetype: Archetype) -> list[Picture]:
    """Return the pictures of one fit: chains, and predictive checks where there are enough races.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.
    archetype : Archetype
        Archetype of the figures.
    """

    def picture(
        name: str, subject: str, caption: str, draw: Callable[[xr.DataTree], Figure], tree: xr.DataTree
    ) -> Picture:
        return Picture(
            f"{archetype}-{name}", f"{subject}: {archetype.label}.", caption, partial(_drawn, draw, tree)
        )

    chains = [
        picture(
            "ranks",
            "Posterior and rank plots of every chain",
            "Left, the posterior of every chain: they should agree. Right, the ranks of its draws, thinned "
            "to near independence: the curves should stay together. A p-value below α means that they "
            "differ.",
            posteriors.draw_ranks,
            fit,
        ),
        picture(
            "energy",
            "Energy plot of the sampler",
            "Both distributions should overlap. Left, a chain's BFMI should lie right of the broken line.",
            posteriors.draw_energy,
            fit,
        ),
    ]
    if fit["observed_data"].sizes["race"] < FEWEST_CHECKED:
        return chains
    races = posteriors.checkable(fit)
    return [
        picture(
            "ppc-dist",
            "Posterior predictive distribution of the rank correlation",
            "Rank correlation of forecast order and finish, over races: the strong line is observed, "
            "the thin blue lines are predicted by the fit.",
            posteriors.draw_predictive_distribution,
            races,
        ),
        picture(
            "ppc-pit",
            "Posterior predictive and leave-one-out PIT of the rank correlation",
            "The curves stay near 0 where the fit describes the races; for the leave-one-out curve each race "
            "is predicted by the fit to all others. A p-value below α means that the fit does not.",
            posteriors.draw_predictive_pit,
            races,
        ),
        picture(
            "ppc-pava",
            "Isotonic calibration of many incidents in a race",
            "Predicted probability that a race has more incidents than the median race, against the observed "
            "share. The line should follow the diagonal within the band.",
            posteriors.draw_predictive_pava,
            races,
        ),
        *chains,
    ]


def leaderboard_picture(leaderboard: pl.DataFrame) -> Picture:
    """Return the chart of the forecasters' gains over the network by market.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard` rows of one archetype, or of all archetypes.
    """
    return Picture(
        "leaderboard",
        "Gain over the network of every forecaster, market by market, raw and recalibrated.",
        "Right of the line a forecaster is better than the network on the races of both; lines are 95 % "
        "intervals. Where an interval holds 0, that market shows no difference.",
        partial(_drawn, leaderboard_figure, leaderboard),
    )


def forecast_picture(forecast: pl.DataFrame, title: str) -> Picture:
    """Return the chart of every car's probabilities in the next race.

    Parameters
    ----------
    forecast : polars.DataFrame
        driver, win, top5, top10.
    title : str
        Name of the race.
    """
    return Picture(
        "next-race",
        f"Chances of a win, a top 5 and a top 10 of every driver: {title}",
        "Issued in the same way as the forecasts that were judged above.",
        partial(_png, charts.draw_finish_distribution, forecast, figures.rows_height(len(forecast), 0.24)),
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
    figure, panels = figures.figure_pair(f"{parse_archetype(curve['archetype'][0]).label}: {event}")
    charts.draw_reliability(panels, curve)
    return figures.figure_png(figure)


def _drawn[T](draw: Callable[[T], Figure], shown: T) -> bytes:
    return figures.figure_png(draw(shown))
