"""Log-likelihood curves of races, tabulated once as Chebyshev series.

Given the log-strengths, the likelihood of a running order depends only on its log sharpness. The likelihood
of the incidents depends only on a shift of their logit. Both are smooth functions of one variable.

The order of the front group, the first `FRONT_CARS` running cars, has its own curve: the part of the stages
with at most `FRONT_CARS` cars left. Under the reverse Plackett-Luce law this part is the likelihood of the
group's order, given its cars.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.typing import NDArray
from scipy.optimize import minimize

from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.scenarios.log_strengths import running_order
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.schemas.datasets import car_mask, list_cars
from calibration_pipeline.schemas.results import RUNNING_ORDER, join_results
from calibration_pipeline.stats.chebyshev import centre, chebyshev_basis, chebyshev_nodes, fit_coefficients
from calibration_pipeline.stats.plackett_luce import log_probability, slots_in_order
from calibration_pipeline.stats.quadrature import even_nodes

RACES_MULTIPLE = 64
REFERENCE_SCENARIOS = 32
STREAM = 11
LARGEST_REFERENCE_NOISE = 1.0
LARGEST_REFERENCE_TILT = 2.0
LOG_SHARPNESS_BOX = (-4.4, 3.0)
N_SHARPNESS_NODES = 64
"""Number of Chebyshev nodes in `LOG_SHARPNESS_BOX` for the curves of running orders."""
INCIDENT_SHIFT_BOX = (-16.0, 16.0)
"""Shifts of the incident logit that the curves cover. The logits of 1,000,000 scenarios without a retirement
are -14.5; a shift of 12.5 then retires 12 % of the cars."""
N_SHIFT_NODES = 128
"""Number of Chebyshev nodes in `INCIDENT_SHIFT_BOX` for the curves of incidents: an error below 5e-4 nats."""
N_CHAOS_NODES, CHAOS_REACH = 61, 6.0
"""Even nodes of chaos. The likelihood of 38 cars is narrow in chaos. Within 8 nats of its maximum 15
Gauss-Hermite nodes err by up to 0.2 nats at chaos scale 1 and 6 at scale 3; these nodes by 2e-6 and 6e-3."""


class Observed(NamedTuple):
    """Results of the races of an ensemble, laid out like the ensemble.

    Attributes
    ----------
    finish_position : (race, driver) int, 0 for padding
    running_order : (race, driver) int, 1 for the first of the running cars, 0 for retired and padding
    """

    finish_position: NDArray[np.int16]
    running_order: NDArray[np.int16]


class RaceCurves(NamedTuple):
    """Curves of races, padded to a multiple of `RACES_MULTIPLE` with curves that are zero.

    Attributes
    ----------
    order : (race, coefficient), log-likelihood of the running order by log sharpness, 0 at the raw one's
    incident : (race, coefficient), log-likelihood of the incidents by shift of the logit in
        `INCIDENT_SHIFT_BOX`, 0 at no shift
    reference_order : (race, scenario, coefficient), as `order` for orders drawn from the ensemble
    front : (race, coefficient), part of `order` of the stages with at most `FRONT_CARS` cars left
    reference_front : (race, scenario, coefficient), as `front` for orders drawn from the ensemble
    """

    order: NDArray[np.float32]
    incident: NDArray[np.float32]
    reference_order: NDArray[np.float32]
    front: NDArray[np.float32]
    reference_front: NDArray[np.float32]


class Reference(NamedTuple):
    """Reference sharpness: the sharpness that the likelihood estimates from the ensemble's own scenarios.

    Attributes
    ----------
    log_slope, noise_sigma : log sharpness of all stages, and its race-level standard deviation
    front_tilt : log of the front group's sharpness, relative to that of all stages
    """

    log_slope: AnyArray
    noise_sigma: AnyArray
    front_tilt: AnyArray = 0.0


def observe(ensemble: xr.Dataset, race_results: pl.DataFrame) -> Observed:
    """Look up the results of an ensemble's cars.

    Parameters
    ----------
    ensemble : xarray.Dataset
        Has the coordinates of `schemas.datasets.Races`. Without the variable `running` all classified cars
        count as running.
    race_results : polars.DataFrame
        `RaceResults` of at least these races.

    Returns
    -------
    Observed

    Raises
    ------
    ValueError
        If a car of the ensemble has no result, or a race has another number of cars.
    """
    n_races, width = ensemble.sizes["race"], ensemble.sizes["driver"]
    car = car_mask(ensemble).values
    found = join_results(list_cars(ensemble), race_results, "ensemble")
    if "running" not in ensemble:
        found = found.with_columns(running=pl.lit(True))
    values = found.select("finish_position", running_order=RUNNING_ORDER)
    out = np.zeros((2, n_races, width), np.int16)
    out[:, car] = values.to_numpy().T
    return Observed(*out)


def choose_scenarios(ensemble: xr.Dataset, n_scenarios: int, seed: int) -> NDArray[np.intp]:
    """Choose scenarios of each race at random, each at most once.

    The network's scenario k has the parameter draw k mod 64. Evenly spaced scenarios see few of the draws:
    one with 2,048 scenarios, eight with 10,000.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    n_scenarios : int
        All are chosen where there are fewer.
    seed : int
        A race's choice depends on the seed, and not on the other races.

    Returns
    -------
    array, shape (race, n_scenarios)
        Indices of scenarios.
    """
    n_known = ensemble.sizes["scenario"]
    chosen = np.empty((ensemble.sizes["race"], min(n_scenarios, n_known)), np.intp)
    for r, race in enumerate(ensemble["race"].values.tolist()):
        rng = np.random.default_rng([seed, race, STREAM])
        chosen[r] = rng.choice(n_known, chosen.shape[1], replace=False)
    return chosen


def scenario_running_order(ensemble: xr.Dataset, chosen: NDArray[np.intp]) -> NDArray[np.int16]:
    """Rank the running cars of chosen scenarios: (race, scenario, driver), 0 for the others."""
    few = ensemble.isel(scenario=xr.DataArray(chosen, dims=("race", "scenario")))
    running = few["running"].values if "running" in few else None
    return running_order(few["finish_position"].values, running)


def tabulate(ensemble: xr.Dataset, observed: Observed, seed: int) -> RaceCurves:
    """Tabulate the curves of an ensemble's races.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    observed : Observed
        Of the same races.
    seed : int
        Of the choice of `REFERENCE_SCENARIOS` scenarios of each race.

    Returns
    -------
    RaceCurves
        The race axis is padded to a multiple of `RACES_MULTIPLE`.
    """
    log_strength = pad_races(ensemble["utility"].values)
    drawn = pad_races(scenario_running_order(ensemble, choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed)))
    happened = pad_races(observed.running_order)[:, None, :]
    return RaceCurves(
        order=tabulate_orders(log_strength, happened)[:, 0],
        incident=tabulate_incidents(
            pad_races(ensemble["incident_logit"].values),
            pad_races(ensemble["chaos_scale"].values),
            pad_races((observed.finish_position > 0) & (observed.running_order == 0)),
            pad_races(car_mask(ensemble).values),
        ),
        reference_order=tabulate_orders(log_strength, drawn),
        front=tabulate_orders(log_strength, front_group(happened))[:, 0],
        reference_front=tabulate_orders(log_strength, front_group(drawn)),
    )


def front_group(running_order: NDArray) -> NDArray:
    """Return the ranks of the first `FRONT_CARS` running cars, 0 for the others.

    Examples
    --------
    >>> front_group(np.array([13, 12, 0, 1])).tolist()
    [0, 12, 0, 1]
    """
    return np.where(running_order <= FRONT_CARS, running_order, 0)


def tabulate_orders(log_strength: NDArray, running_order: NDArray) -> NDArray[np.float32]:
    """Tabulate running orders over `LOG_SHARPNESS_BOX`, 0 at log sharpness 0.

    Parameters
    ----------
    log_strength : array, shape (race, driver)
    running_order : array of int, shape (race, scenario, driver)
        1 for the first of the running cars, 0 for the others.

    Returns
    -------
    array, shape (race, scenario, coefficient)
    """
    nodes = chebyshev_nodes(*LOG_SHARPNESS_BOX, N_SHARPNESS_NODES)
    coefficients = fit_coefficients(_order_values(log_strength, running_order, nodes))
    return centre(coefficients, *LOG_SHARPNESS_BOX)[0].astype(np.float32)


def tabulate_incidents(
    logit: NDArray, chaos_scale: NDArray, retired: NDArray, is_car: NDArray
) -> NDArray[np.float32]:
    """Tabulate incidents over `INCIDENT_SHIFT_BOX`, chaos integrated out, 0 at no shift.

    Parameters
    ----------
    logit : array, shape (race, driver)
        Of retiring, at chaos 0.
    chaos_scale : array, shape (race)
    retired, is_car : array of bool, shape (race, driver)

    Returns
    -------
    array, shape (race, coefficient)
    """
    nodes = chebyshev_nodes(*INCIDENT_SHIFT_BOX, N_SHIFT_NODES)
    values = _incident_values(logit, chaos_scale, retired, is_car, nodes)
    return centre(fit_coefficients(values), *INCIDENT_SHIFT_BOX)[0].astype(np.float32)


def pad_races(values: NDArray) -> NDArray:
    """Pad the first axis to a multiple of `RACES_MULTIPLE`, with zeros, so that few shapes are compiled."""
    n_pad = -len(values) % RACES_MULTIPLE if len(values) else RACES_MULTIPLE
    return np.concatenate([values, np.zeros((n_pad, *values.shape[1:]), values.dtype)])


@jax.jit
def _order_values(log_strength: Array, running_order: Array, log_sharpness: Array) -> Array:
    """Log-likelihood of running orders (race, scenario, driver) at each node: (race, scenario, node)."""

    def at_nodes(log_strength: Array, rank: Array) -> Array:
        order = slots_in_order(rank)
        sharpened = jnp.exp(log_sharpness)[:, None] * log_strength[order]
        return log_probability(sharpened, jnp.broadcast_to((rank > 0)[order], sharpened.shape))

    return jax.vmap(jax.vmap(at_nodes, in_axes=(None, 0)))(log_strength, running_order)


@jax.jit
def _incident_values(logit: Array, chaos_scale: Array, out: Array, car: Array, shift: Array) -> Array:
    """Log-likelihood of incidents, chaos integrated out, at each shift of the logit: (race, node)."""
    nodes, weights = even_nodes(N_CHAOS_NODES, CHAOS_REACH)
    at_no_shift = logit[:, None, :] + (chaos_scale[:, None] * nodes)[..., None]

    def at_shift(shift: Array) -> Array:
        at = at_no_shift + shift
        each = jnp.where(car[:, None, :], out[:, None, :] * at - jax.nn.softplus(at), 0.0)
        return jax.nn.logsumexp(each.sum(axis=-1) + jnp.log(weights), axis=-1)

    return jax.lax.map(at_shift, shift).T


def reference_sharpness(curves: RaceCurves, weight: NDArray) -> Reference:
    """Fit the likelihood to orders drawn from the ensemble itself.

    Under the plain reverse Plackett-Luce likelihood, a calibrated ensemble with team effects or another noise
    law does not have slope 1. Its own sharpness is the reference of the observed slopes. Its front group may
    have another sharpness. The reference tilt is fitted to the orders of the front group at this sharpness.

    Parameters
    ----------
    curves : RaceCurves
    weight : array, shape (race)
        1 for races that count, 0 for the others.

    Returns
    -------
    Reference
        Of largest mean likelihood.
    """
    counts = jnp.asarray(weight, jnp.float32)
    bounds = [(-2.0, 2.0), (0.0, LARGEST_REFERENCE_NOISE)]
    log_slope, noise = _minimise(_reference_loss, (curves.reference_order, counts), [0.0, 0.1], bounds)
    at = np.array([log_slope, noise], np.float32)
    tilt_bounds = [(-LARGEST_REFERENCE_TILT, LARGEST_REFERENCE_TILT)]
    (tilt,) = _minimise(_tilt_loss, (curves.reference_front, counts, at), [0.0], tilt_bounds)
    return Reference(log_slope, noise, tilt)


def _minimise(
    loss: Any, arguments: tuple[AnyArray, ...], start: list[float], bounds: list[tuple[float, float]]
) -> list[float]:
    """Minimise a loss that returns its value and gradient, by L-BFGS-B."""
    known = [jnp.asarray(values) for values in arguments]

    def evaluate(x: NDArray) -> tuple[float, NDArray]:
        value, gradient = loss(jnp.asarray(x, jnp.float32), *known)
        return float(value), np.asarray(gradient, np.float64)

    best = minimize(evaluate, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds)
    return [float(value) for value in best.x]


@jax.jit
def _reference_loss(x: Array, tables: Array, weight: Array) -> Any:
    """Return the loss of log sharpness and noise, and its gradient."""
    return jax.value_and_grad(lambda at: _mean_loss(tables, weight, at[0], at[1]))(x)


@jax.jit
def _tilt_loss(x: Array, tables: Array, weight: Array, reference: Array) -> Any:
    """Return the loss of the front tilt at a log sharpness and noise, and its gradient."""
    return jax.value_and_grad(lambda at: _mean_loss(tables, weight, reference[0] + at[0], reference[1]))(x)


def _mean_loss(tables: Array, weight: Array, log_sharpness: Array, noise_sigma: Array) -> Array:
    nodes, weights = even_nodes()
    # All curves are read at the same points.
    basis = chebyshev_basis(log_sharpness + noise_sigma * nodes, tables.shape[-1], *LOG_SHARPNESS_BOX)
    each = jax.nn.logsumexp(tables @ basis.T + jnp.log(weights), axis=-1)
    return -jnp.sum(weight * each.mean(axis=1)) / jnp.sum(weight)
