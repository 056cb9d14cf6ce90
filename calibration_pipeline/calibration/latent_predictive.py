"""Predictive checks of the latent map: statistics of the observed races, and their replicates under the map.

rank_correlation : Spearman's, of log-strength and running order; checks the sharpness.
n_incidents : number of retired cars; checks the incident intercept.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from calibration_pipeline.calibration.race_curves import Observed, Reference
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.stats.ranking import rank


def observed_statistics(ensemble: xr.Dataset, observed: Observed) -> dict[str, NDArray]:
    """Statistics of the observed races: name -> (race)."""
    taking_part = observed.running_order > 0
    out = (observed.finish_position > 0) & ~taking_part
    by_log_strength = _ranks(ensemble["utility"].values, taking_part)
    return {
        "rank_correlation": _rank_correlation(by_log_strength, observed.running_order),
        "n_incidents": out.sum(axis=-1, dtype=np.int32),
    }


def replicate(
    ensemble: xr.Dataset,
    observed: Observed,
    season: NDArray,
    reference: Reference,
    samples: Mapping[str, NDArray],
    seed: int,
) -> dict[str, NDArray]:
    """Draw replicated statistics from draws of the map's parameters.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    observed : Observed
        Results; the replicated order has the same running cars.
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
    rng = np.random.default_rng(seed)
    per_race = (len(samples["intercept"]), ensemble.sizes["race"])
    per_car = (*per_race, ensemble.sizes["driver"])
    car, taking_part = car_mask(ensemble).values, observed.running_order > 0

    noise = np.hypot(reference.noise_sigma, samples["noise_sigma"])[:, None]
    log_sharpness = reference.log_slope + samples["log_slope"][:, season]
    log_sharpness = log_sharpness + noise * rng.standard_normal(per_race)
    log_strength = np.where(taking_part, ensemble["utility"].values, 0.0)
    score = np.exp(log_sharpness)[..., None] * log_strength - rng.gumbel(size=per_car)

    chaos = ensemble["chaos_scale"].values * rng.standard_normal(per_race)
    logit = np.where(car, ensemble["incident_logit"].values, -np.inf)
    chance = expit(logit + (chaos + samples["intercept"][:, None])[..., None])
    return {
        "rank_correlation": _rank_correlation(_ranks(log_strength, taking_part), _ranks(score, taking_part)),
        "n_incidents": (rng.random(per_car) < chance).sum(axis=-1, dtype=np.int32),
    }


def _ranks(score: NDArray, taking_part: NDArray[np.bool_]) -> NDArray:
    """Rank the cars that take part, 1 for the largest score, 0 for the others."""
    return np.where(taking_part, rank(np.where(taking_part, -score, np.inf)), 0)


def _rank_correlation(by_log_strength: NDArray, running_order: NDArray) -> NDArray[np.float32]:
    """Spearman's rank correlation of two orders of the same cars, 0 for the others: (..., race)."""
    n = (by_log_strength > 0).sum(axis=-1)
    gap = (by_log_strength - running_order).astype(np.float32)
    return 1 - 6 * (gap**2).sum(axis=-1) / np.maximum(n * (n**2 - 1), 1).astype(np.float32)
