"""Forecast and observed retirements of races, with the climatology of earlier races."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.schemas.datasets import car_mask, list_cars
from calibration_pipeline.schemas.results import join_results

RESULT_COLUMNS = ("race_id", "driver_id", "finish_position", "running")


@dataclass(frozen=True)
class Retirements:
    """Retirements of races, as forecast and as observed.

    The climatology of a race is the archetype's earlier races that the forecaster has: the share of their
    cars that retired, and the distribution of the number a race. Half a case (a uniform distribution that
    weighs as one race) is added, so that it exists for the first race.

    Attributes
    ----------
    race : ndarray
        Index of each car's race, (cars,).
    retired : ndarray
        Whether the car retired, (cars,) bool.
    probability : dict
        Forecast to P(retirement), (cars,): (count + 1/2) / (scenarios + 1).
    share : ndarray
        The climatology of P(retirement), (cars,).
    observed, field_size : ndarray
        Retired cars and cars, (race,).
    numbers : dict
        Forecast to the number of retired cars, (race, scenario).
    distribution : ndarray
        The climatology of the number, (race, largest field + 1).
    """

    race: NDArray[np.int64]
    retired: NDArray[np.bool_]
    probability: dict[str, NDArray[np.float64]]
    share: NDArray[np.float64]
    observed: NDArray[np.int64]
    field_size: NDArray[np.int64]
    numbers: dict[str, NDArray[np.int64]]
    distribution: NDArray[np.float64]


def read_retirements(ensembles: Mapping[str, xr.Dataset], results: pl.DataFrame) -> Retirements | None:
    """Return the retirements of an archetype's races.

    Parameters
    ----------
    ensembles : mapping
        Forecast to `ScenarioEnsemble` of the same races, at least one.
    results : polars.DataFrame
        race_id, driver_id, finish_position and running of `RaceResults`, of at least these races, race by
        race in order of time; earlier races are the climatology.

    Returns
    -------
    Retirements or None
        None where the scenarios have no retirements.

    Raises
    ------
    ValueError
        If a car lacks a result.
    """
    first = next(iter(ensembles.values()))
    if any("running" not in ensemble.data_vars for ensemble in ensembles.values()):
        return None
    mask = car_mask(first).values
    race = np.nonzero(mask)[0]
    cars = join_results(list_cars(first), results.select(RESULT_COLUMNS), "ensembles")
    retired = ~cars["running"].to_numpy()
    probability, numbers = {}, {}
    for forecast, ensemble in ensembles.items():
        out = ~ensemble["running"].transpose("race", "scenario", "driver").values & mask[:, None, :]
        probability[forecast] = ((out.sum(axis=1) + 0.5) / (out.shape[1] + 1))[mask]
        numbers[forecast] = out.sum(axis=2)
    field_size = mask.sum(axis=1)
    share, distribution = _climatology(results, first["race"].values, field_size)
    observed = np.bincount(race, retired, minlength=field_size.size).astype(np.int64)
    return Retirements(race, retired, probability, share[race], observed, field_size, numbers, distribution)


def _climatology(
    results: pl.DataFrame, races: NDArray, field_size: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of retired cars before each race, and the distribution of their number."""
    history = results.group_by("race_id", maintain_order=True).agg(
        retired=(~pl.col("running")).sum(), cars=pl.len()
    )
    number, cars = history["retired"].to_numpy().astype(np.int64), history["cars"].to_numpy()
    order = {race: index for index, race in enumerate(history["race_id"].to_list())}
    share, distribution = np.empty(races.size), np.zeros((races.size, field_size.max() + 1))
    for r, (race, size) in enumerate(zip(races.tolist(), field_size, strict=True)):
        earlier = slice(order[race])
        share[r] = (number[earlier].sum() + 0.5) / (cars[earlier].sum() + 1)
        count = np.bincount(np.minimum(number[earlier], size), minlength=size + 1) + 1 / (size + 1)
        distribution[r, : size + 1] = count / count.sum()
    return share, distribution
