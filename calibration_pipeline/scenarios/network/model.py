"""The causal network of a race, as a NumPyro model: regime, incidents, running order, outcomes.

Scenarios are draws from the model, and `numpyro.handlers.do` and `condition` apply to its sites. `RELATIONS`
names the parents of every node.

Sites have the shape (driver, scenario), (team, scenario), (stint, scenario) or (scenario): with scenarios
last, every operation runs over many of them at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from calibration_pipeline.scenarios.covariates import AnyArray, Field
from calibration_pipeline.scenarios.network.stints import share_out
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.stats.plackett_luce import rank_columns

MAX_GREEN_SHARE_LOST = 0.6
MAX_CAUTIONS = 30
# A running car that lost more than this share of the race was damaged; it is ranked behind undamaged cars.
DAMAGE_SHARE = 0.05
SET_BACK = 1e4

RELATIONS: dict[str, tuple[str, ...]] = {
    "chaos": (),
    "n_cautions": ("chaos", "archetype", "track"),
    "race_laps": ("archetype", "scheduled_laps"),
    "green_laps": ("n_cautions", "race_laps"),
    "incident": ("chaos", "archetype", "track", "driver", "start_position"),
    "damage": ("chaos", "archetype", "track", "driver", "start_position"),
    "team_effect": (),
    "running_order": ("incident", "damage", "team_effect", "archetype", "driver", "team", "start_position"),
    "laps_completed": ("incident", "damage", "running_order", "race_laps", "archetype"),
    "finish_position": ("laps_completed", "running_order"),
    "laps_led": ("laps_completed", "finish_position", "start_position", "race_laps", "archetype"),
    "fastest_laps": (
        "laps_completed",
        "finish_position",
        "start_position",
        "race_laps",
        "green_laps",
        "archetype",
    ),
}


class Parameters(NamedTuple):
    """Parameters of the network, as single values or with a leading axis of draws.

    Tables over archetypes have the archetype axis first; quantile tables hold values at equally spaced
    probabilities from 0 to 1.
    """

    pace_weight: AnyArray  # (archetype, pace covariate)
    team_scale: AnyArray  # ()
    front_sharpness: (
        AnyArray  # (archetype) factor on the log-strengths before team effects, in the front group
    )
    incident_intercept: AnyArray  # (archetype)
    incident_weight: AnyArray  # (archetype, incident covariate)
    chaos_scale: AnyArray  # (archetype)
    damage_intercept: AnyArray  # (archetype)
    damage_weight: AnyArray  # (archetype, incident covariate)
    damage_chaos_weight: AnyArray  # (archetype)
    caution_intercept: AnyArray  # (archetype)
    caution_track_weight: AnyArray  # ()
    caution_chaos_weight: AnyArray  # (archetype)
    luck_sign: AnyArray  # (), -1: the last car is drawn first; 1: the winner is drawn first
    front_cars: AnyArray  # (), cars in the front group, 0 to `structure.FRONT_CARS`
    retirement_share: AnyArray  # (archetype, quantile) of the race's laps that a retired car completed
    laps_lost: AnyArray  # (archetype, quantile) share of the race's laps that an undamaged running car lost
    damage_laps_lost: AnyArray  # (archetype, quantile) share that a damaged running car lost
    overtime_share: AnyArray  # (archetype, quantile) laps run beyond schedule over scheduled laps
    laps_per_caution: AnyArray  # (archetype)
    lead_weight: AnyArray  # (archetype, hold covariate): start, finish, finish squared
    lead_dispersion: AnyArray  # (archetype)
    fastest_weight: AnyArray  # (archetype, hold covariate)
    fastest_dispersion: AnyArray  # (archetype)


class Recalibration(NamedTuple):
    """Change of a race by the calibration.

    Attributes
    ----------
    log_sharpness : of the whole running order
    incident_shift : added to the incident logit
    front_tilt : log of a further factor on the sharpness of the front group
    """

    log_sharpness: AnyArray = 0.0
    incident_shift: AnyArray = 0.0
    front_tilt: AnyArray = 0.0


class Outcome(NamedTuple):
    """Simulated races; padding is 0 or False."""

    finish_position: AnyArray  # (driver, scenario) int
    running: AnyArray  # (driver, scenario) bool
    laps_completed: AnyArray  # (driver, scenario) int
    laps_led: AnyArray  # (driver, scenario) int
    fastest_laps: AnyArray  # (driver, scenario) int
    race_laps: AnyArray  # (scenario) int
    green_laps: AnyArray  # (scenario) int
    n_cautions: AnyArray  # (scenario) int


def quantile(table: AnyArray, probability: AnyArray) -> Array:
    """Value of a quantile table at probabilities below 1, by linear interpolation.

    Parameters
    ----------
    table : array, shape (quantile)
    probability : array

    Examples
    --------
    >>> float(quantile(jnp.array([0.0, 10.0, 20.0]), 0.25))
    5.0
    """
    table = jnp.asarray(table)
    at = jnp.asarray(probability) * (table.shape[-1] - 1)
    below = jnp.minimum(at.astype(jnp.int32), table.shape[-1] - 2)
    return table[below] + (at - below) * jnp.diff(table)[below]


def log_strength(field: Field, parameters: Parameters) -> Array:
    """Log-strength of every car before team effects: (driver, draw)."""
    return jnp.asarray(field.pace) @ jnp.asarray(parameters.pace_weight)[..., field.archetype, :].T


def incident_logit(field: Field, parameters: Parameters) -> Array:
    """Logit of every car's incident at chaos 0: (driver, draw)."""
    intercept = jnp.asarray(parameters.incident_intercept)[..., field.archetype]
    weight = jnp.asarray(parameters.incident_weight)[..., field.archetype, :]
    return intercept + jnp.asarray(field.incident) @ weight.T


