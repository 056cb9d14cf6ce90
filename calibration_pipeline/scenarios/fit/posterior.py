"""Likelihood of earlier races under the causal network, and the prior of its parameters as a NumPyro model.

Race-level chaos is integrated out by the trapezoid rule and the race x team effects by common random draws.
118 parameters remain.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.fit.history import History
from calibration_pipeline.scenarios.network.structure import Structure
from calibration_pipeline.stats.plackett_luce import slots_in_order, stages_narrow
from calibration_pipeline.stats.quadrature import even_nodes

TEAM_DRAWS = 32
# How far an archetype's pace weights lie from the common ones, before its sharpness.
DEVIATION_SCALE = 0.1
# How far an archetype's log sharpness of the front group lies from the common one.
FRONT_DEVIATION_SCALE = 0.25
# How far an archetype's weights of incidents and of damage lie from the common ones, as a share of these.
INCIDENT_DEVIATION_SCALE = 0.5
DAMAGE_DEVIATION_SCALE = 0.25
N_ARCHETYPES = len(ARCHETYPES)
N_CHAOS_NODES, CHAOS_REACH = 41, 6.0
"""Even nodes of chaos. Incidents of 38 cars are narrow in chaos: with 15 Gauss-Hermite nodes, the posterior
of few races has a second mode, at another chaos scale, that is an error of the quadrature."""
# Cautions at the outer nodes of chaos: a larger rate has no finite exponential, and its gradient is NaN.
MAX_LOG_RATE = 60.0


@functools.cache
def _team_draws(width: int) -> NDArray[np.float32]:
    half = np.random.default_rng(0).standard_normal((TEAM_DRAWS // 2, width))
    return np.concatenate([half, -half]).astype(np.float32)


def order_log_likelihood(
    strength: Array,
    team: Array,
    running_order: Array,
    damage: Array,
    team_scale: Array,
    front_sharpness: Array,
    structure: Structure,
) -> Array:
    """Log probability of one race's running order, race x team effects integrated out: ().

    In the stages of the front group the log-strengths before team effects are times `front_sharpness`.

    Parameters
    ----------
    strength : array, shape (driver)
    team : array of int, shape (driver)
    running_order : array of int, shape (driver)
        0 for cars that do not take part.
    damage : array of bool, shape (driver)
        Cars that are ranked behind all undamaged ones.
    team_scale, front_sharpness : array, shape ()
    structure : Structure
        Its law of the running order, and its number of cars in the front group.
    """
    width = strength.shape[-1]
    order = slots_in_order(running_order)
    strength, running, damaged = strength[order], (running_order > 0)[order], damage[order]
    effect = team_scale * jnp.asarray(_team_draws(width))[:, team[order]]
    if structure.ordinary:
        strength, effect, running, damaged = -strength[::-1], -effect[:, ::-1], running[::-1], damaged[::-1]

    n_front = structure.front_cars
    each = jnp.sum(stages_narrow(strength + effect, running, damaged)[:, n_front:], axis=-1)
    if n_front:
        front = front_sharpness * strength[:n_front] + effect[:, :n_front]
        each += jnp.sum(stages_narrow(front, running[:n_front], damaged[:n_front]), axis=-1)
    return jax.nn.logsumexp(each) - jnp.log(TEAM_DRAWS)


def prior() -> dict[str, Array]:
    """Fitted parameters of `network.model.Parameters`, sampled from their prior."""

    def each(name: str, distribution: dist.Distribution, *shape: int) -> Array:
        return numpyro.sample(name, distribution.expand(shape).to_event(len(shape)))

    n_pace, n_incident = len(PACE_COVARIATES), len(INCIDENT_COVARIATES)
    common = each("pace_weight_common", dist.Normal(0.0, 0.3), n_pace)
    deviation = each("pace_weight_deviation", dist.Normal(0.0, DEVIATION_SCALE), N_ARCHETYPES, n_pace)
    sharpness = each("log_sharpness", dist.Normal(0.0, 0.5), N_ARCHETYPES)
    front = each("front_log_sharpness_common", dist.Normal(0.0, 0.5))
    front_deviation = each(
        "front_log_sharpness_deviation", dist.Normal(0.0, FRONT_DEVIATION_SCALE), N_ARCHETYPES
    )

    def weight_by_archetype(name: str, common_scale: float, deviation_scale: float) -> Array:
        shared = each(f"{name}_common", dist.Normal(0.0, common_scale), n_incident)
        deviation = each(f"{name}_deviation", dist.Normal(0.0, deviation_scale), N_ARCHETYPES)
        return (1.0 + deviation)[:, None] * shared

    return {
        "pace_weight": jnp.exp(sharpness)[:, None] * (common + deviation),
        "team_scale": each("team_scale", dist.HalfNormal(0.3)),
        "front_sharpness": jnp.exp(front + front_deviation),
        "incident_intercept": each("incident_intercept", dist.Normal(-2.0, 1.0), N_ARCHETYPES),
        "incident_weight": weight_by_archetype("incident_weight", 0.3, INCIDENT_DEVIATION_SCALE),
        "chaos_scale": each("chaos_scale", dist.HalfNormal(1.0), N_ARCHETYPES),
        "damage_intercept": each("damage_intercept", dist.Normal(-2.0, 1.0), N_ARCHETYPES),
        "damage_weight": weight_by_archetype("damage_weight", 0.5, DAMAGE_DEVIATION_SCALE),
        "damage_chaos_weight": each("damage_chaos_weight", dist.HalfNormal(0.5), N_ARCHETYPES),
        "caution_intercept": each("caution_intercept", dist.Normal(1.8, 0.5), N_ARCHETYPES),
        "caution_track_weight": each("caution_track_weight", dist.Normal(0.5, 0.5)),
        "caution_chaos_weight": each("caution_chaos_weight", dist.HalfNormal(0.3), N_ARCHETYPES),
    }


def order_by_race(history: History, parameters: dict[str, Array], structure: Structure) -> Array:
    """Log-likelihood of the running orders: (race)."""
    field = history.field
    weight = parameters["pace_weight"][jnp.asarray(field.archetype)]
    strength = jnp.einsum("rdc,rc->rd", field.pace, weight)
    team, order, damage = (jnp.asarray(v) for v in (field.team, history.running_order, history.damage))
    front_sharpness = parameters["front_sharpness"][jnp.asarray(field.archetype)]
    in_axes = (0, 0, 0, 0, None, 0, None)
    return jax.vmap(order_log_likelihood, in_axes)(
        strength, team, order, damage, parameters["team_scale"], front_sharpness, structure
    )


def regime_by_race(history: History, parameters: dict[str, Array], _structure: Structure) -> Array:
    """Log-likelihood of incidents, damage and cautions, chaos integrated out: (race)."""
    field: Field = history.field
    archetype = jnp.asarray(field.archetype)
    chaos, weight = even_nodes(N_CHAOS_NODES, CHAOS_REACH)

    def car_level(intercept: str, slope: str, scale: str, happened: Array, able: Array) -> Array:
        """Log-likelihood of a node that each car has, at each chaos: (race, chaos)."""
        logit = jnp.einsum("rdc,rc->rd", field.incident, parameters[slope][archetype])
        logit = logit + parameters[intercept][archetype][:, None]
        logit = logit[:, None, :] + (parameters[scale][archetype][:, None] * chaos)[:, :, None]
        each = happened[:, None, :] * logit - jax.nn.softplus(logit)
        return jnp.sum(jnp.where(able[:, None, :], each, 0.0), axis=-1)

    car, out, damage = (jnp.asarray(values) for values in (field.car, history.incident, history.damage))
    incidents = car_level("incident_intercept", "incident_weight", "chaos_scale", out, car)
    damages = car_level("damage_intercept", "damage_weight", "damage_chaos_weight", damage, car & ~out)

    log_rate = parameters["caution_track_weight"] * jnp.asarray(field.caution)
    log_rate = (parameters["caution_intercept"][archetype] + log_rate)[:, None]
    log_rate = log_rate + parameters["caution_chaos_weight"][archetype][:, None] * chaos
    log_rate = jnp.minimum(log_rate, MAX_LOG_RATE)
    count = jnp.asarray(history.n_cautions)[:, None]
    cautions = jnp.where(
        jnp.asarray(history.has_cautions)[:, None], count * log_rate - jnp.exp(log_rate), 0.0
    )
    return jax.nn.logsumexp(incidents + damages + cautions + np.log(weight), axis=-1)


type Term = Callable[[History, dict[str, Array], Structure], Array]
"""Log-likelihood by race, (race), by parameters and structure."""

TERMS: dict[Term, tuple[str, ...]] = {
    order_by_race: (
        "pace_weight_common",
        "pace_weight_deviation",
        "log_sharpness",
        "team_scale",
        "front_log_sharpness_common",
        "front_log_sharpness_deviation",
    ),
    regime_by_race: (
        "incident_intercept",
        "incident_weight_common",
        "incident_weight_deviation",
        "chaos_scale",
        "damage_intercept",
        "damage_weight_common",
        "damage_weight_deviation",
        "damage_chaos_weight",
        "caution_intercept",
        "caution_track_weight",
        "caution_chaos_weight",
    ),
}
"""Term of a race's log-likelihood -> the sites of `prior` that it reads; the terms share none."""
