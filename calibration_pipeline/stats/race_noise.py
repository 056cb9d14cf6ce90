"""Likelihood curves with the race-level noise integrated out; the curves are tables of `chebyshev`."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from calibration_pipeline.stats.chebyshev import LOG_SLOPE_BOX, evaluate
from calibration_pipeline.stats.quadrature import even_nodes


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
