"""Whether the fit of the causal network finds the truth in races drawn from the network itself.

Simulation-based calibration and recovery as in `benchmarks.sbc`. Parameters are drawn from `posterior.prior`
and races from the parameters; the fit is the Laplace approximation as it is shipped.
"""

import functools
from collections.abc import Mapping, Sequence
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import Array
from numpy.typing import ArrayLike, NDArray
from numpyro import handlers

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.fit.by_fold import DRAWN, NETWORK_COORDINATES, PARAMETER_DIMS
from calibration_pipeline.scenarios.fit.history import History
from calibration_pipeline.scenarios.fit.laplace import PARAMETER_DRAWS, draw_posterior, find_mode
from calibration_pipeline.scenarios.fit.posterior import prior
from calibration_pipeline.scenarios.network.model import Parameters, race_model
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.stats.normal_scores import normal_score

CARS_A_TEAM = 3


def draw_fields(n_races: int, n_cars: int, seed: int = 0) -> Field:
    """Return races with normal covariates, the archetypes in turn: arrays (race, ...)."""
    rng = np.random.default_rng(seed)
    pace = rng.normal(0, 0.5, (n_races, n_cars, len(PACE_COVARIATES)))
    grid = pl.DataFrame({"position": np.arange(1, n_cars + 1), "n": n_cars})
    score = grid.select(normal_score(pl.col("position"), pl.col("n"))).to_series().to_numpy()
    return Field(
        pace=(pace - pace.mean(axis=1, keepdims=True)).astype(np.float32),
        incident=rng.normal(size=(n_races, n_cars, len(INCIDENT_COVARIATES))).astype(np.float32),
        start_score=np.tile(score, (n_races, 1)).astype(np.float32),
        car=np.ones((n_races, n_cars), bool),
        team=np.tile(np.arange(n_cars) // CARS_A_TEAM, (n_races, 1)),
        archetype=np.arange(n_races) % len(ARCHETYPES),
        scheduled_laps=np.full(n_races, 200, np.int32),
        caution=rng.normal(0, 0.3, n_races).astype(np.float32),
    )


def draw_truth(seed: int, planted: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """Draw the network's fitted parameters from their prior; sites in `planted` keep their value."""
    values = {name: jnp.asarray(value, jnp.float32) for name, value in planted.items()}
    model = handlers.seed(handlers.substitute(prior, data=values), seed)
    return {name: np.asarray(value) for name, value in model().items()}


def draw_history(fields: Field, truth: Mapping[str, NDArray], seed: int) -> History:
    """Draw the races from the network with these parameters, one scenario each."""
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()} | {"draw": 1}
    tables = {
        name: np.zeros([sizes[dim] for dim in dims], np.float32)
        for name, dims in PARAMETER_DIMS.items()
        if name not in DRAWN
    }
    fitted = {name: np.asarray(value)[None] for name, value in truth.items()}
    parameters = Parameters(**{**tables, "luck_sign": -1.0, "front_cars": FRONT_CARS, **fitted})
    drawn = _draw_sites(fields, parameters, jax.random.split(jax.random.key(seed), len(fields.archetype)))
    running_order, damage, n_cautions = (np.asarray(values) for values in drawn)
    return History(
        field=fields,
        running_order=running_order,
        incident=running_order == 0,
        damage=damage & (running_order > 0),
        n_cautions=n_cautions.astype(np.int32),
        has_cautions=np.ones(len(n_cautions), bool),
        race_order=np.arange(1, len(n_cautions) + 1),
    )


@jax.jit
def _draw_sites(fields: Field, parameters: Parameters, keys: Array) -> tuple[Array, Array, Array]:
    """Running order and damage, (race, driver), and cautions, (race)."""

    def draw_race(race: tuple[Field, Array]) -> tuple[Array, Array, Array]:
        field, key = race
        sites = handlers.trace(handlers.seed(race_model, key)).get_trace(field, parameters, jnp.zeros(1, int))
        order, damage, cautions = (sites[name]["value"] for name in ("running_order", "damage", "n_cautions"))
        return order[:, 0], damage[:, 0], cautions[0]

    return jax.lax.map(draw_race, (jax.tree.map(jnp.asarray, fields), keys))


@functools.cache
def _labels(name: str) -> tuple[str, ...]:
    """Names of a parameter's scalars: name[archetype, covariate]."""
    coordinates = (NETWORK_COORDINATES[dim] for dim in PARAMETER_DIMS[name][1:])
    labels = (", ".join(row) for row in product(*coordinates))
    return tuple(f"{name}[{label}]" if label else name for label in labels)


def fit_simulated(
    fields: Field,
    names: Sequence[str],
    n_simulations: int,
    seed: int,
    planted: Mapping[str, ArrayLike] | None = None,
) -> pl.DataFrame:
    """Fit the network to simulated races, and compare truths with posterior draws.

    Parameters
    ----------
    fields : Field
        Of the races of every simulation.
    names : sequence of str
        Fitted parameters that are compared.
    n_simulations, seed : int
    planted : mapping, optional
        Site of `posterior.prior` -> its value in every simulation; the other sites are drawn.

    Returns
    -------
    polars.DataFrame
        simulation, quantity, truth, mean, sd, lower, upper (central 95 %), pit (rank of the truth among the
        draws as a share, ties with the ends broken at random: uniform on [0, 1] if truths come from the prior
        and the fit is right).
    """
    rng = np.random.default_rng(seed)
    tables = []
    for i in range(n_simulations):
        truth = draw_truth(seed + i, planted or {})
        history = draw_history(fields, truth, seed + i)
        weight = np.ones(len(history.race_order), np.float32)
        found = draw_posterior(find_mode(history, weight), history, weight, seed + i)
        draws = np.concatenate([found[name].reshape(PARAMETER_DRAWS, -1) for name in names], axis=1)
        true = np.concatenate([truth[name].ravel() for name in names])
        lower, upper = np.quantile(draws, (0.025, 0.975), axis=0)
        rank = (draws < true).sum(axis=0)
        tables.append(
            pl.DataFrame(
                {
                    "simulation": i,
                    "quantity": [label for name in names for label in _labels(name)],
                    "truth": true,
                    "mean": draws.mean(axis=0),
                    "sd": draws.std(axis=0, ddof=1),
                    "lower": lower,
                    "upper": upper,
                    "pit": (rank + rng.random(len(true))) / (PARAMETER_DRAWS + 1),
                }
            )
        )
    return pl.concat(tables)
