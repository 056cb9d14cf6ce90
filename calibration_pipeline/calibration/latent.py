r"""The latent map: how sharp an ensemble should have been, before its cars are ranked.

Sharpness multiplies the log-strengths of the running order, so that every recalibrated scenario is still a
race. For race r of season t

.. math:: \log s_r = \log s^{ref} + \log slope_t + \sqrt{noise_{ref}^2 + noise^2}\,\varepsilon_r,

:math:`\varepsilon_r \sim N(0, 1)` integrated out, with the exact reverse Plackett-Luce likelihood of the
observed running order. Seasons follow a random walk. Slope 1 means calibrated; below 1 the forecasts were
too sure of themselves. The intercept shifts the logit of every incident.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import logsumexp

from calibration_pipeline.calibration.curves import chebyshev_basis, evaluate, gauss_hermite
from calibration_pipeline.calibration.inference import whitened_normal
from calibration_pipeline.calibration.race_curves import Reference
from calibration_pipeline.scenarios.covariates import AnyArray

PRIOR_SLOPE_MU = 0.3
PRIOR_SLOPE_SIGMA = 0.25
PRIOR_NOISE_SIGMA = 0.5
PRIOR_INTERCEPT = 0.5
PRIOR_ARCHETYPE_SIGMA = 0.25
TYPICAL_NOISE = 0.2
NEWTON_STEPS = 10


class Evidence(NamedTuple):
    """What a calibration is fitted to: races of one archetype or of several.

    Attributes
    ----------
    order, incident : (race, coefficient), curves as in `race_curves.RaceCurves`
    archetype, season : (race) int, indices into the axes of log_slope
    weight : (race), 1 for races that count, 0 for the others and for padding
    reference : Reference of arrays (archetype)
    weighted_estimate, information : (archetype, season), from `slope_information`; the last season is the
        coming one, of which nothing is known
    """

    order: AnyArray
    incident: AnyArray
    archetype: AnyArray
    season: AnyArray
    weight: AnyArray
    reference: Reference
    weighted_estimate: AnyArray
    information: AnyArray


def latent_calibration_model(evidence: Evidence) -> None:
    """NumPyro model of one archetype's calibration.

    Sites: slope_mu (log slope of the first season), slope_sigma (step of the seasons' walk), noise_sigma
    (race-level sd of log sharpness beyond the ensemble's own), intercept (shift of the incident logit),
    log_slope (season).
    """
    n_seasons = jnp.shape(evidence.information)[1]
    slope_sigma = numpyro.sample("slope_sigma", dist.HalfNormal(PRIOR_SLOPE_SIGMA))
    design = jnp.concatenate(
        [jnp.full((n_seasons, 1), PRIOR_SLOPE_MU), slope_sigma * _walk(n_seasons)], axis=1
    )
    effect = whitened_normal("slope_effect", design, evidence.weighted_estimate[0], evidence.information[0])
    numpyro.deterministic("slope_mu", PRIOR_SLOPE_MU * effect[0])
    log_slope = numpyro.deterministic("log_slope", design @ effect)
    noise_sigma = numpyro.sample("noise_sigma", dist.HalfNormal(PRIOR_NOISE_SIGMA))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, PRIOR_INTERCEPT))
    races = log_likelihood_by_race(evidence, log_slope[None, :], noise_sigma[None], intercept[None])
    numpyro.factor("races", jnp.sum(evidence.weight * races))


def pooled_calibration_model(evidence: Evidence) -> None:
    """NumPyro model of all archetypes together: their slopes, walks and intercepts are partially pooled.

    Sites as in `latent_calibration_model`, with slope_mu and the walk common, archetype_sigma the spread of
    the archetypes around them, and log_slope (archetype, season), noise_sigma, intercept (archetype).
    """
    n_archetypes, n_seasons = jnp.shape(evidence.information)
    slope_sigma = numpyro.sample("slope_sigma", dist.HalfNormal(PRIOR_SLOPE_SIGMA))
    archetype_sigma = numpyro.sample("archetype_sigma", dist.HalfNormal(PRIOR_ARCHETYPE_SIGMA))
    design = jnp.concatenate(
        [
            jnp.full((n_archetypes * n_seasons, 1), PRIOR_SLOPE_MU),
            archetype_sigma * jnp.repeat(jnp.eye(n_archetypes), n_seasons, axis=0),
            slope_sigma * jnp.tile(_walk(n_seasons), (n_archetypes, 1)),
        ],
        axis=1,
    )
    known = jnp.ravel(evidence.weighted_estimate), jnp.ravel(evidence.information)
    effect = whitened_normal("slope_effect", design, *known)
    numpyro.deterministic("slope_mu", PRIOR_SLOPE_MU * effect[0])
    log_slope = numpyro.deterministic("log_slope", (design @ effect).reshape(n_archetypes, n_seasons))
    per_archetype = [n_archetypes]
    noise = dist.HalfNormal(PRIOR_NOISE_SIGMA).expand(per_archetype).to_event(1)
    noise_sigma = numpyro.sample("noise_sigma", noise)
    shift = dist.Normal(0.0, PRIOR_INTERCEPT).expand(per_archetype).to_event(1)
    intercept = numpyro.sample("intercept", shift)
    races = log_likelihood_by_race(evidence, log_slope, noise_sigma, intercept)
    numpyro.factor("races", jnp.sum(evidence.weight * races))


def _walk(n_seasons: int) -> Array:
    """Steps that lead to each season: (season, step), no step before the first."""
    return jnp.tri(n_seasons, n_seasons - 1, k=-1)


@jax.jit
def slope_information(evidence: Evidence) -> tuple[Array, Array]:
    """Find what the races say of each log slope, roughly: a normal likelihood around its mode.

    Parameters
    ----------
    evidence : Evidence
        Its own estimate and information are read for their shape only.

    Returns
    -------
    weighted_estimate, information : array, shape (archetype, season)
        What `whitened_normal` needs to know: it corrects for their roughness.
    """
    shape = jnp.shape(evidence.information)
    noise = jnp.full(shape[0], TYPICAL_NOISE)

    def total(log_slope: Array) -> Array:
        races = log_likelihood_by_race(evidence, log_slope, noise, jnp.zeros(shape[0]))
        return jnp.sum(evidence.weight * races)

    def derivatives(log_slope: Array) -> tuple[Array, Array]:
        # Each log slope has races of its own, so one product with ones gives the whole diagonal.
        score, curvature = jax.jvp(jax.grad(total), (log_slope,), (jnp.ones(shape),))
        return score, jnp.maximum(-curvature, 0.0)

    def newton(_: int, log_slope: Array) -> Array:
        score, information = derivatives(log_slope)
        step = (score - log_slope / PRIOR_SLOPE_MU**2) / (information + 1 / PRIOR_SLOPE_MU**2)
        return log_slope + jnp.clip(step, -0.5, 0.5)

    mode = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros(shape))
    score, information = derivatives(mode)
    return information * mode + score, information


def log_likelihood_by_race(
    evidence: Evidence, log_slope: Array, noise_sigma: Array, intercept: Array
) -> Array:
    """Log-likelihood of each race: running order and incidents.

    Races of an archetype's season share their quadrature points, so the polynomials are built only once.

    Parameters
    ----------
    evidence : Evidence
    log_slope : array, shape (archetype, season)
    noise_sigma, intercept : array, shape (archetype)

    Returns
    -------
    array, shape (race)
        Relative to that of the raw utilities under a bare reverse Plackett-Luce.
    """
    nodes, weights = gauss_hermite()
    reference = evidence.reference
    noise = jnp.sqrt(jnp.asarray(reference.noise_sigma) ** 2 + noise_sigma**2)
    centre = jnp.asarray(reference.log_slope)[:, None] + log_slope
    points = centre[..., None] + noise[:, None, None] * nodes
    curves = jnp.asarray(evidence.order)
    basis = chebyshev_basis(points, curves.shape[-1])
    own = jnp.einsum("rn,rqn->rq", curves, basis[evidence.archetype, evidence.season])
    order = logsumexp(own + jnp.log(weights), axis=-1)
    return order + evaluate(evidence.incident, intercept[jnp.asarray(evidence.archetype)])
