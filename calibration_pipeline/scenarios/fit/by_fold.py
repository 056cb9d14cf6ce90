"""Fitted networks as labelled datasets: one set of parameters a fold."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, padded_width
from calibration_pipeline.scenarios.fit.history import build_history
from calibration_pipeline.scenarios.fit.laplace import (
    PARAMETER_DRAWS,
    Normal,
    draw_posterior,
    find_mode,
    forgetting,
)
from calibration_pipeline.scenarios.fit.outcome_tables import QUANTILES, outcome_tables
from calibration_pipeline.scenarios.folds import first_race_order, fold_name
from calibration_pipeline.scenarios.network.model import Parameters
from calibration_pipeline.scenarios.network.structure import FULL, Structure

PARAMETER_DIMS: dict[str, tuple[str, ...]] = {
    "pace_weight": ("draw", "archetype", "pace_covariate"),
    "team_scale": ("draw",),
    "front_sharpness": ("draw", "archetype"),
    "incident_intercept": ("draw", "archetype"),
    "incident_weight": ("draw", "archetype", "incident_covariate"),
    "chaos_scale": ("draw", "archetype"),
    "damage_intercept": ("draw", "archetype"),
    "damage_weight": ("draw", "archetype", "incident_covariate"),
    "damage_chaos_weight": ("draw", "archetype"),
    "caution_intercept": ("draw", "archetype"),
    "caution_track_weight": ("draw",),
    "caution_chaos_weight": ("draw", "archetype"),
    "luck_sign": (),
    "front_cars": (),
    "retirement_share": ("archetype", "quantile"),
    "laps_lost": ("archetype", "quantile"),
    "damage_laps_lost": ("archetype", "quantile"),
    "overtime_share": ("archetype", "quantile"),
    "laps_per_caution": ("archetype",),
    "lead_weight": ("archetype", "hold_covariate"),
    "lead_dispersion": ("archetype",),
    "fastest_weight": ("archetype", "hold_covariate"),
    "fastest_dispersion": ("archetype",),
}
DRAWN = frozenset(name for name, dims in PARAMETER_DIMS.items() if "draw" in dims)
NETWORK_COORDINATES: dict[str, Any] = {
    "draw": np.arange(PARAMETER_DRAWS),
    "archetype": [str(archetype) for archetype in ARCHETYPES],
    "pace_covariate": list(PACE_COVARIATES),
    "incident_covariate": list(INCIDENT_COVARIATES),
    "quantile": QUANTILES,
    "hold_covariate": ["start_score", "finish_score", "finish_score_squared"],
}


def fit_networks(
    history: pl.DataFrame, fold_races: int | None, seed: int, structure: Structure = FULL
) -> xr.Dataset:
    """Fit the causal network of every fold of a season, its open fold included.

    Parameters
    ----------
    history : polars.DataFrame
        `FoldHistory` of the season.
    fold_races : int or None
        Races in a fold, None for a season.
    seed : int
    structure : Structure
        The full network, or a baseline.

    Returns
    -------
    xarray.Dataset
        Parameters with dims (fold, draw, ...) and the coordinates network_as_of and n_races (fold): the last
        race that a fold's fit saw, and their number. A fold without earlier races has no fit.
    """
    if history.is_empty():
        return _no_networks()
    slots = structure.seen(history)
    starts = _fold_starts(history, fold_races)
    first, *others = starts.values()
    fit, near = _fit_fold(slots, first, seed, structure)  # alone: the others use what it compiles
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        later = pool.map(lambda start: _fit_fold(slots, start, seed, structure, near)[0], others)
    return xr.concat(
        [fit, *later], dim=xr.Variable("fold", list(starts)), coords="different", compat="equals"
    )


def _fold_starts(history: pl.DataFrame, fold_races: int | None) -> dict[str, int]:
    """Return the first race_order of each fold of the season that has earlier races, in order of time."""
    open_fold_start = history["open_fold_start"][0]
    season, first_round = divmod(open_fold_start, 100)
    rounds = [*history.filter(season=season)["round"].unique().sort(), first_round]
    names = pl.DataFrame({"round": rounds}).select(
        fold_name(pl.lit(season), pl.col("round"), fold_races).alias("fold")
    )
    starts = {fold: first_race_order(fold, fold_races) for fold in names["fold"].unique(maintain_order=True)}
    first_known = int(history["race_order"].min())  # type: ignore[arg-type]
    return {fold: start for fold, start in starts.items() if start > first_known}


def _fit_fold(
    slots: pl.DataFrame, start: int, seed: int, structure: Structure, near: Normal | None = None
) -> tuple[xr.Dataset, Normal]:
    """Fit the network on the races before `start`; later races are not read.

    `near` is the approximation of an earlier fold.
    """
    seen = slots.filter(pl.col("race_order") < start)
    widest = int(seen["field_size"].max())  # type: ignore[arg-type]
    history = build_history(seen, padded_width(widest))
    weight = forgetting(np.asarray(history.race_order), start)
    n_races = seen["race_index"].n_unique()
    normal = find_mode(history, weight, structure, near)
    fitted: Mapping[str, Any] = {
        **draw_posterior(normal, history, weight, seed, structure),
        "luck_sign": 1.0 if structure.ordinary else -1.0,
        "front_cars": structure.front_cars,
        **outcome_tables(seen, weight[:n_races]),
    }
    per_fold = {"network_as_of": history.race_order.max(), "n_races": n_races}
    fold = xr.Dataset(
        {
            name: (("fold", *dims), np.asarray(fitted[name], np.float32)[None])
            for name, dims in PARAMETER_DIMS.items()
        },
        {
            **NETWORK_COORDINATES,
            **{name: ("fold", np.array([value], np.int32)) for name, value in per_fold.items()},
        },
    )
    return fold, normal


def _no_networks() -> xr.Dataset:
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()}
    empty = {
        name: (("fold", *dims), np.zeros((0, *(sizes[dim] for dim in dims)), np.float32))
        for name, dims in PARAMETER_DIMS.items()
    }
    per_fold = {name: ("fold", np.zeros(0, np.int32)) for name in ("network_as_of", "n_races")}
    return xr.Dataset(empty, {**NETWORK_COORDINATES, **per_fold, "fold": ("fold", np.zeros(0, "<U6"))})


def fold_parameters(network: xr.Dataset, fold: str) -> Parameters:
    """Parameters of one fold; sampled ones have a leading axis of draws."""
    return Parameters(*(network[name].sel(fold=fold).values for name in Parameters._fields))
