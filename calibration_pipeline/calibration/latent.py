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
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import logsumexp

from calibration_pipeline.calibration.curves import chebyshev_basis, evaluate
from calibration_pipeline.calibration.inference import whitened_normal
from calibration_pipeline.calibration.quadrature import gauss_hermite
from calibration_pipeline.calibration.race_curves import Reference
from calibration_pipeline.calibration.surfaces import read_surfaces, tabulate_surfaces
from calibration_pipeline.scenarios.covariates import AnyArray

PRIOR_SLOPE_MU = 0.3
PRIOR_SLOPE_SIGMA = 0.25
PRIOR_NOISE_SIGMA = 0.5
PRIOR_INTERCEPT = 0.5
PRIOR_ARCHETYPE_SIGMA = 0.25
TYPICAL_NOISE = 0.2
NEWTON_STEPS = 10


class Evidence(NamedTuple):
    """The races that a calibration is fitted to: of one archetype or of several.

    Attributes
    ----------
    order, incident : (race, coefficient), curves as in `race_curves.RaceCurves`
    archetype, season : (race) int, indices into the axes of log_slope
    weight : (race), 1 for races that count, 0 for the others and for padding
    reference : Reference of arrays (archetype)
    """

    order: AnyArray
    incident: AnyArray
    archetype: AnyArray
    season: AnyArray
    weight: AnyArray
    reference: Reference


class Likelihood(NamedTuple):
    """The same, as the sampler reads it: its cost does not grow with the races.

    Attributes
    ----------
    order : (archetype, season, log slope, noise), `surfaces.tabulate_surfaces`; the last season is the coming
        one, of which nothing is known
    incident : (archetype, coefficient), sums of the races' curves
    weighted_estimate, information : (archetype, season), what the races say of each log slope, roughly
    """

    order: AnyArray
    incident: AnyArray
    weighted_estimate: AnyArray
    information: AnyArray


def summarise(evidence: Evidence, n_seasons: int) -> Likelihood:
    """Add the races' curves up.

    Parameters
    ----------
    evidence : Evidence
    n_seasons : int
        Seasons of the walk.
    """
    n_archetypes = len(evidence.reference.log_slope)
    weight = np.asarray(evidence.weight)
    surfaces, incident = [], []
    for a in range(n_archetypes):
        own = weight * (np.asarray(evidence.archetype) == a)
        seasons = own * (np.asarray(evidence.season) == np.arange(n_seasons)[:, None])
        reference = (float(values[a]) for values in evidence.reference)
        surfaces.append(tabulate_surfaces(np.asarray(evidence.order), seasons, *reference))
        incident.append(own @ np.asarray(evidence.incident))
    order = np.array(surfaces)
    estimate, information = _normal_summary(order)
    return Likelihood(order, np.array(incident), np.asarray(estimate), np.asarray(information))


@jax.jit
def _normal_summary(order: Array) -> tuple[Array, Array]:
    """Information times estimate, and information, of each log slope around its mode: (archetype, season)."""
    shape = order.shape[:2]

    def derivatives(log_slope: Array) -> tuple[Array, Array]:
        # Each log slope has a surface of its own, so one product with ones gives the whole diagonal.
        gradient = jax.grad(lambda at: jnp.sum(read_surfaces(order, at, TYPICAL_NOISE)))
        score, curvature = jax.jvp(gradient, (log_slope,), (jnp.ones(shape),))
        return score, jnp.maximum(-curvature, 0.0)

    def newton(_: int, log_slope: Array) -> Array:
        score, information = derivatives(log_slope)
        step = (score - log_slope / PRIOR_SLOPE_MU**2) / (information + 1 / PRIOR_SLOPE_MU**2)
        return log_slope + jnp.clip(step, -0.5, 0.5)

    mode = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros(shape))
    score, information = derivatives(mode)
    return information * mode + score, information


def latent_calibration_model(likelihood: Likelihood) -> None:
    """NumPyro model of one archetype's calibration.

    Sites: slope_mu (log slope of the first season), slope_sigma (step of the seasons' walk), noise_sigma
    (race-level sd of log sharpness beyond the ensemble's own), intercept (shift of the incident logit),
    log_slope (season).
    """
    n_seasons = jnp.shape(likelihood.information)[1]
    slope_sigma = numpyro.sample("slope_sigma", dist.HalfNormal(PRIOR_SLOPE_SIGMA))
    design = jnp.concatenate(
        [jnp.full((n_seasons, 1), PRIOR_SLOPE_MU), slope_sigma * _walk(n_seasons)], axis=1
    )
    effect = whitened_normal(
        "slope_effect", design, likelihood.weighted_estimate[0], likelihood.information[0]
    )
    numpyro.deterministic("slope_mu", PRIOR_SLOPE_MU * effect[0])
    log_slope = numpyro.deterministic("log_slope", design @ effect)
    noise_sigma = numpyro.sample("noise_sigma", dist.HalfNormal(PRIOR_NOISE_SIGMA))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, PRIOR_INTERCEPT))
    numpyro.factor("running_order", jnp.sum(read_surfaces(likelihood.order[0], log_slope, noise_sigma)))
    numpyro.factor("incidents", evaluate(likelihood.incident[0], intercept))


def pooled_calibration_model(likelihood: Likelihood) -> None:
    """NumPyro model of all archetypes together: their slopes, walks and intercepts are partially pooled.

    Sites as in `latent_calibration_model`, with slope_mu and the walk common, archetype_sigma the spread of
    the archetypes around them, and log_slope (archetype, season), noise_sigma, intercept (archetype).
    """
    n_archetypes, n_seasons = jnp.shape(likelihood.information)
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
    known = jnp.ravel(likelihood.weighted_estimate), jnp.ravel(likelihood.information)
    effect = whitened_normal("slope_effect", design, *known)
    numpyro.deterministic("slope_mu", PRIOR_SLOPE_MU * effect[0])
    log_slope = numpyro.deterministic("log_slope", (design @ effect).reshape(n_archetypes, n_seasons))
    per_archetype = [n_archetypes]
    noise = dist.HalfNormal(PRIOR_NOISE_SIGMA).expand(per_archetype).to_event(1)
    noise_sigma = numpyro.sample("noise_sigma", noise)
    shift = dist.Normal(0.0, PRIOR_INTERCEPT).expand(per_archetype).to_event(1)
    intercept = numpyro.sample("intercept", shift)
    order = read_surfaces(likelihood.order, log_slope, noise_sigma[:, None])
    numpyro.factor("running_order", jnp.sum(order))
    numpyro.factor("incidents", jnp.sum(evaluate(likelihood.incident, intercept)))


def _walk(n_seasons: int) -> Array:
    """Steps that lead to each season: (season, step), no step before the first."""
    return jnp.tri(n_seasons, n_seasons - 1, k=-1)


def log_likelihood_by_race(
    evidence: Evidence, log_slope: Array, noise_sigma: Array, intercept: Array
) -> Array:
    """Log-likelihood of each race: running order and incidents.

    Races of an archetype's season share their quadrature points, so that one matrix product reads all
    curves at all points.

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
    basis = chebyshev_basis(points.reshape(-1), curves.shape[-1])
    values = (curves @ basis.T).reshape(len(curves), -1, len(nodes))
    group = jnp.asarray(evidence.archetype) * log_slope.shape[1] + jnp.asarray(evidence.season)
    own = jnp.einsum("rgq,rg->rq", values, jax.nn.one_hot(group, values.shape[1]))
    order = logsumexp(own + jnp.log(weights), axis=-1)
    return order + evaluate(evidence.incident, intercept[jnp.asarray(evidence.archetype)])
