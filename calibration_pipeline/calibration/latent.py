r"""Latent calibration map: NumPyro models of the sharpness of an ensemble's log-strengths.

Sharpness multiplies the log-strengths of the running order, so that every recalibrated scenario is still a
race. For race r of season t

.. math:: \log s_r = \log s^{ref} + \log slope_t + \sqrt{noise_{ref}^2 + noise^2}\,\varepsilon_r,

:math:`\varepsilon_r \sim N(0, 1)` integrated out, with the exact reverse Plackett-Luce likelihood of the
observed running order. Seasons follow a random walk. Slope 1 means calibrated; below 1 the forecasts were
overconfident. The intercept shifts the logit of every incident.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpy.polynomial.chebyshev import chebval
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from calibration_pipeline.calibration.race_curves import INCIDENT_SHIFT_BOX, LOG_SHARPNESS_BOX, Reference
from calibration_pipeline.calibration.surfaces import LARGEST_NOISE, read_surface, read_surfaces
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT, PRIOR_SLOPE_MU, sample_parameter
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.chebyshev import (
    LOG_SLOPE_BOX,
    centre,
    chebyshev_nodes,
    evaluate,
    fit_coefficients,
)
from calibration_pipeline.stats.race_noise import normal_likelihood
from calibration_pipeline.stats.whitening import whitened_effects, whitened_walk

TYPICAL_NOISE = 0.2
LOG_SLOPES = np.linspace(*LOG_SLOPE_BOX, 89)
"""Log slopes, and `TYPICAL_NOISE` of races, at which the sampler's coordinates are computed."""
MASS_OUTSIDE_LIMIT = 1e-4
"""Largest posterior mass outside a table that is not reported."""
INTERCEPT_REACH = LOG_SLOPE_BOX[1]
"""Half-width of the sampler's table of incidents around the mode. The posterior is log-concave, with standard
deviation of at most `PRIOR_INTERCEPT`, so that the table reaches at least 4.4 of them."""
N_INCIDENT_NODES = 24
"""Chebyshev nodes of that table: the others of 40 coefficients sum to less than 1e-6 nats in 140 races."""
SMALLEST_NOISE = 1e-6


class Evidence(NamedTuple):
    """The races of an archetype that a calibration is fitted to.

    Attributes
    ----------
    order, incident : (race, coefficient), curves as in `race_curves.CurveArrays`
    season : (race) int, index into log_slope
    weight : (race), 1 for races that count, 0 for the others
    reference : Reference of numbers
    """

    order: AnyArray
    incident: AnyArray
    season: AnyArray
    weight: AnyArray
    reference: Reference


class Likelihood(NamedTuple):
    """Evidence summed over races, as the sampler reads it: its cost does not grow with the number of races.

    For all archetypes together each array has a further leading axis, (archetype).

    Attributes
    ----------
    order : (season, log sharpness, noise), sum of the races' surfaces; the last season is the one
        after the given seasons, without races
    incident : (coefficient), sum of the races' curves within `INTERCEPT_REACH` of the mode, 0 at the mode
    incident_mode : (), the intercept of largest posterior density
    reference : Reference of numbers
    weighted_estimate, information : (season), a rough normal likelihood of each log slope
    """

    order: AnyArray
    incident: AnyArray
    incident_mode: AnyArray
    reference: Reference
    weighted_estimate: AnyArray
    information: AnyArray


def summarise(evidence: Evidence, surfaces: NDArray[np.float32], n_seasons: int) -> Likelihood:
    """Sum the races' surfaces by season, and their incident curves.

    Parameters
    ----------
    evidence : Evidence
    surfaces : array, shape (race, log sharpness, noise)
        `surfaces.tabulate_surfaces` of the archetype's curves; those after the evidence are not read.
    n_seasons : int
        Seasons of the walk.
    """
    weight = np.asarray(evidence.weight)
    by_season = weight * (np.asarray(evidence.season) == np.arange(n_seasons)[:, None])
    order = np.tensordot(by_season.astype(np.float32), surfaces[: len(weight)], axes=1)
    reference = Reference(*map(np.float32, evidence.reference))
    noise = np.hypot(reference.noise_sigma, TYPICAL_NOISE)
    curves = [read_surface(surface, reference.log_slope + LOG_SLOPES, noise) for surface in order]
    estimate, information = normal_likelihood(np.stack(curves), LOG_SLOPES, PRIOR_SLOPE_MU)
    mode = find_incident_mode(evidence)
    incident = fit_coefficients(_incidents(evidence, mode + chebyshev_nodes(n=N_INCIDENT_NODES)))
    return Likelihood(
        order,
        centre(incident)[0].astype(np.float32),
        np.float32(mode),
        reference,
        estimate,
        information,
    )


def find_incident_mode(evidence: Evidence) -> float:
    """Return the intercept of largest posterior density, at least `INTERCEPT_REACH` inside the races' curves.

    The Bernoulli likelihood is log-concave in shift and chaos together. Integrating chaos out keeps this
    (Prékopa 1973, Acta Sci. Math. 34:335), so there is one mode.
    """

    def loss(intercept: float) -> float:
        return float(0.5 * (intercept / PRIOR_INTERCEPT) ** 2 - _incidents(evidence, np.asarray(intercept)))

    lower, upper = INCIDENT_SHIFT_BOX
    found = minimize_scalar(loss, bounds=(lower + INTERCEPT_REACH, upper - INTERCEPT_REACH), method="bounded")
    return float(found.x)