def damage_logit(field: Field, parameters: Parameters) -> Array:
    """Logit of the damage of every car that runs to the end, at chaos 0: (driver, draw)."""
    intercept = jnp.asarray(parameters.damage_intercept)[..., field.archetype]
    weight = jnp.asarray(parameters.damage_weight)[..., field.archetype, :]
    return intercept + jnp.asarray(field.incident) @ weight.T


def caution_log_rate(field: Field, parameters: Parameters) -> Array:
    """Log of the expected number of cautions at chaos 0: (draw)."""
    intercept = jnp.asarray(parameters.caution_intercept)[..., field.archetype]
    return intercept + jnp.asarray(parameters.caution_track_weight) * jnp.asarray(field.caution)


NOTHING_CHANGED = Recalibration()


def race_model(
    field: Field, parameters: Parameters, draw: ArrayLike, recalibration: Recalibration = NOTHING_CHANGED
) -> Outcome:
    """Draw scenarios of one race.

    Parameters
    ----------
    field : Field
        Of one race (no leading axis).
    parameters : Parameters
        With a leading axis of draws where the parameter is drawn.
    draw : array of int, shape (scenario)
        Index of the parameter draw that each scenario takes.
    recalibration : Recalibration
        Scalars or arrays (scenario); no change by default.

    Returns
    -------
    Outcome
        Feasible by construction: the finish is a permutation in the order of laps completed, no car leads
        after retiring, the winner leads the last lap, laps led sum to the race's laps and fastest laps to
        its green laps.
    """
    draw = jnp.asarray(draw)
    car, archetype = jnp.asarray(field.car)[:, None], field.archetype
    width = car.shape[0]
    scenario = numpyro.plate("scenario", draw.shape[0], dim=-1)
    cars = numpyro.plate("car", width, dim=-2)

    def drawn(table: AnyArray) -> Array:
        return jnp.asarray(table)[draw, archetype]

    with scenario:
        chaos = numpyro.sample("chaos", dist.Normal(0.0, 1.0))
        caution_rate = jnp.exp(
            caution_log_rate(field, parameters)[draw] + drawn(parameters.caution_chaos_weight) * chaos
        )
        n_cautions = numpyro.sample("n_cautions", dist.Poisson(jnp.minimum(caution_rate, MAX_CAUTIONS)))
        overtime = numpyro.sample("overtime", dist.Uniform())
    added = quantile(jnp.asarray(parameters.overtime_share)[archetype], overtime)
    race_laps = jnp.maximum(jnp.round(field.scheduled_laps * (1 + added)), 1).astype(jnp.int32)
    race_laps = numpyro.deterministic("race_laps", race_laps)
    lost = n_cautions * jnp.asarray(parameters.laps_per_caution)[archetype]
    lost = jnp.minimum(lost, MAX_GREEN_SHARE_LOST * race_laps)
    green_laps = numpyro.deterministic("green_laps", race_laps - jnp.round(lost).astype(jnp.int32))

    logit = incident_logit(field, parameters)[:, draw] + drawn(parameters.chaos_scale) * chaos
    logit = logit + recalibration.incident_shift
    with scenario, cars:
        incident = numpyro.sample("incident", dist.Bernoulli(logits=logit)).astype(bool)
    logit = damage_logit(field, parameters)[:, draw] + drawn(parameters.damage_chaos_weight) * chaos
    with scenario, cars:
        damage = numpyro.sample("damage", dist.Bernoulli(logits=logit)).astype(bool)

    with scenario, numpyro.plate("team", width, dim=-2):
        team_effect = numpyro.sample("team_effect", dist.Normal(0.0, 1.0))
    strength = jnp.exp(recalibration.log_sharpness) * log_strength(field, parameters)[:, draw]
    effect = jnp.asarray(parameters.team_scale)[draw] * team_effect[jnp.asarray(field.team)]
    with scenario, cars:
        luck = numpyro.sample("luck", dist.Gumbel(0.0, 1.0))
        fate = numpyro.sample("fate", dist.Uniform())
    with scenario, numpyro.plate("front", FRONT_CARS, dim=-2):
        front_luck = numpyro.sample("front_luck", dist.Gumbel(0.0, 1.0))
    with scenario, numpyro.plate("place", width + 2, dim=-2):
        gap = numpyro.sample("gap", dist.Exponential(1.0))
    set_back = jnp.where(damage, SET_BACK, 0.0)
    pace = jnp.where(car, strength + effect + parameters.luck_sign * luck - set_back, -jnp.inf)
    best = jnp.arange(width)[:, None] == jnp.argmax(pace, axis=0)
    running = car & (~incident | (best & jnp.all(incident | ~car, axis=0)))
    front_sharpness = jnp.exp(recalibration.front_tilt) * drawn(parameters.front_sharpness)
    front_strength = front_sharpness * strength + effect - set_back
    order = reorder_front(rank_columns(pace, running), front_strength, front_luck, parameters.front_cars)
    running_order = numpyro.deterministic("running_order", order)

    stopped = quantile(jnp.asarray(parameters.retirement_share)[archetype], fate)
    share = in_order(gap, running_order, running, damage)
    behind = jnp.where(
        damage,
        quantile(jnp.asarray(parameters.damage_laps_lost)[archetype], share),
        quantile(jnp.asarray(parameters.laps_lost)[archetype], share),
    )
    laps_completed = complete_laps(running_order, running, stopped, behind, race_laps)
    laps_completed = numpyro.deterministic("laps_completed", jnp.where(car, laps_completed, 0))
    finish_position = numpyro.deterministic(
        "finish_position", classify(laps_completed, running_order, running, car)
    )

    finish_score = 1.0 - 2.0 * (finish_position - 1) / jnp.maximum(jnp.sum(car) - 1, 1)
    covariates = (jnp.asarray(field.start_score)[:, None], finish_score, finish_score**2)

    def score(weight: AnyArray) -> Array:
        return sum(w * x for w, x in zip(jnp.asarray(weight)[archetype], covariates, strict=True))

    laps_led = share_out(
        "lead",
        race_laps,
        score(parameters.lead_weight),
        laps_completed,
        race_laps,
        jnp.asarray(parameters.lead_dispersion)[archetype],
        last=finish_position == 1,
    )
    fastest_laps = share_out(
        "fastest",
        green_laps,
        score(parameters.fastest_weight),
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


def reorder_front(running_order: Array, log_strength: Array, luck: Array, front_cars: AnyArray) -> Array:
    """Draw the order of the front group again, given which cars are in it: (driver, scenario) int32.

    Under the reverse Plackett-Luce law the order of the first cars depends on the others only through which
    cars these are (L-decomposability: Critchlow, Fligner & Verducci 1991, doi:10.1016/0022-2496(91)90050-4).
    The second draw therefore gives the law whose last stages have these log-strengths.

    Parameters
    ----------
    running_order : array of int, shape (driver, scenario)
        0 for cars that do not run.
    log_strength : array, shape (driver, scenario)
        Log-strengths in the front group.
    luck : array, shape (position, scenario)
        Standard Gumbel.
    front_cars : array of int, shape ()
        Cars in the group, at most as many as positions in `luck`. The others keep their positions.
    """
    position = jnp.arange(1, len(luck) + 1)

    def find(_: None, at: Array) -> tuple[None, Array]:
        return None, jnp.max(jnp.where(running_order == at, log_strength, -jnp.inf), axis=0)

    _, strength = jax.lax.scan(find, None, position)
    in_group = (position[:, None] <= front_cars) & jnp.isfinite(strength)
    new_position = rank_columns(strength - luck, in_group)
    moved = jnp.take_along_axis(new_position, jnp.clip(running_order - 1, 0, len(luck) - 1), axis=0)
    return jnp.where((running_order > 0) & (running_order <= front_cars), moved, running_order)


def in_order(gap: Array, running_order: Array, running: Array, damage: Array) -> Array:
    """Ordered uniform numbers, one for each running car, ascending in running order.

    Undamaged and damaged cars are two groups, each with its own ascending numbers.

    Sums of exponential gaps over their total are ordered uniform numbers (Devroye 1986, Non-Uniform Random
    Variate Generation, chapter V, theorem 2.2), so that nothing is sorted.

    Parameters
    ----------
    gap : array, shape (driver + 2, scenario)
        Standard exponential.
    running_order : array of int, shape (driver, scenario)
    running, damage : array of bool, shape (driver, scenario)

    Returns
    -------
    array, shape (driver, scenario)
        From 0 to 1; meaningless for cars that do not run.
    """
    reach = jax.lax.associative_scan(jnp.add, gap, axis=0)
    n_running = jnp.sum(running, axis=0, keepdims=True)
    n_undamaged = jnp.sum(running & ~damage, axis=0, keepdims=True)
    at = jnp.take_along_axis(reach, jnp.maximum(running_order - 1, 0) + damage, axis=0)
    middle = jnp.take_along_axis(reach, n_undamaged, axis=0)
    end = jnp.take_along_axis(reach, n_running + 1, axis=0)
    return jnp.where(damage, (at - middle) / (end - middle), at / middle)


def complete_laps(
    running_order: Array, running: Array, stopped: Array, behind: Array, race_laps: Array
) -> Array:
    """Laps completed by every car: (driver, scenario) int32.

    Parameters
    ----------
    running_order : array of int, shape (driver, scenario)
    running : array of bool, shape (driver, scenario)
    stopped : array, shape (driver, scenario)
        Share of the race after which a car retired; it stops short of the last lap.
    behind : array, shape (driver, scenario)
        Share of the race that a running car lost, ascending in running order; the winner loses none.
    race_laps : array of int, shape (scenario)
    """
    stop = jnp.minimum(jnp.floor(stopped * race_laps), race_laps - 1)
    lost = jnp.where(running_order == 1, 0.0, jnp.round(behind * race_laps))
    return jnp.clip(jnp.where(running, race_laps - lost, stop), 0, race_laps).astype(jnp.int32)


def classify(laps_completed: Array, running_order: Array, running: Array, car: Array) -> Array:
    """Rank cars by laps completed, at equal laps running cars first, in running order: (driver, scenario).

    The result is int32, 0 where there is no car.
    """
    width = car.shape[0]
    behind = jnp.where(running, running_order, width + 1 + jnp.arange(width)[:, None])
    return rank_columns(laps_completed * (4 * width) - behind, jnp.broadcast_to(car, laps_completed.shape))
