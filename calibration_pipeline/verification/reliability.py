"""Reliability of probabilities: binary events and their outcomes, calibration curves, bins, PIT.

The isotonic fits of the curves are in `corp`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.markets import HEAD_TO_HEAD, TOP_EVENTS
from calibration_pipeline.schemas.frames import CalibrationCurves
from calibration_pipeline.stats.intervals import CONFIDENCE, clustered_share
from calibration_pipeline.verification.cases import (
    JUDGED,
    Cases,
    backtest_cases,
    backtest_scenarios,
    car_pairs,
    table,
)
from calibration_pipeline.verification.corp import Corp, count_successes, curve_rows, fit_corp, refit_corp
from calibration_pipeline.verification.event_cases import EventCases
from calibration_pipeline.verification.scores import pit_bounds

N_BINS = 10
N_CONSISTENT = 200
"""Number of outcomes drawn from the forecast for the consistency band."""
PIT_GRID = np.linspace(0.0, 1.0, 101)
N_REPLICATES = 2000
PIT_SCHEMA = {
    "archetype": pl.String,
    "forecast": pl.String,
    "u": pl.Float64,
    "ecdf": pl.Float64,
    "lower": pl.Float64,
    "upper": pl.Float64,
}


@dataclass(frozen=True)
class BinaryEvent:
    """An event that happens or not to each of its cases, with its forecast.

    Head to head counts each pair in both orders, so that nothing depends on which car is named first.

    Attributes
    ----------
    name : str
        'win', 'top 5', 'top 10' or 'head to head'.
    forecast : ndarray
        Predicted probability, (cases,).
    outcome : ndarray
        Whether it happened, (cases,) bool.
    race : ndarray
        Index of each case's race, (cases,).
    """

    name: str
    forecast: NDArray[np.float64]
    outcome: NDArray[np.bool_]
    race: NDArray[np.int64]


def calibration_curves(
    backtest: xr.Dataset, ensembles: Mapping[str, xr.Dataset] | None = None, seed: int = 0
) -> pl.DataFrame:
    """Return calibration curves of binary events by isotonic regression (CORP).

    Isotonic regression estimates how often the event happens at each forecast, without a choice of bins. The
    band is where the curve of a calibrated forecast lies: the central 95 % of the same regression over
    outcomes drawn from the ensemble. A draw takes one scenario of each race, which keeps the dependence
    between cars.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; without races the table is empty.
    ensembles : mapping, optional
        'raw' and 'recalibrated' to the `ScenarioEnsemble` that the probabilities come from. Without them
        there is no band.
    seed : int
        Seed of the draws.

    Returns
    -------
    polars.DataFrame
        `CalibrationCurves`, a row a block of the regression.

    Raises
    ------
    ValueError
        If `backtest` cannot be read (see `cases.backtest_cases`), or an ensemble is not of its races.

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), doi:10.1073/pnas.2016191118.
    """
    cases = backtest_cases(backtest)
    scenarios = backtest_scenarios(backtest, ensembles) if ensembles is not None else {}
    rows: list[dict[str, object]] = []
    for forecast in JUDGED if cases.race.size else ():
        drawn = draw_outcomes(scenarios[forecast], seed) if forecast in scenarios else None
        for event in binary_events(cases, forecast):
            keys = {"archetype": cases.archetype, "forecast": forecast, "event": event.name}
            corp = fit_corp(event.forecast, event.outcome)
            refitted = (
                None if drawn is None else refit_corp(corp, consistent_successes(cases, event, corp, drawn))
            )
            rows += [keys | row for row in curve_rows(corp, event.race, refitted)]
    return table(rows, CalibrationCurves)


def event_curves(archetype: str, events: Iterable[EventCases]) -> pl.DataFrame:
    """Return calibration curves of event probabilities by isotonic regression (CORP), without a band.

    Parameters
    ----------
    archetype : str
    events : iterable of EventCases
        One a market.

    Returns
    -------
    polars.DataFrame
        `CalibrationCurves`, as from `calibration_curves`.
    """
    markets = list(events)
    rows = [
        {"archetype": archetype, "forecast": forecast, "event": own.market} | row
        for forecast in JUDGED
        for own in markets
        for row in curve_rows(fit_corp(own.predicted[forecast], own.inside), own.race)
    ]
    return table(rows, CalibrationCurves)


def binary_events(cases: Cases, forecast: str) -> Iterator[BinaryEvent]:
    """Yield the events for which a forecast of a backtest has probabilities, over races that have cases.

    As in `event_cases.EventCases`, the cases of a win or a top k are the cars of races with more cars than
    winners.
    """
    if forecast in cases.probability:
        for name, top in TOP_EVENTS.items():
            used = cases.field_size > top
            if used.any():
                predicted = np.minimum(cases.probability[forecast][used, :top].sum(axis=1), 1.0)
                yield BinaryEvent(name, predicted, cases.position[used] <= top, cases.race[used])
    if cases.pair_race.size:
        pairs, won = cases.head_to_head[forecast], cases.pair_outcome
        both = np.concatenate([pairs, 1 - pairs]), np.concatenate([won, ~won])
        yield BinaryEvent(HEAD_TO_HEAD, *both, np.tile(cases.pair_race, 2))


def draw_outcomes(scenarios: NDArray, seed: int) -> NDArray[np.integer]:
    """Draw finishes under the forecast: one scenario of each race, (race, driver, replicate).

    Parameters
    ----------
    scenarios : ndarray
        Finishes, (race, scenario, driver).
    seed : int
        Seed of the draws.
    """
    n_races, n_scenarios, _ = scenarios.shape
    chosen = np.random.default_rng(seed).integers(n_scenarios, size=(N_CONSISTENT, n_races))
    return np.ascontiguousarray(np.moveaxis(scenarios[np.arange(n_races), chosen], 0, -1))


def consistent_successes(cases: Cases, event: BinaryEvent, corp: Corp, drawn: NDArray) -> NDArray[np.int32]:
    """Count the cases in which an event happens in drawn outcomes, by distinct forecast.

    Parameters
    ----------
    cases : Cases
        The backtest's.
    event : BinaryEvent
        An event of the backtest.
    corp : Corp
        Fit of the event.
    drawn : ndarray
        Finishes, (race, driver, replicate).

    Returns
    -------
    ndarray
        (replicate, level).
    """
    if event.name == HEAD_TO_HEAD:
        race, first, second = car_pairs(cases.mask)
        won = drawn[race, first] < drawn[race, second]
        return count_successes(corp, np.concatenate([won, ~won]))
    top = TOP_EVENTS[event.name]
    return count_successes(corp, drawn[cases.mask][cases.field_size > top] <= top)


def pit_ecdf(backtest: xr.Dataset, seed: int = 0) -> pl.DataFrame:
    """Return the distribution function of the randomised PIT with a simultaneous 95 % band.

    The PIT of a finish y is uniform on [F(y - 1), F(y)], so its expected distribution function is
    piecewise linear and no random draw is needed. Calibrated forecasts have the diagonal. The band holds over
    all u at once and has one width, the 95 % quantile of the largest deviation in a multiplier bootstrap over
    races (the cars of a race are one cluster), studentised by the root mean square error over u. (Studentised
    at each u, a band over 12 races holds only 76 % of the time: few cars decide the ends.)

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; without races the table is empty.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    polars.DataFrame
        archetype, forecast, u (0 to 1), ecdf, and the band around it lower, upper (null with fewer than
        two races).

    Raises
    ------
    ValueError
        If `backtest` cannot be read (see `cases.backtest_cases`).

    References
    ----------
    Czado, Gneiting & Held (2009), doi:10.1111/j.1541-0420.2009.01191.x, equation 2; the bootstrap:
    Chernozhukov, Chetverikov & Kato (2013), doi:10.1214/13-AOS1161.
    """
    cases = backtest_cases(backtest)
    frames = []
    for forecast in JUDGED if cases.race.size else ():
        low, high = pit_bounds(cases.probability[forecast], cases.position)
        width = np.maximum(high - low, 1e-300)
        cdf = np.clip((PIT_GRID - low[:, None]) / width[:, None], 0.0, 1.0)
        cdf[:, -1] = 1.0
        ecdf = cdf.mean(axis=0)
        lower, upper = _band(cdf, cases.race, np.random.default_rng(seed))
        frames.append(
            pl.DataFrame(
                {
                    "archetype": [cases.archetype] * PIT_GRID.size,
                    "forecast": [forecast] * PIT_GRID.size,
                    "u": PIT_GRID,
                    "ecdf": ecdf,
                    "lower": lower,
                    "upper": upper,
                },
                schema=PIT_SCHEMA,
            )
        )
    return pl.concat(frames) if frames else pl.DataFrame(schema=PIT_SCHEMA)


def reliability_bins(predicted: NDArray, outcome: NDArray, race: NDArray) -> list[dict[str, object]]:
    """Return predicted probability and observed share in bins of about equal number, ties pooled.

    This is for arrays given by hand; backtests use `calibration_curves`.

    Parameters
    ----------
    predicted : ndarray
        Probabilities, (n_cases,).
    outcome : ndarray
        Whether the event happened, (n_cases,), bool.
    race : ndarray
        Index of each case's race, (n_cases,), int from 0; races are the independent units.

    Returns
    -------
    list of dict
        A bin each, in ascending order: predicted, observed, lower, upper, n_cases, n_races.
    """
    edges = np.quantile(predicted, np.arange(1, N_BINS) / N_BINS, method="inverted_cdf")
    _, bins = np.unique(np.searchsorted(edges, predicted, side="left"), return_inverse=True)
    rows: list[dict[str, object]] = []
    for index in range(bins.max() + 1):
        inside = bins == index
        successes = np.bincount(race[inside], weights=outcome[inside])
        share = clustered_share(successes, np.bincount(race[inside]))
        rows.append(
            {
                "predicted": float(np.clip(predicted[inside].mean(), 0.0, 1.0)),
                "observed": share.estimate,
                "lower": share.lower,
                "upper": share.upper,
                "n_cases": share.n_cases,
                "n_races": share.n_races,
            }
        )
    return rows


def _band(
    cdf: NDArray, race: NDArray, rng: np.random.Generator
) -> tuple[list[float | None] | NDArray, list[float | None] | NDArray]:
    """Return the simultaneous band of the mean of `cdf` (cars, grid) over races."""
    races, index = np.unique(race, return_inverse=True)
    ecdf = cdf.mean(axis=0)
    if races.size < 2:
        return [None] * ecdf.size, [None] * ecdf.size
    residual = np.zeros((races.size, ecdf.size))
    np.add.at(residual, index, cdf - ecdf)
    residual /= cdf.shape[0] / races.size
    error = _rms(residual.std(axis=0, ddof=1)) / np.sqrt(races.size)
    if error == 0:
        return ecdf, ecdf
    multiplier = rng.standard_normal((N_REPLICATES, races.size))
    mean = multiplier @ residual / races.size
    square = multiplier**2 @ residual**2 / races.size
    replicate_error = _rms(np.sqrt(np.maximum(square - mean**2, 0.0) / (races.size - 1)))
    half = np.quantile(np.abs(mean).max(axis=1) / replicate_error, CONFIDENCE) * error
    return np.clip(ecdf - half, 0.0, 1.0), np.clip(ecdf + half, 0.0, 1.0)


def _rms(values: NDArray) -> NDArray[np.float64]:
    return np.sqrt(np.mean(values**2, axis=-1))
