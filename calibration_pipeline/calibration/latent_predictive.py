"""Predictive checks of the latent map: statistics of races as observed, and as the map says they come.

rank_correlation : Spearman's, of utility and running order; answers whether the sharpness is right.
n_incidents : cars that retired; answers whether the incident intercept is right.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import xarray as xr
from jax import Array

from calibration_pipeline.calibration.race_curves import Observed, Reference
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.scenarios.plackett_luce import rank_columns
from calibration_pipeline.schemas.datasets import car_mask


def observed_statistics(ensemble: xr.Dataset, observed: Observed) -> dict[str, Array]:
    """Statistics of the races that happened: name -> (race)."""
    taking_part = observed.running_order > 0
    return {
        "rank_correlation": _rank_correlation(
            jnp.asarray(ensemble["utility"].values),
            jnp.asarray(observed.running_order),
            jnp.asarray(taking_part),
        ),
        "n_incidents": jnp.asarray(((observed.finish_position > 0) & ~taking_part).sum(axis=1)),
    }


def replicate(
    ensemble: xr.Dataset,
    observed: Observed,
    season: AnyArray,
    reference: Reference,
    samples: Mapping[str, AnyArray],
    seed: int,
) -> dict[str, Array]:
    """Draw the statistics anew from draws of the map's parameters.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    observed : Observed
        Which cars ran to the end is taken from here: the replicated order is theirs.
    season : array of int, shape (race)
        Index into the seasons of log_slope.
    reference : Reference
    samples : mapping
        log_slope (draw, season), noise_sigma (draw), intercept (draw).
    seed : int

    Returns
    -------
    dict
        Name -> (draw, race).
    """
    keys = jax.random.split(jax.random.key(seed), len(samples["noise_sigma"]))
    return _replicate(
        keys,
        {name: jnp.asarray(samples[name]) for name in ("log_slope", "noise_sigma", "intercept")},
        jnp.asarray(ensemble["utility"].values),
        jnp.asarray(ensemble["incident_logit"].values),
        jnp.asarray(ensemble["chaos_scale"].values),
        jnp.asarray(car_mask(ensemble).values),
        jnp.asarray(observed.running_order > 0),
        jnp.asarray(season),
        reference,
    )


@jax.jit
def _replicate(
    keys: Array,
    samples: dict[str, Array],
    utility: Array,
    incident_logit: Array,
    chaos_scale: Array,
    car: Array,
    taking_part: Array,
    season: Array,
    reference: Reference,
) -> dict[str, Array]:
    def one(key: Array, sample: dict[str, Array]) -> dict[str, Array]:
        race_key, luck_key, chaos_key, incident_key = jax.random.split(key, 4)
        noise = jnp.sqrt(reference.noise_sigma**2 + sample["noise_sigma"] ** 2)
        log_sharpness = reference.log_slope + sample["log_slope"][season]
        log_sharpness = log_sharpness + noise * jax.random.normal(race_key, season.shape)
        score = jnp.exp(log_sharpness)[:, None] * utility - jax.random.gumbel(luck_key, utility.shape)
        order = rank_columns(score.T, taking_part.T).T
        chaos = chaos_scale * jax.random.normal(chaos_key, season.shape)
        chance = jax.nn.sigmoid(incident_logit + chaos[:, None] + sample["intercept"])
        out = car & (jax.random.uniform(incident_key, chance.shape) < chance)
        return {
            "rank_correlation": _rank_correlation(utility, order, taking_part),
            "n_incidents": out.sum(axis=1),
        }

    return jax.vmap(one)(keys, samples)


def _rank_correlation(utility: Array, running_order: Array, taking_part: Array) -> Array:
    """Spearman's rank correlation of utility and running order, better with better: (race)."""
    by_utility = rank_columns(utility.T, taking_part.T).T
    n = taking_part.sum(axis=1)
    gap = jnp.where(taking_part, by_utility - running_order, 0).astype(jnp.float32)
    return 1 - 6 * (gap**2).sum(axis=1) / jnp.maximum(n * (n**2 - 1), 1)
