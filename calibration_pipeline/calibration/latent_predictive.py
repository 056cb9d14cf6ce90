"""Predictive checks of the latent map: statistics of races as observed, and as the map says they come.

rank_correlation : Spearman's, of utility and running order; answers whether the sharpness is right.
n_incidents : cars that retired; answers whether the incident intercept is right.
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
    """Statistics of the races that happened: name -> (race)."""
    taking_part = observed.running_order > 0
    out = (observed.finish_position > 0) & ~taking_part
    by_utility = _places(ensemble["utility"].values, taking_part)
    return {
        "rank_correlation": _rank_correlation(by_utility, observed.running_order),
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
    rng = np.random.default_rng(seed)
    per_race = (len(samples["intercept"]), ensemble.sizes["race"])
    per_car = (*per_race, ensemble.sizes["driver"])
    car, taking_part = car_mask(ensemble).values, observed.running_order > 0

    noise = np.hypot(reference.noise_sigma, samples["noise_sigma"])[:, None]
    log_sharpness = reference.log_slope + samples["log_slope"][:, season]
    log_sharpness = log_sharpness + noise * rng.standard_normal(per_race)
    utility = np.where(taking_part, ensemble["utility"].values, 0.0)
    score = np.exp(log_sharpness)[..., None] * utility - rng.gumbel(size=per_car)

    chaos = ensemble["chaos_scale"].values * rng.standard_normal(per_race)
    logit = np.where(car, ensemble["incident_logit"].values, -np.inf)
    chance = expit(logit + (chaos + samples["intercept"][:, None])[..., None])
    return {
        "rank_correlation": _rank_correlation(_places(utility, taking_part), _places(score, taking_part)),
        "n_incidents": (rng.random(per_car) < chance).sum(axis=-1, dtype=np.int32),
    }


def _places(score: NDArray, taking_part: NDArray[np.bool_]) -> NDArray:
    """Rank those who take part, 1 for the largest score, 0 for the others."""
    return np.where(taking_part, rank(np.where(taking_part, -score, np.inf)), 0)


def _rank_correlation(by_utility: NDArray, running_order: NDArray) -> NDArray[np.float32]:
    """Spearman's rank correlation of two orders of the same cars, 0 for the others: (..., race)."""
    n = (by_utility > 0).sum(axis=-1)
    gap = (by_utility - running_order).astype(np.float32)
    return 1 - 6 * (gap**2).sum(axis=-1) / np.maximum(n * (n**2 - 1), 1).astype(np.float32)
