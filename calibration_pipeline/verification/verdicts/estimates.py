"""Estimates on which verdicts rest: by market and forecast, with race-clustered intervals.

Each market has a calibration estimate (a slope, the coverage, ratios), the skill over climatology, and the
gain of recalibration, a paired difference of one proper score. Joint events have their own table.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.events.independence import log_probabilities
from calibration_pipeline.markets import (
    EVENT_MARKETS,
    FINISH,
    HEAD_TO_HEAD,
    HOW_MANY_RETIRE,
    JOINT_EVENTS,
    WHO_RETIRES,
)
from calibration_pipeline.metrics import DEFAULT_LEVELS
from calibration_pipeline.stats.intervals import Estimate, clustered_mean, clustered_ratio
from calibration_pipeline.verification import scores
from calibration_pipeline.verification.cases import JUDGED, Cases, backtest_cases
from calibration_pipeline.verification.event_cases import EventCases, position_events
from calibration_pipeline.verification.verdicts.retirements import Retirements, read_retirements
from calibration_pipeline.verification.verdicts.slopes import (
    head_to_head_slope,
    retirement_slope,
    top_slope,
    win_slope,
)

GAIN_SCORES = {
    **dict.fromkeys(EVENT_MARKETS, "Brier score"),
    "win": "log score, nats a race",
    HEAD_TO_HEAD: "Brier score",
    FINISH: "CRPS, positions",
    WHO_RETIRES: "Brier score",
    HOW_MANY_RETIRE: "log score, nats a race",
    JOINT_EVENTS: "log score, nats a race and event",
}
"""Market to the score whose paired difference, recalibrated against raw, is the gain; positive is better."""
PROBABILITY_CLIP = 1e-6


class MarketEstimate(NamedTuple):
    """An estimate of a market: quantity is slope, skill, coverage, number ratio, spread ratio or gain."""

    market: str
    forecast: str
    quantity: str
    level: str
    estimate: Estimate


def market_estimates(
    backtest: xr.Dataset, ensembles: Mapping[str, xr.Dataset], results: pl.DataFrame
) -> list[MarketEstimate]:
    """Estimate calibration, skill and the gain of recalibration of every market but joint events.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest` of one archetype, at least one race.
    ensembles : mapping
        'raw' and 'recalibrated' to the `ScenarioEnsemble` of the same races; empty where there are no
        scenarios.
    results : polars.DataFrame
        Results of the archetype, in order of time (see `retirements.read_retirements`).

    Returns
    -------
    list of MarketEstimate
        Quantities that cannot be estimated are absent.
    """
    cases = backtest_cases(backtest)
    retirements = read_retirements(ensembles, results) if ensembles else None
    return [
        *event_estimates(position_events(cases)),
        *_head_to_head_estimates(cases),
        *_finish_estimates(cases),
        *(_retirement_estimates(retirements) if retirements is not None else ()),
    ]


def event_estimates(events: Iterable[EventCases]) -> Iterator[MarketEstimate]:
    """Yield calibration, skill and the gain of recalibration of wins and finishes in the top n.

    Parameters
    ----------
    events : iterable of EventCases
        One a market, at least one race each.
    """
    for market, probability, inside, race in events:
        predicted = {name: _clipped(values) for name, values in probability.items()}
        for forecast in JUDGED:
            slope = (win_slope if market == "win" else top_slope)(predicted[forecast], inside, race)
            yield from _named(market, forecast, "slope", slope)
        yield from _brier_skills(market, predicted, inside, race)
        if market == "win":
            log_share = {name: np.log(_race_shares(predicted[name], race)) for name in JUDGED}
            gain = log_share["recalibrated"] - log_share["raw"]
            yield _gain(market, gain[inside], race[inside])
        else:
            yield _brier_gain(market, predicted, inside, race)


def _race_shares(probability: NDArray, race: NDArray) -> NDArray[np.float64]:
    """Return the probabilities of a market with one winner over the sum of their race, which may not be 1."""
    _, index = np.unique(race, return_inverse=True)
    return probability / np.bincount(index, probability)[index]


def _head_to_head_estimates(cases: Cases) -> Iterator[MarketEstimate]:
    if not cases.pair_race.size:
        return
    for forecast in JUDGED:
        slope = head_to_head_slope(cases.head_to_head[forecast], cases.pair_outcome, cases.pair_race)
        yield from _named(HEAD_TO_HEAD, forecast, "slope", slope)
    yield from _brier_skills(HEAD_TO_HEAD, cases.head_to_head, cases.pair_outcome, cases.pair_race)
    yield _brier_gain(HEAD_TO_HEAD, cases.head_to_head, cases.pair_outcome, cases.pair_race)


def _finish_estimates(cases: Cases) -> Iterator[MarketEstimate]:
    crps = {
        name: scores.discrete_crps(cases.probability[name], cases.position)
        for name in (*JUDGED, "climatology")
    }
    for forecast in JUDGED:
        for level in DEFAULT_LEVELS:
            inside = scores.coverage_probability(cases.probability[forecast], cases.position, level)
            coverage = clustered_mean(inside, cases.race)
            yield MarketEstimate(FINISH, forecast, "coverage", f"{100 * level:.0f} %", coverage)
    yield from _skills(FINISH, crps, cases.race)
    yield _gain(FINISH, crps["raw"] - crps["recalibrated"], cases.race)


def _retirement_estimates(retirements: Retirements) -> Iterator[MarketEstimate]:
    race, retired = retirements.race, retirements.retired
    for forecast in JUDGED:
        slope = retirement_slope(retirements.probability[forecast], retired, race)
        yield from _named(WHO_RETIRES, forecast, "slope", slope)
    predicted = {**retirements.probability, "climatology": retirements.share}
    yield from _brier_skills(WHO_RETIRES, predicted, retired, race)
    yield _brier_gain(WHO_RETIRES, predicted, retired, race)

    observed, races = retirements.observed, np.arange(retirements.observed.size)
    crps = {"climatology": scores.discrete_crps(retirements.distribution, observed + 1)}
    log_score = {}
    for forecast in JUDGED:
        number = retirements.numbers[forecast]
        n_scenarios, mean = number.shape[1], number.mean(axis=1)
        if mean.any():
            ratio = clustered_ratio(observed, mean, races)
            yield MarketEstimate(HOW_MANY_RETIRE, forecast, "number ratio", "", ratio)
        yield from _named(HOW_MANY_RETIRE, forecast, "spread ratio", spread_ratio(observed, number))
        shares = np.stack(
            [np.bincount(row, minlength=retirements.distribution.shape[1]) / n_scenarios for row in number]
        )
        crps[forecast] = scores.discrete_crps(shares, observed + 1)
        log_p = log_probabilities(number, retirements.field_size, n_scenarios)
        log_score[forecast] = log_p[races, observed]
    yield from _skills(HOW_MANY_RETIRE, crps, races)
    yield _gain(HOW_MANY_RETIRE, log_score["recalibrated"] - log_score["raw"], races)


def spread_ratio(observed: NDArray, scenarios: NDArray) -> Estimate | None:
    """Return the root mean square error of the ensemble mean over the predicted deviation; 1 is calibrated.

    Above 1 the forecast is over-confident or biased. The predicted variance contains the Monte-Carlo error of
    the mean.

    Parameters
    ----------
    observed : ndarray
        Observed number, (race,).
    scenarios : ndarray
        Number in each scenario, (race, scenario), at least 2 scenarios.

    Returns
    -------
    Estimate or None
        None where the number is certain in every race.

    References
    ----------
    Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1, equation 15.
    """
    variance = scenarios.var(axis=1, ddof=1) * (1 + 1 / scenarios.shape[1])
    if not variance.any():
        return None
    e = clustered_ratio((observed - scenarios.mean(axis=1)) ** 2, variance, np.arange(observed.size))
    lower, upper = (
        None if bound is None else float(np.sqrt(max(bound, 0.0))) for bound in (e.lower, e.upper)
    )
    return Estimate(float(np.sqrt(e.estimate)), lower, upper, e.n_races, e.n_cases, e.error_ratio)


def _clipped(probability: NDArray) -> NDArray[np.float64]:
    return np.clip(probability, PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)


def _brier_skills(
    market: str, predicted: Mapping[str, NDArray], outcome: NDArray, race: NDArray
) -> Iterator[MarketEstimate]:
    brier = {name: (predicted[name] - outcome) ** 2 for name in (*JUDGED, "climatology")}
    yield from _skills(market, brier, race)


def _skills(market: str, loss: Mapping[str, NDArray], race: NDArray) -> Iterator[MarketEstimate]:
    """Yield 1 - loss / loss of climatology, ratio of totals, where climatology is not certain and right."""
    reference = loss["climatology"]
    if reference.any():
        for forecast in JUDGED:
            skill = clustered_ratio(reference - loss[forecast], reference, race)
            yield MarketEstimate(market, forecast, "skill", "", skill)


def _brier_gain(
    market: str, predicted: Mapping[str, NDArray], outcome: NDArray, race: NDArray
) -> MarketEstimate:
    raw, recalibrated = ((predicted[name] - outcome) ** 2 for name in JUDGED)
    return _gain(market, raw - recalibrated, race)


def _gain(market: str, difference: NDArray, race: NDArray) -> MarketEstimate:
    return MarketEstimate(market, "recalibrated", "gain", "", clustered_mean(difference, race))


def _named(market: str, forecast: str, quantity: str, estimate: Estimate | None) -> Iterator[MarketEstimate]:
    if estimate is not None:
        yield MarketEstimate(market, forecast, quantity, "", estimate)
