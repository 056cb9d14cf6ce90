"""Races of one market as arrays: event probabilities as issued, and the events that happened."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import logit

from calibration_pipeline.marginal.model import PROBABILITY_FLOOR
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.scenarios.covariates import AnyArray

CARS_MULTIPLE = 8
"""The car axis is padded to a multiple, so that few shapes are compiled."""


class EventRaces(NamedTuple):
    """Races of one market; padding is marked, and never read.

    Attributes
    ----------
    log_odds : (race, car), logit of the probability as issued, 0 in padding
    centre : (race), mean of the log odds over the cars, weighted by p (1 - p)
    is_car : (race, car) bool
    happened : (race, car) bool, False in padding
    """

    log_odds: AnyArray
    centre: AnyArray
    is_car: AnyArray
    happened: AnyArray


class MarketRows(NamedTuple):
    """Rows of one market, and their slots in arrays (race, car).

    Attributes
    ----------
    rows : polars.DataFrame
        A row a race and car, the rows of a race together.
    is_car : (race, car) bool; `values[is_car]` has the order of the rows
    """

    rows: pl.DataFrame
    is_car: NDArray[np.bool_]

    @property
    def races(self) -> pl.DataFrame:
        """First row of each race."""
        return self.rows.unique("race_id", keep="first", maintain_order=True)

    @property
    def n_cars(self) -> NDArray[np.int_]:
        """Number of cars of each race."""
        return np.asarray(self.is_car.sum(axis=1))

    def spread(self, column: str) -> NDArray:
        """Return a column as an array (race, car), 0 in padding."""
        values = self.rows[column].to_numpy()
        array: NDArray = np.zeros(self.is_car.shape, values.dtype)
        array[self.is_car] = values
        return array

    def event_races(self, market: str) -> EventRaces:
        """Return the arrays of the map; columns: probability, and finish_position where it is known."""
        happened = np.zeros(self.is_car.shape, bool)
        if "finish_position" in self.rows.columns:
            happened = self.is_car & (self.spread("finish_position") <= EVENT_MARKETS[market])
        return as_event_races(self.spread("probability"), self.is_car, happened)


def as_event_races(
    probability: NDArray[np.float64], is_car: NDArray[np.bool_], happened: NDArray[np.bool_]
) -> EventRaces:
    """Take log odds and their centres.

    Probabilities are clipped to [1e-6, 1 - 1e-6], `marginal.model.PROBABILITY_FLOOR`: the map reads an
    event that a forecaster excludes, or is certain of, as one in a million.

    Parameters
    ----------
    probability : array, shape (race, car)
    is_car, happened : array of bool, shape (race, car)
    """
    p = np.where(is_car, np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR), 0.5)
    log_odds = np.where(is_car, logit(p), 0.0)
    weight = np.where(is_car, p * (1 - p), 0.0)
    centre = (weight * log_odds).sum(axis=1) / weight.sum(axis=1)
    return EventRaces(log_odds, centre, is_car, happened & is_car)


def market_rows(rows: pl.DataFrame) -> MarketRows:
    """Lay out the rows of one market.

    Parameters
    ----------
    rows : polars.DataFrame
        race_id, and any other columns; the rows of a race together.
    """
    n_cars = rows.group_by("race_id", maintain_order=True).len()["len"].to_numpy()
    width = -(-int(n_cars.max(initial=1)) // CARS_MULTIPLE) * CARS_MULTIPLE
    return MarketRows(rows, np.arange(width) < n_cars[:, None])
