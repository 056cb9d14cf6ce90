"""Table of a backtest's scores: quantities, references, estimators and intervals.

The scores themselves are functions on arrays, in `scores`, `multivariate` and `corp`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.markets import EVENT_MARKETS, HEAD_TO_HEAD
from calibration_pipeline.metrics import DEFAULT_LEVELS
from calibration_pipeline.schemas.frames import FORECASTS, MetricTable
from calibration_pipeline.stats.intervals import CONFIDENCE, Estimate, clustered_mean, clustered_ratio
from calibration_pipeline.verification import scores
from calibration_pipeline.verification.cases import (
    JUDGED,
    Cases,
    backtest_cases,
    backtest_scenarios,
    table,
)
from calibration_pipeline.verification.corp import corp_terms, fit_corp, refit_corp, refitted_miscalibration
from calibration_pipeline.verification.event_cases import EventCases
from calibration_pipeline.verification.finite import N_GROUPS, jackknife_error, leave_groups_out, with_counts
from calibration_pipeline.verification.multivariate import energy_score, variogram_score
from calibration_pipeline.verification.reliability import (
    BinaryEvent,
    binary_events,
    consistent_successes,
    draw_outcomes,
)
from calibration_pipeline.verification.verdicts.slopes import head_to_head_slope

SMALLER, LARGER, NOMINAL, NEITHER = (
    "smaller is better",
    "larger is better",
    "nominal is best",
    "for comparison",
)
HEADLINES = ("crps", "log_score", "coverage", "head_to_head_slope")
QUANTITIES = {
    "crps": (SMALLER, "sum over positions of (F - 1{y <= k})^2, positions (Epstein 1969)"),
    "fair_crps": (SMALLER, "CRPS of the scenarios less sum F (1 - F) / (S - 1), positions (Ferro 2014)"),
    "rps": (SMALLER, "crps over (field size - 1) (Epstein 1969)"),
    "log_score": (LARGER, "log probability of the finish, nats (Good 1952)"),
    "log_score_kde": (LARGER, "log density at the finish, Gaussian kernel, Scott's bandwidth (Scott 1992)"),
    "energy_score": (SMALLER, "fair energy score over root field size, positions (Gneiting et al. 2008)"),
    "variogram_score": (SMALLER, "order 1/2, mean over pairs of cars (Scheuerer & Hamill 2015)"),
    "sharpness": (SMALLER, "mean positions in the central interval (Gneiting et al. 2007)"),
    "coverage": (NOMINAL, "P(randomised PIT in central interval) (Czado et al. 2009)"),
    "head_to_head_slope": (NOMINAL, "logistic regression on logit p, no intercept (Cox 1958)"),
    "brier": (SMALLER, "mean of (p - outcome)^2 (Brier 1950)"),
    "brier_miscalibration": (SMALLER, "CORP: Brier less that of recalibrated p (Dimitriadis et al. 2021)"),
    "brier_miscalibration_expected": (
        NEITHER,
        "mean and central 95 % of brier_miscalibration if scenarios were the outcomes",
    ),
    "brier_discrimination": (
        LARGER,
        "CORP: uncertainty less Brier of recalibrated p (Dimitriadis et al. 2021)",
    ),
    "brier_uncertainty": (NEITHER, "CORP: Brier of the observed share (Dimitriadis et al. 2021)"),
    "crps_skill": (LARGER, "1 - crps / crps of the reference, ratio of totals"),
    "log_gain": (LARGER, "log score - log score of the reference, nats a car"),
    "brier_skill": (LARGER, "1 - brier / brier of the reference, ratio of totals"),
}
"""Quantity to its orientation and estimator, in the order of the table."""
BASELINES = tuple(forecast for forecast in FORECASTS if forecast not in JUDGED)
REFERENCES = {
    "raw": BASELINES,
    "recalibrated": ("raw", *BASELINES),
    "climatology": (),
    "start_order": ("climatology",),
    "bradley_terry": ("start_order",),
}
"""Forecast to the references of its skill."""
SMALLEST_REFERENCE = 1e-9
"""Skill is undefined over a reference whose mean score is below this: the reference is certain and right."""


class Key(NamedTuple):
    """Key of a row of the table."""

    forecast: str
    quantity: str
    level: str = ""
    reference: str = ""


class CaseScores(NamedTuple):
    """A score of every case (car, pair or race), (cases,), and the case's race."""

    values: NDArray[np.float64]
    race: NDArray[np.int64]


