"""Scores of finish probabilities: exact functions on arrays, and the metric table of a backtest.

Places count from 1 (the winner). Probabilities are (..., places) and may be padded with zeros beyond the
field. Scores of ensembles of real numbers live in `metrics`.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from calibration_pipeline.metrics import DEFAULT_LEVELS, floored, pit_share
from calibration_pipeline.schemas.frames import FORECASTS, MetricTable
from calibration_pipeline.verification.cases import Cases, backtest_cases, table
from calibration_pipeline.verification.intervals import (
    Estimate,
    clustered_mean,
    clustered_ratio,
    jackknife_interval,
    race_totals,
)

TOP_EVENTS = {"win": 1, "top 5": 5, "top 10": 10}
LOGIT_CLIP = 1e-3
"""Head-to-head probabilities are clipped to [LOGIT_CLIP, 1 - LOGIT_CLIP] before their logit is taken."""
SLOPE_RANGE = (-20.0, 20.0)


def discrete_crps(probability: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the CRPS of finish probabilities, ``sum_k (F(k) - 1{y <= k})**2``; smaller is better.

    The integral of the CRPS is this sum, in places. The ranked probability score is the same sum over
    ``n - 1``, which lies in [0, 1] and compares fields of different size.

    Parameters
    ----------
    probability : array_like
        P(finish = place), (..., places).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    ndarray
        (...), in places.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the places.

    References
    ----------
    Epstein (1969), doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2;
    Gneiting & Raftery (2007), doi:10.1198/016214506000001437, section 4.2.

    Examples
    --------
    >>> float(discrete_crps([0.5, 0.5, 0.0], 1))
    0.25
    """
    p, y = _validated(probability, position)
    happened = np.arange(1, p.shape[-1] + 1) >= y[..., None]
    return np.sum((np.cumsum(p, axis=-1) - happened) ** 2, axis=-1)


