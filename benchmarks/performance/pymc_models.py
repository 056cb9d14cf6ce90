"""The two calibration maps in PyMC: the plain models, and the models with the tabulated likelihood.

Season slopes and race noise are non-centred. The plain models are `latent_plain.plain_latent_model` and
`models.track_archetype_calibration_model`; the tabulated models read the same tables as this project's fits.
"""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.math import logsumexp

from benchmarks.performance.problems import LatentProblem, MarginalProblem
from calibration_pipeline.calibration import latent, surfaces
from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.mcmc import priors
from calibration_pipeline.stats import chebyshev as curves
from calibration_pipeline.stats.plackett_luce import slots_in_order
from calibration_pipeline.stats.race_noise import (
    INTERCEPT_BOX,
    NOISE_SCALE,
    NOISE_STEP,
    SLOPE_STEP,
    NoiseTables,
)


def _latent_parameters(n_seasons: int) -> tuple[Any, Any, Any]:
    """Return the priors of the latent map: log slope (season), noise and intercept."""
    slope_mu = pm.Normal("slope_mu", 0.0, priors.PRIOR_SLOPE_MU)
    slope_sigma = pm.HalfNormal("slope_sigma", priors.PRIOR_SLOPE_SIGMA)
    noise_sigma = pm.HalfNormal("noise_sigma", priors.PRIOR_NOISE_SIGMA)
    intercept = pm.Normal("intercept", 0.0, priors.PRIOR_INTERCEPT)
    step = pm.Normal("slope_step", 0.0, 1.0, shape=n_seasons - 1)
    walk = pt.concatenate([np.zeros(1), pt.cumsum(step)])
    return pm.Deterministic("log_slope", slope_mu + slope_sigma * walk), noise_sigma, intercept


def _marginal_parameters(n_seasons: int) -> tuple[Any, Any, Any]:
    """Return the priors of the marginal map: log slope (season), noise and intercept."""
    slope_mu = pm.Normal("slope_mu", 0.0, priors.PRIOR_SLOPE_MU)
    slope_sigma = pm.HalfNormal("slope_sigma", priors.PRIOR_SLOPE_SIGMA)
    noise_sigma = pm.HalfNormal("noise_sigma", priors.PRIOR_NOISE_SIGMA)
    intercept = pm.Normal("intercept", 0.0, priors.PRIOR_INTERCEPT)
    z = pm.Normal("slope_z", 0.0, 1.0, shape=n_seasons)
    return pm.Deterministic("log_slope", slope_mu + slope_sigma * z), noise_sigma, intercept


def plain_latent(problem: LatentProblem) -> pm.Model:
    """Return the latent map with the exact reverse Plackett-Luce likelihood; it samples noise and chaos."""
    fields, order = problem.fields, np.asarray(slots_in_order(problem.running_order))
    in_order = np.take_along_axis(fields.log_strength, order, axis=1).astype(float)
    running = np.take_along_axis(problem.running_order > 0, order, axis=1)
    with pm.Model() as model:
        log_slope, noise_sigma, intercept = _latent_parameters(problem.n_seasons)
        chaos = pm.Normal("chaos", 0.0, 1.0, shape=len(order))
        eps = pm.Normal("race_noise", 0.0, 1.0, shape=len(order))
        shift = fields.chaos_scale.astype(float) * chaos + intercept
        pm.Bernoulli("retired", logit_p=fields.incident_logit + shift[:, None], observed=problem.retired)
        noise = pt.sqrt(fields.reference.noise_sigma**2 + noise_sigma**2)
        sharpness = pt.exp(fields.reference.log_slope + log_slope[fields.season] + noise * eps)
        slowness = pt.switch(running, -sharpness[:, None] * in_order, -np.inf)
        slowest = slowness.max(axis=1, keepdims=True)
        still_racing = slowest + pt.log(pt.cumsum(pt.exp(slowness - slowest), axis=1))
        pm.Potential("running_order", pt.switch(running, slowness - still_racing, 0.0).sum())
    return model


