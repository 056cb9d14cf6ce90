r"""Weights of the blend before each race, from the log scores of earlier races.

The blend is a linear opinion pool: the weighted mean of the members' probabilities (Stone 1961,
doi:10.1214/aoms/1177704873; Genest & Zidek 1986, doi:10.1214/ss/1177013825). Before race r, the weights
maximise the log score of the pool in earlier races, as in the optimal pool of Geweke & Amisano (2011),
doi:10.1016/j.jeconom.2011.02.017, with a discount, a prior and partial pooling of the archetypes:

.. math:: \sum_{s < r} 2^{-(r - s) / H} \rho_s \sum_{c \in s}
   \log \frac{\sum_{f \in A_s} w_f p_{f,c}}{\sum_{f \in A_s} w_f} + \sum_f (\log w_f - w_f).

- :math:`p_{f,c}` is the probability that member f gave to the outcome of case c: the winner, a car in or out
  of the top k, or the position of a car. Members :math:`A_s` have race s; the others are left out of it.
- :math:`\rho_s` is 1 for races of the archetype of r and `OTHER_ARCHETYPES` for the others: a power prior
  (Ibrahim & Chen 2000, doi:10.1214/ss/1009212673).
- The last sum is the prior: equal weights count as one case for each member. It keeps every weight above 0,
  and without cases the weights are equal.

The maximum is found by a trust-region method in the logarithms of the weights, from equal weights (Conn,
Gould & Toint 2000, Trust-Region Methods, section 7.3; `scipy.optimize`): the sum need not be concave.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize

from calibration_pipeline.comparison.market_scores import market_losses
from calibration_pipeline.comparison.race_probabilities import (
    RACE_KEYS,
    Forecasts,
    RaceProbabilities,
    check_cars,
)
from calibration_pipeline.schemas.comparison import POOLED_MARKETS, BlendWeights
from calibration_pipeline.verification.cases import JUDGED, table
from calibration_pipeline.verification.verdicts.estimates import PROBABILITY_CLIP

BLEND = "blend"
"""The forecaster that pools the others."""
HALF_LIFE = 80.0
"""Races, of any archetype, after which a race counts half."""
OTHER_ARCHETYPES = 0.25
"""Weight of a race of another archetype."""
TOLERANCE = 1e-5
"""Largest derivative of the sum by the logarithm of a weight at its maximum, in cases."""
LARGEST_STEP = 5.0
"""In the logarithms of the weights."""


@dataclass(frozen=True)
class PooledCases:
    """Cases of one market and forecast: the races in the order of time, and what each member gave.

    Attributes
    ----------
    market, forecast : str
    races : list of dict
        `RACE_KEYS` of each race.
    members : list of str
    has_race : ndarray
        Whether the member has the race, (race, member) bool.
    race : ndarray
        Index of each case's race, ascending, (case,).
    likelihood : ndarray
        Probability that the member gave to the outcome, 0 where it lacks the race, (case, member).
    """

    market: str
    forecast: str
    races: list[dict[str, object]]
    members: list[str]
    has_race: NDArray[np.bool_]
    race: NDArray[np.intp]
    likelihood: NDArray[np.float64]


def pool_cases(members: Mapping[str, Forecasts]) -> list[PooledCases]:
    """Return the cases of each market and forecast that a member has.

    Parameters
    ----------
    members : mapping of str to mapping
        Forecaster to its forecasts, as `race_probabilities.read_backtests` and `read_events` return them.

    Raises
    ------
    ValueError
        If two members have different cars or finishes in a race.
    """
    found: list[PooledCases] = []
    for forecast in JUDGED:
        likelihoods: dict[str, dict[int, dict[str, NDArray[np.float64]]]] = {}
        races: dict[int, RaceProbabilities] = {}
        for name in sorted(members):
            for race_id, race in members[name].get(forecast, {}).items():
                check_cars(race, races.setdefault(race_id, race))
                for market, losses in market_losses(race).items():
                    of_race = likelihoods.setdefault(market, {}).setdefault(race_id, {})
                    of_race[name] = np.clip(losses.likelihood, PROBABILITY_CLIP, 1.0)
        found += [
            _stack(market, forecast, likelihoods[market], races)
            for market in POOLED_MARKETS
            if market in likelihoods
        ]
    return found


def walk_forward_weights(by_market: Iterable[PooledCases]) -> pl.DataFrame:
    """Return the weights of the members before each of their races.

    Parameters
    ----------
    by_market : iterable of PooledCases

    Returns
    -------
    polars.DataFrame
        `BlendWeights`: the members that have the race, the market and the forecast. Weights do not depend on
        the race's own result, or on later races.
    """
    rows: list[dict[str, object]] = []
    for cases in by_market:
        for r, race in enumerate(cases.races):
            known, here = cases.has_race[: r + 1].any(axis=0), cases.has_race[r]
            weights, n_races = _weigh(cases, r, race["archetype"], known)
            own = weights[here] / weights[here].sum()
            rows += _rows(race, cases, here, own, n_races)
    return table(rows, BlendWeights)


def next_race_weights(by_market: Iterable[PooledCases], race: Mapping[str, object]) -> pl.DataFrame:
    """Return the weights of the members before a race that has no result yet.

    Parameters
    ----------
    by_market : iterable of PooledCases
        Races at or after the race are not read.
    race : mapping
        race_id, season, race_order and archetype.

    Returns
    -------
    polars.DataFrame
        `BlendWeights`: all members with an earlier race. `blend` divides the weights of members that lack the
        race among the others.
    """
    rows: list[dict[str, object]] = []
    for cases in by_market:
        n_earlier = sum(int(str(other["race_order"])) < int(str(race["race_order"])) for other in cases.races)
        known = cases.has_race[:n_earlier].any(axis=0)
        if known.any():
            weights, n_races = _weigh(cases, n_earlier, race["archetype"], known)
            rows += _rows(race, cases, known, weights[known], n_races)
    return table(rows, BlendWeights)


def maximise_pool(
    likelihood: NDArray, race: NDArray[np.intp], has_race: NDArray[np.bool_], importance: NDArray
) -> NDArray[np.float64]:
    """Return the weights that maximise the log score of the pool plus the logarithm of the prior.

    Parameters
    ----------
    likelihood : ndarray
        Probability that each member gave to the outcome, above 0 where it has the race, (case, member).
    race : ndarray
        Index of each case's race, (case,).
    has_race : ndarray
        Whether the member has the race, (race, member) bool; at least one has it.
    importance : ndarray
        How much each case of a race counts, (race,).

    Returns
    -------
    ndarray
        Above 0, sum 1, (member,).

    Examples
    --------
    >>> p = np.array([[0.6, 0.2], [0.5, 0.1], [0.7, 0.3]])
    >>> maximise_pool(p, np.arange(3), np.ones((3, 2), bool), np.full(3, 100.0)).round(3).tolist()
    [0.995, 0.005]
    """
    given, mask = np.where(has_race[race], likelihood, 0.0), has_race.astype(np.float64)
    of_case, of_race = importance[race], importance * np.bincount(race, minlength=len(importance))

    def loss(log_weights: NDArray) -> tuple[float, NDArray[np.float64]]:
        weights = np.exp(log_weights)
        pool, present = given @ weights, mask @ weights
        value = of_case @ np.log(pool) - of_race @ np.log(present) + (log_weights - weights).sum()
        slope = given.T @ (of_case / pool) - mask.T @ (of_race / present) - 1
        return -float(value), -(weights * slope + 1)

    def curvature(log_weights: NDArray) -> NDArray[np.float64]:
        weights = np.exp(log_weights)
        return _curvature(mask * weights, of_race) - _curvature(given * weights, of_case) + np.diag(weights)

    options = {"gtol": TOLERANCE, "max_trust_radius": LARGEST_STEP}
    start = np.zeros(has_race.shape[1])  # the prior makes the mean of the weights 1
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options=options)
    weights = np.exp(found.x)
    return weights / weights.sum()


def _curvature(parts: NDArray, importance: NDArray) -> NDArray[np.float64]:
    """Return the Hessian of sum_c importance_c log sum_f parts_cf by the logarithms of the parts' factors."""
    shares = parts / parts.sum(axis=1, keepdims=True)
    rows = shares * np.sqrt(importance)[:, None]
    hessian: NDArray[np.float64] = np.diag(importance @ shares) - rows.T @ rows
    return hessian


