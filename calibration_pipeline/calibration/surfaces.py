"""Likelihood surfaces: all races of a season as one smooth function of log slope and race-level noise.

Whatever their number, races of a season enter the latent map only through these two numbers. The surface is
tabulated on a grid and read by cubic B-splines (Unser 1999, doi:10.1109/79.799930), so that a sampler's step
costs the same for ten races and for a thousand.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.ndimage import spline_filter

from calibration_pipeline.calibration.curves import chebyshev_basis
from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX
from calibration_pipeline.quadrature import even_nodes
from calibration_pipeline.scenarios.covariates import AnyArray

LARGEST_LOG_SLOPE = 2.6
LARGEST_NOISE = 2.4
STEP = 0.05
N_NOISE_NODES = 61
LOG_SLOPES = np.arange(-round(LARGEST_LOG_SLOPE / STEP), round(LARGEST_LOG_SLOPE / STEP) + 1) * STEP
NOISES = np.arange(round(LARGEST_NOISE / STEP) + 1) * STEP


def tabulate_surfaces(
    order: NDArray, group_weight: NDArray, reference_log_slope: float, reference_noise: float
) -> NDArray[np.float32]:
    """Tabulate groups of races.

    Parameters
    ----------
    order : array, shape (race, coefficient)
        Curves of the races, as in `race_curves.RaceCurves`.
    group_weight : array, shape (group, race)
        Weight of each race in each group, e.g. 1 in its own season and 0 elsewhere.
    reference_log_slope, reference_noise : float
        What log slope 0 and noise 0 mean.

    Returns
    -------
    array, shape (group, log slope, noise)
        Spline coefficients for `read_surfaces`, 0 at log slope 0 and noise 0.
    """
    noise = np.sqrt(reference_noise**2 + NOISES**2).astype(np.float32)
    centre = (reference_log_slope + LOG_SLOPES).astype(np.float32)
    values = np.asarray(_grid_values(order, group_weight.astype(np.float32), centre, noise), np.float64)
    values -= values[:, len(LOG_SLOPES) // 2, 0][:, None, None]
    coefficients = [spline_filter(surface, order=3, mode="mirror") for surface in values]
    return np.pad(np.array(coefficients), ((0, 0), (1, 2), (1, 2)), mode="reflect").astype(np.float32)


@jax.jit
def _grid_values(order: Array, group_weight: Array, centre: Array, noise: Array) -> Array:
    """Weighted sums of the integrated likelihoods on the grid: (group, log slope, noise)."""
    nodes, weights = even_nodes(N_NOISE_NODES)

    def at(log_slope: Array) -> Array:
        basis = chebyshev_basis(log_slope + noise[:, None] * nodes, order.shape[-1], *LOG_SHARPNESS_BOX)
        values = jnp.einsum("rn,yqn->ryq", order, basis)
        return group_weight @ jax.nn.logsumexp(values + jnp.log(weights), axis=-1)

    return jnp.moveaxis(jax.lax.map(at, centre), 0, 1)


def read_surfaces(coefficients: AnyArray, log_slope: AnyArray, noise_sigma: AnyArray) -> Array:
    """Read each group's surface at its own point.

    Parameters
    ----------
    coefficients : array, shape (..., log slope, noise)
        As made by `tabulate_surfaces`.
    log_slope : array, shape (...)
    noise_sigma : array, broadcastable to (...)

    Returns
    -------
    array, shape (...)
        Beyond the grid the surface continues level; see `latent.mass_outside`.
    """
    x = (jnp.clip(log_slope, -LARGEST_LOG_SLOPE, LARGEST_LOG_SLOPE) + LARGEST_LOG_SLOPE) / STEP
    y = jnp.broadcast_to(jnp.clip(noise_sigma, 0.0, LARGEST_NOISE) / STEP, x.shape)
    i = jnp.clip(jnp.floor(x), 0, len(LOG_SLOPES) - 2).astype(int)
    j = jnp.clip(jnp.floor(y), 0, len(NOISES) - 2).astype(int)
    patches = jax.vmap(lambda table, a, b: jax.lax.dynamic_slice(table, (a, b), (4, 4)))(
        jnp.asarray(coefficients).reshape(-1, *jnp.shape(coefficients)[-2:]), i.ravel(), j.ravel()
    ).reshape(*x.shape, 4, 4)
    return jnp.einsum("...ab,...a,...b->...", patches, _spline_weights(x - i), _spline_weights(y - j))


def _spline_weights(t: Array) -> Array:
    """Cubic B-spline weights of the four neighbours at t in [0, 1] between the middle two: (..., 4)."""
    return (
        jnp.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1)
        / 6
    )
