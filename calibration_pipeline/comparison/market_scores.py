"""Scores of a race by market, bounded in [0, 1], and the largest differences to the network's scores.

A score is a mean of losses over cases: cars, or pairs of cars. The bounds of the differences are known before
the race, since they are taken over all possible results; `sequential` bets with them.

| market | loss of a case | source |
|---|---|---|
| win, top 3, 5, 10, 20 | (p - outcome)^2 of a car | Brier (1950) |
| head to head | (p - outcome)^2 of a pair | Brier (1950) |
| finish distribution | sum over k of (F(k) - 1{y <= k})^2 / (n - 1) of a car | Epstein (1969) |

The mean over cars, and not the sum, lies in [0, 1] for any probabilities, also where they do not add up to
the number of winners. All three are proper (Gneiting & Raftery 2007, doi:10.1198/016214506000001437,
sections 3 and 4.2).
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration_pipeline.comparison.race_probabilities import (
    RACE_KEYS,
    Forecasts,
    RaceProbabilities,
    check_cars,
)
from calibration_pipeline.markets import EVENT_MARKETS, FINISH, HEAD_TO_HEAD
from calibration_pipeline.schemas.comparison import COMPARED_MARKETS, MarketScores
from calibration_pipeline.verification.cases import table
from calibration_pipeline.verification.scores import discrete_crps
from calibration_pipeline.verification.verdicts.estimates import PROBABILITY_CLIP


class MarketLosses(NamedTuple):
    """Losses of a forecast in one market of a race.

    Attributes
    ----------
    losses : ndarray
        Loss of each case for each of its possible outcomes, (case, outcome).
    outcome : ndarray
        Index of the outcome that happened, (case,).
    likelihood : ndarray
        Probability of the outcome of each case of the log score, (case of the log score,).
    """

    losses: NDArray[np.float64]
    outcome: NDArray[np.intp]
    likelihood: NDArray[np.float64]

    @property
    def score(self) -> float:
        """Mean loss of the cases."""
        return float(self.losses[np.arange(self.outcome.size), self.outcome].mean())


def score_markets(forecaster: str, forecasts: Forecasts, network: Forecasts) -> pl.DataFrame:
    """Score a forecaster's forecasts race by race in every market that they have.

    Parameters
    ----------
    forecaster : str
    forecasts : mapping
        As `race_probabilities.read_backtests`, `read_events` or `climatology_of` return them.
    network : mapping
        The network's forecasts, for the bounds of the differences.

    Returns
    -------
    polars.DataFrame
        `MarketScores`, in the order of races. Races of one car are left out.

    Raises
    ------
    ValueError
        If the network's forecast of a race has other cars or finishes.

    Notes
    -----
    The log score of a win is the log probability of the winner, with probabilities that add up to 1 over the
    cars. Elsewhere it is the mean over the cases of the log probability of the outcome (Good 1952,
    doi:10.1111/j.2517-6161.1952.tb00104.x). Probabilities below `PROBABILITY_CLIP` count as that.

    References
    ----------
    Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Epstein (1969),
    doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2.
    """
    rows: list[dict[str, object]] = []
    for forecast, races in forecasts.items():
        references = network.get(forecast, {})
        for race in sorted(races.values(), key=lambda race: race.race_order):
            reference = references.get(race.race_id)
            if reference is not None:
                check_cars(race, reference)
            keys = {name: getattr(race, name) for name in RACE_KEYS}
            keys |= {"forecaster": forecaster, "forecast": forecast}
            rows += [keys | scores for scores in _score_race(race, reference)]
    return table(rows, MarketScores)


def market_losses(race: RaceProbabilities) -> dict[str, MarketLosses]:
    """Return the losses of a race in every market that the forecast has; none of a race of one car."""
    return dict(_losses(race)) if race.driver_id.size > 1 else {}


def _losses(race: RaceProbabilities) -> Iterator[tuple[str, MarketLosses]]:
    position = race.finish_position
    for market, top in EVENT_MARKETS.items():
        if market in race.events:
            probability, inside = race.events[market], position <= top
            likelihood = np.where(inside, probability, 1 - probability)
            if top == 1:
                likelihood = (probability / max(probability.sum(), PROBABILITY_CLIP))[inside]
            yield market, MarketLosses(_brier(probability), inside.astype(np.intp), likelihood)
    if race.head_to_head is not None:
        first, second = np.triu_indices(position.size, k=1)
        probability, ahead = race.head_to_head[first, second], position[first] < position[second]
        likelihood = np.where(ahead, probability, 1 - probability)
        yield HEAD_TO_HEAD, MarketLosses(_brier(probability), ahead.astype(np.intp), likelihood)
    if race.finish is not None:
        n_cars = position.size
        places = np.tile(np.arange(1, n_cars + 1), (n_cars, 1))
        crps = discrete_crps(np.broadcast_to(race.finish[:, None], (n_cars,) * 3), places)
        likelihood = race.finish[np.arange(n_cars), position - 1]
        yield FINISH, MarketLosses(crps / (n_cars - 1), position - 1, likelihood)


def _brier(probability: NDArray) -> NDArray[np.float64]:
    """Return the losses of a binary event, (case, outcome): that it does not happen, that it does."""
    return np.stack([probability**2, (1 - probability) ** 2], axis=1)


def _score_race(race: RaceProbabilities, reference: RaceProbabilities | None) -> Iterator[dict[str, object]]:
    """Yield the columns of each market that the forecast has."""
    references: Mapping[str, MarketLosses] = market_losses(reference) if reference is not None else {}
    losses = market_losses(race)
    for market in COMPARED_MARKETS:
        if market not in losses:
            continue
        own, gain, loss = losses[market], None, None
        if market in references:
            difference = own.losses - references[market].losses
            gain, loss = -smallest_mean(market, difference), -smallest_mean(market, -difference)
        yield {
            "market": market,
            "score": own.score,
            "log_score": float(np.log(np.clip(own.likelihood, PROBABILITY_CLIP, 1.0)).mean()),
            "n_cases": own.likelihood.size,
            "largest_gain": gain,
            "largest_loss": loss,
        }


def smallest_mean(market: str, losses: NDArray) -> float:
    """Return a lower bound of the mean loss of a market over all results of the race.

    Parameters
    ----------
    market : str
        One of `COMPARED_MARKETS`.
    losses : ndarray
        Loss of each case for each of its outcomes, (case, outcome). Any real numbers, such as differences.

    Returns
    -------
    float
        The smallest mean, exact but for head to head, where each pair is taken by itself.

    References
    ----------
    Results of the finish distribution are assignments of positions to cars: Crouse (2016),
    doi:10.1109/TAES.2016.140952.

    Examples
    --------
    >>> smallest_mean("win", np.array([[0.0, 1.0], [0.0, 0.4], [0.0, 2.0]])).__round__(3)
    0.133
    """
    if market == FINISH:
        return float(losses[linear_sum_assignment(losses)].mean())
    if market == HEAD_TO_HEAD:
        return float(losses.min(axis=1).mean())
    change = np.sort(losses[:, 1] - losses[:, 0])
    return float((losses[:, 0].sum() + change[: EVENT_MARKETS[market]].sum()) / len(losses))
