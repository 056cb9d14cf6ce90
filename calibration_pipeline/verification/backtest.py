"""Backtest: out-of-sample probabilities, raw and recalibrated, with the results of the same races."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.archetype_races import raw_forecast
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.schemas.datasets import POSITION
from calibration_pipeline.telemetry.baselines import align_shares


def build_backtest(
    raw: xr.Dataset, recalibrated: xr.Dataset, results: pl.DataFrame, states: xr.Dataset
) -> xr.Dataset:
    """Build the backtest from raw and recalibrated scenarios and the results.

    Parameters
    ----------
    raw, recalibrated : xarray.Dataset
        `ScenarioEnsemble` of the same races of one archetype.
    results : polars.DataFrame
        Results of at least these cars (race_id, driver_id, finish_position, running), and
        `share_beaten` as `baselines.shares_beaten` returns it, for the Bradley-Terry baseline.
    states : xarray.Dataset
        `RaceStates`: the as-of race and the number of earlier races go to the races that have a state.

    Returns
    -------
    xarray.Dataset
        `Backtest`.
    """
    field_size = raw["field_size"].values
    position, pair = ("race", "driver", "position"), ("race", "driver", "opponent")
    width = raw.sizes["driver"]
    variables: dict[str, Any] = {}
    for name, ensemble in {"raw": raw, "recalibrated": recalibrated}.items():
        finish = ensemble["finish_position"].values
        variables[name] = (position, finish_probabilities(finish, field_size))
        variables[f"{name}_head_to_head"] = (pair, head_to_head(finish, field_size))
    variables["finish_position"] = (("race", "driver"), observe(raw, results).finish_position)
    shares = results.select("race_id", "driver_id", "share_beaten")
    variables["share_beaten"] = (("race", "driver"), align_shares(raw, shares))
    coordinates = raw.drop_dims("scenario").coords
    position_numbers = {"position": np.arange(1, width + 1)}
    return xr.Dataset(variables, {**coordinates, **calibration_times(raw, states), **position_numbers})


def calibration_times(races: xr.Dataset, states: xr.Dataset) -> dict[str, tuple[str, NDArray[np.int32]]]:
    """Return the as-of race and the number of earlier races of the recalibration of each race, as variables.

    Parameters
    ----------
    races : xarray.Dataset
        With the coordinate race.
    states : xarray.Dataset
        `MapStates`; races without a state have 0.
    """
    variables = {}
    for name in ("calibration_as_of", "n_calibration_races"):
        known = dict(zip(states["race"].values.tolist(), states[name].values.tolist(), strict=True))
        numbers = [known.get(race, 0) for race in races["race"].values.tolist()]
        variables[name] = "race", np.array(numbers, np.int32)
    return variables


def backtest_positions(
    forecasts: Mapping[str, xr.Dataset], results: pl.DataFrame, states: xr.Dataset, races: Collection[int]
) -> dict[str, xr.Dataset]:
    """Build the backtests of position probabilities. They have no probabilities of pairs of cars.

    Parameters
    ----------
    forecasts : mapping of str to xarray.Dataset
        'raw' and 'recalibrated' to `PositionProbabilities` of the same races and cars.
    results : polars.DataFrame
        race_id, driver_id, finish_position and running of at least the races that are kept.
    states : xarray.Dataset
        `MapStates`, as for `build_backtest`.
    races : collection of int
        race_id of the races that are kept.

    Returns
    -------
    dict
        Every archetype to its backtest, possibly of zero races.
    """
    kept = {
        name: forecast.isel(race=np.isin(forecast["race"].values, list(races)))
        for name, forecast in forecasts.items()
    }
    first = next(iter(kept.values()))
    variables: dict[str, Any] = {
        name: (POSITION, forecast["probability"].values) for name, forecast in kept.items()
    }
    variables["finish_position"] = ("race", "driver"), observe(first, results).finish_position
    joint = xr.Dataset(variables, {**first.coords, **calibration_times(first, states)})
    return {str(own): joint.isel(race=joint["archetype"].values == str(own)) for own in ARCHETYPES}


def scored_races(backtest: xr.Dataset) -> xr.Dataset:
    """Return the races that are scored: all seasons but the first, in which fits have too few races."""
    return backtest.isel(race=backtest["season"].values > backtest["season"].values.min(initial=9999))


def scored_forecasts(races: xr.DataTree, recalibrated: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the raw and the recalibrated forecast of the races that are scored.

    Parameters
    ----------
    races : xarray.DataTree
        `ArchetypeRaces`.
    recalibrated : xarray.Dataset
        `ScenarioEnsemble` of the same races.
    """
    forecasts = {"raw": raw_forecast(races), "recalibrated": recalibrated}
    return {name: scored_races(forecast) for name, forecast in forecasts.items()}


def scored_positions(
    forecasts: Mapping[str, xr.Dataset], results: pl.DataFrame, states: xr.Dataset
) -> dict[str, xr.Dataset]:
    """Return the backtests of position probabilities over the races that are scored and have results.

    Parameters
    ----------
    forecasts, results, states
        As for `backtest_positions`.

    Returns
    -------
    dict
        Every archetype to its backtest, possibly of zero races.
    """
    backtests = backtest_positions(forecasts, results, states, results["race_id"].unique().to_list())
    return {archetype: scored_races(backtest) for archetype, backtest in backtests.items()}
