"""Bradley-Terry reference as of each race: strengths from the share of opponents beaten so far."""

import math

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.schemas.datasets import car_mask, list_cars
from calibration_pipeline.telemetry.history import past_mean, with_clock

NEWCOMER_SHARE = 0.35
PSEUDO_RACES = 3.0


def shares_beaten(race_results: pl.DataFrame) -> pl.DataFrame:
    """Return the mean share of the field that each driver beat in earlier races, shrunk to a newcomer's.

    Parameters
    ----------
    race_results : polars.DataFrame
        `RaceResults`.

    Returns
    -------
    polars.DataFrame
        race_id, driver_id and `share_beaten`, strictly between 0 and 1, one row a car.
    """
    n = pl.len().over("race_id")
    past = with_clock(race_results, race_results).with_columns(
        share_beaten=(n - pl.col("finish_position")) / (n - 1).clip(1)
    )
    cars = past.drop("share_beaten")
    return past_mean(
        cars, past, pl.col("share_beaten"), ["driver_id"],
        half_life=math.inf, prior=NEWCOMER_SHARE, pseudo_count=PSEUDO_RACES,
    ).select("race_id", "driver_id", "share_beaten")  # fmt: skip


def align_shares(dataset: xr.Dataset, shares: pl.DataFrame) -> NDArray[np.float64]:
    """Return the share of the field that each car's driver has beaten: (race, driver), 0 in padding.

    Parameters
    ----------
    dataset : xarray.Dataset
        Races and cars, as for `list_cars`.
    shares : polars.DataFrame
        Result of `shares_beaten`.
    """
    cars = list_cars(dataset).join(shares, on=["race_id", "driver_id"], how="left", maintain_order="left")
    mask = car_mask(dataset).values
    aligned = np.zeros(mask.shape)
    aligned[mask] = cars["share_beaten"].to_numpy()
    return aligned


def bradley_terry(share_beaten: NDArray, opponent_share_beaten: NDArray) -> NDArray[np.float64]:
    """Return P(a driver beats an opponent); a strength is the odds of beating an average opponent.

    Bradley & Terry (1952), doi:10.2307/2334029.

    Parameters
    ----------
    share_beaten, opponent_share_beaten : array
        Between 0 and 1.

    Examples
    --------
    >>> float(bradley_terry(np.array(0.75), np.array(0.5)))
    0.75
    """
    odds = share_beaten / (1 - share_beaten)
    opponent_odds = opponent_share_beaten / (1 - opponent_share_beaten)
    return odds / (odds + opponent_odds)
