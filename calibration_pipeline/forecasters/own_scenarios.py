"""Scenarios of the one forecaster that takes the position of the network in the pipeline.

A file, or a folder whose files together are one forecaster, as the setting `ensembles` names it.
"""

import os
from collections.abc import Collection

import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import SUFFIXES, ForecasterFiles, Form, files_of, read_forecaster
from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import defect_lines


def find_own_files(path: str | os.PathLike[str]) -> ForecasterFiles:
    """Return the file, or the files of the folder, as one forecaster.

    Parameters
    ----------
    path : str or path-like
        Path, or address of an object store.

    Raises
    ------
    ForecasterError
        If there is no such file, or no file of a known format.
    """
    address = os.fspath(path)
    shown = without_credentials(address)
    try:
        exists = UPath(address).exists()
        files = files_of(UPath(address)) if exists else []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ForecasterError(f"{shown} cannot be read: {reason}.") from safe_cause(error, address)
    if not files:
        state = "has none" if exists else "does not exist"
        raise ForecasterError(
            f"Scenarios must be a file, or a folder of files, that ends in {', '.join(SUFFIXES)}; "
            f"{shown} {state}."
        )
    return ForecasterFiles(shown, tuple(files))


def read_own_scenarios(
    path: str | os.PathLike[str],
    entries: pl.DataFrame,
    results: pl.DataFrame | None,
    *,
    fold_races: int | None,
    seed: int,
    nicknames: Nicknames | None = None,
    other_seasons: Collection[int] = (),
) -> tuple[xr.Dataset, list[str]]:
    """Read the scenarios of the races of an entry list.

    Parameters
    ----------
    path : str or path-like
        As for `find_own_files`; see `docs/forecasters.md`.
    entries : polars.DataFrame
        `DriverFeatures` (or `EntryList` with a grid) of the requested races; may be empty.
    results : polars.DataFrame or None
        `RaceResults` of earlier seasons, from which the direction of scores is guessed.
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

    Raises
    ------
    ValueError
        If the files hold another form of forecast than scenarios, or as for `read_forecaster`.
    """
    files = find_own_files(path)
    races = RacesInForce(entries, nicknames, other_seasons)
    forecasts = read_forecaster(files, races, results, fold_races=fold_races, seed=seed)
    if forecasts.form is not Form.SCENARIOS or not isinstance(forecasts.values, xr.Dataset):
        raise ForecasterError(f"{files.name}: the pipeline takes scenarios; got {forecasts.form}.")
    named = {*forecasts.values["race"].values.tolist(), *forecasts.quarantine["race_id"].drop_nulls()}
    missing = races.races.filter(~pl.col("race_id").is_in(list(named)))["label"]
    lines = [*forecasts.notes, *defect_lines(forecasts.quarantine)]
    return forecasts.values, [*lines, *(f"{label}: no scenarios" for label in missing)]
