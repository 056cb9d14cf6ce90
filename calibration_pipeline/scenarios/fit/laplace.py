"""Normal approximation of the causal network's posterior: its mode, the curvature there, a shift to the mean.

The posterior of the 118 parameters of `posterior.prior` is approximated by a normal distribution around its
mode (Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240). Its mean is one step nearer to where the
expected gradient is 0 (Opper & Archambeau 2009, doi:10.1162/neco.2008.08-07-592). Older races weigh less.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.util import constrain_fn, potential_energy
from scipy.optimize import minimize

from calibration_pipeline.scenarios.fit.history import History
from calibration_pipeline.scenarios.fit.posterior import TERMS, Term, prior
from calibration_pipeline.scenarios.network.structure import FULL, Structure

HALF_LIFE_RACES = 80.0
PARAMETER_DRAWS = 64
ROUGH_TOLERANCE, TOLERANCE = 1e-4, 1e-6
"""Relative changes of the potential at which the first search for a mode ends, and later ones."""
MAX_SEARCHES = 20
NEWTON_DECREMENT = 0.005
"""Twice the nats that the last step gains; the mode is then within .01 posterior standard deviations."""
LEAST_CURVATURE = 0.5
# Posterior standard deviations, along an eigenvector of the curvature.
MAX_SHIFT = 1.0
BLOCK_RACES = 8


class Normal(NamedTuple):
    """Normal distribution around a mode, with the inverse of a curvature as its covariance.

    Attributes
    ----------
    mode : (flat), unconstrained parameters
    values : (flat), eigenvalues of the curvature
    vectors : (flat, flat), its eigenvectors in columns
    """

    mode: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]


type Part = Callable[[Array], Array]
"""A term of the potential, () by unconstrained parameters (flat)."""


def forgetting(race_order: NDArray, before: int, half_life: float = HALF_LIFE_RACES) -> NDArray[np.float32]:
    """Weight of each race in a fit for the race `before`: halved every `half_life` races.

    Parameters
    ----------
    race_order : array of int, shape (race)
        0 marks padding.
    before : int
        race_order; this race and later ones have weight 0.
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
    flat: Array, history: History, weight: Array, n_races: int, structure: Structure
) -> tuple[Array, Array]:
    def derive(part: Part, _read: NDArray) -> Callable[[Array], tuple[Array, Array]]:
        return jax.value_and_grad(part)

    total: tuple[Array, Array] = _sum_up(derive, flat, history, weight, n_races, structure)
    return total


@functools.partial(jax.jit, static_argnames="structure")
def _curvature(flat: Array, history: History, weight: Array, n_races: int, structure: Structure) -> Array:
    def hessian(part: Part, read: NDArray) -> Callable[[Array], Array]:
        gradient, directions = jax.grad(part), jnp.eye(flat.shape[0])

        def rows(at: Array) -> Array:
            found = jax.lax.map(lambda to: jax.jvp(gradient, (at,), (to,))[1], directions[read])
            return jnp.zeros(directions.shape).at[read].set(found)

        return rows

    total: Array = _sum_up(hessian, flat, history, weight, n_races, structure)
    return total


