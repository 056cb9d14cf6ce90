"""Predictions of a fitted marginal map for its own races: replicated finishes, log-likelihoods.

`marginal.model` defines the map. This module reads its parameters from draws, and evaluates the map at every
draw; it fits nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.typing import ArrayLike
from numpy.typing import NDArray

from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.marginal.checks import check_draws, season_index
from calibration_pipeline.mcmc.draws import Draws
from calibration_pipeline.stats import chebyshev as curves
from calibration_pipeline.stats.race_noise import INTERCEPT_BOX, integrated_log_likelihood


def map_parameters(draws: Draws, season: ArrayLike | None, n_races: int) -> dict[str, NDArray[np.float32]]:
    """Read the marginal map's parameters from draws.

    Parameters
    ----------
    draws : Draws
        Of `slope` or its logarithm `log_slope`, `intercept` and `noise_sigma`.
    season : array_like, shape (n_races,), optional
        Season labels, where the draws have a slope for each.
    n_races : int

    Returns
    -------
    dict
        `log_slope` (sample, race), `intercept` and `noise_sigma` (sample,): the draws of all chains.

    Raises
    ------
    ValueError
        If a parameter is missing or has a draw out of range (a slope is above 0), or slopes and seasons do
        not match.
    """
    posterior = draws.posterior
    missing = sorted({"intercept", "noise_sigma"} - set(posterior.data_vars))
    if not {"slope", "log_slope"} & set(posterior.data_vars):
        missing.append("slope")
    if missing:
        raise ValueError(
            f"Argument mcmc_samples must have all parameters, got none for {', '.join(missing)}."
        )
    for name in {"slope", "log_slope", "intercept", "noise_sigma"} & set(posterior.data_vars):
        check_draws(str(name), posterior[name].values)
    log_slope = (
        _flat(posterior["log_slope"]) if "log_slope" in posterior else np.log(_flat(posterior["slope"]))
    )
    seasons, index = season_index(np.zeros(n_races, dtype=int) if season is None else season, n_races)
    if log_slope.shape[1] != len(seasons):
        raise ValueError(
            f"Argument season must name as many seasons as there are slopes, got {len(seasons)} seasons and "
            f"{log_slope.shape[1]} slopes."
        )
    scalars = {name: _flat(posterior[name])[:, 0] for name in ("intercept", "noise_sigma")}
    return {"log_slope": log_slope[:, index], **scalars}


def replicate_finishes(
    races: marginal.Races, parameters: dict[str, NDArray[np.float32]], seed: int
) -> NDArray[np.int16]:
    """Draw every car's finish position once for each posterior sample, with race noise.

    Parameters
    ----------
    races : marginal.Races
    parameters : dict
        From `map_parameters`.
    seed : int

    Returns
    -------
    ndarray, shape (sample, race, driver), int16
        From 1; 0 in padding. The marginal map draws cars independently: two may have the same position.
    """
    keys = jax.random.split(jax.random.key(seed), parameters["intercept"].size)
    return np.asarray(_replicates(races, parameters, keys))


def race_log_likelihoods(
    races: marginal.Races, parameters: dict[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return each race's log-likelihood at every posterior sample, race noise integrated out.

    Parameters
    ----------
    races : marginal.Races
    parameters : dict
        From `map_parameters`.

    Returns
    -------
    ndarray, shape (sample, race), nats
    """
    reach = float(np.max(np.abs(parameters["log_slope"]) + 2 * parameters["noise_sigma"][:, None]))
    n_nodes, box = next((table for table in marginal.TABLES if reach <= table[1][1]), marginal.TABLES[-1])
    surfaces = marginal.tabulate(races, n_nodes, box)
    relative = _tabulated(jnp.asarray(surfaces.coefficients, dtype=float), parameters, box)
    return np.asarray(relative, dtype=np.float64) + surfaces.at_zero


@jax.jit
def _replicates(races: marginal.Races, parameters: dict[str, ArrayLike], keys: jax.Array) -> jax.Array:
    def replicate(sample: tuple[dict[str, jax.Array], jax.Array]) -> jax.Array:
        at, key = sample
        noise_key, finish_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, at["log_slope"].shape)
        log_w = marginal.log_probabilities(
            races, at["log_slope"] + at["noise_sigma"] * noise, at["intercept"]
        )
        cdf = jnp.cumsum(jnp.exp(log_w), axis=-1)
        u = jax.random.uniform(finish_key, races.is_car.shape) * cdf[..., -1]
        finish = 1 + (cdf <= u[..., None]).sum(axis=-1)
        return jnp.where(races.is_car, finish, 0).astype(jnp.int16)

    return jax.lax.map(replicate, (parameters, keys))


@jax.jit
def _tabulated(
    coefficients: jax.Array, parameters: dict[str, ArrayLike], box: tuple[ArrayLike, ArrayLike]
) -> jax.Array:
    def likelihood(at: dict[str, jax.Array]) -> jax.Array:
        curve = curves.section(coefficients, at["intercept"], INTERCEPT_BOX)
        return integrated_log_likelihood(curve, at["log_slope"], at["noise_sigma"], *box)

    return jax.lax.map(likelihood, parameters)


def _flat(values: xr.DataArray) -> NDArray[np.float32]:
    """(sample, k): chains one after the other."""
    return values.values.reshape(values.shape[0] * values.shape[1], -1).astype(np.float32)
