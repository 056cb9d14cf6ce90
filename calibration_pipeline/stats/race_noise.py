r"""Likelihoods of races with the race-level noise of the log slope integrated out.

A map with one slope and one intercept enters a race's likelihood only through its log slope and its
intercept: the likelihood is a surface, tabulated once as a Chebyshev series (`Surfaces`). For races that
share their parameters, the sum

.. math:: F(\lambda, \sigma, b) = \sum_r \log E \exp f_r(\lambda + \sigma \varepsilon, b),
    \quad \varepsilon \sim N(0, 1),

is tabulated in turn (`tabulate_noise`). A sampler reads one table a group, so that the cost of its step does
not grow with the number of races. Cubic B-splines interpolate tables (Unser 1999, doi:10.1109/79.799930).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d
from scipy.special import ndtri

from calibration_pipeline.stats.chebyshev import (
    LOG_SLOPE_BOX,
    basis_values,
    centre_2d,
    chebyshev_nodes,
    evaluate,
    fit_coefficients,
    fit_coefficients_2d,
)
from calibration_pipeline.stats.quadrature import even_nodes
from calibration_pipeline.stats.state_filter import SMALLEST_LIKELIHOOD

INTERCEPT_BOX = (-2.5, 2.5)
"""Intercepts of a surface; outside it the surface is linear."""
SLOPE_STEP, NOISE_STEP, N_NOISES = 0.1, 0.15, 21
"""Steps of a table in the log slope, and in arsinh(noise / `NOISE_SCALE`). Noises go up to 2, four times the
scale of the prior. Beyond them, and beyond the box of the log slope, the table is level."""
NOISE_SCALE = 0.2
FINE_STEP, REACH = 0.025, 3.0
"""Step of the trapezoid rule over the noise, below the smallest noise of a table (0.03), and its reach beyond
the box of the log slope."""
BLOCK = 32
"""Races that are tabulated together. The last block is padded: a race's table is bitwise the same whatever
the number of later races."""
TYPICAL_NOISE = 6
"""Index of the noise of the rough normal likelihood, 0.205."""
SPLINE_AT_KNOT = np.array([1.0, 4.0, 1.0]) / 6
"""Weights of the three coefficients of a cubic B-spline around one of its knots."""


class Surfaces(NamedTuple):
    """Log-likelihoods of races by log slope and intercept.

    Attributes
    ----------
    coefficients : (race, n_x, n_y), centred at slope 1, intercept 0
    at_zero : (race,), what was subtracted
    box : (2,), lower and upper end in log slope, -u and u
    """

    coefficients: NDArray[np.float64]
    at_zero: NDArray[np.float64]
    box: tuple[float, float]


class NoiseTables(NamedTuple):
    """Log-likelihoods of groups of races by log slope, race noise and intercept, as a sampler reads them.

    Attributes
    ----------
    coefficients : (group, log slope, noise, n_y), splines of Chebyshev coefficients in the intercept
    lower : (), log slope at which the table begins
    weighted_estimate, information : (group), a rough normal likelihood of each log slope, which affects a
        sampler's coordinates alone
    """

    coefficients: ArrayLike
    lower: ArrayLike
    weighted_estimate: ArrayLike
    information: ArrayLike


def fit_surfaces(
    log_likelihood: Callable[[NDArray[np.float64]], ArrayLike],
    n_nodes: tuple[int, int],
    box: tuple[float, float],
) -> Surfaces:
    """Tabulate log-likelihoods at Chebyshev nodes.

    Parameters
    ----------
    log_likelihood : callable
        Points (point, 2) of log slope and intercept -> log-likelihoods (point, race).
    n_nodes : tuple of int
        Nodes in the log slope and in the intercept.
    box : tuple of float
        Of the log slope. Outside it, and outside `INTERCEPT_BOX`, the surfaces are linear.
    """
    nodes = chebyshev_nodes(*box, n_nodes[0]), chebyshev_nodes(*INTERCEPT_BOX, n_nodes[1])
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.asarray(log_likelihood(points), dtype=np.float64)
    coefficients = fit_coefficients_2d(values.T.reshape(-1, *n_nodes))
    return Surfaces(*centre_2d(coefficients, box, INTERCEPT_BOX), box)


def tabulate_noise(surfaces: Surfaces) -> NDArray[np.float32]:
    """Integrate race noise out of surfaces, by the trapezoid rule.

    Parameters
    ----------
    surfaces : Surfaces

    Returns
    -------
    array, shape (race, n_slopes + 3, n_noises + 3, n_y)
        Chebyshev coefficients in the intercept, as splines over log slopes and noises. `sampler_tables` takes
        their sums over races.
    """
    n_x, n_y = surfaces.coefficients.shape[1:]
    upper = surfaces.box[1]
    n_kept = round(2 * upper / SLOPE_STEP) + 1
    n_points = round(2 * (upper + REACH) / FINE_STEP) + 1
    points = FINE_STEP * np.arange(-(n_points // 2), n_points // 2 + 1, dtype=np.float64)
    kept = SLOPE_STEP * np.arange(-(n_kept // 2), n_kept // 2 + 1, dtype=np.float64)
    kernel = _noise_kernel(points, kept)
    basis = basis_values(points, n_x, *surfaces.box).astype(np.float32)
    at_nodes = basis_values(chebyshev_nodes(*INTERCEPT_BOX, n_y), n_y, *INTERCEPT_BOX).astype(np.float32)
    tables = [np.zeros((0, n_kept + 3, N_NOISES + 3, n_y), np.float32)]
    for rows, block in blocks(np.arange(len(surfaces.coefficients)), surfaces.coefficients):
        curves = np.einsum("px,rxy,by->rbp", basis, block, at_nodes, optimize=True)
        largest = curves.max(axis=-1, keepdims=True)
        smooth = np.exp(curves - largest).reshape(-1, n_points) @ kernel
        values = np.log(smooth + SMALLEST_LIKELIHOOD).reshape(*curves.shape[:2], -1) + largest
        table = fit_coefficients(np.moveaxis(values, 1, -1)).reshape(BLOCK, n_kept, N_NOISES, n_y)
        tables.append(fit_splines(table)[: len(rows)])
    return np.concatenate(tables)


def _noise_kernel(points: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of the points for each kept log slope and noise: (point, kept * noise)."""
    noise = NOISE_SCALE * np.sinh(NOISE_STEP * np.arange(N_NOISES))
    distance = points[:, None, None] - kept[:, None]
    weight = np.exp(-0.5 * (distance / np.maximum(noise, FINE_STEP / 10)) ** 2)  # noise 0 takes one point
    return (weight / weight.sum(axis=0)).reshape(len(points), -1)


