"""Backtests of forecasters with position probabilities, from which scores and the blend are computed."""

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.schemas.datasets import car_mask, list_cars
from calibration_pipeline.schemas.results import join_results
from calibration_pipeline.verification.cases import independent_head_to_head


def split_positions(
    forecasts: Mapping[str, xr.Dataset], results: pl.DataFrame, races: Collection[int]
) -> dict[str, xr.Dataset]:
    """Join position probabilities with results, by archetype; cars finish independently of each other.

    Parameters
    ----------
    forecasts : mapping of str to xarray.Dataset
        raw and recalibrated to `PositionProbabilities` of the same races and cars.
    results : polars.DataFrame
        race_id, driver_id and finish_position of at least the races that are kept.
    races : collection of int
        race_id of the races that are kept.

    Returns
    -------
    dict
        Archetype to a dataset that `race_probabilities.read_backtests` and `blend.blend_backtest` read.
    """
    kept = {
        name: forecast.isel(race=np.isin(forecast["race"].values, list(races)))
        for name, forecast in forecasts.items()
    }
    first = next(iter(kept.values()))
    finish = np.zeros(first["driver_id"].shape, np.int16)
    columns = results.select("race_id", "driver_id", "finish_position")
    joined = join_results(list_cars(first), columns, "position probabilities")
    finish[car_mask(first).values] = joined["finish_position"].to_numpy()
    dims = ("race", "driver", "position")
    variables = {name: (dims, forecast["probability"].values) for name, forecast in kept.items()}
    pairs = {
        f"{name}_head_to_head": (("race", "driver", "opponent"), independent_head_to_head(values))
        for name, (_, values) in variables.items()
    }
    none = ("race", np.zeros(first.sizes["race"], np.int32))
    joint = xr.Dataset(
        {**variables, **pairs, "finish_position": (("race", "driver"), finish)},
        {**first.coords, "calibration_as_of": none, "n_calibration_races": none},
    )
    archetypes = joint["archetype"].values
    return {str(own): joint.isel(race=archetypes == own) for own in np.unique(archetypes)}