def _incidents(evidence: Evidence, intercept: NDArray) -> NDArray[np.float64]:
    """Log-likelihood of the incidents of all races, in double precision: the shape of `intercept`."""
    lower, upper = INCIDENT_SHIFT_BOX
    total = np.asarray(evidence.weight, np.float64) @ np.asarray(evidence.incident, np.float64)
    return np.asarray(chebval((2 * intercept - lower - upper) / (upper - lower), total))


def mass_outside(evidence: Evidence, log_slope: NDArray, noise_sigma: NDArray, intercept: NDArray) -> float:
    """Return the posterior mass outside the tabulated likelihoods of running orders and incidents.

    Outside its table a likelihood is continued linearly or as a constant, and is not exact.

    Parameters
    ----------
    evidence : Evidence
    log_slope : array, shape (..., season)
        Draws.
    noise_sigma, intercept : array, shape (...)

    Returns
    -------
    float
        The larger of two shares: that of the races' log sharpness, over draws and races, and that of the
        intercept, over draws. 0 without races.
    """
    seen = np.asarray(evidence.season)[np.asarray(evidence.weight) > 0]
    if not seen.size:
        return 0.0
    lower, upper = LOG_SHARPNESS_BOX
    by_race = np.asarray(log_slope)[..., seen]
    noise = np.hypot(evidence.reference.noise_sigma, np.asarray(noise_sigma))[..., None]
    centre, scale = evidence.reference.log_slope + by_race, np.maximum(noise, SMALLEST_NOISE)
    beyond_curves = ndtr((lower - centre) / scale) + ndtr((centre - upper) / scale)
    beyond_grid = (centre < lower) | (centre > upper) | (noise > LARGEST_NOISE)
    of_orders = np.where(beyond_grid, 1.0, beyond_curves).mean()
    of_incidents = (np.abs(np.asarray(intercept) - find_incident_mode(evidence)) > INTERCEPT_REACH).mean()
    return float(max(of_orders, of_incidents))


def latent_calibration_model(likelihood: Likelihood) -> None:
    """NumPyro model of one archetype's calibration.

    Sampled sites: slope_sigma (sd of the seasons' walk), slope_effect (season; whitened coordinates of the
    walk), noise_sigma (race-level sd of log sharpness beyond the ensemble's own), intercept (shift of the
    incident logit). Deterministic sites: log_slope (season), slope_mu (log slope of the first season).
    """
    slope_sigma = sample_parameter("slope_sigma")
    known = likelihood.weighted_estimate, likelihood.information
    log_slope = whitened_walk("slope_effect", PRIOR_SLOPE_MU, slope_sigma, *known)
    numpyro.deterministic("log_slope", log_slope)
    numpyro.deterministic("slope_mu", log_slope[0])
    noise_sigma, intercept = sample_parameter("noise_sigma"), sample_parameter("intercept")
    _score(likelihood, log_slope, noise_sigma, intercept)


def pooled_calibration_model(likelihood: Likelihood) -> None:
    """NumPyro model of all archetypes together: their slopes, walks and intercepts are partially pooled.

    Sites as in `latent_calibration_model`: slope_mu and slope_effect are common; log_slope is (archetype,
    season), noise_sigma and intercept are (archetype). In addition archetype_sigma, sd of the archetypes
    around the common walk, and archetype_effect (archetype), its whitened coordinates.
    """
    log_slope = sample_pooled_slopes(likelihood.weighted_estimate, likelihood.information)
    n_archetypes = len(log_slope)
    noise_sigma = sample_parameter("noise_sigma", n_archetypes)
    intercept = sample_parameter("intercept", n_archetypes)
    _score(likelihood, log_slope, noise_sigma, intercept)


def sample_pooled_slopes(weighted_estimate: AnyArray, information: AnyArray) -> Array:
    """Sample partially pooled log slopes: the sites slope_sigma to log_slope of `pooled_calibration_model`.

    Parameters
    ----------
    weighted_estimate, information : array, shape (archetype, season)
        A rough normal likelihood of each log slope, for the sampler's coordinates.

    Returns
    -------
    jax.Array, shape (archetype, season)
    """
    estimate, information = jnp.asarray(weighted_estimate), jnp.asarray(information)
    slope_sigma = sample_parameter("slope_sigma")
    archetype_sigma = sample_parameter("archetype_sigma")
    offset = whitened_effects("archetype_effect", archetype_sigma, information.sum(axis=1))[:, None]
    known = (estimate - information * offset).sum(axis=0), information.sum(axis=0)
    walk = whitened_walk("slope_effect", PRIOR_SLOPE_MU, slope_sigma, *known)
    log_slope: Array = numpyro.deterministic("log_slope", walk + offset)
    numpyro.deterministic("slope_mu", walk[0])
    return log_slope


def _score(likelihood: Likelihood, log_slope: Array, noise_sigma: Array, intercept: Array) -> None:
    """Add the likelihood to a model."""
    reference = Reference(*(jnp.asarray(number)[..., None] for number in likelihood.reference))
    order = _running_orders(likelihood.order, reference, log_slope, noise_sigma[..., None])
    numpyro.factor("running_order", jnp.sum(order))
    incidents = evaluate(likelihood.incident, intercept - jnp.asarray(likelihood.incident_mode))
    numpyro.factor("incidents", jnp.sum(incidents))


def _running_orders(
    order: AnyArray, reference: Reference, log_slope: AnyArray, noise_sigma: AnyArray
) -> Array:
    """Log-likelihood of the running orders, by season."""
    noise = jnp.sqrt(reference.noise_sigma**2 + noise_sigma**2)
    return read_surfaces(order, reference.log_slope + log_slope, noise)
