"""Standard normal weights, sampled in coordinates in which their posterior is nearly standard.

Call these functions inside a model instead of `numpyro.sample(name, Normal(0, 1))`. A rough normal likelihood
of the effects gives an approximate normal posterior of the weights. The sampler moves in the standard
coordinates of this posterior, and the density is corrected. The prior of the weights is therefore exactly
standard normal, however rough the approximation. Neither a funnel (few data, centred) nor a ridge (many data,
non-centred) is left for the sampler.

Both functions use scalars and elementwise operations alone. XLA then compiles a sampler's whole step into one
function without calls. Such a step costs a tenth of a step with a Cholesky factorisation.

References
----------
Papaspiliopoulos, Roberts and Sköld, A general framework for the parametrization of hierarchical models,
Statistical Science 22 (2007) 59-73, doi:10.1214/088342307000000014: partially non-centred parametrisations.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def whitened_effects(
    name: str, scale: jax.Array | float, information: jax.Array, weighted_estimate: jax.Array | None = None
) -> jax.Array:
    """Sample independent effects scale * w.

    Parameters
    ----------
    name : str
        Site of the sampled coordinates.
    scale : jax.Array, shape (), or float
        Standard deviation of the effects.
    information : jax.Array, shape (effect,)
        Of the data on each effect, at least 0.
    weighted_estimate : jax.Array, shape (effect,), optional
        Information times estimate; around 0 by default.

    Returns
    -------
    jax.Array, shape (effect,)
    """
    u = _coordinates(name, len(information))
    precision = 1.0 + scale**2 * information
    w = u / jnp.sqrt(precision)
    if weighted_estimate is not None:
        w += scale * weighted_estimate / precision
    _correct(name, u, w, -0.5 * jnp.log(precision).sum())
    return scale * w


def whitened_walk(
    name: str,
    first_scale: float,
    step_scale: jax.Array,
    weighted_estimate: jax.Array,
    information: jax.Array,
) -> jax.Array:
    """Sample a random walk from 0: levels x_t = x_{t-1} + scale_t * w_t.

    A Kalman filter in information form runs backwards and gathers the information of later levels on x_t.
    Then each w_t is drawn given x_{t-1} (Frühwirth-Schnatter 1994, J. Time Ser. Anal. 15:183,
    doi:10.1111/j.1467-9892.1994.tb00184.x, with time reversed).

    Parameters
    ----------
    name : str
        Site of the sampled coordinates.
    first_scale : float
        Standard deviation of the first level.
    step_scale : jax.Array, shape ()
        Standard deviation of a step.
    weighted_estimate, information : jax.Array, shape (level,)
        Information times estimate of the levels, and information, at least 0; 0 where there are no data.

    Returns
    -------
    jax.Array, shape (level,)
    """
    n_levels = len(information)
    u = _coordinates(name, n_levels)
    estimate, known = [weighted_estimate[-1]], [information[-1]]
    for t in reversed(range(n_levels - 1)):
        kept = 1.0 / (1.0 + step_scale**2 * known[0])
        estimate.insert(0, weighted_estimate[t] + kept * estimate[0])
        known.insert(0, information[t] + kept * known[0])
    w, levels, precisions = [], [], []
    level = jnp.zeros(())
    for t in range(n_levels):
        scale = step_scale if t else first_scale
        precision = 1.0 + scale**2 * known[t]
        w.append(scale * (estimate[t] - known[t] * level) / precision + u[t] / jnp.sqrt(precision))
        level = level + scale * w[t]
        levels.append(level)
        precisions.append(precision)
    _correct(name, u, jnp.stack(w), -0.5 * jnp.log(jnp.stack(precisions)).sum())
    return jnp.stack(levels)


def _coordinates(name: str, n: int) -> jax.Array:
    """Sample the coordinates: standard normal if the approximation of the data is exact."""
    u: jax.Array = numpyro.sample(name, dist.Normal(0.0, 1.0).expand([n]).to_event(1))
    return u


def _correct(name: str, u: jax.Array, w: jax.Array, log_volume: jax.Array) -> None:
    """Correct the density of u to that of standard normal w; `log_volume` is log |dw / du|."""
    numpyro.factor(f"{name}_density", 0.5 * (u @ u - w @ w) + log_volume)
