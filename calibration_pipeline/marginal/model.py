"""Tabulated likelihood of the marginal map: for each season a table over log slope, noise and intercept.

The plain model in `calibration_pipeline.models` defines the map. This module has the arithmetic of both
models, the tables that NUTS reads, and their error against the exact likelihood.
"""

import math
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
from calibration_pipeline.stats.chebyshev import LOG_SLOPE_BOX
from calibration_pipeline.stats.quadrature import even_nodes
from calibration_pipeline.stats.race_noise import (
    NoiseTables,
    Surfaces,
    fit_surfaces,
    race_blocks,
    read_tables,
    sampler_tables,
    tabulate_noise,
)
from calibration_pipeline.stats.whitening import whitened_effects

TABLES = (((24, 16), LOG_SLOPE_BOX), ((56, 16), (-4.4, 4.4)))
"""Nodes in log slope and intercept, and box in log slope, of the table, and of the wider table for draws
outside the first."""
PROBABILITY_FLOOR = 1e-6
LEAST_LOG_ODDS = math.log(PROBABILITY_FLOOR)
MAX_EXPONENT = 60.0
"""Of probabilities that are negligible beside the car's largest one; their gradient counts as 0."""
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


@jax.jit
def as_races(position: ArrayLike, probabilities: ArrayLike) -> Races:
    """Mark the padding and take logits.

    A slot whose position is 0 holds no car. A race has at least as many positions as cars, and as many as the
    last to which one of its cars gives any probability, or in which a car finished. Probabilities are clipped
    to [1e-6, 1 - 1e-6] before the logit.

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
    n_positions = jnp.maximum(jnp.maximum(last, finish.max(axis=1)), is_car.sum(axis=1))
    is_position = column <= n_positions[:, None]
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
    """Return the log-likelihood of each race's finish, given its race noise: shape (race,).

    The sum of the logs of `log_probabilities` at the observed positions, with one exponential a probability:
    sigmoid(x) = e^c / (e^c + e^(c - x)), where c is the smaller of 0 and a car's largest x. At c below 0 the
    exponent c - x is a multiple of a difference of log odds, and has no rounding error of x.
    """
    slope = jnp.exp(jnp.clip(log_slope, -MAX_LOG_SLOPE, MAX_LOG_SLOPE))[..., None]
    inside = jnp.broadcast_to(races.is_position[:, None, :], races.log_odds.shape)
    largest = jnp.max(races.log_odds, axis=-1, where=inside, initial=LEAST_LOG_ODDS)[..., None]
    c = jnp.minimum(slope[..., None] * largest + intercept, 0.0)

    def exponent(log_odds: jax.Array) -> jax.Array:
        return jnp.where(
            c < 0, slope[..., None] * (largest - log_odds), -slope[..., None] * log_odds - intercept
        )

    clipped = jnp.where(inside, jnp.minimum(exponent(races.log_odds), MAX_EXPONENT), MAX_EXPONENT)
    total = jnp.sum(1.0 / (jnp.exp(c) + jnp.exp(clipped)), axis=-1)
    index = jnp.maximum(races.position - 1, 0)[..., None]
    observed = exponent(jnp.take_along_axis(races.log_odds, index, axis=-1))
    chosen = -jnp.logaddexp(c, observed)[..., 0] - jnp.log(total)
    return jnp.where(races.is_car, chosen, 0.0).sum(axis=-1)


def tabulate(
    races: Races, n_nodes: tuple[int, int] = TABLES[0][0], box: tuple[float, float] = TABLES[0][1]
) -> Surfaces:
    """Tabulate each race's log-likelihood at Chebyshev nodes, bitwise the same whatever the later races.

    Parameters
    ----------
    races : Races
    n_nodes : tuple of int
        In the log slope and in the intercept.
    box : tuple of float
        Of the log slope; outside it, and outside [-2.5, 2.5] in the intercept, the table is linear.
    """

    def log_likelihood(points: NDArray[np.float64]) -> NDArray[np.float32]:
        parts = [np.asarray(_at_points(block, points))[:, : len(rows)] for rows, block in race_blocks(races)]
        return np.concatenate([np.zeros((len(points), 0), np.float32), *parts], axis=1)

    return fit_surfaces(log_likelihood, n_nodes, box)


def season_tables(surfaces: Surfaces, season: NDArray[np.int_], n_seasons: int) -> NoiseTables:
    """Integrate race noise out of the surfaces, and sum them by season.

    Parameters
    ----------
    surfaces : Surfaces
    season : array of int, shape (race)
    n_seasons : int
    """
    tables = tabulate_noise(surfaces)
    sums = np.stack([tables[season == own].sum(axis=0) for own in range(n_seasons)])
    return sampler_tables(sums, surfaces.box, PRIOR_SLOPE_MU)


def tabulated_model(tables: NoiseTables) -> None:
    """NumPyro model with the posterior of the plain one, race noise integrated out.

    Parameters
    ----------
    tables : NoiseTables
        Of the seasons.
    """
    estimate, information = jnp.asarray(tables.weighted_estimate), jnp.asarray(tables.information)
    slope_sigma = sample_parameter("slope_sigma")
    noise_sigma, intercept = sample_parameter("noise_sigma"), sample_parameter("intercept")
    kept = 1.0 / (1.0 + slope_sigma**2 * information)
    of_mean = (kept * information).sum(keepdims=True), (kept * estimate).sum(keepdims=True)
    slope_mu = numpyro.deterministic("slope_mu", whitened_effects("mean_effect", PRIOR_SLOPE_MU, *of_mean)[0])
    by_season = whitened_effects("season_effect", slope_sigma, information, estimate - information * slope_mu)
    log_slope = numpyro.deterministic("log_slope", slope_mu + by_season)
    numpyro.factor("finish_position", read_tables(tables, log_slope, noise_sigma, intercept).sum())


def table_error(
    races: Races,
    tables: NoiseTables,
    season: NDArray[np.int_],
    log_slope: NDArray[np.float64],
    intercept: NDArray[np.float64],
    noise_sigma: NDArray[np.float64],
) -> float:
    """Return the largest error of the tabulated log-likelihood of all races at some draws, nats.

    Parameters
    ----------
    races : Races
    tables : NoiseTables
        From `season_tables`.
    season : array of int, shape (race)
    log_slope : ndarray, shape (draw, season)
    intercept, noise_sigma : ndarray, shape (draw,)
    """
    tabulated = np.asarray(_read_draws(tables, log_slope, noise_sigma, intercept), np.float64)
    exact = np.zeros(len(log_slope))
    for rows, block in race_blocks(races):
        by_race = np.pad(log_slope[:, season[rows]], [(0, 0), (0, len(block.position) - len(rows))])
        each = _exact_draws(block, by_race, intercept, noise_sigma)
        exact += np.asarray(each, np.float64)[:, : len(rows)].sum(axis=1)
    return float(np.abs(tabulated - exact).max())


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
def _read_draws(
    tables: NoiseTables, log_slope: jax.Array, noise_sigma: jax.Array, intercept: jax.Array
) -> jax.Array:
    """Log-likelihood of all races at each draw, tabulated: (draw,)."""
    return jax.vmap(lambda *at: read_tables(tables, *at).sum())(log_slope, noise_sigma, intercept)


@jax.jit
def _exact_draws(
    races: Races, log_slope: jax.Array, intercept: jax.Array, noise_sigma: jax.Array
) -> jax.Array:
    """Log-likelihood of each race at each draw, by the map itself, relative to slope 1: (draw, race)."""
    zero = race_log_likelihood(races, 0.0, 0.0)
    draws = (log_slope, intercept, noise_sigma)
    return jax.lax.map(lambda at: integrated_exactly(races, *at) - zero, draws)
