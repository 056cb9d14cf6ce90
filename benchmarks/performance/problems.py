"""Races for the samplers to fit, drawn from the plain definitions of the two maps with known parameters."""

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from numpyro.infer import Predictive

from benchmarks.proof import bell_forecasts, fields
from calibration_pipeline.calibration.latent_plain import Fields, plain_latent_model
from calibration_pipeline.models import track_archetype_calibration_model

N_CARS, N_SEASONS = 36, 4
ARCHETYPE = "intermediate"
PARAMETERS = ("slope_mu", "slope_sigma", "noise_sigma", "intercept", "log_slope")
"""Parameters whose effective samples are counted: log_slope by season, and scalars."""


class LatentProblem(NamedTuple):
    """Data of the latent map: races of four seasons, and a next season without races."""

    fields: Fields
    n_seasons: int
    retired: NDArray
    running_order: NDArray


class MarginalProblem(NamedTuple):
    """Data of the marginal map."""

    finish_position: NDArray
    probabilities: NDArray
    season: NDArray


def latent_problem(n_races: int) -> LatentProblem:
    """Draw races under a slope near 1, race-level noise of 0.25 and a shift of incidents of 0.1."""
    truth = {
        "log_slope": np.array([-0.1, 0.0, 0.05, 0.1, 0.1], np.float32),
        "noise_sigma": np.float32(0.25),
        "intercept": np.float32(0.1),
    }
    races = fields(n_races, N_CARS, N_SEASONS)
    planted = {name: value[None] for name, value in truth.items()}
    model = Predictive(plain_latent_model, planted, condition_deterministic=True)
    drawn = model(jax.random.key(0), races, N_SEASONS + 1)
    retired, order = (np.asarray(drawn[name][0]) for name in ("retired", "running_order"))
    return LatentProblem(races, N_SEASONS + 1, retired, order)


def marginal_problem(n_races: int) -> MarginalProblem:
    """Draw races under slopes near 0.9, race-level noise of 0.25 and an intercept of 0.1."""
    truth = {
        "slope": np.array([0.8, 0.9, 0.95, 1.0], np.float32),
        "noise_sigma": np.float32(0.25),
        "intercept": np.float32(0.1),
    }
    probabilities = bell_forecasts(n_races, N_CARS)
    season = np.arange(n_races) * N_SEASONS // n_races
    planted = {name: value[None] for name, value in truth.items()}
    model = Predictive(track_archetype_calibration_model, planted, condition_deterministic=True)
    drawn = model(jax.random.key(0), None, probabilities, ARCHETYPE, season)
    return MarginalProblem(np.asarray(drawn["finish_position"][0]), probabilities, season)
