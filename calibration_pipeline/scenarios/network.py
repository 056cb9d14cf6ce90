"""The causal network of a race, as a NumPyro model: regime, incidents, running order, outcomes.

The model is the one definition: scenarios are draws from it, and `numpyro.handlers.do` and `condition`
apply to its sites. `RELATIONS` names the parents of every node.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from calibration_pipeline.scenarios.covariates import AnyArray, Field
from calibration_pipeline.scenarios.plackett_luce import ReversePlackettLuce
from calibration_pipeline.scenarios.stints import share_out

MAX_GREEN_SHARE_LOST = 0.6
MAX_CAUTIONS = 30

RELATIONS: dict[str, tuple[str, ...]] = {
    "chaos": (),
    "n_cautions": ("chaos", "archetype", "track"),
    "race_laps": ("archetype", "scheduled_laps"),
    "green_laps": ("n_cautions", "race_laps"),
    "incident": ("chaos", "archetype", "track", "driver", "start_position"),
    "team_effect": ("team",),
    "running_order": ("incident", "team_effect", "archetype", "driver", "team", "start_position"),
    "laps_completed": ("incident", "running_order", "race_laps", "archetype"),
    "finish_position": ("laps_completed", "running_order"),
    "laps_led": ("laps_completed", "finish_position", "start_position", "race_laps", "archetype"),
    "fastest_laps": ("laps_completed", "finish_position", "green_laps", "archetype"),
}


class Parameters(NamedTuple):
    """Parameters of the network, one value each (or with a leading axis of draws).

    Tables over archetypes have the archetype axis first; quantile tables hold values at equally spaced
    probabilities from 0 to 1.
    """

    pace_weight: AnyArray  # (archetype, pace covariate)
    team_scale: AnyArray  # ()
    incident_intercept: AnyArray  # (archetype)
    incident_weight: AnyArray  # (incident covariate)
    chaos_scale: AnyArray  # (archetype)
    caution_intercept: AnyArray  # (archetype)
    caution_track_weight: AnyArray  # ()
    caution_chaos_weight: AnyArray  # (archetype)
    retirement_share: AnyArray  # (archetype, quantile) of the race's laps that a retired car completed
    laps_lost: AnyArray  # (archetype, quantile) share of the race's laps that a running car lost
    overtime_share: AnyArray  # (archetype, quantile) laps run beyond schedule over scheduled laps
    laps_per_caution: AnyArray  # (archetype)
    lead_weight: AnyArray  # (start, finish, finish squared)
    lead_dispersion: AnyArray  # (archetype)
    fastest_weight: AnyArray  # (start, finish, finish squared)
    fastest_dispersion: AnyArray  # (archetype)


class Recalibration(NamedTuple):
    """What a calibration changes: sharpness of the running order and the incident logit."""

    log_sharpness: AnyArray = 0.0
    incident_shift: AnyArray = 0.0


class Outcome(NamedTuple):
    """One simulated race; padding is 0 or False."""

    finish_position: AnyArray  # (driver) int32
    running: AnyArray  # (driver) bool
    laps_completed: AnyArray  # (driver) int32
    laps_led: AnyArray  # (driver) int32
    fastest_laps: AnyArray  # (driver) int32
    race_laps: AnyArray  # () int32
    green_laps: AnyArray  # () int32
    n_cautions: AnyArray  # () int32


def quantile(table: AnyArray, archetype: AnyArray, probability: AnyArray) -> Array:
    """Value of a quantile table at probabilities, by linear interpolation.

    Examples
    --------
    >>> float(quantile(jnp.array([[0.0, 10.0, 20.0]]), 0, 0.25))
    5.0
    """
    row = jnp.asarray(table)[archetype]
    return jnp.interp(probability, jnp.linspace(0.0, 1.0, row.shape[-1]), row)


def log_strength(field: Field, parameters: Parameters) -> Array:
    """Log-strength of every car before team effects: (driver)."""
    return jnp.asarray(field.pace) @ jnp.asarray(parameters.pace_weight)[field.archetype]


def incident_logit(field: Field, parameters: Parameters) -> Array:
    """Logit of every car's incident at chaos 0: (driver)."""
    intercept = jnp.asarray(parameters.incident_intercept)[field.archetype]
    return intercept + jnp.asarray(field.incident) @ jnp.asarray(parameters.incident_weight)


def caution_log_rate(field: Field, parameters: Parameters) -> Array:
    """Log of the expected number of cautions at chaos 0: ()."""
    intercept = jnp.asarray(parameters.caution_intercept)[field.archetype]
    return intercept + parameters.caution_track_weight * jnp.asarray(field.caution)


NOTHING_CHANGED = Recalibration()


