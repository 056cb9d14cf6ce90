"""Probabilities of the next race, recalibrated as those of the backtest."""

from collections.abc import Collection
from typing import Any

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.calibration.recalibration import next_race_state
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, Forecasts, read_forecaster
from calibration_pipeline.forecasters.odds import Margin
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.schemas.forecasters import EventProbabilities
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import defect_lines
from calibration_pipeline.walk_forward.events import next_race_states, recalibrate_events
from calibration_pipeline.walk_forward.positions import recalibrate_positions


def forecast_next_events(
    announced: AnnouncedRace | NoNextRace | None,
    forecaster: ForecasterFiles,
    state: xr.DataTree,
    seasons: Collection[int],
    *,
    fold_races: int | None,
    seed: int,
    nicknames: Nicknames | None = None,
    margin: Margin | None = None,
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
    margin : Margin, optional
        As for `folder.read_forecaster`.

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
    races = RacesInForce(announced.entries, nicknames, seasons)
    forecasts = read_forecaster(forecaster, races, None, fold_races=fold_races, seed=seed, margin=margin)
    race = _keys(announced, fold_races)
    states = next_race_states(state, race["race_id"], race["archetype"], race["fold"], race["season"])
    return recalibrate_events(forecasts.frame, states), _notes(forecasts, races, forecasts.frame.height)


def forecast_next_positions(
    announced: AnnouncedRace | NoNextRace | None,
    forecaster: ForecasterFiles,
    state: xr.DataTree,
    seasons: Collection[int],
    *,
    fold_races: int | None,
    seed: int,
    nicknames: Nicknames | None = None,
    margin: Margin | None = None,
) -> tuple[pl.DataFrame, list[str]]:
    """Read and recalibrate position probabilities of the next race, and add them up to events.

    Parameters
    ----------
    announced, forecaster, seasons, fold_races, seed, nicknames, margin
        As for `forecast_next_events`.
    state : xarray.DataTree
        As `positions.filter_positions` returns it.

    Returns
    -------
    probabilities : polars.DataFrame
        `EventProbabilities`; empty where the forecaster lacks the race.
    notes : list of str
        A line for everything that is left out or corrected.
    """
    if not isinstance(announced, AnnouncedRace):
        return EventProbabilities.empty(), []
    # Positions of the arrays follow the grid; where it is not set, any order will do.
    numbered = pl.col("start_position").fill_null(pl.int_range(1, pl.len() + 1))
    races = RacesInForce(announced.entries.with_columns(numbered), nicknames, seasons)
    forecasts = read_forecaster(forecaster, races, None, fold_races=fold_races, seed=seed, margin=margin)
    race, positions = _keys(announced, fold_races), forecasts.dataset
    own = next_race_state(state, race["archetype"], race["fold"], race["season"])
    if own is not None and positions.sizes["race"]:
        positions = recalibrate_positions(positions, own.expand_dims(race=[race["race_id"]]))
    frames = [
        pl.DataFrame(
            {
                "race_id": race["race_id"],
                "driver_id": positions["driver_id"].values[r, :n].tolist(),
                "market": market,
                "probability": np.clip(positions["probability"].values[r, :n, :top].sum(axis=1), 0.0, 1.0),
            }
        )
        for r, n in enumerate(positions["field_size"].values.tolist())
        for market, top in EVENT_MARKETS.items()
        if top < n
    ]
    probabilities = pl.concat([EventProbabilities.empty(), *frames], how="vertical_relaxed")
    return probabilities, _notes(forecasts, races, positions.sizes["race"])


def _keys(announced: AnnouncedRace, fold_races: int | None) -> dict[str, Any]:
    """Return race_id, season, archetype and fold of the race."""
    fold = fold_name(pl.col("season"), pl.col("round"), fold_races)
    return announced.entries.select("race_id", "season", "archetype", fold=fold).row(0, named=True)


def _notes(forecasts: Forecasts, races: RacesInForce, n_forecasts: int) -> list[str]:
    lacks_race = [] if n_forecasts else [f"{races.races['label'].item()}: no forecast"]
    return [*forecasts.notes, *defect_lines(forecasts.quarantine), *lacks_race]