def discrete_log_score(probability: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the log probability of the observed place, nats; larger is better.

    Probabilities below `metrics.DENSITY_FLOOR` count as the floor, with a logged warning.

    Parameters
    ----------
    probability : array_like
        P(finish = place), (..., places).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    ndarray
        (...), nats.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the places.

    References
    ----------
    Good (1952), doi:10.1111/j.2517-6161.1952.tb00104.x.

    Examples
    --------
    >>> float(discrete_log_score([0.5, 0.5, 0.0], 1).round(4))
    -0.6931
    """
    p, y = _validated(probability, position)
    at_position = np.take_along_axis(p, y[..., None] - 1, axis=-1)[..., 0]
    with np.errstate(divide="ignore"):
        return floored(np.log(at_position))


def pit_bounds(
    probability: ArrayLike, position: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the randomised PIT, F(y - 1) and F(y), each (...), of finishes y.

    Parameters
    ----------
    probability : array_like
        P(finish = place), (..., places).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    tuple of ndarray
        Low and high.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the places.

    Examples
    --------
    >>> [float(end) for end in pit_bounds([0.25, 0.5, 0.25], 2)]
    [0.25, 0.75]
    """
    p, y = _validated(probability, position)
    high = np.take_along_axis(np.cumsum(p, axis=-1), y[..., None] - 1, axis=-1)[..., 0]
    return high - np.take_along_axis(p, y[..., None] - 1, axis=-1)[..., 0], high


def coverage_probability(probability: ArrayLike, position: ArrayLike, level: float) -> NDArray[np.float64]:
    """Return the exact probability that the randomised PIT falls inside the central interval.

    The PIT is uniform on [F(y - 1), F(y)]. Its mean over cars is the coverage: nominal for a calibrated
    forecast, which no interval of whole places could be.

    Parameters
    ----------
    probability : array_like
        P(finish = place), (..., places).
    position : array_like
        Finish, from 1, (...).
    level : float
        Nominal level, between 0 and 1.

    Returns
    -------
    ndarray
        (...), in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not match, a position lies outside the places or `level` is not between 0 and 1.

    References
    ----------
    Czado, Gneiting & Held (2009), doi:10.1111/j.1541-0420.2009.01191.x, equation 2.

    Examples
    --------
    >>> float(coverage_probability([0.25, 0.25, 0.25, 0.25], 1, 0.8).round(3))
    0.6
    """
    low, high = pit_bounds(probability, position)
    return pit_share(low, high, level)


def head_to_head_slope(probability: NDArray, outcome: NDArray, race: NDArray) -> Estimate | None:
    """Return the slope of the logistic regression of outcomes on logit probability; 1 is best.

    Without an intercept: which car of a pair comes first is arbitrary, and swapping them changes nothing.
    Above 1 the forecast is under-confident, below 1 over-confident. The interval is the race-clustered
    sandwich with the jackknife correction and Student's t.

    Parameters
    ----------
    probability : ndarray
        P(the first car beats the second), (pairs,); clipped to [LOGIT_CLIP, 1 - LOGIT_CLIP].
    outcome : ndarray
        Whether it did, (pairs,).
    race : ndarray
        The race of each pair, (pairs,).

    Returns
    -------
    Estimate or None
        None where there is no slope within `SLOPE_RANGE`: every probability is 1/2, or outcomes are
        separated.

    References
    ----------
    Cox (1958), doi:10.1093/biomet/45.3-4.562; Bell & McCaffrey (2002), Survey Methodology 28(2).
    """
    x = logit(np.clip(probability, LOGIT_CLIP, 1 - LOGIT_CLIP))

    def score(slope: float) -> float:
        return float(x @ (outcome - expit(slope * x)))

    if not x.any() or score(SLOPE_RANGE[0]) <= 0 or score(SLOPE_RANGE[1]) >= 0:
        return None
    slope = float(brentq(score, *SLOPE_RANGE, xtol=1e-10))
    mean = expit(slope * x)
    residual, weight = race_totals(race, x * (outcome - mean), x**2 * mean * (1 - mean))
    lower, upper = jackknife_interval(slope, residual, weight)
    return Estimate(slope, lower, upper, residual.size, x.size)


def score_backtest(backtest: xr.Dataset) -> pl.DataFrame:
    """Score raw and recalibrated forecasts of a backtest beside two baselines.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; without races the table is empty.

    Returns
    -------
    polars.DataFrame
        `MetricTable`. `crps_skill` and `log_gain` compare with climatology on the same cars. Intervals are
        race-clustered (`intervals.clustered_ratio`).

    Raises
    ------
    ValueError
        If there is more than one archetype, a finish lies outside the field, or a probability of a car is not
        in [0, 1].
    """
    cases = backtest_cases(backtest)
    keys = {"archetype": cases.archetype, "n_races": cases.n_races, "n_cars": cases.race.size}
    rows = [
        {
            **keys,
            "forecast": forecast,
            "quantity": quantity,
            "level": level,
            "estimate": estimate.estimate,
            "lower": estimate.lower,
            "upper": estimate.upper,
            "orientation": orientation,
            "estimator": estimator,
        }
        for forecast in FORECASTS
        if cases.race.size
        for quantity, level, estimate, orientation, estimator in _forecast_rows(cases, forecast)
    ]
    return table(rows, MetricTable)


def _forecast_rows(cases: Cases, forecast: str) -> Iterator[tuple[str, str, Estimate, str, str]]:
    probability, position, race = cases.probability[forecast], cases.position, cases.race
    smaller, larger, nominal = "smaller is better", "larger is better", "nominal is best"
    crps = discrete_crps(probability, position)
    log_score = discrete_log_score(probability, position)
    rps = crps / np.maximum(cases.field_size - 1, 1)
    yield "crps", "", clustered_mean(crps, race), smaller, "sum over places of (F - 1{y <= k})^2, places"
    yield "log_score", "", clustered_mean(log_score, race), larger, "log probability of the finish, nats"
    yield "rps", "", clustered_mean(rps, race), smaller, "crps over (field size - 1)"
    for level in DEFAULT_LEVELS:
        inside = clustered_mean(coverage_probability(probability, position, level), race)
        yield "coverage", f"{100 * level:.0f} %", inside, nominal, "P(randomised PIT in central interval)"
    for event, top in TOP_EVENTS.items():
        squared = (probability[:, :top].sum(axis=1) - (position <= top)) ** 2
        yield "brier", event, clustered_mean(squared, race), smaller, "mean over cars of (p - outcome)^2"

    pairs = cases.head_to_head[forecast]
    if pairs.size:
        brier = clustered_mean((pairs - cases.pair_outcome) ** 2, cases.pair_race)
        yield "brier", "head to head", brier, smaller, "mean over pairs of cars of (p - outcome)^2"
        slope = head_to_head_slope(pairs, cases.pair_outcome, cases.pair_race)
        if slope is not None:
            yield "head_to_head_slope", "", slope, nominal, "logistic regression on logit p, no intercept"

    if forecast != "climatology":
        uniform = cases.probability["climatology"]
        reference = discrete_crps(uniform, position)
        skill = clustered_ratio(reference - crps, reference, race)
        yield "crps_skill", "", skill, larger, "1 - crps / crps of climatology"
        gain = clustered_mean(log_score - discrete_log_score(uniform, position), race)
        yield "log_gain", "", gain, larger, "log score - log score of climatology, nats a car"


def _validated(probability: ArrayLike, position: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(position).astype(np.int64)
    if p.ndim == 0 or p.shape[:-1] != y.shape:
        raise ValueError(
            f"Argument probability must have shape (..., places) and position (...), got {p.shape} "
            f"and {y.shape}."
        )
    if y.size and (y.min() < 1 or y.max() > p.shape[-1]):
        raise ValueError(f"Argument position must lie in 1..{p.shape[-1]}, got {y.min()} to {y.max()}.")
    return p, y
