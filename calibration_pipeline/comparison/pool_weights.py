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

The maximum is found by an MM algorithm (Hunter & Lange 2004, doi:10.1198/0003130042836): a tangent in place
of minus the logarithm of the weights present, as in Hunter (2004), doi:10.1214/aos/1079120141, makes the sum
concave, and Newton's method with step halving maximises it. Each step raises the sum.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
"""Largest change of a weight, whose mean is 1, in the last step of the algorithm."""
MOST_STEPS = 200
ROUNDING = 1e-12
"""Relative error of a sum of logarithms."""


@dataclass(frozen=True)
class PooledCases:
    """Cases of one market and forecast: the races in the order of time, and what each member gave.

    Attributes
    ----------
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

    races: list[dict[str, object]]
    members: list[str]
    has_race: NDArray[np.bool_]
    race: NDArray[np.intp]
    likelihood: NDArray[np.float64]


def walk_forward_weights(members: Mapping[str, Forecasts]) -> pl.DataFrame:
    """Return the weights of the members before each of their races.

    Parameters
    ----------
    members : mapping of str to mapping
        Forecaster to its forecasts, as `race_probabilities.read_backtests` and `read_events` return them.

    Returns
    -------
    polars.DataFrame
        `BlendWeights`: the members that have the race, the market and the forecast. Weights do not depend on
        the race's own result, or on later races.

    Raises
    ------
    ValueError
        If two members have different cars or finishes in a race.
    """
    rows: list[dict[str, object]] = []
    for market, forecast, cases in _by_market(members):
        for r, race in enumerate(cases.races):
            known, here = cases.has_race[: r + 1].any(axis=0), cases.has_race[r]
            weights, n_races = _weigh(cases, r, race["archetype"], known)
            own = weights[here] / weights[here].sum()
            rows += _rows(race, market, forecast, np.array(cases.members)[here], own, n_races)
    return table(rows, BlendWeights)


def next_race_weights(members: Mapping[str, Forecasts], race: Mapping[str, object]) -> pl.DataFrame:
    """Return the weights of the members before a race that has no result yet.

    Parameters
    ----------
    members : mapping of str to mapping
        As for `walk_forward_weights`. Races at or after the race are not read.
    race : mapping
        race_id, season, race_order and archetype.

    Returns
    -------
    polars.DataFrame
        `BlendWeights`: all members with an earlier race. `blend` divides the weights of members that lack the
        race among the others.
    """
    rows: list[dict[str, object]] = []
    for market, forecast, cases in _by_market(members):
        n_earlier = sum(int(str(other["race_order"])) < int(str(race["race_order"])) for other in cases.races)
        known = cases.has_race[:n_earlier].any(axis=0)
        if known.any():
            weights, n_races = _weigh(cases, n_earlier, race["archetype"], known)
            rows += _rows(race, market, forecast, np.array(cases.members)[known], weights[known], n_races)
    return table(rows, BlendWeights)


def maximise_pool(likelihood: NDArray, present: NDArray, importance: NDArray) -> NDArray[np.float64]:
    """Return the weights that maximise the log score of the pool plus the logarithm of the prior.

    Parameters
    ----------
    likelihood : ndarray
        Probability that each member gave to the outcome, above 0 where present, (case, member).
    present : ndarray
        Whether the member has the case, (case, member) bool; at least one has it.
    importance : ndarray
        How much each case counts, (case,).

    Returns
    -------
    ndarray
        Above 0, sum 1, (member,).

    Examples
    --------
    >>> p = np.array([[0.6, 0.2], [0.5, 0.1], [0.7, 0.3]])
    >>> maximise_pool(p, np.ones((3, 2), bool), np.full(3, 100.0)).round(3).tolist()
    [0.995, 0.005]
    """
    given, mask = np.where(present, likelihood, 0.0), present.astype(np.float64)
    weights = np.ones(present.shape[1])  # the prior makes their mean 1, also over members without cases
    for _ in range(MOST_STEPS):
        tangent = 1 + mask.T @ (importance / (mask @ weights))
        changed = _newton(given, importance, tangent, weights)
        change = np.abs(changed - weights).max()
        weights = changed
        if change <= TOLERANCE:
            break
    return weights / weights.sum()


def _newton(given: NDArray, importance: NDArray, tangent: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Return the weights that maximise the concave part of the sum, less the tangent of the other part."""

    def value(at: NDArray) -> float:
        return float(importance @ np.log(given @ at) + np.log(at).sum() - tangent @ at)

    for _ in range(MOST_STEPS):
        ratio = importance / (pool := given @ weights)
        gradient = given.T @ ratio + 1 / weights - tangent
        curvature = given.T @ (given * (ratio / pool)[:, None]) + np.diag(weights**-2)
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() <= TOLERANCE:
            return weights + np.maximum(step, -weights / 2)
        size, now = 1.0, value(weights)
        while (weights + size * step <= 0).any() or value(weights + size * step) < now - ROUNDING * abs(now):
            size /= 2
        weights = weights + size * step
    return weights


