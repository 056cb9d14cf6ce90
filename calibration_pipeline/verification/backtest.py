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
    raw: xr.Dataset, recalibrated: xr.Dataset, results: pl.DataFrame, fit: xr.DataTree
) -> xr.Dataset:
    """Build the backtest from raw and recalibrated scenarios and the results.

    Parameters
    ----------
    raw, recalibrated : xarray.Dataset
        `ScenarioEnsemble` of the same races of one archetype.
    results : polars.DataFrame
        Results of at least these cars (race_id, driver_id, finish_position, running), and
        `share_beaten` as `baselines.shares_beaten` returns it, for the Bradley-Terry baseline.
    fit : xarray.DataTree
        `CalibrationPosterior`: the as-of race and the number of races of each fold's fit go to its races.

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
    walk = fit["walk_forward"].to_dataset()
    seen = {
        name: dict(zip(walk["fold"].values.tolist(), walk[name].values.tolist(), strict=True))
        for name in ("calibration_as_of", "n_calibration_races")
    }
    folds = raw["fold"].values.tolist()
    as_of = {
        name: ("race", np.array([by.get(fold, 0) for fold in folds], np.int32)) for name, by in seen.items()
    }
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
