"""Backtest: out-of-sample probabilities, raw and recalibrated, with the results of the same races."""

from typing import Any

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.calibration.archetype_races import raw_forecast
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
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
    races = raw["race"].values.tolist()
    as_of = {}
    for name in ("calibration_as_of", "n_calibration_races"):
        known = dict(zip(states["race"].values.tolist(), states[name].values.tolist(), strict=True))
        as_of[name] = "race", np.array([known.get(race, 0) for race in races], np.int32)
    coordinates = raw.drop_dims("scenario").coords
    return xr.Dataset(variables, {**coordinates, **as_of, "position": np.arange(1, width + 1)})


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
