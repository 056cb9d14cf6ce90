"""Scenario ensembles: draws of the causal network for many races, as one labelled dataset."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.typing import NDArray
from numpyro import handlers

from calibration_pipeline.scenarios.covariates import Field, build_field, race_slots
from calibration_pipeline.scenarios.network import (
    Outcome,
    Parameters,
    Recalibration,
    incident_logit,
    log_strength,
    race_model,
    select_draw,
)
from calibration_pipeline.scenarios.networks import DRAWN, fold_parameters
from calibration_pipeline.scenarios.races import race_coordinates

SCENARIO_BATCH = 4096
MAX_SCENARIOS = 1_000_000
OUTCOME_DIMS = {
    "finish_position": ("race", "scenario", "driver"),
    "running": ("race", "scenario", "driver"),
    "laps_completed": ("race", "scenario", "driver"),
    "laps_led": ("race", "scenario", "driver"),
    "fastest_laps": ("race", "scenario", "driver"),
    "race_laps": ("race", "scenario"),
    "green_laps": ("race", "scenario"),
    "n_cautions": ("race", "scenario"),
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
        As made by `networks.fit_networks`.
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
    return draw_races(labels, field, network, n_scenarios, seed, recalibration or {})


def check_request(features: pl.DataFrame, n_scenarios: int) -> None:
    """Refuse a scenario count out of range and a driver who is entered twice.

    Raises
    ------
    ValueError
        Naming what is wrong.
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
) -> xr.Dataset:
    """Draw scenarios of labelled races, each from the network of its fold.

    Parameters
    ----------
    labels : xarray.Dataset
        Coordinates as made by `races.race_coordinates`.
    field : Field
        With a leading axis of the same races.
    network, n_scenarios, seed, recalibration
        As in `simulate_races`.

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble`.
    """
    folds = labels["fold"].values.tolist()
    races = [jax.tree.map(lambda values, r=r: values[r], field) for r in range(len(folds))]
    parameters = {fold: fold_parameters(network, fold) for fold in dict.fromkeys(folds)}
    key = jax.random.key(seed)
    outcomes = [
        draw_race(
            race,
            parameters[fold],
            recalibration.get(race_id, Recalibration()),
            n_scenarios,
            jax.random.fold_in(key, race_id),
        )
        for race, fold, race_id in zip(races, folds, labels["race"].values.tolist(), strict=True)
    ]
    means = [_mean_relations(race, parameters[fold]) for race, fold in zip(races, folds, strict=True)]
    return _assemble(labels, network, outcomes, means, n_scenarios)


def draw_race(
    field: Field, parameters: Parameters, recalibration: Recalibration, n_scenarios: int, key: Array
) -> Outcome:
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
    key : jax key

    Returns
    -------
    Outcome
        NumPy arrays with a leading scenario axis.
    """
    per_scenario = Recalibration(*(np.broadcast_to(value, (n_scenarios,)) for value in recalibration))
    batches = []
    for start in range(0, n_scenarios, SCENARIO_BATCH):
        index = np.arange(start, min(start + SCENARIO_BATCH, n_scenarios))
        part = Recalibration(*(np.asarray(value[index], np.float32) for value in per_scenario))
        batches.append(jax.device_get(_draw_batch(field, parameters, part, index, key)))
    return Outcome(*(np.concatenate(values) for values in zip(*batches, strict=True)))


@jax.jit
def _draw_batch(
    field: Field, parameters: Parameters, recalibration: Recalibration, index: Array, key: Array
) -> Outcome:
    def one(k: Array, change: Recalibration) -> Outcome:
        model = handlers.seed(race_model, jax.random.fold_in(key, k))
        outcome = model(field, select_draw(parameters, DRAWN, k), change)
        return Outcome(*(_small(value) for value in outcome))

    return jax.vmap(one)(index, recalibration)


def _small(value: Array) -> Array:
    return value if value.dtype == jnp.bool_ else value.astype(jnp.int16)


@jax.jit
def _mean_relations(field: Field, parameters: Parameters) -> tuple[Array, Array, Array]:
    """Log-strength (driver), incident logit (driver) and chaos scale (), averaged over parameter draws."""

    def one(k: Array) -> tuple[Array, Array, Array]:
        drawn = select_draw(parameters, DRAWN, k)
        chaos_scale = jnp.asarray(drawn.chaos_scale)[field.archetype]
        return log_strength(field, drawn), incident_logit(field, drawn), chaos_scale

    n_draws = jnp.asarray(parameters.team_scale).shape[0]
    strength, logit, chaos_scale = jax.vmap(one)(jnp.arange(n_draws))
    car = jnp.asarray(field.car)
    return (
        jnp.where(car, strength.mean(axis=0), 0.0),
        jnp.where(car, logit.mean(axis=0), 0.0),
        chaos_scale.mean(),
    )


def _assemble(
    labels: xr.Dataset,
    network: xr.Dataset,
    outcomes: list[Outcome],
    means: list[tuple[Array, Array, Array]],
    n_scenarios: int,
) -> xr.Dataset:
    sizes = {"race": labels.sizes["race"], "scenario": n_scenarios, "driver": labels.sizes["driver"]}

    def stack(values: list[NDArray], dims: tuple[str, ...], dtype: type) -> tuple[tuple[str, ...], NDArray]:
        return dims, np.array(values, dtype).reshape([sizes[dim] for dim in dims])

    variables = {
        name: stack([getattr(o, name) for o in outcomes], dims, np.bool_ if name == "running" else np.int16)
        for name, dims in OUTCOME_DIMS.items()
    }
    for i, (name, dims) in enumerate(
        {
            "utility": ("race", "driver"),
            "incident_logit": ("race", "driver"),
            "chaos_scale": ("race",),
        }.items()
    ):
        variables[name] = stack([np.asarray(mean[i]) for mean in means], dims, np.float32)
    as_of = network["network_as_of"].sel(fold=labels["fold"].values).values
    return labels.assign(variables).assign_coords(
        network_as_of=("race", as_of.astype(np.int32)), scenario=np.arange(n_scenarios)
    )