def sampler_tables(sums: NDArray[np.float32], box: tuple[float, float], prior_sd: float) -> NoiseTables:
    """Return the tables of groups of races as a sampler reads them.

    Parameters
    ----------
    sums : array, shape (..., n_slopes + 3, n_noises + 3, n_y)
        Sums of `tabulate_noise` over the races of the groups (...).
    box : tuple of float
        Of the log slope.
    prior_sd : float
        Of the log slopes. The normal likelihood is that around their posterior mode, at intercept 0.
    """
    at_zero = basis_values(np.zeros(1), sums.shape[-1], *INTERCEPT_BOX)[0]
    knots = (sums[..., TYPICAL_NOISE : TYPICAL_NOISE + 3, :] @ at_zero) @ SPLINE_AT_KNOT
    curve = np.lib.stride_tricks.sliding_window_view(knots[..., :-1], 3, axis=-1) @ SPLINE_AT_KNOT
    x = box[0] + SLOPE_STEP * np.arange(curve.shape[-1])
    return NoiseTables(sums, np.float32(box[0]), *normal_likelihood(curve, x, prior_sd))


def normal_likelihood(
    curve: NDArray, x: NDArray, prior_sd: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Approximate log-likelihoods by that of a normal observation, around their posterior modes.

    Parameters
    ----------
    curve : array, shape (..., point)
    x : array, shape (point)
        Evenly spaced.
    prior_sd : float
        Of x, with mean 0.

    Returns
    -------
    weighted_estimate, information : array, shape (...)
        Information times estimate, and information, at least 0: negative second differences of the curve.
    """
    step = x[1] - x[0]
    mode = np.argmax(curve - 0.5 * (x / prior_sd) ** 2, axis=-1).clip(1, len(x) - 2)
    before, here, after = (
        np.take_along_axis(curve, mode[..., None] + shift, axis=-1)[..., 0] for shift in (-1, 0, 1)
    )
    information = np.maximum(2 * here - before - after, 0.0) / step**2
    weighted_estimate = information * x[mode] + (after - before) / (2 * step)
    return weighted_estimate.astype(np.float32), information.astype(np.float32)


def read_tables(
    tables: NoiseTables, log_slope: ArrayLike, noise_sigma: ArrayLike, intercept: ArrayLike
) -> jax.Array:
    """Return the log-likelihood of each group of races.

    Parameters
    ----------
    tables : NoiseTables
        Of groups (...).
    log_slope : array_like, shape (...)
    noise_sigma, intercept : array_like, broadcastable to (...)

    Returns
    -------
    jax.Array, shape (...)
    """
    x = (jnp.asarray(log_slope) - tables.lower) / SLOPE_STEP
    y = jnp.broadcast_to(jnp.arcsinh(jnp.asarray(noise_sigma) / NOISE_SCALE) / NOISE_STEP, x.shape)
    curve = read_splines(tables.coefficients, x, y)
    return evaluate(curve, jnp.broadcast_to(jnp.asarray(intercept), x.shape), *INTERCEPT_BOX)


def fit_splines(values: NDArray) -> NDArray[np.float32]:
    """Return the coefficients of cubic splines through values on a grid, padded at each edge.

    Parameters
    ----------
    values : array, shape (table, n_x, n_y, ...)

    Returns
    -------
    array, shape (table, n_x + 3, n_y + 3, ...)
        For `read_splines`; sums of them interpolate the sums of the values.
    """
    for axis in (1, 2):
        values = spline_filter1d(values, order=3, axis=axis, mode="mirror")
    rest = [(0, 0)] * (values.ndim - 3)
    return np.pad(values.astype(np.float32), ((0, 0), (1, 2), (1, 2), *rest), mode="reflect")


def read_splines(coefficients: ArrayLike, x: jax.Array, y: jax.Array) -> jax.Array:
    """Interpolate each table at its own point; beyond its edges it is level.

    Parameters
    ----------
    coefficients : array, shape (*table, n_x + 3, n_y + 3) or (*table, n_x + 3, n_y + 3, k)
        As returned by `fit_splines`.
    x, y : jax.Array, shape (*table)
        In steps of the grid, 0 to n_x - 1 and n_y - 1.

    Returns
    -------
    jax.Array, shape (*table) or (*table, k)
    """
    known = jnp.asarray(coefficients)
    inner = known.shape[x.ndim + 2 :]
    tables = known.reshape(-1, *known.shape[x.ndim :])
    n_x, n_y = tables.shape[1] - 3, tables.shape[2] - 3
    x, y = jnp.clip(x, 0.0, n_x - 1), jnp.clip(y, 0.0, n_y - 1)
    i = jnp.clip(jnp.floor(x), 0, n_x - 2).astype(int)
    j = jnp.clip(jnp.floor(y), 0, n_y - 2).astype(int)
    start, size = (0,) * len(inner), (4, 4, *inner)
    patches = jax.vmap(lambda table, a, b: jax.lax.dynamic_slice(table, (a, b, *start), size))(
        tables, i.ravel(), j.ravel()
    ).reshape(*x.shape, *size)
    axes = "k" * len(inner)
    return jnp.einsum(
        f"...ab{axes},...a,...b->...{axes}", patches, spline_weights(x - i), spline_weights(y - j)
    )


def spline_weights(t: jax.Array) -> jax.Array:
    """Cubic B-spline weights of the four neighbours at t in [0, 1] between the middle two: (..., 4)."""
    return (
        jnp.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1)
        / 6
    )


def blocks(
    races: NDArray[np.int_], values: NDArray, size: int = BLOCK
) -> Iterator[tuple[NDArray[np.int_], NDArray]]:
    """Yield indices of races and their values, padded to `size` races."""
    for start in range(0, len(races), size):
        rows = races[start : start + size]
        yield rows, np.pad(values[rows], [(0, size - len(rows)), *[(0, 0)] * (values.ndim - 1)])


def spread_noise(
    log_slope: NDArray[np.float64], noise_sigma: NDArray[np.float64], eps: NDArray[np.float64], n_points: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return log slopes of a race, its noise included, at even quantiles of their distribution.

    Parameters
    ----------
    log_slope, noise_sigma : array, shape (..., draw)
    eps : array, shape (draw, k) or (k)
        Standard normal values of the noise for each draw.
    n_points : int

    Returns
    -------
    points : array, shape (..., n_points)
        Increasing.
    draw : array of int, shape (..., n_points)
        Draw that each point belongs to.
    """
    spread = log_slope[..., None] + noise_sigma[..., None] * eps
    values = spread.reshape(*log_slope.shape[:-1], log_slope.shape[-1] * eps.shape[-1])
    middles = (np.arange(n_points) + 0.5) / n_points
    order = np.argsort(values, axis=-1, kind="stable")[..., (middles * values.shape[-1]).astype(int)]
    return np.take_along_axis(values, order, axis=-1), order // eps.shape[-1]


def even_normals(n: int) -> NDArray[np.float64]:
    """Return the standard normal values at n even quantiles."""
    return np.asarray(ndtri((np.arange(n) + 0.5) / n))


def race_blocks[T: tuple](races: T) -> Iterator[tuple[NDArray[np.int_], T]]:
    """Yield indices of races and their arrays, a named tuple of arrays (race, ...), as `blocks` does."""
    fields = [np.asarray(values) for values in races]
    for start in range(0, len(fields[0]), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(fields[0])))
        yield rows, type(races)(*(next(blocks(rows, values))[1] for values in fields))


