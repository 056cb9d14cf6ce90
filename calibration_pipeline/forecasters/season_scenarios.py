"""Scenarios of a user's forecaster for the races of an entry list, with a line for everything left out."""

from collections.abc import Collection

import polars as pl
import xarray as xr

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, Form, read_forecaster
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import defect_lines


def read_season_scenarios(
    forecaster: ForecasterFiles,
    entries: pl.DataFrame,
    results: pl.DataFrame | None,
    *,
    fold_races: int | None,
    seed: int,
    nicknames: Nicknames | None = None,
    other_seasons: Collection[int] = (),
) -> tuple[xr.Dataset, list[str], pl.DataFrame]:
    """Read the scenarios of the races of an entry list.

    Parameters
    ----------
    forecaster : ForecasterFiles
        Files with scenarios; see `docs/forecasters.md`.
    entries : polars.DataFrame
        `DriverFeatures` (or `EntryList` with a grid) of the requested races; may be empty.
    results : polars.DataFrame or None
        race_id, season, driver_id and finish_position of earlier races, from which the direction of scores is
        guessed.
    fold_races : int or None
        Races in a fold, None for a season.
    seed : int
        Seed of the order of equal values.
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.
    other_seasons : collection of int
        Other seasons in force. With these, a file without a usable race of `entries` gives no race.

    Returns
    -------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, possibly of zero races.
    notes : list of str
        A line for everything that is left out or corrected, for each race without scenarios, and for the
        direction of scores.
    quarantine : polars.DataFrame
        `Quarantine`, what is left out or corrected.

    Raises
    ------
    ValueError
        If the files hold another form of forecast than scenarios, or as for `read_forecaster`.
    """
    races = RacesInForce(entries, nicknames, other_seasons)
    forecasts = read_forecaster(forecaster, races, results, fold_races=fold_races, seed=seed)
    if forecasts.form is not Form.SCENARIOS or not isinstance(forecasts.values, xr.Dataset):
        raise ForecasterError(f"{forecaster.name}: its files must hold scenarios; got {forecasts.form}.")
    named = {*forecasts.values["race"].values.tolist(), *forecasts.quarantine["race_id"].drop_nulls()}
    missing = races.races.filter(~pl.col("race_id").is_in(list(named)))["label"]
    lines = [*forecasts.notes, *defect_lines(forecasts.quarantine)]
    lines += [f"{label}: no scenarios" for label in missing]
    return forecasts.values, lines, forecasts.quarantine
