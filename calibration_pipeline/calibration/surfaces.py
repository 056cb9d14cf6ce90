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
from scipy.ndimage import spline_filter1d

from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX, RACES_MULTIPLE
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.chebyshev import chebyshev_basis
from calibration_pipeline.stats.quadrature import even_nodes

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
        Curves of the races, as in `race_curves.RaceCurves`.

    Returns
    -------
    array, shape (race, log sharpness, noise)
        Spline coefficients; `read_surfaces` reads them, or sums of them over races.
    """
    blocks = np.split(order, range(RACES_MULTIPLE, len(order), RACES_MULTIPLE))
    return np.concatenate([_spline_coefficients(np.asarray(_grid_values(block))) for block in blocks])


def _spline_coefficients(values: NDArray) -> NDArray[np.float32]:
    """Coefficients of surfaces through values (race, log sharpness, noise), padded at each edge."""
    for axis in (1, 2):
        values = spline_filter1d(values, order=3, axis=axis, mode="mirror")
    return np.pad(values.astype(np.float32), ((0, 0), (1, 2), (1, 2)), mode="reflect")


@jax.jit
def _grid_values(order: Array) -> Array:
    """Likelihoods, integrated over noise, on the grid: (race, log sharpness, noise)."""
    _, weights = even_nodes(N_NOISE_NODES)
    reach = int(NODE.max())
    fine = LOG_SHARPNESS_BOX[0] + STEP / PARTS * jnp.arange(-reach, POINT[-1] + reach + 1)
    curves = chebyshev_basis(fine, order.shape[-1], *LOG_SHARPNESS_BOX) @ order.T

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
    lower, upper = LOG_SHARPNESS_BOX
    x = (jnp.clip(log_sharpness, lower, upper) - lower) / STEP
    y = jnp.broadcast_to(jnp.clip(noise, 0.0, LARGEST_NOISE) / STEP, x.shape)
    i = jnp.clip(jnp.floor(x), 0, N_LOG_SHARPNESS - 2).astype(int)
    j = jnp.clip(jnp.floor(y), 0, N_NOISE - 2).astype(int)
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
