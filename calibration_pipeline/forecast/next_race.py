"""Forecast of the next race, by the procedure of the backtest."""

import json
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.calibration.recalibration import draw_recalibration, next_race_state
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.events.language import Event
from calibration_pipeline.forecast.chances import (
    FITS,
    Simulate,
    chance_table,
    chances_by_fit,
    event_table,
    known_events,
    scenario_table,
)
from calibration_pipeline.forecasters.folder import ForecasterFiles
from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.draw.grids import draw_grids, fit_grid_strength, simulate_without_grid
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.network.structure import FULL, Structure
from calibration_pipeline.schemas.forecasts import ForecastChances, ForecastEvents, ForecastScenarios
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.telemetry import build_driver_features

GRIDS = 20
GRIDS_A_FIT = 4
GRID_STREAM = 13
GRID = "grid"
SET, DRAWN, OF_FORECASTER = "set", "drawn", "of the forecaster"
GRID_NOTES = {
    SET: "The grid is set.",
    DRAWN: f"The grid is not set yet: {GRIDS} grids were drawn by form, as fitted to earlier grids. "
    "The forecasts of the backtest knew their grid, so this forecast is less certain than they were.",
    OF_FORECASTER: "The grid is not set yet, and none was drawn: the scenarios are the forecaster's own.",
}
CALIBRATION_RACES = "n_calibration_races"
ENTRY_DEFECTS = "entry_defects"
NONE_ANNOUNCED = "The source announces no race that has not run."


class Knowledge(NamedTuple):
    """Data known before the next race.

    Attributes
    ----------
    race_results, lap_aggregates, features : polars.DataFrame
        `RaceResults`, `LapAggregates` and `DriverFeatures` of all races.
    network : xarray.Dataset
        `CausalNetwork` of the last season.
    state : xarray.DataTree
        `CalibrationState`.
    """

    race_results: pl.DataFrame
    lap_aggregates: pl.DataFrame
    features: pl.DataFrame
    network: xr.Dataset
    state: xr.DataTree


class Method(NamedTuple):
    """Settings of the scenarios, the same as in the backtest; `forecaster` is None for the network."""

    n_scenarios: int
    fold_races: int | None
    seed: int
    structure: Structure = FULL
    forecaster: ForecasterFiles | None = None
    nicknames: Nicknames | None = None


class NextRace(NamedTuple):
    """The next race: its entries' features, its fold, and whether its grid is set."""

    features: pl.DataFrame
    fold: str
    grid_is_set: bool

    @property
    def race(self) -> dict[str, object]:
        """Race, season, archetype and track."""
        return self.features.select("race_id", "season", "archetype", "track_id").row(0, named=True)


class RaceForecast(NamedTuple):
    """The forecast of the next race.

    Attributes
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble` of the race; of zero races where there is no forecast.
    chances, events, scenarios : polars.DataFrame
        `ForecastChances`, `ForecastEvents` and `ForecastScenarios`.
    facts : dict
        Race, fold, grid, calibration and defects of the announced race; `why` where there is no forecast.
    """

    ensemble: xr.Dataset
    chances: pl.DataFrame
    events: pl.DataFrame
    scenarios: pl.DataFrame
    facts: dict[str, object]


def forecast_next_race(
    announced: AnnouncedRace | NoNextRace | None, known: Knowledge, method: Method, events: Sequence[Event]
) -> RaceForecast:
    """Draw scenarios of the next race and recalibrate them.

    Parameters
    ----------
    announced : AnnouncedRace, NoNextRace or None
        The race; the reason, or None, where the source announces none.
    known : Knowledge
    method : Method
    events : sequence of Event
        Joint events to forecast.

    Returns
    -------
    RaceForecast

    Raises
    ------
    ValueError
        If a user's own scenarios break their form.
    """
    if announced is None or isinstance(announced, NoNextRace):
        none = simulate_races(
            known.features.clear(), known.network, method.fold_races, method.n_scenarios, method.seed
        )
        return _no_forecast(none, announced.why if announced else NONE_ANNOUNCED)
    next_race = _describe(announced.entries, known, method.fold_races)
    race = next_race.race
    race_id, season = int(str(race["race_id"])), int(str(race["season"]))
    state = next_race_state(known.state, str(race["archetype"]), next_race.fold, season)
    n_scenarios = method.n_scenarios
    notes: list[str] = []
    if method.forecaster:
        own, notes, _ = read_season_scenarios(
            method.forecaster,
            next_race.features,
            known.race_results,
            fold_races=method.fold_races,
            seed=method.seed,
            nicknames=method.nicknames,
            other_seasons=known.race_results["season"].unique().to_list(),
        )
        if own.sizes["race"] == 0:
            why = f"The next race, {race_id}, has no scenarios of {method.forecaster.name}"
            return _no_forecast(own, f"{why}: {' | '.join(notes)}.")
        n_scenarios = own.sizes["scenario"]
        simulate: Simulate = partial(_rerank, own, method.seed)
        simulate_fit = simulate
    else:
        simulate, simulate_fit = _simulators(next_race, known, method)
    change = None if state is None else draw_recalibration(state, race_id, n_scenarios, method.seed)
    ensemble = simulate(change, n_scenarios)
    n_races = 0 if state is None else int(state["n_calibration_races"])
    grid = SET if next_race.grid_is_set else OF_FORECASTER if method.forecaster else DRAWN
    ensemble.attrs |= {
        GRID: grid,
        CALIBRATION_RACES: n_races,
        ENTRY_DEFECTS: json.dumps(announced.defects),
    }
    judged = known_events(ensemble, events)
    by_fit = (None, None) if state is None else chances_by_fit(simulate_fit, state, judged, method.seed)
    facts = {
        **race,
        "fold": next_race.fold,
        "scenarios": ensemble.sizes["scenario"],
        "grid": GRID_NOTES[grid],
        "recalibrated": state is not None,
        "calibration_races": n_races,
        ENTRY_DEFECTS: list(announced.defects),
        "interval_fits": 0 if state is None else FITS,
        **({"left_out": notes} if notes else {}),
    }
    return RaceForecast(
        ensemble,
        chance_table(ensemble, by_fit[0]),
        event_table(ensemble, judged, by_fit[1]),
        scenario_table(ensemble),
        facts,
    )


