"""Log-likelihood curves of races, tabulated once as Chebyshev series.

Given the log-strengths, the likelihood of a running order depends only on its log sharpness. The likelihood
of the incidents depends only on a shift of their logit. Both are smooth functions of one variable.

The order of the front group, the first `FRONT_CARS` running cars, has its own curve: the part of the stages
with at most `FRONT_CARS` cars left. Under the reverse Plackett-Luce law this part is the likelihood of the
group's order, given its cars.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.polynomial.chebyshev import chebder
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from calibration_pipeline.scenarios.covariates import AnyArray, padded_width
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT, running_order
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.schemas.datasets import CURVE, REFERENCE_SURFACE, car_mask, list_cars
from calibration_pipeline.schemas.results import RUNNING_ORDER, join_results
from calibration_pipeline.stats.chebyshev import (
    basis_values,
    centre,
    chebyshev_nodes,
    fit_coefficients,
    fit_coefficients_2d,
)
from calibration_pipeline.stats.plackett_luce import log_probability, slots_in_order
from calibration_pipeline.stats.quadrature import even_nodes

RACES_BLOCK = 40
"""Races that a compiled function tabulates at once, so that one program serves every season."""
REFERENCE_SCENARIOS = 32
STREAM = 11
REFERENCE_BOX = ((-2.0, 2.0), (0.0, 1.0))
"""Log sharpness, of all stages and of the front group, and race-level noise that a reference may have."""
N_REFERENCE_NODES = (24, 24)
REFERENCE_START = (0.0, 0.1)
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


class CurveArrays(NamedTuple):
    """Curves of races.

    Attributes
    ----------
    order : (race, coefficient), log-likelihood of the running order by log sharpness, 0 at the raw one's
    incident : (race, coefficient), log-likelihood of the incidents by shift of the logit in
        `INCIDENT_SHIFT_BOX`, 0 at no shift
    reference_order : (race, sharpness coefficient, noise coefficient), `tabulate_reference` of curves as
        `order`, for orders drawn from the ensemble
    front : (race, coefficient), part of `order` of the stages with at most `FRONT_CARS` cars left
    reference_front : (race, sharpness coefficient, noise coefficient), likewise of curves as `front`
    """

    order: NDArray[np.float32]
    incident: NDArray[np.float32]
    reference_order: NDArray[np.float32]
    front: NDArray[np.float32]
    reference_front: NDArray[np.float32]


CURVES: dict[str, tuple[str, ...]] = {
    "order_curve": CURVE,
    "incident_curve": ("race", "incident_coefficient"),
    "reference_surface": REFERENCE_SURFACE,
    "front_curve": CURVE,
    "reference_front_surface": REFERENCE_SURFACE,
}
"""Stored variable -> its dims, in the order of `CurveArrays`."""


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
        Has the coordinates of `schemas.datasets.Races`. All classified cars of a race without incident logits
        count as running: its forecast says nothing about retirements.
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
    running = pl.lit(True)
    if "incident_logit" in ensemble:
        known = (car & (ensemble["incident_logit"].values > NO_INCIDENT_LOGIT)).any(axis=1)
        is_known = pl.col("race_id").is_in(ensemble["race"].values[known].tolist())
        running = pl.col("running") | ~is_known
    found = found.with_columns(running=running)
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


def tabulate_races(ensemble: xr.Dataset, race_results: pl.DataFrame, seed: int) -> xr.Dataset:
    """Tabulate the curves of an ensemble's races, labelled.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    race_results : polars.DataFrame
        `RaceResults` of at least these races.
    seed : int

    Returns
    -------
    xarray.Dataset
        `RaceCurves`.

    Raises
    ------
    ValueError
        If a car of the ensemble has no result, or a race has another number of cars.
    """
    curves = tabulate(ensemble, observe(ensemble, race_results), seed)
    labels = {name: ("race", ensemble[name].values) for name in ("season", "race_order", "fold", "archetype")}
    values = zip(CURVES.items(), curves, strict=True)
    return xr.Dataset(
        {name: (dims, curve) for (name, dims), curve in values}, {"race": ensemble["race"].values, **labels}
    )


def read_curves(curves: xr.Dataset) -> CurveArrays:
    """Return the arrays of `RaceCurves`."""
    return CurveArrays(*(curves[name].values for name in CURVES))


def join_curves(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Join the curves of several seasons or archetypes, in order of time."""
    return xr.concat(parts, dim="race").sortby("race_order")