def _weigh(
    cases: PooledCases, n_earlier: int, archetype: object, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights, 0 where not known (member,), and the discounted number of races behind them."""
    same = np.array([race["archetype"] == archetype for race in cases.races[:n_earlier]], bool)
    age = np.arange(n_earlier, 0, -1)
    importance = 2.0 ** (-age / HALF_LIFE) * np.where(same, 1.0, OTHER_ARCHETYPES)
    importance *= cases.has_race[:n_earlier].sum(axis=1) > 1  # a single member says nothing about weights
    used = np.flatnonzero(importance[cases.race[cases.race < n_earlier]])
    weights = np.zeros(known.size)
    weights[known] = maximise_pool(
        cases.likelihood[used][:, known], cases.race[used], cases.has_race[:n_earlier, known], importance
    )
    return weights, float(importance.sum())


def _stack(
    market: str,
    forecast: str,
    likelihoods: Mapping[int, Mapping[str, NDArray[np.float64]]],
    races: Mapping[int, RaceProbabilities],
) -> PooledCases:
    order = sorted(likelihoods, key=lambda race_id: races[race_id].race_order)
    members = sorted({name for of_race in likelihoods.values() for name in of_race})
    sizes = [next(iter(likelihoods[race_id].values())).size for race_id in order]
    blocks = [
        np.stack([likelihoods[race_id].get(name, np.zeros(size)) for name in members], axis=1)
        for race_id, size in zip(order, sizes, strict=True)
    ]
    return PooledCases(
        market=market,
        forecast=forecast,
        races=[{key: getattr(races[race_id], key) for key in RACE_KEYS} for race_id in order],
        members=members,
        has_race=np.array([[name in likelihoods[race_id] for name in members] for race_id in order]),
        race=np.repeat(np.arange(len(order)), sizes),
        likelihood=np.concatenate(blocks),
    )


def _rows(
    race: Mapping[str, object],
    cases: PooledCases,
    chosen: NDArray[np.bool_],
    weights: NDArray[np.float64],
    n_races: float,
) -> list[dict[str, object]]:
    """Return the rows of the chosen members, with their weights."""
    keys = {name: race[name] for name in RACE_KEYS} | {"market": cases.market, "forecast": cases.forecast}
    return [
        {**keys, "forecaster": name, "weight": weight, "n_races": n_races}
        for name, weight in zip(np.array(cases.members)[chosen].tolist(), weights.tolist(), strict=True)
    ]