def _no_forecast(none: xr.Dataset, why: str) -> RaceForecast:
    """Return a forecast of no race, with the reason."""
    chances, events, scenarios = (
        model.empty() for model in (ForecastChances, ForecastEvents, ForecastScenarios)
    )
    return RaceForecast(none.assign_attrs(why=why), chances, events, scenarios, {"why": why})


def _describe(entries: pl.DataFrame, known: Knowledge, fold_races: int | None) -> NextRace:
    features = build_driver_features(entries, known.race_results, known.lap_aggregates)
    fold = features.select(fold_name(pl.col("season"), pl.col("round"), fold_races)).item(0, 0)
    return NextRace(features, fold, grid_is_set=entries["start_position"].null_count() == 0)


def _simulators(next_race: NextRace, known: Knowledge, method: Method) -> tuple[Simulate, Simulate]:
    """Return the functions that simulate the race from the network for its forecast and for its intervals.

    Where the grid is not set, the forecast has `GRIDS` drawn grids, and each fit of an interval the first
    `GRIDS_A_FIT` of them.
    """
    folds, seed = method.fold_races, method.seed
    race_id, season = int(str(next_race.race["race_id"])), int(str(next_race.race["season"]))
    network = known.network
    if next_race.fold not in network["fold"].values:
        history = fold_history(known.features, known.race_results, season, folds, next_race.fold)
        network = fit_networks(history, folds, seed, method.structure)
    if next_race.grid_is_set:

        def simulate(change: Recalibration | None, n: int) -> xr.Dataset:
            return simulate_races(
                next_race.features, network, folds, n, seed, {race_id: change} if change else {}
            )

        return simulate, simulate
    rng = np.random.default_rng([seed, race_id, GRID_STREAM])
    grids = draw_grids(next_race.features, fit_grid_strength(known.features), GRIDS, rng)

    def simulate_on(grids: NDArray[np.int64], change: Recalibration | None, n: int) -> xr.Dataset:
        return simulate_without_grid(next_race.features, grids, network, folds, n, seed, change)

    return partial(simulate_on, grids), partial(simulate_on, grids[:GRIDS_A_FIT])


def _rerank(own: xr.Dataset, seed: int, change: Recalibration | None, n: int) -> xr.Dataset:
    """Return the first n of a user's own scenarios, re-ranked."""
    some = own.isel(scenario=slice(n))
    if change is None:
        return some
    part = Recalibration(*(np.asarray(values)[: some.sizes["scenario"]] for values in change))
    return rerank_races(some, {int(own["race"].values[0]): part}, seed)


def without_drawn_grid(forecast: xr.Dataset, chances: pl.DataFrame) -> pl.DataFrame:
    """Return the chances for display: start positions are null where the grid is not set.

    The start positions of a forecast with drawn grids are the order of expected form.

    Parameters
    ----------
    forecast : xarray.Dataset
        `ScenarioEnsemble` of the race.
    chances : polars.DataFrame
        `ForecastChances`.
    """
    if forecast.attrs.get(GRID) == SET:
        return chances
    return chances.with_columns(start_position=pl.lit(None, pl.Int64))


def forecast_notes(forecast: xr.Dataset) -> list[str]:
    """Return the notes on a stored forecast: calibration, grid, defects, files; or why there is none."""
    if forecast.sizes["race"] == 0:
        return [str(forecast.attrs.get("why", NONE_ANNOUNCED))]
    n_races = int(forecast.attrs[CALIBRATION_RACES])
    archetype = parse_archetype(str(forecast["archetype"].values[0])).label.lower()
    calibrated = (
        f"Calibrated with {n_races} earlier races of the archetype {archetype}."
        if n_races
        else f"Not calibrated: too few earlier races of the archetype {archetype}."
    )
    defects: list[str] = json.loads(forecast.attrs.get(ENTRY_DEFECTS, "[]"))
    races = [f"Next race: {sentence}" for sentence in defects]
    files = "Scenarios for an optimizer: race_forecast and forecast_scenarios in the store."
    return [calibrated, GRID_NOTES[forecast.attrs[GRID]], *races, files]
