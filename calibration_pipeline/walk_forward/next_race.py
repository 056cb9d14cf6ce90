"""Event probabilities of the next race, recalibrated as those of the backtest."""

from collections.abc import Collection

import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, read_forecaster
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.schemas.forecasters import EventProbabilities
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import defect_lines
from calibration_pipeline.walk_forward.events import next_race_states, recalibrate_events


def forecast_next_events(
    announced: AnnouncedRace | NoNextRace | None,
    forecaster: ForecasterFiles,
    state: xr.DataTree,
    seasons: Collection[int],
    *,
    fold_races: int | None,
    seed: int,
    nicknames: Nicknames | None = None,
) -> tuple[pl.DataFrame, list[str]]:
    """Read a forecaster's event probabilities of the next race, and recalibrate them.

    Parameters
    ----------
    announced : AnnouncedRace, NoNextRace or None
        The race; the reason, or None, where the source announces none.
    forecaster : ForecasterFiles
    state : xarray.DataTree
        As `events.filter_events` returns it.
    seasons : collection of int
        Seasons in force: a file may hold these alone.
    fold_races : int or None
        Races in a fold, None for a season.
    seed : int
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.

    Returns
    -------
    probabilities : polars.DataFrame
        `EventProbabilities`; empty where the forecaster lacks the race. Markets without a state stay as
        issued.
    notes : list of str
        A line for everything that is left out or corrected.
    """
    if not isinstance(announced, AnnouncedRace):
        return EventProbabilities.empty(), []
    entries = announced.entries
    forecasts = read_forecaster(
        forecaster, RacesInForce(entries, nicknames, seasons), None, fold_races=fold_races, seed=seed
    )
    race = entries.select(
        "race_id", "season", "archetype", fold=fold_name(pl.col("season"), pl.col("round"), fold_races)
    ).row(0, named=True)
    states = next_race_states(state, race["race_id"], race["archetype"], race["fold"], race["season"])
    notes = [*forecasts.notes, *defect_lines(forecasts.quarantine)]
    return recalibrate_events(forecasts.frame, states), notes