def tabulated_latent(likelihood: latent.Likelihood) -> pm.Model:
    """Return the latent map with the B-spline surfaces of the seasons and the curve of the incidents."""
    table = np.asarray(likelihood.order, float)
    n_seasons = len(table)
    with pm.Model() as model:
        log_slope, noise_sigma, intercept = _latent_parameters(n_seasons)
        lower, upper = LOG_SHARPNESS_BOX
        noise = pt.sqrt(float(likelihood.reference.noise_sigma) ** 2 + noise_sigma**2)
        x = pt.clip(float(likelihood.reference.log_slope) + log_slope, lower, upper) - lower
        x = x / surfaces.STEP
        y = pt.clip(noise, 0.0, surfaces.LARGEST_NOISE) / surfaces.STEP
        i = pt.clip(pt.floor(x), 0, surfaces.N_LOG_SHARPNESS - 2).astype("int64")
        j = pt.clip(pt.floor(y), 0, surfaces.N_NOISE - 2).astype("int64")
        pm.Potential("running_order", _read_splines(table, i, j, x - i, y - j).sum())
        incident = np.asarray(likelihood.incident, float)
        from_mode = intercept - float(likelihood.incident_mode)
        pm.Potential(
            "incidents", (incident * _polynomials(from_mode, curves.LOG_SLOPE_BOX, len(incident))).sum()
        )
    return model


def plain_marginal(problem: MarginalProblem) -> pm.Model:
    """Return the marginal map: w = sigmoid(slope logit p + intercept), renormalised; noise is sampled."""
    races = marginal.as_races(problem.finish_position, problem.probabilities)
    log_odds, at = np.asarray(races.log_odds, float), np.asarray(races.position)[..., None] - 1
    with pm.Model() as model:
        log_slope, noise_sigma, intercept = _marginal_parameters(int(problem.season.max()) + 1)
        eps = pm.Normal("race_noise", 0.0, 1.0, shape=len(log_odds))
        slope = pt.exp(log_slope[problem.season] + noise_sigma * eps)
        log_w = -pt.softplus(-(slope[:, None, None] * log_odds + intercept))
        chosen = pt.take_along_axis(log_w, at, axis=2)[..., 0]
        pm.Potential("finish_position", (chosen - logsumexp(log_w, axis=2, keepdims=False)).sum())
    return model


def tabulated_marginal(tables: NoiseTables) -> pm.Model:
    """Return the marginal map with the B-spline tables of the seasons, Chebyshev series in the intercept."""
    table = np.asarray(tables.coefficients, float)
    n_x, n_y = table.shape[1] - 3, table.shape[2] - 3
    with pm.Model() as model:
        log_slope, noise_sigma, intercept = _marginal_parameters(len(table))
        x = pt.clip((log_slope - float(tables.lower)) / SLOPE_STEP, 0.0, n_x - 1.0)
        y = pt.clip(pt.arcsinh(noise_sigma / NOISE_SCALE) / NOISE_STEP, 0.0, n_y - 1.0)
        i = pt.clip(pt.floor(x), 0, n_x - 2).astype("int64")
        j = pt.clip(pt.floor(y), 0, n_y - 2).astype("int64")
        series = _read_splines(table, i, j, x - i, y - j)
        polynomials = _polynomials(intercept, INTERCEPT_BOX, table.shape[3])
        pm.Potential("finish_position", (series * polynomials).sum())
    return model


def _read_splines(table: NDArray, i: Any, j: Any, x: Any, y: Any) -> Any:
    """Read tables (season, n_x, n_y, ...) at cells i (season), j, and places x (season), y in them."""
    four, rest = np.arange(4), (None,) * (table.ndim - 3)
    patch = pt.as_tensor(table)[
        np.arange(len(table))[:, None, None], (i[:, None] + four)[:, :, None], j + four
    ]
    by_noise = (patch * _spline_weights(y)[(None, None, slice(None), *rest)]).sum(axis=2)
    return (by_noise * _spline_weights(x).T[(slice(None), slice(None), *rest)]).sum(axis=1)


def _unit(x: Any, lower: float, upper: float) -> Any:
    return (2.0 * x - lower - upper) / (upper - lower)


def _polynomials(x: Any, box: tuple[float, float], n: int) -> Any:
    """Return the Chebyshev polynomials T_0, ..., T_{n-1} of a scalar within its box."""
    inside = pt.clip(_unit(x, *box), -1.0 + 1e-9, 1.0 - 1e-9)
    return pt.cos(np.arange(n) * pt.arccos(inside))


def _spline_weights(t: Any) -> Any:
    """Return the cubic B-spline weights of the four neighbours: (4, ...)."""
    return pt.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
