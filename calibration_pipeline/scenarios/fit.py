"""Fitting the causal network to earlier races: a penalised likelihood, its mode and curvature.

The likelihood is a NumPyro model. Race-level chaos is integrated out by Gauss-Hermite quadrature and the
race x team effects by common random draws; what is left has a few dozen parameters, whose posterior is
taken as normal around its mode (Laplace; Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240).
Older races count less.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy
from scipy.optimize import minimize

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.history import History, empty_history
from calibration_pipeline.scenarios.plackett_luce import log_probability

HALF_LIFE_RACES = 150.0
TEAM_DRAWS = 32
CHAOS_NODES = 15
PARAMETER_DRAWS = 64
MAX_NEWTON_STEPS = 20
NEWTON_DECREMENT = 0.02
LEAST_CURVATURE = 0.5
N_ARCHETYPES = len(ARCHETYPES)
ONE_EMPTY_RACE = (empty_history(width=2), np.zeros(1, np.float32))


def forgetting(race_order: NDArray, before: int, half_life: float = HALF_LIFE_RACES) -> NDArray[np.float32]:
    """Weight of each race in a fit made before the race `before`: halved every `half_life` races.

    Parameters
    ----------
    race_order : array of int, shape (race)
        0 marks padding.
    before : int
        race_order; this race and later ones weigh nothing.
    half_life : float
        Races.

    Returns
    -------
    array, shape (race)

    Examples
    --------
    >>> forgetting(np.array([202101, 202102, 202103]), before=202103, half_life=1.0).tolist()
    [0.5, 1.0, 0.0]
    """
    seen = (race_order > 0) & (race_order < before)
    age = np.cumsum(seen[::-1])[::-1] - 1
    return np.where(seen, 0.5 ** (age / half_life), 0.0).astype(np.float32)


@cache
def _chaos_quadrature() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(CHAOS_NODES)
    return nodes.astype(np.float32), np.log(weights / weights.sum()).astype(np.float32)


@cache
def _team_draws(width: int) -> NDArray[np.float32]:
    half = np.random.default_rng(0).standard_normal((TEAM_DRAWS // 2, width))
    return np.concatenate([half, -half]).astype(np.float32)


def order_log_likelihood(strength: Array, team: Array, running_order: Array, team_scale: Array) -> Array:
    """Log probability of one race's running order, race x team effects integrated out: ().

    Parameters
    ----------
    strength : array, shape (driver)
    team : array of int, shape (driver)
    running_order : array of int, shape (driver)
        0 for cars that do not take part.
    team_scale : array, shape ()
    """
    width = strength.shape[-1]
    order = jnp.argsort(jnp.where(running_order > 0, running_order, width + 1))
    effect = jnp.asarray(_team_draws(width))[:, team[order]]
    utility = strength[order] + team_scale * effect
    each = log_probability(utility, (running_order > 0)[order])
    return jax.nn.logsumexp(each) - jnp.log(TEAM_DRAWS)


def network_posterior(history: History, weight: Array) -> None:
    """NumPyro model of the network's parameters given earlier races.

    Parameters
    ----------
    history : History
    weight : array, shape (race)
        Power of each race's likelihood.
    """
    field: Field = history.field
    archetype = jnp.asarray(field.archetype)

    common = numpyro.sample(
        "pace_weight_common", dist.Normal(0.0, 0.3).expand([len(PACE_COVARIATES)]).to_event(1)
    )
    deviation = numpyro.sample(
        "pace_weight_deviation",
        dist.Normal(0.0, 0.1).expand([N_ARCHETYPES, len(PACE_COVARIATES)]).to_event(2),
    )
    sharpness = numpyro.sample("log_sharpness", dist.Normal(0.0, 0.5).expand([N_ARCHETYPES]).to_event(1))
    pace_weight = jnp.exp(sharpness)[:, None] * (common + deviation)
    pace_weight = numpyro.deterministic("pace_weight", pace_weight)
    team_scale = numpyro.sample("team_scale", dist.HalfNormal(0.3))
    strength = jnp.einsum("rdc,rc->rd", field.pace, pace_weight[archetype])
    order = jax.vmap(order_log_likelihood, in_axes=(0, 0, 0, None))(
        strength, jnp.asarray(field.team), jnp.asarray(history.running_order), team_scale
    )
    numpyro.factor("running_order", jnp.sum(weight * order))

    intercept = numpyro.sample(
        "incident_intercept", dist.Normal(-2.0, 1.0).expand([N_ARCHETYPES]).to_event(1)
    )
    slope = numpyro.sample(
        "incident_weight", dist.Normal(0.0, 0.3).expand([len(INCIDENT_COVARIATES)]).to_event(1)
    )
    chaos_scale = numpyro.sample("chaos_scale", dist.HalfNormal(1.0).expand([N_ARCHETYPES]).to_event(1))
    caution_intercept = numpyro.sample(
        "caution_intercept", dist.Normal(1.8, 0.5).expand([N_ARCHETYPES]).to_event(1)
    )
    track = numpyro.sample("caution_track_weight", dist.Normal(0.5, 0.5))
    caution_chaos = numpyro.sample(
        "caution_chaos_weight", dist.HalfNormal(0.3).expand([N_ARCHETYPES]).to_event(1)
    )

    chaos, log_weight = _chaos_quadrature()
    logit = intercept[archetype][:, None] + jnp.asarray(field.incident) @ slope
    logit = logit[:, None, :] + (chaos_scale[archetype][:, None] * chaos)[:, :, None]
    car = jnp.asarray(field.car)[:, None, :]
    out = jnp.asarray(history.incident)[:, None, :]
    incidents = jnp.sum(jnp.where(car, out * logit - jax.nn.softplus(logit), 0.0), axis=-1)
    log_rate = (caution_intercept[archetype] + track * jnp.asarray(field.caution))[:, None]
    log_rate = log_rate + caution_chaos[archetype][:, None] * chaos
    count = jnp.asarray(history.n_cautions)[:, None]
    cautions = jnp.where(
        jnp.asarray(history.has_cautions)[:, None], count * log_rate - jnp.exp(log_rate), 0.0
    )
    regime = jax.nn.logsumexp(incidents + cautions + log_weight, axis=-1)
    numpyro.factor("regime", jnp.sum(weight * regime))


@jax.jit
def _potential_and_gradient(flat: Array, history: History, weight: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(_potential)(flat, history, weight)


@jax.jit
def _curvature(flat: Array, history: History, weight: Array) -> Array:
    columns = jnp.eye(flat.shape[0])

    def gradient(at: Array) -> Array:
        return jax.grad(_potential)(at, history, weight)

    return jax.lax.map(lambda column: jax.jvp(gradient, (flat,), (column,))[1], columns)


def _potential(flat: Array, history: History, weight: Array) -> Array:
    values = _parameter_layout()[1](flat)
    return potential_energy(network_posterior, (history, weight), {}, values)


@cache
def _parameter_layout() -> tuple[int, Callable[[Array], dict[str, Array]]]:
    """Return how many unconstrained parameters there are, and what names them in a flat vector."""

    def draw() -> dict[str, Array]:
        trace = handlers.trace(handlers.seed(network_posterior, 0)).get_trace(*ONE_EMPTY_RACE)
        return {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }

    shapes = jax.eval_shape(draw)
    flat, unravel = ravel_pytree({name: np.zeros(value.shape, np.float32) for name, value in shapes.items()})
    return len(flat), unravel


def fit_posterior(history: History, weight: NDArray, seed: int) -> dict[str, NDArray]:
    """Draw from the normal approximation to the posterior of the network's parameters.

    Parameters
    ----------
    history : History
    weight : array, shape (race)
        Power of each race's likelihood, as from `forgetting`.
    seed : int

    Returns
    -------
    dict of arrays
        Site name -> (draw, ...), `PARAMETER_DRAWS` draws.

    Raises
    ------
    RuntimeError
        If the mode is not found.
    """
    data = (jax.tree.map(jnp.asarray, history), jnp.asarray(weight))

    def objective(flat: NDArray) -> tuple[float, NDArray]:
        value, gradient = _potential_and_gradient(jnp.asarray(flat, jnp.float32), *data)
        return float(value), np.asarray(gradient, np.float64)

    mode = minimize(objective, np.zeros(_parameter_layout()[0]), jac=True, method="L-BFGS-B").x
    for _ in range(MAX_NEWTON_STEPS):
        gradient = objective(mode)[1]
        values, vectors = np.linalg.eigh(np.asarray(_curvature(jnp.asarray(mode, jnp.float32), *data)))
        values = np.maximum(values, LEAST_CURVATURE)
        step = vectors @ ((vectors.T @ gradient) / values)
        decrement = float(gradient @ step)
        if decrement < NEWTON_DECREMENT:
            break
        mode = mode - step
    else:
        raise RuntimeError(
            f"The causal network's fit did not reach its mode: Newton decrement {decrement:.3g} after "
            f"{MAX_NEWTON_STEPS} steps, must be below {NEWTON_DECREMENT}."
        )
    noise = np.random.default_rng(seed).standard_normal((PARAMETER_DRAWS, len(mode)))
    flat = mode + (noise / np.sqrt(values)) @ vectors.T
    return _constrain(jnp.asarray(flat, jnp.float32))


@jax.jit
def _constrain_draws(flat: Array) -> dict[str, Array]:
    def one(draw: Array) -> dict[str, Array]:
        values = _parameter_layout()[1](draw)
        return constrain_fn(network_posterior, ONE_EMPTY_RACE, {}, values, return_deterministic=True)

    return jax.vmap(one)(flat)


def _constrain(flat: Array) -> dict[str, NDArray]:
    return {name: np.asarray(values) for name, values in _constrain_draws(flat).items()}
