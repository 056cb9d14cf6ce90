"""Recalibration of scenarios by the state before their race, for past races and for the next one."""

import numpy as np
import xarray as xr

from calibration_pipeline.calibration.archetype_races import network_field, raw_forecast
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.calibration.state import DRAWN, NEW_FOLD, NEW_SEASON, SAME_FOLD
from calibration_pipeline.scenarios.draw.ensemble import draw_races
from calibration_pipeline.scenarios.network.model import Recalibration


def draw_recalibrations(
    states: xr.Dataset, races: xr.Dataset, n_scenarios: int, seed: int
) -> dict[int, Recalibration]:
    """Draw the recalibration of every scenario, for the races that have a state.

    Each scenario has its own draw of the state and race-level noise, so that the ensemble contains the
    uncertainty of the calibration.

    Parameters
    ----------
    states : xarray.Dataset
        `RaceStates`.
    races : xarray.Dataset
        Coordinate race.
    n_scenarios : int
    seed : int

    Returns
    -------
    dict
        race_id -> `Recalibration` of arrays (scenario). Races without a state are missing: their forecast
        stays raw.
    """
    known = np.intersect1d(races["race"].values, states["race"].values).tolist()
    return {race: draw_recalibration(states.sel(race=race), race, n_scenarios, seed) for race in known}


def recalibrate(races: xr.DataTree, states: xr.Dataset, seed: int) -> xr.Dataset:
    """Return the recalibrated forecast of an archetype's races.

    Races of the causal network are redrawn from the networks of their folds. A user's own scenarios are
    re-ranked. Races without a state keep the raw scenarios.

    Parameters
    ----------
    races : xarray.DataTree
        `ArchetypeRaces`.
    states : xarray.Dataset
        `RaceStates` of the archetype.
    seed : int

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble` of the same races and cars.
    """
    raw = raw_forecast(races)
    changes = draw_recalibrations(states, raw, raw.sizes["scenario"], seed)
    if not (raw["network_as_of"].values > 0).all():
        return rerank_races(raw, changes, seed)
    labels = raw.drop_dims("scenario").drop_vars("network_as_of").coords.to_dataset()
    network = races["network"].to_dataset()
    return draw_races(labels, network_field(races), network, raw.sizes["scenario"], seed, changes)[0]


def next_race_state(state: xr.DataTree, archetype: str, fold: str, season: int) -> xr.Dataset | None:
    """Return the state before the next race, as the backtest would have it.

    Parameters
    ----------
    state : xarray.DataTree
        `CalibrationState`.
    archetype : str
    fold : str
        Fold of the next race.
    season : int

    Returns
    -------
    xarray.Dataset or None
        `state.DRAWN` (draw) and n_calibration_races, the earlier races of the archetype; None where the
        archetype has too few.
    """
    opening = NEW_FOLD if season == state.attrs["last_season"] else NEW_SEASON
    if fold == state.attrs["last_fold"]:
        opening = SAME_FOLD
    chosen = state["next"].to_dataset().sel(opening=opening, archetype=archetype)
    return chosen if chosen["n_calibration_races"] > 0 else None


def draw_recalibration(state: xr.Dataset, race: int, n_scenarios: int, seed: int) -> Recalibration:
    """Draw the recalibration of every scenario of one race, as `draw_recalibrations` does.

    Parameters
    ----------
    state : xarray.Dataset
        `state.DRAWN` (draw), as returned by `next_race_state`.
    race : int
        race_id.
    n_scenarios, seed : int
    """
    rng = np.random.default_rng([seed, race])
    draws = {name: state[name].values for name in DRAWN}
    draw = rng.integers(len(draws["log_slope"]), size=n_scenarios)
    noise = draws["noise_sigma"][draw] * rng.standard_normal(n_scenarios)
    return Recalibration(
        log_sharpness=(draws["log_slope"][draw] + noise).astype(np.float32),
        incident_shift=draws["intercept"][draw].astype(np.float32),
        front_tilt=draws["front_tilt"][draw].astype(np.float32),
    )