class Quotient(NamedTuple):
    """A mean or a skill: the ratio of two totals over cases, (cases,), and the case's race."""

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]
    race: NDArray[np.int64]


class Scored(NamedTuple):
    """An estimate with its error from the finite number of scenarios, None where that does not apply."""

    estimate: Estimate
    monte_carlo_error: float | None = None


def score_backtest(
    backtest: xr.Dataset, ensembles: Mapping[str, xr.Dataset] | None = None, seed: int = 0
) -> pl.DataFrame:
    """Score raw and recalibrated forecasts of a backtest beside baselines.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; without races the table is empty.
    ensembles : mapping, optional
        'raw' and 'recalibrated' to the `ScenarioEnsemble` that the probabilities come from. Without them
        there are no Monte-Carlo errors and no rows of quantities that need scenarios: fair CRPS, kernel log
        score, energy and variogram score, expected miscalibration.
    seed : int
        Seed of the outcomes drawn for the expected miscalibration.

    Returns
    -------
    polars.DataFrame
        `MetricTable`. Skill and gain compare with the row's `reference` on the same cases. Intervals are
        race-clustered (`intervals.clustered_ratio`).

    Raises
    ------
    ValueError
        If there is more than one archetype, a finish lies outside the field, a probability of a car is not
        in [0, 1], or the ensembles are not of the backtest's races.
    """
    cases = backtest_cases(backtest)
    scenarios = backtest_scenarios(backtest, ensembles) if ensembles is not None else {}
    scored = _score(cases, scenarios, seed) if cases.race.size else {}
    return _metric_table(cases.archetype, scored, cases.race.size)


def score_events(archetype: str, events: Iterable[EventCases]) -> pl.DataFrame:
    """Score event probabilities of one archetype beside climatology: Brier scores, their parts and skill.

    Parameters
    ----------
    archetype : str
    events : iterable of EventCases
        One a market; without markets the table is empty.

    Returns
    -------
    polars.DataFrame
        `MetricTable`; its rows are those of `score_backtest` for the same probabilities.
    """
    markets = list(events)
    of = {
        forecast: {
            key: score
            for own in markets
            for key, score in _brier_scores(
                BinaryEvent(own.market, own.predicted[forecast], own.inside, own.race)
            ).items()
        }
        for forecast in (*JUDGED, "climatology")
    }
    scored = {key: Scored(clustered_ratio(*quotient)) for key, quotient in _quotients(of).items()}
    return _metric_table(archetype, scored)


def _metric_table(archetype: str, scored: Mapping[Key, Scored], n_cars: int = 0) -> pl.DataFrame:
    """Return estimates as `MetricTable`.

    A market counts its own cases, the cars of races that have more cars than winners. The other quantities
    have `n_cars`.
    """
    order = [(forecast, quantity) for forecast in FORECASTS for quantity in QUANTITIES]
    rows = [
        {
            "archetype": archetype,
            **key._asdict(),
            "n_races": estimate.n_races,
            "n_cars": estimate.n_cases if key.level in EVENT_MARKETS else n_cars,
            "estimate": estimate.estimate,
            "lower": estimate.lower,
            "upper": estimate.upper,
            "error_ratio": estimate.error_ratio,
            "monte_carlo_error": monte_carlo_error,
            "orientation": QUANTITIES[key.quantity][0],
            "estimator": QUANTITIES[key.quantity][1],
        }
        for key, (estimate, monte_carlo_error) in sorted(
            scored.items(), key=lambda item: order.index(item[0][:2])
        )
    ]
    return table(rows, MetricTable)


