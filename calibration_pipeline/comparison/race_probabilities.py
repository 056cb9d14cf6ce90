"""Probabilities that a forecaster gives for a race, in the order of driver ids, with the result.

Forecasts of every form become `RaceProbabilities`: backtests have probabilities of positions, and of pairs of
cars; frames of event probabilities have some markets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.schemas.results import finish_is_permuted, join_results
from calibration_pipeline.verification.cases import JUDGED, independent_head_to_head

CLIMATOLOGY = "climatology"
"""The pseudo-forecaster for which every position is equally likely for every car."""
EVENT_KEYS = ("race_id", "driver_id", "market", "forecast")
RACE_KEYS = ("race_id", "season", "race_order", "archetype")
COORDINATES = {"race_id": "race"}
"""Names of `RACE_KEYS` in datasets, where they differ."""


@dataclass(frozen=True)
class RaceProbabilities:
    """Probabilities of one race and forecast, and the result. Cars are in the order of `driver_id`.

    Attributes
    ----------
    race_id, season, race_order : int
    archetype : str
    driver_id : ndarray
        Ascending, (car,).
    finish_position : ndarray
        Official finish, a permutation of 1..n, (car,).
    events : mapping of str to ndarray
        Event market to the probability of each car, (car,); only markets with fewer winners than cars.
    finish : ndarray or None
        P(finish = position), (car, position).
    head_to_head : ndarray or None
        P(the car of the row beats the car of the column), (car, car).
    """

    race_id: int
    season: int
    race_order: int
    archetype: str
    driver_id: NDArray[np.str_]
    finish_position: NDArray[np.int64]
    events: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    finish: NDArray[np.float64] | None = None
    head_to_head: NDArray[np.float64] | None = None


Forecasts = Mapping[str, Mapping[int, RaceProbabilities]]
"""Raw and recalibrated forecasts of a forecaster, by race_id."""


def read_backtests(backtests: Iterable[xr.Dataset]) -> Forecasts:
    """Read the forecasts of a forecaster with probabilities of positions.

    Parameters
    ----------
    backtests : iterable of xarray.Dataset
        `Backtest` of each archetype.

    Returns
    -------
    mapping
        Raw and recalibrated: each race with all its markets.
    """
    forecasts: dict[str, dict[int, RaceProbabilities]] = {name: {} for name in JUDGED}
    for backtest in backtests:
        arrays = {name: (backtest[name].values, backtest[f"{name}_head_to_head"].values) for name in JUDGED}
        drivers, finishes = backtest["driver_id"].values, backtest["finish_position"].values
        for r, n in enumerate(backtest["field_size"].values.tolist()):
            keys = {name: backtest[COORDINATES.get(name, name)].values[r].item() for name in RACE_KEYS}
            order = np.argsort(drivers[r, :n])
            for name, (finish, head_to_head) in arrays.items():
                probability = finish[r][order, :n]
                forecasts[name][keys["race_id"]] = RaceProbabilities(
                    **keys,
                    driver_id=drivers[r, order],
                    finish_position=finishes[r, order].astype(np.int64),
                    events=top_probabilities(probability),
                    finish=probability,
                    head_to_head=head_to_head[r][np.ix_(order, order)],
                )
    return forecasts


def add_independent_pairs(backtest: xr.Dataset) -> xr.Dataset:
    """Return a backtest of position probabilities with pairs of cars that finish independently of each other.

    Parameters
    ----------
    backtest : xarray.Dataset
        As `verification.backtest.backtest_positions` builds it.
    """
    pair = ("race", "driver", "opponent")
    pairs = {
        f"{name}_head_to_head": (pair, independent_head_to_head(backtest[name].values)) for name in JUDGED
    }
    return backtest.assign(pairs)


def read_events(events: pl.DataFrame, results: pl.DataFrame) -> Forecasts:
    """Read the forecasts of a forecaster with probabilities of events.

    Parameters
    ----------
    events : polars.DataFrame
        race_id, driver_id, market (of `EVENT_MARKETS`), forecast (raw or recalibrated) and probability: a
        market of a race has all its cars. Markets with as many winners as cars are left out.
    results : polars.DataFrame
        race_id, season, race_order, archetype, driver_id and finish_position of at least these races.

    Returns
    -------
    mapping
        Raw and recalibrated: each race with the markets that it has.

    Raises
    ------
    ValueError
        If a row is doubled, a probability is not in [0, 1], a car has no result, a market lacks a car of the
        race, or the finishes of a race are no permutation.
    """
    doubled = events.filter(events.select(EVENT_KEYS).is_duplicated())
    if doubled.height:
        raise ValueError(f"Argument events must have a row once, got {doubled.row(0)} again.")
    outside = events.filter(~pl.col("probability").fill_null(-1.0).is_between(0, 1))
    if outside.height:
        raise ValueError(
            f"Column probability of events must lie in [0, 1], got {outside['probability'][0]} in race_id "
            f"{outside['race_id'][0]} ({outside.height} rows in all)."
        )
    own = results.select(*RACE_KEYS, "driver_id", "finish_position").filter(
        pl.col("race_id").is_in(events["race_id"].unique().implode())
    )
    if not own.select(finish_is_permuted("race_id").all()).item():
        raise ValueError("Column finish_position of results must be a permutation of 1..n in every race.")
    sizes = own.group_by("race_id").agg(field_size=pl.len())
    joined = join_results(events, own, "event forecasts").join(sizes, on="race_id").sort("driver_id")
    forecasts: dict[str, dict[int, RaceProbabilities]] = {name: {} for name in JUDGED}
    for (forecast, race_id), race in joined.group_by("forecast", "race_id", maintain_order=True):
        probabilities = {}
        for (market,), rows in race.group_by("market", maintain_order=True):
            n_cars = rows["field_size"][0]
            if rows.height != n_cars:
                raise ValueError(
                    f"Argument events must have all {n_cars} cars of a race, got {rows.height} in market "
                    f"{market} of race_id {race_id}."
                )
            if EVENT_MARKETS[str(market)] < n_cars:
                probabilities[str(market)] = rows["probability"].to_numpy()
        first = race.unique("driver_id", maintain_order=True)
        forecasts[str(forecast)][int(str(race_id))] = RaceProbabilities(
            **first.select(RACE_KEYS).row(0, named=True),
            driver_id=np.array(first["driver_id"].to_list()),
            finish_position=first["finish_position"].to_numpy().astype(np.int64),
            events=probabilities,
        )
    return forecasts


def add_events(forecasts: Forecasts, events: Forecasts) -> Forecasts:
    """Return forecasts of the whole field with the event probabilities of `events` in place of their own.

    Parameters
    ----------
    forecasts, events : mapping
        As `read_backtests` and `read_events` return them, of one forecaster.
    """
    joined: dict[str, dict[int, RaceProbabilities]] = {}
    for name, races in forecasts.items():
        joined[name] = dict(events.get(name, {}))
        for race_id, race in races.items():
            other = joined[name].get(race_id)
            joined[name][race_id] = _with_events(race, other) if other else race
    return joined


def list_events(forecasts: Forecasts) -> pl.DataFrame:
    """Return the event probabilities of forecasts of any form.

    Parameters
    ----------
    forecasts : mapping
        As `read_backtests` and `read_events` return them.

    Returns
    -------
    polars.DataFrame
        race_id, driver_id, market, forecast and probability.
    """
    rows = [
        (race_id, driver, market, forecast, value)
        for forecast, races in forecasts.items()
        for race_id, race in races.items()
        for market, probability in race.events.items()
        for driver, value in zip(race.driver_id.tolist(), probability.tolist(), strict=True)
    ]
    types = (pl.Int64, pl.String, pl.String, pl.String, pl.Float64)
    schema = dict(zip((*EVENT_KEYS, "probability"), types, strict=True))
    return pl.DataFrame(rows, schema, orient="row")


def climatology_of(forecasts: Iterable[Forecasts]) -> Forecasts:
    """Return the pseudo-forecaster `CLIMATOLOGY` on the races that any forecaster has.

    Parameters
    ----------
    forecasts : iterable of mapping
        As `read_backtests` and `read_events` return them.
    """
    races = {race_id: race for own in forecasts for name in own for race_id, race in own[name].items()}
    equal = {race_id: _every_car_equal(race) for race_id, race in races.items()}
    return dict.fromkeys(JUDGED, equal)


def top_probabilities(finish: NDArray) -> dict[str, NDArray[np.float64]]:
    """Return P(finish in the top k) of each car, (car,), by event market with k below the number of cars.

    Parameters
    ----------
    finish : ndarray
        P(finish = position), (car, position).
    """
    cumulative = np.clip(np.cumsum(finish, axis=1), 0.0, 1.0)
    return {market: cumulative[:, top - 1] for market, top in EVENT_MARKETS.items() if top < len(finish)}


def check_cars(race: RaceProbabilities, other: RaceProbabilities) -> None:
    """Raise ValueError unless two forecasts of a race have the same cars and finishes."""
    for name in ("driver_id", "finish_position"):
        if not np.array_equal(getattr(race, name), getattr(other, name)):
            raise ValueError(
                f"Forecasts of race_id {race.race_id} must have one field, got different {name} "
                f"({race.driver_id.size} and {other.driver_id.size} cars)."
            )


def _with_events(race: RaceProbabilities, other: RaceProbabilities) -> RaceProbabilities:
    check_cars(race, other)
    return replace(race, events={**race.events, **other.events})


def _every_car_equal(race: RaceProbabilities) -> RaceProbabilities:
    n_cars = race.driver_id.size
    finish, head_to_head = np.full((n_cars, n_cars), 1 / n_cars), np.full((n_cars, n_cars), 0.5)
    return replace(race, events=top_probabilities(finish), finish=finish, head_to_head=head_to_head)
