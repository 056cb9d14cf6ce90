"""Fitting the causal network to earlier races: the mode of its posterior, and the curvature there.

The posterior of the few dozen parameters of `posterior.network_posterior` is taken as normal around its mode
(Laplace; Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240). Older races count less.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy
from scipy.optimize import minimize

from calibration_pipeline.scenarios.history import History
from calibration_pipeline.scenarios.posterior import network_posterior, prior
from calibration_pipeline.scenarios.structure import FULL, Structure

HALF_LIFE_RACES = 80.0
PARAMETER_DRAWS = 64
MAX_NEWTON_STEPS = 20
NEWTON_DECREMENT = 0.02
LEAST_CURVATURE = 0.5


def forgetting(race_order: NDArray, before: int, half_life: float = HALF_LIFE_RACES) -> NDArray[np.float32]:
    """Weight of each race in a fit made before the race `before`: halved every `half_life` races.

    Parameters
    ----------
    race_order : array of int, shape (race)
        0 marks padding.
    before : int
        race_order; this race and later ones weigh nothing.
    half_life : float
        Races.

    Returns
    -------
    array, shape (race)

    Examples
    --------
    >>> forgetting(np.array([202101, 202102, 202103]), before=202103, half_life=1.0).tolist()
    [0.5, 1.0, 0.0]
    """
    seen = (race_order > 0) & (race_order < before)
    age = np.cumsum(seen[::-1])[::-1] - 1
    return np.where(seen, 0.5 ** (age / half_life), 0.0).astype(np.float32)


@functools.partial(jax.jit, static_argnames="structure")
def _potential_and_gradient(
    flat: Array, history: History, weight: Array, structure: Structure
) -> tuple[Array, Array]:
    return jax.value_and_grad(_potential)(flat, history, weight, structure)


@functools.partial(jax.jit, static_argnames="structure")
def _curvature(flat: Array, history: History, weight: Array, structure: Structure) -> Array:
    columns = jnp.eye(flat.shape[0])

    def gradient(at: Array) -> Array:
        return jax.grad(_potential)(at, history, weight, structure)

    return jax.lax.map(lambda column: jax.jvp(gradient, (flat,), (column,))[1], columns)


def _potential(flat: Array, history: History, weight: Array, structure: Structure) -> Array:
    values = _parameter_layout()[1](flat)
    return potential_energy(network_posterior, (history, weight, structure), {}, values)


@functools.cache
def _parameter_layout() -> tuple[int, Callable[[Array], dict[str, Array]]]:
    """Return how many unconstrained parameters there are, and what names them in a flat vector."""

    def draw() -> dict[str, Array]:
        trace = handlers.trace(handlers.seed(prior, 0)).get_trace()
        return {name: site["value"] for name, site in trace.items()}

    shapes = jax.eval_shape(draw)
    flat, unravel = ravel_pytree({name: np.zeros(value.shape, np.float32) for name, value in shapes.items()})
    return len(flat), unravel


def fit_posterior(
    history: History, weight: NDArray, seed: int, structure: Structure = FULL
) -> dict[str, NDArray]:
    """Draw from the normal approximation to the posterior of the network's parameters.

    Parameters
    ----------
    history : History
    weight : array, shape (race)
        Power of each race's likelihood, as from `forgetting`.
    seed : int
    structure : Structure
        The full network, or a baseline.

    Returns
    -------
    dict of arrays
        Parameter -> (draw, ...), `PARAMETER_DRAWS` draws.

    Raises
    ------
    RuntimeError
        If the mode is not found.
    """
    data = (jax.tree.map(jnp.asarray, history), jnp.asarray(weight))

    def objective(flat: NDArray) -> tuple[float, NDArray]:
        value, gradient = _potential_and_gradient(jnp.asarray(flat, jnp.float32), *data, structure)
        return float(value), np.asarray(gradient, np.float64)

    mode = minimize(objective, np.zeros(_parameter_layout()[0]), jac=True, method="L-BFGS-B").x
    for _ in range(MAX_NEWTON_STEPS):
        gradient = objective(mode)[1]
        curvature = _curvature(jnp.asarray(mode, jnp.float32), *data, structure)
        values, vectors = np.linalg.eigh(np.asarray(curvature))
        values = np.maximum(values, LEAST_CURVATURE)
        step = vectors @ ((vectors.T @ gradient) / values)
        decrement = float(gradient @ step)
        if decrement < NEWTON_DECREMENT:
            break
        mode = mode - step
    else:
        raise RuntimeError(
            f"The causal network's fit did not reach its mode: Newton decrement {decrement:.3g} after "
            f"{MAX_NEWTON_STEPS} steps, must be below {NEWTON_DECREMENT}."
        )
    noise = np.random.default_rng(seed).standard_normal((PARAMETER_DRAWS, len(mode)))
    flat = mode + (noise / np.sqrt(values)) @ vectors.T
    draws = _constrain(jnp.asarray(flat, jnp.float32), structure)
    return {name: np.asarray(values) for name, values in draws.items()}


@functools.partial(jax.jit, static_argnames="structure")
def _constrain(flat: Array, structure: Structure) -> dict[str, Array]:
    """Parameters of the network at unconstrained draws (draw, flat)."""

    def one(draw: Array) -> dict[str, Array]:
        values = constrain_fn(prior, (), {}, _parameter_layout()[1](draw))
        return structure.apply(handlers.substitute(prior, data=values)())

    return jax.vmap(one)(flat)
