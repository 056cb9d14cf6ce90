r"""Plain latent calibration map: the readable definition, with the exact reverse Plackett-Luce likelihood.

`latent` has the same model for the sampler: race noise and chaos are integrated out, the likelihood is
tabulated, and the walk has whitened coordinates. This model integrates and tabulates nothing, so that results
can also be drawn from it: from the prior, or given substituted parameters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from calibration_pipeline.calibration.race_curves import Reference
from calibration_pipeline.mcmc.priors import SCALARS, sample_parameter
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.plackett_luce import log_probability, slots_in_order


class Fields(NamedTuple):
    """Inputs of the latent map that are known before the races; padding is marked, and never read.

    Attributes
    ----------
    log_strength : (race, driver), log-strength of each car
    incident_logit : (race, driver), logit of retiring at chaos 0
    chaos_scale : (race), weight of chaos in that logit
    is_car : (race, driver) bool
    season : (race) int, index into log_slope
    reference : Reference
    """

    log_strength: AnyArray
    incident_logit: AnyArray
    chaos_scale: AnyArray
    is_car: AnyArray
    season: AnyArray
    reference: Reference


class ReversePlackettLuce(dist.Distribution):
    """Reverse Plackett-Luce distribution of ranks: 1 for the first car that takes part, 0 for the others.

    Parameters
    ----------
    log_strength : array_like, shape (..., driver)
        Log-strengths.
    taking_part : array_like of bool, shape (..., driver)
    """

    arg_constraints = {"log_strength": constraints.real_vector}
    support = constraints.nonnegative_integer
    reparametrized_params: list[str] = []

    def __init__(self, log_strength: ArrayLike, taking_part: ArrayLike) -> None:
        self.log_strength, self.taking_part = jnp.asarray(log_strength), jnp.asarray(taking_part)
        *batch, n_cars = self.log_strength.shape
        super().__init__(batch_shape=tuple(batch), event_shape=(n_cars,))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw ranks by log-strength minus Gumbel luck, the largest first."""
        luck = jax.random.gumbel(key, (*sample_shape, *self.log_strength.shape))
        score = jnp.where(self.taking_part, luck - self.log_strength, jnp.inf)
        rank = jnp.argsort(jnp.argsort(score, axis=-1), axis=-1) + 1
        return jnp.where(self.taking_part, rank, 0)

    def log_prob(self, value: ArrayLike) -> Array:
        """Exact log probability of orders."""
        rank = jnp.asarray(value)
        order = slots_in_order(rank)
        log_strength = jnp.broadcast_to(self.log_strength, rank.shape)
        return log_probability(
            jnp.take_along_axis(log_strength, order, axis=-1), jnp.take_along_axis(rank > 0, order, axis=-1)
        )


def plain_latent_model(
    fields: Fields,
    n_seasons: int,
    retired: AnyArray | None = None,
    running_order: AnyArray | None = None,
) -> None:
    """NumPyro model of one archetype's calibration, the definition of `latent.latent_calibration_model`.

    Sites: slope_mu, slope_sigma, noise_sigma, intercept, slope_step (season - 1), log_slope (season); by race
    chaos, race_noise, retired and running_order.

    Parameters
    ----------
    fields : Fields
    n_seasons : int
        Seasons of the walk.
    retired : array of bool, shape (race, driver), optional
        Whether a car retired; drawn by default.
    running_order : array of int, shape (race, driver), optional
        Rank of the running cars, 0 for retired cars and padding; drawn by default.
    """
    slope_mu, slope_sigma, noise_sigma, intercept = map(sample_parameter, SCALARS)
    step = numpyro.sample("slope_step", dist.Normal(0.0, 1.0).expand([n_seasons - 1]).to_event(1))
    walk = jnp.concatenate([jnp.zeros(1), jnp.cumsum(step)])
    log_slope = numpyro.deterministic("log_slope", slope_mu + slope_sigma * walk)

    is_car, reference = jnp.asarray(fields.is_car), fields.reference
    with numpyro.plate("races", len(fields.log_strength)):
        chaos = numpyro.sample("chaos", dist.Normal(0.0, 1.0))
        eps = numpyro.sample("race_noise", dist.Normal(0.0, 1.0))

        shift = fields.chaos_scale * chaos + intercept
        logit = jnp.where(is_car, fields.incident_logit + shift[:, None], 0.0)
        retire = dist.Bernoulli(logits=logit).mask(is_car).to_event(1)
        out = numpyro.sample("retired", retire, obs=retired)

        log_sharpness = reference.log_slope + log_slope[jnp.asarray(fields.season)]
        log_sharpness += jnp.hypot(reference.noise_sigma, noise_sigma) * eps
        taking_part = is_car & (out == 0)
        log_strength = jnp.where(is_car, jnp.exp(log_sharpness)[:, None] * fields.log_strength, 0.0)
        numpyro.sample("running_order", ReversePlackettLuce(log_strength, taking_part), obs=running_order)
