"""Tabulated likelihood of the marginal map: for each race a surface over (log slope, intercept).

The plain model in `calibration_pipeline.models` defines the map. This module has the arithmetic of both
models, the table that NUTS reads, and the table's error against the exact likelihood.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from numpy.typing import NDArray

from calibration_pipeline.mcmc.priors import PRIOR_SLOPE_MU, sample_parameter
from calibration_pipeline.stats import chebyshev as curves
from calibration_pipeline.stats.quadrature import even_nodes
from calibration_pipeline.stats.race_noise import integrated_log_likelihood
from calibration_pipeline.stats.whitening import whitened_normal

TABLES = ((curves.N_NODES_2D, curves.LOG_SLOPE_BOX), (56, (-4.4, 4.4)))
"""Nodes and box in log slope of the table, and of the wider table for draws outside the first."""
INTERCEPT_BOX = (-2.5, 2.5)
PROBABILITY_FLOOR = 1e-6
MAX_LOG_SLOPE = 20.0
"""Clipping bound of log slopes: beyond it the map is a step function in float32, and soon overflows."""


class Races(NamedTuple):
    """Finish probabilities and results of races, with masks of the padding, which is never read.

    Attributes
    ----------
    log_odds : (race, driver, position), logit of the predicted probability, 0 in padding
    is_car : (race, driver), bool
    is_position : (race, position), bool, whether the position exists in the field
    position : (race, driver), observed, 1-based, 0 in padding
    """

    log_odds: jax.Array
    is_car: jax.Array
    is_position: jax.Array
    position: jax.Array


class Surfaces(NamedTuple):
    """Tabulated log-likelihoods of races.

    Attributes
    ----------
    coefficients : (race, n_x, n_y), centred at slope 1, intercept 0
    at_zero : (race,), what was subtracted
    box : (2,), lower and upper end in log slope
    """

    coefficients: NDArray[np.float64]
    at_zero: NDArray[np.float64]
    box: tuple[float, float]


@jax.jit
def as_races(position: ArrayLike, probabilities: ArrayLike) -> Races:
    """Mark the padding and take logits.

    A slot whose position is 0 holds no car. A race's last position is the last to which one of its cars
    gives any probability, or in which a car finished. Probabilities are clipped to
    [1e-6, 1 - 1e-6] before the logit.

    Parameters
    ----------
    position : array_like, shape (race, driver), int
    probabilities : array_like, shape (race, driver, position)
    """
    finish = jnp.asarray(position)
    is_car = finish > 0
    known = jnp.where(is_car[:, :, None], jnp.asarray(probabilities, dtype=float), 0.0)
    column = jnp.arange(1, known.shape[-1] + 1)
    last = jnp.max(jnp.where((known > 0).any(axis=1), column, 0), axis=1)
    is_position = column <= jnp.maximum(last, finish.max(axis=1))[:, None]
    clipped = jnp.clip(known, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    inside = is_car[:, :, None] & is_position[:, None, :]
    log_odds = jnp.where(inside, jnp.log(clipped) - jnp.log1p(-clipped), 0.0)
    return Races(log_odds, is_car, is_position, finish)


def log_probabilities(races: Races, log_slope: ArrayLike, intercept: ArrayLike) -> jax.Array:
    """Return log w_k of w_k = sigmoid(slope * logit p_k + intercept), renormalised over positions.

    Parameters
    ----------
    races : Races
    log_slope : array_like, shape () or (race,)
    intercept : array_like, shape ()

    Returns
    -------
    jax.Array, shape (race, driver, position)
        -inf beyond the field's positions.
    """
    slope = jnp.exp(jnp.clip(log_slope, -MAX_LOG_SLOPE, MAX_LOG_SLOPE))[..., None, None]
    log_w = jax.nn.log_sigmoid(slope * races.log_odds + intercept)
    return jax.nn.log_softmax(log_w, axis=-1, where=races.is_position[:, None, :])


class FinishPosition(dist.CategoricalLogits):
    """Categorical distribution over 1, 2, ..., n."""

    @dist.constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> dist.constraints.Constraint:
        """1..n."""
        return dist.constraints.integer_interval(1, jnp.shape(self.logits)[-1])

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw positions."""
        return super().sample(key, sample_shape) + 1

    def log_prob(self, value: ArrayLike) -> jax.Array:
        """Log-probability of positions; undefined at 0 (padding)."""
        index = jnp.broadcast_to(
            jnp.maximum(value, 1) - 1, jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        )
        log_pmf = jnp.broadcast_to(jax.nn.log_softmax(self.logits), (*index.shape, self.logits.shape[-1]))
        return jnp.take_along_axis(log_pmf, index[..., None], axis=-1)[..., 0]