def _weigh(
    cases: PooledCases, n_earlier: int, archetype: object, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights, 0 where not known (member,), and the discounted number of races behind them."""
    same = np.array([race["archetype"] == archetype for race in cases.races[:n_earlier]], bool)
    age = np.arange(n_earlier, 0, -1)
    importance = 2.0 ** (-age / HALF_LIFE) * np.where(same, 1.0, OTHER_ARCHETYPES)
    importance *= cases.has_race[:n_earlier].sum(axis=1) > 1  # a single member says nothing about weights
    used = np.flatnonzero(importance[cases.race[cases.race < n_earlier]])
    race = cases.race[used]
    weights = np.zeros(known.size)
    weights[known] = maximise_pool(
        cases.likelihood[used][:, known], cases.has_race[race][:, known], importance[race]
    )
    return weights, float(importance.sum())


def _by_market(members: Mapping[str, Forecasts]) -> Iterator[tuple[str, str, PooledCases]]:
    """Yield each market and forecast with its cases, if any member has one."""
    for forecast in JUDGED:
        likelihoods: dict[str, dict[int, dict[str, NDArray[np.float64]]]] = {}
        races: dict[int, RaceProbabilities] = {}
        for name in sorted(members):
            for race_id, race in members[name].get(forecast, {}).items():
                check_cars(race, races.setdefault(race_id, race))
                for market, losses in market_losses(race).items():
                    of_race = likelihoods.setdefault(market, {}).setdefault(race_id, {})
                    of_race[name] = np.clip(losses.likelihood, PROBABILITY_CLIP, 1.0)
        for market in POOLED_MARKETS:
            if market in likelihoods:
                yield market, forecast, _stack(likelihoods[market], races)


def _stack(
    likelihoods: Mapping[int, Mapping[str, NDArray[np.float64]]], races: Mapping[int, RaceProbabilities]
) -> PooledCases:
    order = sorted(likelihoods, key=lambda race_id: races[race_id].race_order)
    members = sorted({name for of_race in likelihoods.values() for name in of_race})
    sizes = [next(iter(likelihoods[race_id].values())).size for race_id in order]
    blocks = [
        np.stack([likelihoods[race_id].get(name, np.zeros(size)) for name in members], axis=1)
        for race_id, size in zip(order, sizes, strict=True)
    ]
    return PooledCases(
        races=[{key: getattr(races[race_id], key) for key in RACE_KEYS} for race_id in order],
        members=members,
        has_race=np.array([[name in likelihoods[race_id] for name in members] for race_id in order]),
        race=np.repeat(np.arange(len(order)), sizes),
        likelihood=np.concatenate(blocks),
    )


def _rows(
    race: Mapping[str, object],
    market: str,
    forecast: str,
    members: NDArray[np.str_],
    weights: NDArray[np.float64],
    n_races: float,
) -> list[dict[str, object]]:
    keys = {name: race[name] for name in RACE_KEYS} | {"market": market, "forecast": forecast}
    return [
        {**keys, "forecaster": name, "weight": weight, "n_races": n_races}
        for name, weight in zip(members.tolist(), weights.tolist(), strict=True)
    ]