def race_model(
    field: Field, parameters: Parameters, recalibration: Recalibration = NOTHING_CHANGED
) -> Outcome:
    """Draw one race.

    Parameters
    ----------
    field : Field
        Of one race (no leading axis).
    parameters : Parameters
        One value each (no draws axis).
    recalibration : Recalibration
        Nothing is changed by default.

    Returns
    -------
    Outcome
        Feasible by construction: the finish is a permutation in the order of laps completed, nobody leads
        after retiring, the winner leads the last lap, laps led add up to the race's laps and fastest laps
        to its green laps.
    """
    car, archetype = jnp.asarray(field.car), field.archetype
    width = car.shape[-1]

    chaos = numpyro.sample("chaos", dist.Normal(0.0, 1.0))
    caution_rate = jnp.exp(
        caution_log_rate(field, parameters) + jnp.asarray(parameters.caution_chaos_weight)[archetype] * chaos
    )
    n_cautions = numpyro.sample("n_cautions", dist.Poisson(jnp.minimum(caution_rate, MAX_CAUTIONS)))
    overtime = quantile(parameters.overtime_share, archetype, numpyro.sample("overtime", dist.Uniform()))
    race_laps = jnp.maximum(jnp.round(field.scheduled_laps * (1 + overtime)), 1).astype(jnp.int32)
    race_laps = numpyro.deterministic("race_laps", race_laps)
    lost = jnp.minimum(
        n_cautions * jnp.asarray(parameters.laps_per_caution)[archetype], MAX_GREEN_SHARE_LOST * race_laps
    )
    green_laps = numpyro.deterministic("green_laps", race_laps - jnp.round(lost).astype(jnp.int32))

    logits = (
        incident_logit(field, parameters)
        + jnp.asarray(parameters.chaos_scale)[archetype] * chaos
        + recalibration.incident_shift
    )
    incident = numpyro.sample("incident", dist.Bernoulli(logits=logits).to_event(1)).astype(bool)

    team_effect = numpyro.sample("team_effect", dist.Normal(0.0, 1.0).expand([width]).to_event(1))
    strength = jnp.exp(recalibration.log_sharpness) * log_strength(field, parameters)
    strength = strength + parameters.team_scale * team_effect[jnp.asarray(field.team)]
    last_one_running = jnp.arange(width) == jnp.argmax(jnp.where(car, -logits, -jnp.inf))
    running = car & (~incident | (last_one_running & jnp.all(incident | ~car)))
    running_order = numpyro.sample("running_order", ReversePlackettLuce(strength, running))

    fate = numpyro.sample("fate", dist.Uniform().expand([width]).to_event(1))
    laps_completed = complete_laps(running_order, running, fate, race_laps, archetype, parameters)
    laps_completed = numpyro.deterministic("laps_completed", jnp.where(car, laps_completed, 0))
    finish_position = numpyro.deterministic(
        "finish_position", classify(laps_completed, running_order, running, car)
    )

    n_cars = jnp.sum(car)
    finish_score = 1.0 - 2.0 * (finish_position - 1) / jnp.maximum(n_cars - 1, 1)
    covariates = jnp.stack([jnp.asarray(field.start_score), finish_score, finish_score**2], axis=-1)
    laps_led = share_out(
        "lead",
        race_laps,
        covariates @ jnp.asarray(parameters.lead_weight),
        laps_completed,
        race_laps,
        jnp.asarray(parameters.lead_dispersion)[archetype],
        last=finish_position == 1,
    )
    fastest_laps = share_out(
        "fastest",
        green_laps,
        covariates @ jnp.asarray(parameters.fastest_weight),
        laps_completed,
        race_laps,
        jnp.asarray(parameters.fastest_dispersion)[archetype],
    )
    return Outcome(
        finish_position=finish_position,
        running=running,
        laps_completed=laps_completed,
        laps_led=numpyro.deterministic("laps_led", laps_led),
        fastest_laps=numpyro.deterministic("fastest_laps", fastest_laps),
        race_laps=race_laps,
        green_laps=green_laps,
        n_cautions=n_cautions.astype(jnp.int32),
    )


def complete_laps(
    running_order: Array,
    running: Array,
    fate: Array,
    race_laps: Array,
    archetype: ArrayLike,
    parameters: Parameters,
) -> Array:
    """Laps completed by every car: (driver) int32.

    A retired car stops at a quantile of its archetype's retirements, short of the last lap. Running cars
    lose laps independently; the losses are handed out in running order, fewest first, none to the winner.
    """
    stopped = jnp.floor(quantile(parameters.retirement_share, archetype, fate) * race_laps)
    loss = jnp.where(running, jnp.round(quantile(parameters.laps_lost, archetype, fate) * race_laps), jnp.inf)
    place = jnp.where(running, running_order - 1, 0)
    handed_out = jnp.where(place == 0, 0.0, jnp.sort(loss)[place])
    laps = jnp.where(running, race_laps - handed_out, jnp.minimum(stopped, race_laps - 1))
    return jnp.clip(laps, 0, race_laps).astype(jnp.int32)


def classify(laps_completed: Array, running_order: Array, running: Array, car: Array) -> Array:
    """Finish by laps completed; at equal laps running cars stand ahead, in running order: (driver) int32."""
    width = car.shape[-1]
    behind = jnp.where(running, running_order, width + 1 + jnp.arange(width))
    key = laps_completed * (4 * width) - behind
    return jnp.where(car, 1 + jnp.sum((key[None, :] > key[:, None]) & car[None, :], axis=-1), 0).astype(
        jnp.int32
    )


def select_draw(parameters: Parameters, drawn: frozenset[str], index: Array) -> Parameters:
    """Select a draw, modulo their number, of the parameters named in `drawn`; the others are kept.

    Parameters
    ----------
    parameters : Parameters
    drawn : set of str
        Names of parameters with a leading axis of draws.
    index : int
    """
    chosen = {
        name: values[index % values.shape[0]] if name in drawn else values
        for name, values in ((name, jnp.asarray(values)) for name, values in parameters._asdict().items())
    }
    return Parameters(**chosen)