@jax.jit
def mean_probabilities(races: Races, log_slope: ArrayLike, intercept: ArrayLike) -> jax.Array:
    """Return the mean of the map's probabilities over points: (race, driver, position).

    Parameters
    ----------
    races : Races
    log_slope, intercept : array_like, shape (point,)
    """

    def add(total: jax.Array, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + jnp.exp(log_probabilities(races, *point)), None

    points = (jnp.asarray(log_slope, dtype=float), jnp.asarray(intercept, dtype=float))
    total, _ = jax.lax.scan(add, jnp.zeros_like(races.log_odds), points)
    return jnp.where(races.is_car[..., None], total, 0.0) / points[0].size


@jax.jit
def race_log_likelihood(races: Races, log_slope: ArrayLike, intercept: ArrayLike) -> jax.Array:
    """Return the log-likelihood of each race's finish, given its race noise: shape (race,)."""
    index = jnp.maximum(races.position - 1, 0)[..., None]
    chosen = jnp.take_along_axis(log_probabilities(races, log_slope, intercept), index, axis=-1)[..., 0]
    return jnp.where(races.is_car, chosen, 0.0).sum(axis=-1)


def tabulate(
    races: Races, n_nodes: int = curves.N_NODES_2D, box: tuple[float, float] = curves.LOG_SLOPE_BOX
) -> Surfaces:
    """Tabulate each race's log-likelihood at n_nodes x n_nodes Chebyshev nodes.

    Parameters
    ----------
    races : Races
    n_nodes : int
    box : tuple of float
        Of the log slope; outside it, and outside [-2.5, 2.5] in the intercept, the table is linear.
    """
    log_slopes = curves.chebyshev_nodes(*box, n_nodes)
    intercepts = curves.chebyshev_nodes(*INTERCEPT_BOX, n_nodes)
    grid = np.stack(np.meshgrid(log_slopes, intercepts, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.asarray(_at_points(races, jnp.asarray(grid, dtype=float)), dtype=np.float64)
    coefficients = curves.fit_coefficients_2d(values.T.reshape(-1, n_nodes, n_nodes))
    return Surfaces(*curves.centre_2d(coefficients, box, INTERCEPT_BOX), box)


def tabulated_model(
    coefficients: jax.Array,
    box: tuple[ArrayLike, ArrayLike],
    estimate: jax.Array,
    information: jax.Array,
    membership: jax.Array,
) -> None:
    """NumPyro model with the posterior of the plain one, race noise integrated out.

    Parameters
    ----------
    coefficients : jax.Array, shape (race, n_x, n_y)
    box : tuple
        Of the table, in log slope.
    estimate, information : jax.Array, shape (race,)
        `curves.gaussian_summary` of each race at intercept 0; it affects the sampler's coordinates only.
    membership : jax.Array, shape (season, race)
        1 where the race belongs to the season, else 0.
    """
    slope_sigma = sample_parameter("slope_sigma")
    noise_sigma, intercept = sample_parameter("noise_sigma"), sample_parameter("intercept")
    n_seasons = membership.shape[0]
    mean_effect = jnp.full((n_seasons, 1), PRIOR_SLOPE_MU)
    design = jnp.concatenate([mean_effect, slope_sigma * jnp.eye(n_seasons)], axis=1)
    known = 1.0 / (1.0 / information + noise_sigma**2)
    w = whitened_normal("standard", design, membership @ (known * estimate), membership @ known)
    numpyro.deterministic("slope_mu", PRIOR_SLOPE_MU * w[0])
    log_slope = numpyro.deterministic("log_slope", design @ w)
    curve = curves.section(coefficients, intercept, INTERCEPT_BOX)
    likelihood = integrated_log_likelihood(curve, log_slope @ membership, noise_sigma, *box)
    numpyro.factor("finish_position", likelihood.sum())


def model_arguments(surfaces: Surfaces, membership: NDArray[np.float64]) -> tuple:
    """Return the arguments of `tabulated_model`, as JAX arrays."""
    flat = np.asarray(curves.section(surfaces.coefficients, 0.0, INTERCEPT_BOX))
    estimate, information = curves.gaussian_summary(flat, *surfaces.box)
    arrays = (surfaces.coefficients, surfaces.box, estimate, information, membership)
    return jax.tree.map(lambda values: jnp.asarray(values, dtype=float), arrays)


def table_error(
    races: Races,
    surfaces: Surfaces,
    log_slope: NDArray[np.float64],
    intercept: NDArray[np.float64],
    noise_sigma: NDArray[np.float64],
) -> float:
    """Return the largest error of the tabulated log-likelihood of all races at some draws, nats.

    Parameters
    ----------
    log_slope : ndarray, shape (draw, race)
    intercept, noise_sigma : ndarray, shape (draw,)
    """
    arrays = (races, surfaces.coefficients, surfaces.box, log_slope, intercept, noise_sigma)
    tabulated, exact = _both_ways(*jax.tree.map(jnp.asarray, arrays))
    difference = np.asarray(tabulated, dtype=np.float64) - np.asarray(exact, dtype=np.float64)
    return float(np.abs(difference).max())


def integrated_exactly(
    races: Races, log_slope: ArrayLike, intercept: ArrayLike, noise_sigma: ArrayLike
) -> jax.Array:
    """Return each race's log-likelihood, noise integrated by quadrature of the map itself: (race,)."""
    nodes, weights = even_nodes()
    values = jax.lax.map(
        lambda node: race_log_likelihood(races, log_slope + noise_sigma * node, intercept), jnp.asarray(nodes)
    )
    return logsumexp(values + jnp.log(weights)[:, None], axis=0)


@jax.jit
def _at_points(races: Races, points: jax.Array) -> jax.Array:
    """Log-likelihoods (point, race) at points (log slope, intercept), in sequence."""
    return jax.lax.map(lambda point: race_log_likelihood(races, point[0], point[1]), points)


@jax.jit
def _both_ways(
    races: Races,
    coefficients: jax.Array,
    box: tuple[jax.Array, jax.Array],
    log_slope: jax.Array,
    intercept: jax.Array,
    noise_sigma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood of all races at each draw, relative to slope 1: tabulated, and by the map itself."""
    zero = race_log_likelihood(races, 0.0, 0.0)

    def at_draw(draw: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, b, sigma = draw
        curve = curves.section(coefficients, b, INTERCEPT_BOX)
        tabulated = integrated_log_likelihood(curve, x, sigma, *box)
        return tabulated.sum(), (integrated_exactly(races, x, b, sigma) - zero).sum()

    return jax.lax.map(at_draw, (log_slope, intercept, noise_sigma))