def tabulate(ensemble: xr.Dataset, observed: Observed, seed: int) -> CurveArrays:
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
    CurveArrays
    """
    log_strength = ensemble["utility"].values
    drawn = scenario_running_order(ensemble, choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed))
    ranks = np.concatenate([observed.running_order[:, None, :], drawn], axis=1)
    orders = tabulate_orders(log_strength, ranks)
    front = tabulate_orders(log_strength, front_group(ranks))
    return CurveArrays(
        order=orders[:, 0],
        incident=tabulate_incidents(
            ensemble["incident_logit"].values,
            ensemble["chaos_scale"].values,
            (observed.finish_position > 0) & (observed.running_order == 0),
            car_mask(ensemble).values,
        ),
        reference_order=tabulate_reference(orders[:, 1:]),
        front=front[:, 0],
        reference_front=tabulate_reference(front[:, 1:]),
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
    values = _by_blocks(_order_values, (log_strength, running_order), nodes)
    return centre(fit_coefficients(values), *LOG_SHARPNESS_BOX)[0].astype(np.float32)


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
    values = _by_blocks(_incident_values, (logit, chaos_scale, retired, is_car), nodes)
    return centre(fit_coefficients(values), *INCIDENT_SHIFT_BOX)[0].astype(np.float32)


def _by_blocks(function: Callable[..., Array], races: tuple[NDArray, ...], nodes: NDArray) -> NDArray:
    """Call a compiled function of nodes and arrays (race), or (race, ..., driver), on blocks of one shape."""

    def padded(values: NDArray) -> NDArray:
        room = [(0, RACES_BLOCK - len(values)), *[(0, 0)] * (values.ndim - 1)]
        if values.ndim > 1:
            room[-1] = (0, padded_width(values.shape[-1]) - values.shape[-1])
        return np.pad(values, room)

    n_races = len(races[0])
    starts = range(0, max(n_races, 1), RACES_BLOCK)
    blocks = ([values[start : start + RACES_BLOCK] for values in races] for start in starts)
    return np.concatenate([function(*map(padded, block), nodes) for block in blocks])[:n_races]


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


def tabulate_reference(curves: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tabulate the mean log-likelihood of each race's scenarios, race noise integrated out.

    Parameters
    ----------
    curves : array, shape (race, scenario, coefficient)
        As `tabulate_orders` returns them.

    Returns
    -------
    array, shape (race, sharpness coefficient, noise coefficient)
        Chebyshev coefficients in log sharpness and noise, in `REFERENCE_BOX`. The largest mean over races is
        where it is without tables to within 1e-4.
    """
    nodes, weights = (values.astype(np.float32) for values in even_nodes())
    sharpness, noise = (
        chebyshev_nodes(*box, n) for box, n in zip(REFERENCE_BOX, N_REFERENCE_NODES, strict=True)
    )
    points = sharpness[:, None] + noise * nodes[:, None, None]
    basis = basis_values(points.ravel(), curves.shape[-1], *LOG_SHARPNESS_BOX).astype(np.float32)
    values = np.empty((len(curves), *N_REFERENCE_NODES))
    for race, scenarios in enumerate(curves):
        each = (scenarios @ basis.T).reshape(len(scenarios), len(nodes), -1)
        largest = each.max(axis=1)
        likelihood = weights @ np.exp(each - largest[:, None])
        values[race] = (np.log(likelihood) + largest).mean(axis=0).reshape(N_REFERENCE_NODES)
    return fit_coefficients_2d(values).astype(np.float32)


def reference_sharpness(curves: CurveArrays, weight: NDArray) -> Reference:
    """Fit the likelihood to orders drawn from the ensemble itself.

    Under the plain reverse Plackett-Luce likelihood, a calibrated ensemble with team effects or another noise
    law does not have slope 1. Its own sharpness is the reference of the observed slopes. Its front group may
    have another sharpness. The reference tilt is fitted to the orders of the front group at this sharpness.

    Parameters
    ----------
    curves : CurveArrays
    weight : array, shape (race)
        1 for races that count, 0 for the others; not all 0.

    Returns
    -------
    Reference
        Of largest mean likelihood.
    """
    share = np.asarray(weight, np.float64) / np.sum(weight)
    order, front = (
        np.tensordot(share, tables, axes=1) for tables in (curves.reference_order, curves.reference_front)
    )
    gradient = [
        2 / (upper - lower) * chebder(order, axis=axis) for axis, (lower, upper) in enumerate(REFERENCE_BOX)
    ]

    def loss(x: NDArray) -> tuple[float, NDArray]:
        return -_read_reference(order, *x), -np.array([_read_reference(part, *x) for part in gradient])

    log_slope, noise = minimize(loss, REFERENCE_START, jac=True, method="L-BFGS-B", bounds=REFERENCE_BOX).x
    of_front = minimize_scalar(
        lambda x: -_read_reference(front, x, noise), bounds=REFERENCE_BOX[0], method="bounded"
    )
    return Reference(float(log_slope), float(noise), float(of_front.x - log_slope))


def _read_reference(table: NDArray, log_sharpness: float, noise_sigma: float) -> float:
    """Evaluate a table (sharpness coefficient, noise coefficient) at a point of `REFERENCE_BOX`."""
    point = zip((log_sharpness, noise_sigma), REFERENCE_BOX, table.shape, strict=True)
    of_sharpness, of_noise = (
        np.cos(np.arange(n) * math.acos(min(max((2 * x - lower - upper) / (upper - lower), -1.0), 1.0)))
        for x, (lower, upper), n in point
    )
    return float(of_sharpness @ table @ of_noise)