def integrated_log_likelihood(
    coefficients: ArrayLike,
    log_slope: ArrayLike,
    noise_sigma: ArrayLike,
    lower: ArrayLike = LOG_SLOPE_BOX[0],
    upper: ArrayLike = LOG_SLOPE_BOX[1],
) -> jax.Array:
    """Integrate each race's likelihood over its own noise on the log slope.

    log E[exp f_r(log_slope_r + noise_sigma * eps)], eps ~ N(0, 1), by the trapezoid rule on 25
    evenly spaced nodes (`quadrature.even_nodes`).

    Parameters
    ----------
    coefficients : array_like, shape (race, n)
        Log-likelihood curves of the log slope; centred ones give the likelihood relative to slope 1.
    log_slope : array_like, shape (race,) or ()
    noise_sigma : array_like, shape () or (race, 1)
        Race-level standard deviation of the log slope.
    lower, upper : float
        The box of the table.

    Returns
    -------
    jax.Array, shape (race,)

    Examples
    --------
    >>> line = jnp.array([[0.0, 1.0]])  # log E[exp(eps)] = 1/2
    >>> round(float(integrated_log_likelihood(line, jnp.zeros(1), 1.0, -1, 1)[0]), 3)
    0.5
    """
    nodes, weights = even_nodes()
    points = jnp.asarray(log_slope)[..., None] + noise_sigma * jnp.asarray(nodes)
    points = jnp.broadcast_to(points, (jnp.shape(coefficients)[0], nodes.size))
    return logsumexp(evaluate(coefficients, points, lower, upper) + jnp.log(weights), axis=-1)