def _score(cases: Cases, scenarios: Mapping[str, NDArray], seed: int) -> dict[Key, Scored]:
    cases = with_counts(cases, scenarios)
    of_baselines = {forecast: _case_scores(cases, forecast) for forecast in BASELINES}
    of = {**{forecast: _case_scores(cases, forecast) for forecast in JUDGED}, **of_baselines}
    ratios = {key: clustered_ratio(*quotient) for key, quotient in _quotients(of).items()}
    shares = {key: _clipped_to_shares(ratio) for key, ratio in ratios.items() if key.quantity == "coverage"}
    estimates = ratios | shares | _slopes(cases, FORECASTS)
    errors = _monte_carlo_errors(cases, of_baselines, scenarios) if scenarios else {}
    scored = {key: Scored(estimate, errors.get(key)) for key, estimate in estimates.items()}
    for forecast, finish in scenarios.items():
        scored |= _joint_scores(cases, forecast, finish) | _expected(cases, forecast, finish, seed)
    return scored


def _clipped_to_shares(estimate: Estimate) -> Estimate:
    """Return the part of an interval in [0, 1]; it covers as much, since no share lies outside."""
    if estimate.lower is None or estimate.upper is None:
        return estimate
    return replace(estimate, lower=max(0.0, estimate.lower), upper=min(1.0, estimate.upper))


def _case_scores(cases: Cases, forecast: str) -> dict[tuple[str, str], CaseScores]:
    """Return the scores of every case by quantity and level."""
    values: dict[tuple[str, str], CaseScores] = {}
    if forecast in cases.probability:
        of_cars = _car_scores(cases, forecast)
        values = {name: CaseScores(score, cases.race) for name, score in of_cars}
    for event in binary_events(cases, forecast):
        values |= _brier_scores(event)
    return values