def _sum_up(
    derive: Callable[[Part, NDArray], Callable[[Array], Any]],
    flat: Array,
    history: History,
    weight: Array,
    n_races: int,
    structure: Structure,
) -> Any:
    """Sum derivatives of the potential at `flat`: of the prior, and of the first `n_races` races in blocks.

    `derive` takes a part and the parameters (flat) that it reads: the curvature of the others is 0. A block
    fits the cache of a core, and one compiled function serves every number of races.
    """

    def add(block: Array, total: Any) -> Any:
        def of_block(values: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(values, block * BLOCK_RACES, BLOCK_RACES)

        races = jax.tree.map(of_block, history)

        for term, sites in TERMS.items():

            def part(at: Array, term: Term = term) -> Array:
                return -jnp.sum(of_block(weight) * term(races, _parameters(at, structure), structure))

            total = jax.tree.map(jnp.add, total, derive(part, _places(sites))(flat))
        return total

    n_blocks = (n_races + BLOCK_RACES - 1) // BLOCK_RACES
    return jax.lax.fori_loop(0, n_blocks, add, derive(_prior_potential, np.arange(flat.shape[0]))(flat))


def _prior_potential(flat: Array) -> Array:
    return potential_energy(prior, (), {}, _unravel(flat))


def _parameters(flat: Array, structure: Structure) -> dict[str, Array]:
    """Return the network's parameters at unconstrained ones (flat)."""
    values = constrain_fn(prior, (), {}, _unravel(flat))
    return structure.apply(handlers.substitute(prior, data=values)())


@functools.cache
def _sites() -> dict[str, tuple[slice, tuple[int, ...], bool]]:
    """Site of the prior -> its place in the flat vector, its shape, and whether its parameters are real.

    The logarithm stands for positive parameters.
    """
    trace: dict[str, Any] = {}
    jax.eval_shape(lambda: trace.update(handlers.trace(handlers.seed(prior, 0)).get_trace()))
    found, start = {}, 0
    for name, site in sorted(trace.items()):
        shape, support = site["value"].shape, site["fn"].support
        real = getattr(support, "base_constraint", support) is constraints.real
        found[name] = slice(start, start + math.prod(shape)), shape, real
        start = found[name][0].stop
    return found


def _n_parameters() -> int:
    """Return the number of unconstrained parameters."""
    return max(place.stop for place, _, _ in _sites().values())


def _unravel(flat: Array) -> dict[str, Array]:
    """Unconstrained parameters of each site."""
    places = _sites()
    parts = jnp.split(flat, [place.start for place, _, _ in places.values()][1:])
    return {
        name: part.reshape(shape) for part, (name, (_, shape, _)) in zip(parts, places.items(), strict=True)
    }


def _places(sites: tuple[str, ...]) -> NDArray[np.int64]:
    """Return where the parameters of these sites stand in the flat vector."""
    index = np.arange(_n_parameters())
    return np.concatenate([index[_sites()[name][0]] for name in sites])


def _real() -> NDArray[np.bool_]:
    """Return which parameters (flat) are real."""
    found = np.empty(_n_parameters(), bool)
    for place, _, real in _sites().values():
        found[place] = real
    return found


def find_mode(
    history: History, weight: NDArray, structure: Structure = FULL, near: Normal | None = None
) -> Normal:
    """Approximate the posterior of the network's parameters around its mode.

    The mode is searched in coordinates in which `near` is standard normal: few steps lead from the mode of a
    few races less. Without it the first search is a rough one, and its end is the start of the next.

    Parameters
    ----------
    history : History
    weight : array, shape (race)
        Power of each race's likelihood, as from `forgetting`; not all 0.
    structure : Structure
        The full network, or a baseline.
    near : Normal, optional
        Approximation of a similar posterior.

    Returns
    -------
    Normal

    Raises
    ------
    RuntimeError
        If the mode is not found.
    """
    data = _device_data(history, weight)
    found, tolerance = near, TOLERANCE
    if found is None:
        n = _n_parameters()
        found, tolerance = Normal(np.zeros(n), np.ones(n), np.eye(n)), ROUGH_TOLERANCE
    for _ in range(MAX_SEARCHES):
        mode = _search(found, tolerance, data, structure)
        _, gradient = _evaluate(mode, data, structure)
        curvature = _curvature(np.float32(mode), *data, structure)
        values, vectors = np.linalg.eigh(np.asarray(curvature, np.float64))
        values = np.maximum(values, LEAST_CURVATURE)
        step = vectors @ ((vectors.T @ gradient) / values)
        is_close = (decrement := float(gradient @ step)) < NEWTON_DECREMENT
        is_stuck = np.array_equal(mode, found.mode)  # rounding hides what a search could gain
        found, tolerance = Normal(mode - step if is_close or is_stuck else mode, values, vectors), TOLERANCE
        if is_close:
            return found
    raise RuntimeError(
        f"The causal network's fit did not reach its mode: Newton decrement {decrement:.3g} after "
        f"{MAX_SEARCHES} searches, must be below {NEWTON_DECREMENT}."
    )


def _search(start: Normal, tolerance: float, data: tuple[Any, Any, int], structure: Structure) -> NDArray:
    """Search the mode in coordinates in which `start` is standard normal: (flat)."""
    scale = start.vectors / np.sqrt(start.values)

    def objective(z: NDArray) -> tuple[float, NDArray]:
        value, gradient = _evaluate(start.mode + scale @ z, data, structure)
        return value, scale.T @ gradient

    zeros, options = np.zeros(len(scale)), {"ftol": tolerance}
    return start.mode + scale @ minimize(objective, zeros, jac=True, method="L-BFGS-B", options=options).x


def draw_posterior(
    normal: Normal, history: History, weight: NDArray, seed: int, structure: Structure = FULL
) -> dict[str, NDArray]:
    """Draw from the normal approximation, shifted to the mean of the posterior.

    Parameters
    ----------
    normal : Normal
        From `find_mode` with the same history, weights and structure.
    history, weight, structure
        As for `find_mode`.
    seed : int

    Returns
    -------
    dict of arrays
        Parameter -> (draw, ...), `PARAMETER_DRAWS` draws.
    """
    data = _device_data(history, weight)
    mode, values, vectors = normal
    half = np.random.default_rng(seed).standard_normal((PARAMETER_DRAWS // 2, len(mode)))
    noise = np.concatenate([half, -half])
    # The symmetric root: the same whichever sign an eigenvector comes with.
    around = ((noise @ vectors) / np.sqrt(values)) @ vectors.T
    # Weights fit some luck of the races, which the mode ignores: there the front group is too sharp.
    gradient = np.mean([_evaluate(mode + draw, data, structure)[1] for draw in around], axis=0)
    shift = np.clip((vectors.T @ gradient) / np.sqrt(values), -MAX_SHIFT, MAX_SHIFT)
    mean = mode - np.where(_real(), vectors @ (shift / np.sqrt(values)), 0.0)
    draws = _constrain(np.float32(mean + around), structure)
    return {name: np.asarray(values) for name, values in draws.items()}


def _device_data(history: History, weight: NDArray) -> tuple[Any, Any, int]:
    """Return history, weights and the number of races that count."""
    return (*jax.device_put((history, weight)), int(np.flatnonzero(weight)[-1]) + 1)


def _evaluate(flat: NDArray, data: tuple[Any, Any, int], structure: Structure) -> tuple[float, NDArray]:
    """Return the potential at unconstrained parameters, and its gradient: (flat)."""
    value, gradient = _potential_and_gradient(np.float32(flat), *data, structure)
    return float(value), np.asarray(gradient, np.float64)


@functools.partial(jax.jit, static_argnames="structure")
def _constrain(flat: Array, structure: Structure) -> dict[str, Array]:
    """Parameters of the network at unconstrained draws (draw, flat)."""
    return jax.vmap(functools.partial(_parameters, structure=structure))(flat)
