"""Reliability of probabilities: calibration curves of events, and the PIT's distribution."""

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.schemas.frames import CalibrationCurves
from calibration_pipeline.verification.cases import JUDGED, Cases, backtest_cases, table
from calibration_pipeline.verification.intervals import CONFIDENCE, clustered_share
from calibration_pipeline.verification.scores import TOP_EVENTS, pit_bounds

N_BINS = 10
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


def calibration_curves(backtest: xr.Dataset) -> pl.DataFrame:
    """Hold predicted probabilities of binary events against how often they happened.

    Cases fall into bins of about equal number; equal probabilities always share a bin. Head to head counts
    each pair in both orders, so that the curve does not depend on which car is named first.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; without races the table is empty.

    Returns
    -------
    polars.DataFrame
        `CalibrationCurves`, bins in ascending order within forecast and event.

    Raises
    ------
    ValueError
        If `backtest` cannot be read (see `cases.backtest_cases`).
    """
    cases = backtest_cases(backtest)
    rows: list[dict[str, object]] = []
    for forecast in JUDGED if cases.race.size else ():
        for event, predicted, outcome, race in _events(cases, forecast):
            keys = {"archetype": cases.archetype, "forecast": forecast, "event": event}
            rows += [keys | row for row in reliability_bins(predicted, outcome, race)]
    return table(rows, CalibrationCurves)


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


def _events(cases: Cases, forecast: str) -> list[tuple[str, NDArray, NDArray, NDArray]]:
    probability = cases.probability[forecast]
    events = [
        (event, np.minimum(probability[:, :top].sum(axis=1), 1.0), cases.position <= top, cases.race)
        for event, top in TOP_EVENTS.items()
    ]
    pairs = cases.head_to_head[forecast]
    if pairs.size:
        both = np.concatenate([pairs, 1 - pairs])
        outcome = np.concatenate([cases.pair_outcome, ~cases.pair_outcome])
        events.append(("head to head", both, outcome, np.tile(cases.pair_race, 2)))
    return events


def reliability_bins(predicted: NDArray, outcome: NDArray, race: NDArray) -> list[dict[str, object]]:
    """Return predicted probability and observed share by quantile bin, ties pooled.

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
