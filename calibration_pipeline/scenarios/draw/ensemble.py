"""Scenario ensembles: draws from the causal network for many races, as one labelled dataset."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.typing import NDArray
from numpyro import handlers

from calibration_pipeline.scenarios.covariates import (
    Field,
    build_field,
    padded_width,
    race_slots,
    widen_field,
)
from calibration_pipeline.scenarios.draw.pins import Pin, pin
from calibration_pipeline.scenarios.fit.by_fold import fold_parameters
from calibration_pipeline.scenarios.network.model import (
    Outcome,
    Parameters,
    Recalibration,
    incident_logit,
    log_strength,
    race_model,
)
from calibration_pipeline.scenarios.races import race_coordinates

SCENARIO_BATCH = 1024
NO_PINS: Mapping[str, Pin] = MappingProxyType({})
MAX_SCENARIOS = 1_000_000
CAR_OUTCOME = ("race", "scenario", "driver")
RACE_OUTCOME = ("race", "scenario")
VARIABLES: dict[str, tuple[tuple[str, ...], type]] = {
    "finish_position": (CAR_OUTCOME, np.int16),
    "running": (CAR_OUTCOME, np.bool_),
    "laps_completed": (CAR_OUTCOME, np.int16),
    "laps_led": (CAR_OUTCOME, np.int16),
    "fastest_laps": (CAR_OUTCOME, np.int16),
    "race_laps": (RACE_OUTCOME, np.int16),
    "green_laps": (RACE_OUTCOME, np.int16),
    "n_cautions": (RACE_OUTCOME, np.int16),
    "utility": (("race", "driver"), np.float32),
    "incident_logit": (("race", "driver"), np.float32),
    "chaos_scale": (("race",), np.float32),
}


def simulate_races(
    features: pl.DataFrame,
    network: xr.Dataset,
    fold_races: int | None,
    n_scenarios: int,
    seed: int,
    recalibration: Mapping[int, Recalibration] | None = None,
) -> xr.Dataset:
    """Draw scenarios of every race whose fold has a fitted network.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of the races.
    network : xarray.Dataset
        As returned by `fit.by_fold.fit_networks`.
    fold_races : int or None
        Races in a fold, None for a season.
    n_scenarios : int
        1 to `MAX_SCENARIOS`.
    seed : int
        Scenario k of a race is the same for the same seed, however many are drawn.
    recalibration : mapping, optional
        race_id -> `Recalibration` with arrays (scenario); races that are missing are drawn unchanged.

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble`; of zero races where no fold has a network.

    Raises
    ------
    ValueError
        If `n_scenarios` is out of range, or a driver is entered twice in a race.
    """
    check_request(features, n_scenarios)
    slots = race_slots(features)
    width = int(slots["field_size"].max() or 1)  # type: ignore[arg-type]
    labels = xr.Dataset(coords=race_coordinates(slots, width, fold_races))
    forecast = np.isin(labels["fold"].values, network["fold"].values)
    field = jax.tree.map(lambda values: values[forecast], build_field(slots, width))
    labels = labels.isel(race=forecast)
    return draw_races(labels, field, network, n_scenarios, seed, recalibration or {})[0]


def check_request(features: pl.DataFrame, n_scenarios: int) -> None:
    """Check the number of scenarios, and that no driver is entered twice.

    Raises
    ------
    ValueError
        If `n_scenarios` is out of range, or a driver is entered twice in a race.
    """
    if not 1 <= n_scenarios <= MAX_SCENARIOS:
        raise ValueError(f"Argument n_scenarios must be from 1 to {MAX_SCENARIOS:,}, got {n_scenarios:,}.")
    twice = features.filter(pl.struct("race_id", "driver_id").is_duplicated())
    if not twice.is_empty():
        raise ValueError(
            f"Argument features must enter a driver once in a race; driver_id {twice['driver_id'][0]!r} is "
            f"there more than once in race_id {twice['race_id'][0]}."
        )


def draw_races(
    labels: xr.Dataset,
    field: Field,
    network: xr.Dataset,
    n_scenarios: int,
    seed: int,
    recalibration: Mapping[int, Recalibration],
    pins: Mapping[str, Pin] = NO_PINS,
) -> tuple[xr.Dataset, NDArray[np.float32]]:
    """Draw scenarios of labelled races, each from the network of its fold.

    Parameters
    ----------
    labels : xarray.Dataset
        Coordinates as returned by `races.race_coordinates`.
    field : Field
        With a leading axis of the same races.
    network, n_scenarios, seed, recalibration
        As in `simulate_races`.
    pins : mapping
        Site -> `Pin`: interventions and evidence, the same in every race.

    Returns
    -------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    log_weight : array, shape (race, scenario)
        Log probability of the evidence in `pins`, 0 without.
    """
    folds = labels["fold"].values.tolist()
    races = labels["race"].values.tolist()
    parameters = {fold: fold_parameters(network, fold) for fold in dict.fromkeys(folds)}
    sizes = {**labels.sizes, "scenario": n_scenarios}
    arrays: dict[str, NDArray[Any]] = {
        name: np.zeros([sizes[dim] for dim in dims], dtype) for name, (dims, dtype) in VARIABLES.items()
    }
    width = labels.sizes["driver"]
    widened = widen_field(field, padded_width(width))
    log_weight = np.zeros((len(races), n_scenarios), np.float32)

    def draw(r: int) -> None:
        race: Field = jax.tree.map(lambda values: values[r], widened)
        change = recalibration.get(races[r], Recalibration())
        stream = np.array([seed, races[r]])
        outcome, log_weight[r] = draw_race(race, parameters[folds[r]], change, n_scenarios, stream, pins)
        relations = jax.device_get(mean_relations(race, parameters[folds[r]]))
        for name, values in {**outcome._asdict(), **relations}.items():
            arrays[name][r] = values[..., :width] if "driver" in VARIABLES[name][0] else values

    if races:
        draw(0)  # alone, so that the other races find its compiled function
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(draw, range(1, len(races))))
    as_of = network["network_as_of"].sel(fold=labels["fold"].values).values
    ensemble = labels.assign({name: (dims, arrays[name]) for name, (dims, _) in VARIABLES.items()})
    ensemble = ensemble.assign_coords(
        network_as_of=("race", as_of.astype(np.int32)), scenario=np.arange(n_scenarios)
    )
    return ensemble, log_weight


def draw_race(
    field: Field,
    parameters: Parameters,
    recalibration: Recalibration,
    n_scenarios: int,
    stream: NDArray[np.int_],
    pins: Mapping[str, Pin] = NO_PINS,
) -> tuple[Outcome, NDArray[np.float32]]:
    """Draw scenarios of one race, in batches that bound the memory.

    Parameters
    ----------
    field : Field
        Of one race.
    parameters : Parameters
        With a leading axis of draws where the parameter is drawn; scenarios go through the draws in turn.
    recalibration : Recalibration
        Scalars or arrays (scenario).
    n_scenarios : int
    stream : array of int, shape (2)
        Seed, and a number of the race: races with the same seed and other numbers are independent.
    pins : mapping
        Site -> `Pin`: interventions and evidence.

    Returns
    -------
    outcome : Outcome
        NumPy arrays with a leading scenario axis.
    log_weight : array, shape (scenario)
        Log probability of the evidence in `pins`, 0 without.
    """
    change = [np.broadcast_to(np.asarray(value, np.float32), n_scenarios) for value in recalibration]
    batches = []
    for batch, start in enumerate(range(0, n_scenarios, SCENARIO_BATCH)):
        part = (values[start : start + SCENARIO_BATCH] for values in change)
        whole = Recalibration(*(np.resize(values, SCENARIO_BATCH) for values in part))
        batches.append(_draw_batch(field, parameters, whole, dict(pins), batch, stream))
    outcomes, log_weights = zip(*jax.device_get(batches), strict=True)
    outcome = Outcome(*(np.concatenate(values)[:n_scenarios] for values in zip(*outcomes, strict=True)))
    return outcome, np.concatenate(log_weights)[:n_scenarios]


@jax.jit
def _draw_batch(
    field: Field,
    parameters: Parameters,
    recalibration: Recalibration,
    pins: dict[str, Pin],
    batch: Array,
    stream: Array,
) -> tuple[Outcome, Array]:
    """Draw the scenarios of one batch: outcomes and log weights with a leading scenario axis."""
    n_draws = jnp.asarray(parameters.team_scale).shape[0]
    draw = (batch * SCENARIO_BATCH + jnp.arange(SCENARIO_BATCH)) % n_draws
    held = pin(race_model, pins)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(stream[0]), stream[1]), batch)
    outcome = handlers.seed(held, key)(field, parameters, draw, recalibration)
    log_weight = jnp.broadcast_to(held.log_weight, draw.shape)
    return Outcome(*(_small(value.T) for value in outcome)), log_weight


def _small(value: Array) -> Array:
    return value if value.dtype == jnp.bool_ else value.astype(jnp.int16)


@jax.jit
def mean_relations(field: Field, parameters: Parameters) -> dict[str, Array]:
    """Log-strength (driver), incident logit (driver) and chaos scale (), averaged over parameter draws."""
    car = jnp.asarray(field.car)
    return {
        "utility": jnp.where(car, log_strength(field, parameters).mean(axis=-1), 0.0),
        "incident_logit": jnp.where(car, incident_logit(field, parameters).mean(axis=-1), 0.0),
        "chaos_scale": jnp.asarray(parameters.chaos_scale)[:, field.archetype].mean(),
    }
