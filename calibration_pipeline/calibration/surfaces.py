"""Likelihood surfaces: races as smooth functions of log sharpness and race-level noise.

The likelihood of a season's running orders depends only on these two parameters. Each race's surface is
tabulated on a grid once. The surfaces of races are summed, and the sum is interpolated by cubic B-splines
(Unser 1999, doi:10.1109/79.799930), so that the cost of a sampler's step does not depend on the number of
races.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX, RACES_BLOCK
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.chebyshev import basis_values
from calibration_pipeline.stats.quadrature import even_nodes
from calibration_pipeline.stats.race_noise import blocks, fit_splines, read_splines

LARGEST_NOISE = 2.6
STEP = 0.05
N_NOISE_NODES = 61
N_LOG_SHARPNESS = round((LOG_SHARPNESS_BOX[1] - LOG_SHARPNESS_BOX[0]) / STEP) + 1
N_NOISE = round(LARGEST_NOISE / STEP) + 1
PARTS = 20
"""Parts of a step. All noise nodes, at every grid point, are multiples of a part."""
POINT = PARTS * np.arange(N_LOG_SHARPNESS)
NODE = np.outer(np.arange(N_NOISE), even_nodes(N_NOISE_NODES)[0] * PARTS).round().astype(int)


def tabulate_surfaces(order: NDArray) -> NDArray[np.float32]:
    """Tabulate the likelihood surfaces of races.

    Parameters
    ----------
    order : array, shape (race, coefficient)
        Curves of the races, as in `race_curves.CurveArrays`.

    Returns
    -------
    array, shape (race, log sharpness, noise)
        Spline coefficients; `read_surfaces` reads them, or sums of them over races.
    """
    parts = [np.zeros((0, N_LOG_SHARPNESS + 3, N_NOISE + 3), np.float32)]
    for rows, block in blocks(np.arange(len(order)), order, RACES_BLOCK):
        parts.append(fit_splines(np.asarray(_grid_values(block))[: len(rows)]))
    return np.concatenate(parts)


@jax.jit
def _grid_values(order: Array) -> Array:
    """Likelihoods, integrated over noise, on the grid: (race, log sharpness, noise)."""
    _, weights = even_nodes(N_NOISE_NODES)
    reach = int(NODE.max())
    fine = LOG_SHARPNESS_BOX[0] + STEP / PARTS * np.arange(-reach, POINT[-1] + reach + 1)
    basis = basis_values(fine, order.shape[-1], *LOG_SHARPNESS_BOX).astype(np.float32)
    curves = basis @ order.T

    def at(point: Array) -> Array:
        values = curves[point + reach + NODE]
        return jax.nn.logsumexp(values + jnp.log(weights)[:, None], axis=1)

    return jnp.moveaxis(jax.lax.map(at, jnp.asarray(POINT)), -1, 0)


def read_surfaces(coefficients: AnyArray, log_sharpness: AnyArray, noise: AnyArray) -> Array:
    """Interpolate each surface at its own point.

    Parameters
    ----------
    coefficients : array, shape (..., log sharpness, noise)
        As returned by `tabulate_surfaces`, or sums of them.
    log_sharpness : array, shape (...)
    noise : array, broadcastable to (...)

    Returns
    -------
    array, shape (...)
        The surface is constant beyond the grid; see `latent.mass_outside`.
    """
    x = (jnp.asarray(log_sharpness) - LOG_SHARPNESS_BOX[0]) / STEP
    return read_splines(coefficients, x, jnp.broadcast_to(jnp.asarray(noise) / STEP, x.shape))


def read_surface(
    coefficients: NDArray[np.float32], log_sharpness: NDArray, noise: NDArray | float
) -> NDArray[np.float64]:
    """Interpolate one surface at many points, as `read_surfaces` does, in NumPy.

    Parameters
    ----------
    coefficients : array, shape (log sharpness, noise)
        Of one race, or a sum over races.
    log_sharpness : array, shape (...)
    noise : array, broadcastable to (...)

    Returns
    -------
    array, shape (...)
    """
    x = np.clip((log_sharpness - LOG_SHARPNESS_BOX[0]) / STEP, 0, N_LOG_SHARPNESS - 1)
    y = np.clip(noise / STEP, 0, N_NOISE - 1)
    # A spline through value k has its middle coefficient at k + 1.
    at = np.broadcast_arrays(x + 1, y + 1)
    return map_coordinates(coefficients, at, np.float64, order=3, prefilter=False)
