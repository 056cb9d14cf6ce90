"""The readable latent model: the law it draws from, and that the tabulated one has the same likelihood."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike
from numpyro.infer import Predictive
from numpyro.infer.util import log_likelihood
from scipy.special import logsumexp

from benchmarks.sbc import gather
from calibration_pipeline.calibration import archetype_fit
from calibration_pipeline.calibration.latent import (
    INTERCEPT_REACH,
    MASS_OUTSIDE_LIMIT,
    find_incident_mode,
    mass_outside,
    summarise,
)
from calibration_pipeline.calibration.latent_plain import Fields, ReversePlackettLuce, plain_latent_model
from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX, Reference, tabulate_orders
from calibration_pipeline.calibration.surfaces import LARGEST_NOISE, read_surfaces, tabulate_surfaces
from helpers.jitted import evaluate, log_probability

N_RACES, N_CARS, N_SEASONS = 6, 16, 3


@pytest.fixture(scope="module")
def fields() -> Fields:
    rng = np.random.default_rng(2)
    shape = (N_RACES, N_CARS)
    return Fields(
        log_strength=rng.normal(0, 1, shape).astype(np.float32),
        incident_logit=rng.normal(-2, 0.4, shape).astype(np.float32),
        chaos_scale=np.full(N_RACES, 0.6, np.float32),
        is_car=np.arange(N_CARS) < np.array([16, 16, 14, 16, 15, 16])[:, None],
        season=np.array([0, 0, 0, 1, 1, 1]),
        reference=Reference(-0.15, 0.2),
    )


@pytest.fixture(scope="module")
def results(fields):
    draw = jax.jit(lambda key: Predictive(plain_latent_model, num_samples=1)(key, fields, N_SEASONS))
    drawn = draw(jax.random.key(0))
    return np.asarray(drawn["retired"][0]), np.asarray(drawn["running_order"][0])


def test_the_order_is_a_distribution():
    """Probabilities of all orders of four cars sum to 1, and draws have these frequencies."""
    utility = jnp.array([1.0, 0.2, -0.5, 0.0, 9.0])
    law = ReversePlackettLuce(utility, jnp.arange(5) < 4)
    orders = np.array([(*order, 0) for order in permutations(range(1, 5))])
    probability = np.exp(np.asarray(jax.jit(jax.vmap(law.log_prob))(orders)))
    assert probability.sum() == pytest.approx(1.0, abs=1e-5)
    drawn = np.asarray(jax.jit(lambda key: law.sample(key, (20_000,)))(jax.random.key(0)))
    share = (drawn[:, None] == orders).all(axis=-1).mean(axis=0)
    np.testing.assert_allclose(share, probability, atol=5 * np.sqrt(0.25 / 20_000))


def test_drawn_races_are_races(fields, results):
    """Running cars are ranked 1..n; retired ones and padding have rank 0."""
    retired, order = results
    taking_part = fields.is_car & (retired == 0)
    assert ((order > 0) == taking_part).all()
    assert (order.max(axis=1) == taking_part.sum(axis=1)).all()
    assert retired[fields.is_car].mean() < 0.6


@jax.jit
def site_log_likelihoods(draws, fields, retired, order):
    return log_likelihood(plain_latent_model, draws, fields, N_SEASONS, retired, order)


def integrated(fields, results, log_slope, noise_sigma, intercept):
    """Plain model's log-likelihood of each race, by a fine sum over race noise and chaos."""
    retired, order = results
    n = 401
    nodes = np.linspace(-6, 6, n)
    log_weights = -0.5 * nodes**2 - logsumexp(-0.5 * nodes**2)
    every_race = np.broadcast_to(nodes[:, None], (n, N_RACES)).astype(np.float32)
    parameters = {
        "slope_mu": log_slope[0],
        "slope_sigma": 1.0,
        "noise_sigma": noise_sigma,
        "intercept": intercept,
        "slope_step": np.diff(log_slope),
    }
    draws = {k: np.broadcast_to(np.float32(v), (n, *np.shape(v))) for k, v in parameters.items()}
    draws |= {"chaos": every_race, "race_noise": every_race}
    by_site = site_log_likelihoods(draws, fields, retired, order)
    return sum(
        logsumexp(np.asarray(values, np.float64) + log_weights[:, None], axis=0)
        for values in (by_site["running_order"], by_site["retired"])
    )