def _brier_scores(event: BinaryEvent) -> dict[tuple[str, str], CaseScores]:
    """Return the Brier score of every case and its parts."""
    # Both orders of a pair have the same score: one is enough.
    once = slice(event.race.size // 2 if event.name == HEAD_TO_HEAD else None)
    brier = (event.forecast - event.outcome) ** 2
    terms = corp_terms(fit_corp(event.forecast, event.outcome), event.forecast, event.outcome)
    parts = {"brier": brier} | {f"brier_{part}": term for part, term in terms._asdict().items()}
    return {
        (quantity, event.name): CaseScores(part[once], event.race[once]) for quantity, part in parts.items()
    }


def _car_scores(cases: Cases, forecast: str) -> Iterator[tuple[tuple[str, str], NDArray[np.float64]]]:
    probability, position = cases.probability[forecast], cases.position
    crps = scores.discrete_crps(probability, position)
    yield ("crps", ""), crps
    yield ("rps", ""), crps / np.maximum(cases.field_size - 1, 1)
    yield ("log_score", ""), scores.discrete_log_score(probability, position)
    for level in DEFAULT_LEVELS:
        name = f"{100 * level:.0f} %"
        yield ("sharpness", name), scores.interval_width(probability, level)
        yield ("coverage", name), scores.coverage_probability(probability, position, level)
    if forecast in cases.counts:
        yield ("fair_crps", ""), scores.fair_crps(cases.counts[forecast], position)
        yield ("log_score_kde", ""), scores.kernel_log_score(cases.counts[forecast], position)


def _quotients(of: Mapping[str, Mapping[tuple[str, str], CaseScores]]) -> dict[Key, Quotient]:
    """Return each mean and each comparison as a ratio of totals, from the scores by forecast."""
    quotients: dict[Key, Quotient] = {}
    for forecast, own in of.items():
        for (quantity, level), (values, race) in own.items():
            quotients[Key(forecast, quantity, level)] = Quotient(values, np.ones(values.size), race)
        for reference in (name for name in REFERENCES[forecast] if name in of):
            for quantity, level in (name for name in own if name in of[reference]):
                (values, race), theirs = own[quantity, level], of[reference][quantity, level].values
                if quantity == "log_score":
                    key = Key(forecast, "log_gain", level, reference)
                    quotients[key] = Quotient(values - theirs, np.ones(values.size), race)
                elif quantity in ("crps", "brier") and theirs.mean() > SMALLEST_REFERENCE:
                    key = Key(forecast, f"{quantity}_skill", level, reference)
                    quotients[key] = Quotient(theirs - values, theirs, race)
    return quotients


def _slopes(cases: Cases, forecasts: tuple[str, ...]) -> dict[Key, Estimate]:
    slopes = {
        Key(forecast, "head_to_head_slope"): head_to_head_slope(
            cases.head_to_head[forecast], cases.pair_outcome, cases.pair_race
        )
        for forecast in forecasts
        if forecast in cases.head_to_head
    }
    return {key: slope for key, slope in slopes.items() if slope is not None}


def _monte_carlo_errors(
    cases: Cases,
    of_baselines: Mapping[str, dict[tuple[str, str], CaseScores]],
    scenarios: Mapping[str, NDArray],
) -> dict[Key, float]:
    """Return delete-a-group jackknife errors of the quantities that depend on the scenarios."""
    if min(finish.shape[1] for finish in scenarios.values()) < 2 * N_GROUPS:
        return {}
    without: dict[Key, list[float]] = {}
    for fewer in leave_groups_out(cases, scenarios):
        of = {**{forecast: _case_scores(fewer, forecast) for forecast in JUDGED}, **of_baselines}
        values = {
            key: float(numerator.sum() / denominator.sum())
            for key, (numerator, denominator, _) in _quotients(of).items()
        } | {key: slope.estimate for key, slope in _slopes(fewer, JUDGED).items()}
        for key, value in values.items():
            without.setdefault(key, []).append(value)
    return {
        key: jackknife_error(values)
        for key, values in without.items()
        if key.forecast in scenarios and key.quantity != "brier_uncertainty" and len(values) == N_GROUPS
    }


def _joint_scores(cases: Cases, forecast: str, finish: NDArray) -> dict[Key, Scored]:
    """Return the scores of races, each a case."""
    if finish.shape[1] < 2:
        return {}
    rows = {}
    size, result = cases.mask.sum(axis=1), np.split(cases.position, np.cumsum(cases.mask.sum(axis=1))[:-1])
    for name, score in (("energy_score", energy_score), ("variogram_score", variogram_score)):
        races = [score(finish[race, :, :n], result[race]) for race, n in enumerate(size)]
        values, errors = (np.array(column) for column in zip(*races, strict=True))
        mean = clustered_mean(values, np.arange(values.size))
        rows[Key(forecast, name)] = Scored(mean, float(np.linalg.norm(errors) / errors.size))
    return rows


def _expected(cases: Cases, forecast: str, finish: NDArray, seed: int) -> dict[Key, Scored]:
    """Return the miscalibration expected of a calibrated forecast."""
    drawn = draw_outcomes(finish, seed)
    rows = {}
    for event in binary_events(cases, forecast):
        corp = fit_corp(event.forecast, event.outcome)
        successes = consistent_successes(cases, event, corp, drawn)
        shown = refitted_miscalibration(corp, successes, refit_corp(corp, successes))
        lower, upper = np.quantile(shown, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]).tolist()
        n_races = np.unique(event.race).size
        estimate = Estimate(float(shown.mean()), lower, upper, n_races, event.race.size)
        key = Key(forecast, "brier_miscalibration_expected", event.name)
        rows[key] = Scored(estimate, float(shown.std(ddof=1) / np.sqrt(shown.size)))
    return rows


def headline_scores(metrics: pl.DataFrame) -> dict[str, float]:
    """Return the main scores of the raw and recalibrated forecast, by quantity, level and forecast.

    Parameters
    ----------
    metrics : polars.DataFrame
        `MetricTable`.
    """
    chosen = metrics.filter(
        pl.col("quantity").is_in(HEADLINES)
        & pl.col("forecast").is_in(["raw", "recalibrated"])
        & (pl.col("reference") == "")
        & pl.col("estimate").is_not_null()
    )
    names = pl.concat_str(
        "quantity", pl.col("level").str.replace(" %", "").replace("", None), "forecast",
        separator="_", ignore_nulls=True,
    )  # fmt: skip
    return dict(chosen.select(names, "estimate").iter_rows())
