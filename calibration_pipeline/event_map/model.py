r"""Event map: NumPyro models of the probabilities of one market, a win or a finish in the top n.

For car i of race r, of archetype a and season t, with :math:`x_{ri} = logit\,p_{ri}` and its centre
:math:`c_r`, the mean of x over the cars weighted by :math:`p (1 - p)`,

.. math:: w_{ri} = logit^{-1}(c_r + slope_r\,(x_{ri} - c_r) + intercept_a), \quad
    \log slope_r = \log slope_{a,t} + noise_a\,\varepsilon_r,

and the event has probability w (Cox 1958, doi:10.1093/biomet/45.3-4.562). Slope 1 means calibrated; below 1
the forecasts were overconfident. Log odds are measured from the centre, where slope and intercept are
orthogonal (Cox & Reid 1987, doi:10.1111/j.2517-6161.1987.tb01422.x). From 0 instead, a slope of 0.7
multiplies the expected winners of the market win by 2.5. The prior of the intercept would then pull the slope
to 1, and the number of winners, which is known beforehand, would count as evidence on the slope of a race.

The likelihood takes w before the race's probabilities are renormalised to the number of winners: afterwards
the intercept cancels (`event_map.predictive`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpy.typing import NDArray

from calibration_pipeline.calibration.latent import sample_pooled_slopes
from calibration_pipeline.event_map.races import EventRaces
from calibration_pipeline.mcmc.priors import sample_parameter
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.race_noise import (
    NoiseTables,
    Surfaces,
    fit_surfaces,
    race_blocks,
    read_tables,
)

BOX = (-2.8, 2.8)
"""Log slopes of a surface, those of the state's levels; outside it the surface is linear."""
N_NODES = (40, 12)
"""Chebyshev nodes of a surface in the log slope and in the intercept."""


def map_log_odds(races: EventRaces, log_slope: AnyArray, intercept: AnyArray) -> jax.Array:
    """Return logit w, before w is renormalised: (race, car).

    Parameters
    ----------
    races : EventRaces
    log_slope, intercept : array, shape () or (race)
    """
    centre = jnp.asarray(races.centre)[:, None]
    slope, shift = jnp.exp(jnp.asarray(log_slope))[..., None], jnp.asarray(intercept)[..., None]
    return centre + slope * (races.log_odds - centre) + shift


def plain_event_model(
    races: EventRaces,
    archetype: NDArray[np.int_],
    season: NDArray[np.int_],
    n_archetypes: int,
    n_seasons: int,
    happened: AnyArray | None = None,
) -> None:
    """NumPyro model of one market, the definition of `pooled_event_model`; nothing is tabulated.

    Sites: slope_mu, slope_sigma, archetype_sigma, slope_step (season - 1), archetype_step (archetype),
    log_slope (archetype, season), noise_sigma and intercept (archetype); by race race_noise and event.

    Parameters
    ----------
    races : EventRaces
        `races.happened` is not read.
    archetype, season : array of int, shape (race)
        Indices into log_slope.
    n_archetypes, n_seasons : int
        Seasons of the walk.
    happened : array of bool, shape (race, car), optional
        Drawn by default.
    """
    slope_mu, slope_sigma = sample_parameter("slope_mu"), sample_parameter("slope_sigma")
    archetype_sigma = sample_parameter("archetype_sigma")
    step = numpyro.sample("slope_step", dist.Normal(0.0, 1.0).expand([n_seasons - 1]).to_event(1))
    deviation = numpyro.sample("archetype_step", dist.Normal(0.0, 1.0).expand([n_archetypes]).to_event(1))
    walk = slope_mu + slope_sigma * jnp.concatenate([jnp.zeros(1), jnp.cumsum(step)])
    log_slope = numpyro.deterministic("log_slope", walk + archetype_sigma * deviation[:, None])
    noise_sigma = sample_parameter("noise_sigma", n_archetypes)
    intercept = sample_parameter("intercept", n_archetypes)
    with numpyro.plate("races", len(races.log_odds)):
        eps = numpyro.sample("race_noise", dist.Normal(0.0, 1.0))
        race_slope = log_slope[archetype, season] + noise_sigma[archetype] * eps
        log_odds = map_log_odds(races, race_slope, intercept[archetype])
        event = dist.Bernoulli(logits=log_odds).mask(jnp.asarray(races.is_car)).to_event(1)
        numpyro.sample("event", event, obs=happened)


def pooled_event_model(tables: NoiseTables) -> None:
    """NumPyro model of one market as it is sampled: race noise integrated out, the likelihood tabulated.

    Sites as in `plain_event_model`, the steps in whitened coordinates.

    Parameters
    ----------
    tables : NoiseTables
        Of the groups (archetype, season).
    """
    log_slope = sample_pooled_slopes(tables.weighted_estimate, tables.information)
    noise_sigma = sample_parameter("noise_sigma", len(log_slope))
    intercept = sample_parameter("intercept", len(log_slope))
    likelihood = read_tables(tables, log_slope, noise_sigma[:, None], intercept[:, None])
    numpyro.factor("event", likelihood.sum())


def tabulate(races: EventRaces) -> Surfaces:
    """Tabulate each race's log-likelihood by log slope and intercept, 0 for the probabilities as issued.

    A race's surface is bitwise the same whatever the number of later races.
    """

    def log_likelihood(points: NDArray[np.float64]) -> NDArray[np.float32]:
        parts = [
            np.asarray(_log_likelihood(block, points))[:, : len(rows)] for rows, block in race_blocks(races)
        ]
        return np.concatenate([np.zeros((len(points), 0), np.float32), *parts], axis=1)

    return fit_surfaces(log_likelihood, N_NODES, BOX)


@jax.jit
def _log_likelihood(races: EventRaces, points: jax.Array) -> jax.Array:
    """Log-likelihoods (point, race) at points (log slope, intercept), in sequence."""

    def at(point: jax.Array) -> jax.Array:
        log_odds = map_log_odds(races, point[0], point[1])
        each = jnp.where(races.happened, log_odds, 0.0) - jax.nn.softplus(log_odds)
        return jnp.where(races.is_car, each, 0.0).sum(axis=1)

    return jax.lax.map(at, points)