@pytest.mark.parametrize(
    ("log_slope", "noise_sigma", "intercept"),
    [((0.0, 0.2, 0.1), 0.3, 0.0), ((-0.8, -0.5, 0.0), 0.6, 0.7), ((0.7, 0.3, 0.3), 1.0, -0.8)],
)
def test_plain_and_tabulated_likelihood_agree(fields, results, log_slope, noise_sigma, intercept):
    """Within 0.02 nats a race by race, and 0.05 nats as the sampler reads them, by season."""
    evidence = gather(fields, *results)
    at_zero = evidence._replace(reference=Reference(0.0, 0.0))
    log_slope = np.array(log_slope, np.float32)
    nothing = np.zeros(N_SEASONS, np.float32)
    bare = fields._replace(reference=Reference(0.0, 0.0))
    exact = integrated(fields, results, log_slope, noise_sigma, intercept)
    exact = exact - integrated(bare, results, nothing, 0.0, 0.0)
    surfaces = tabulate_surfaces(evidence.order)
    got = archetype_fit.log_likelihood(evidence, surfaces, *one_draw(log_slope, noise_sigma, intercept))
    np.testing.assert_allclose(got[0, 0], exact, atol=0.02)
    got = archetype_fit.log_likelihood(at_zero, surfaces, *one_draw(nothing, 0.0, 0.0))
    np.testing.assert_allclose(got, 0.0, atol=1e-3)

    likelihood = summarise(evidence, surfaces, N_SEASONS)
    noise = np.full(N_SEASONS, np.hypot(evidence.reference.noise_sigma, noise_sigma), np.float32)
    order = np.asarray(read_surfaces(likelihood.order, evidence.reference.log_slope + log_slope, noise))
    shifts = np.array([intercept, 0.0]) - likelihood.incident_mode
    incidents = -np.diff(np.asarray(evaluate(likelihood.incident, shifts))).item()
    assert order.sum() + incidents == pytest.approx(float(exact.sum()), abs=0.05)
    assert order[2] == pytest.approx(0.0, abs=1e-4)


def one_draw(*parameters: ArrayLike) -> list[np.ndarray]:
    """Give parameters the axes chain and draw."""
    return [np.asarray(values)[None, None] for values in parameters]


def test_the_table_from_minus_six_to_six(fields, results):
    """Inside the table the exact curve within 0.005 nats; outside finite, and on the right side of it."""
    running_order = results[1]
    order = np.where(running_order > 0, running_order, 99).argsort(axis=1)
    utility = np.take_along_axis(fields.log_strength, order, axis=1)
    taking_part = np.take_along_axis(running_order > 0, order, axis=1)
    curves = tabulate_orders(fields.log_strength, running_order[:, None, :])[:, 0]
    lower, upper = LOG_SHARPNESS_BOX

    def exact(log_s: float) -> np.ndarray:
        relative = log_probability(np.exp(log_s) * utility, taking_part) - log_probability(
            utility, taking_part
        )
        return np.asarray(relative)

    def table(log_s: float) -> np.ndarray:
        return np.asarray(evaluate(curves, np.full(N_RACES, log_s, np.float32), lower, upper))

    for log_s in np.linspace(lower, upper, 30):
        np.testing.assert_allclose(table(log_s), exact(log_s), atol=5e-3, rtol=1e-5)
    above = np.array([table(x) for x in np.arange(upper, 6.01, 0.5)])
    assert np.isfinite(above).all()
    assert (np.diff(above, axis=0) < 0).all()
    assert (above[-1] >= exact(6.0)).all()
    np.testing.assert_allclose(table(-6.0), exact(-6.0), atol=0.5)


def test_garbage_in_padding_changes_nothing(fields, results):
    """Neither the plain model nor the evidence made for the fast one reads padding."""
    padding = ~fields.is_car
    dirty = fields._replace(
        log_strength=np.where(padding, 1e20, fields.log_strength).astype(np.float32),
        incident_logit=np.where(padding, np.nan, fields.incident_logit).astype(np.float32),
    )
    at = (np.array([0.1, -0.2, 0.0], np.float32), 0.3, 0.2)
    clean = integrated(fields, results, *at)
    np.testing.assert_array_equal(integrated(dirty, results, *at), clean)
    assert np.isfinite(clean).all()
    for made, expected in zip(gather(dirty, *results)[:2], gather(fields, *results)[:2], strict=True):
        np.testing.assert_array_equal(made, expected)


def test_mass_outside_the_tables_is_noticed(fields, results):
    """Draws in the middle are inside; draws beyond the curves, the grid or the incidents' table are not."""
    evidence = gather(fields, *results)
    middle, calm = np.zeros((2, 50, N_SEASONS)), np.full((2, 50), 0.3)
    mode = np.full((2, 50), find_incident_mode(evidence))
    assert mass_outside(evidence, middle, calm, mode) < 1e-6
    assert mass_outside(evidence, middle, np.full((2, 50), 1.5), mode) > MASS_OUTSIDE_LIMIT
    assert mass_outside(evidence, middle, np.full((2, 50), LARGEST_NOISE + 0.1), mode) == 1.0
    for beyond in (LOG_SHARPNESS_BOX[0] - 0.1, LOG_SHARPNESS_BOX[1] + 0.1):
        outside = middle + beyond - evidence.reference.log_slope
        assert mass_outside(evidence, outside, calm, mode) == 1.0
    coming = middle.copy()
    coming[..., 2] = 5.0
    assert mass_outside(evidence, coming, calm, mode) < 1e-6
    few = mode.copy()
    few[0, :5] += INTERCEPT_REACH + 0.1
    assert mass_outside(evidence, middle, calm, few) == pytest.approx(0.05)
    assert mass_outside(evidence, middle, calm, mode - INTERCEPT_REACH - 0.1) == 1.0
    nothing = evidence._replace(weight=np.zeros(N_RACES, np.float32))
    assert mass_outside(nothing, middle, np.full((2, 50), 1.5), mode) == 0.0
