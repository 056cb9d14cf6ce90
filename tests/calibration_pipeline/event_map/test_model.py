"""The event map: arithmetic against plain NumPy, tables against the map, planted slopes, renormalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC, NUTS, init_to_median
from scipy.special import expit, log_expit, logit, logsumexp

from benchmarks.sbc import event_tables
from calibration_pipeline.event_map.model import BOX, plain_event_model, pooled_event_model, tabulate
from calibration_pipeline.event_map.predictive import mean_probabilities, renormalise
from calibration_pipeline.event_map.races import EventRaces, as_event_races
from calibration_pipeline.marginal.model import PROBABILITY_FLOOR
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.mcmc.nuts import run_nuts
from calibration_pipeline.stats.chebyshev import evaluate, section
from calibration_pipeline.stats.race_noise import INTERCEPT_BOX, read_tables
from helpers.planted_events import draw_winners, planted_events

ARCHETYPE, SEASON = np.tile([0, 1, 2, 3], 9), np.repeat([0, 1], 18)


def plain_log_likelihood(races: EventRaces, log_slope: float, intercept: float) -> np.ndarray:
    """The map in plain NumPy, race by race."""
    from_centre = races.log_odds - races.centre[:, None]
    log_odds = races.centre[:, None] + np.exp(log_slope) * from_centre + intercept
    return np.where(races.is_car, log_expit(np.where(races.happened, log_odds, -log_odds)), 0.0).sum(axis=1)


@pytest.fixture(scope="module")
def top10() -> EventRaces:
    """36 races of 36 cars, the last of them of 30 cars."""
    races, _ = planted_events(0.7, 36, "top 10", seed=1)
    is_car = np.ones((36, 36), bool)
    is_car[-1, 30:] = False
    return as_event_races(expit(races.log_odds), is_car, races.happened)


def tables_of(races: EventRaces):
    return event_tables(races, ARCHETYPE, SEASON, 4, 2)


def fit(races: EventRaces, random_seed: int = 1):
    mcmc = run_nuts(pooled_event_model, (tables_of(races),), n_warmup=250, n_samples=750, seed=random_seed)
    return {name: np.asarray(values) for name, values in mcmc.get_samples().items()}


@given(st.floats(*BOX), st.floats(-2.4, 2.4))
@settings(max_examples=20)
def test_surfaces_are_the_plain_likelihood(log_slope, intercept):
    """Relative to the probabilities as issued, at any point of the box."""
    races, _ = planted_events(0.7, 8, "top 5", seed=3)
    surfaces = tabulate(races)
    curve = section(surfaces.coefficients, intercept, INTERCEPT_BOX)
    got = evaluate(curve, np.full(8, log_slope), *surfaces.box)
    expected = plain_log_likelihood(races, log_slope, intercept) - plain_log_likelihood(races, 0.0, 0.0)
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=1e-4)


def test_tables_are_the_noisy_likelihood_of_their_races(top10):
    """Race noise integrated by a fine sum, races added by archetype and season."""
    tables = tables_of(top10)
    eps = np.linspace(-7, 7, 401)
    weights = -0.5 * eps**2 - logsumexp(-0.5 * eps**2)
    raw = plain_log_likelihood(top10, 0.0, 0.0)
    for log_slope, noise, intercept in ((-0.3, 0.0, 0.2), (0.25, 0.17, -0.6), (-1.02, 0.52, 1.1)):
        values = [plain_log_likelihood(top10, log_slope + noise * e, intercept) - raw for e in eps]
        by_race = logsumexp(np.array(values) + weights[:, None], axis=0)
        expected = np.zeros((4, 2))
        np.add.at(expected, (ARCHETYPE, SEASON), by_race)
        got = read_tables(tables, np.full((4, 2), log_slope, np.float32), noise, intercept)
        np.testing.assert_allclose(got, expected, atol=0.02, rtol=1e-3)


def test_tables_are_level_beyond_their_edges(top10):
    tables = tables_of(top10)
    edge, beyond = (np.asarray(read_tables(tables, np.full((4, 2), x), 0.3, 0.0)) for x in (2.8, 5.0))
    np.testing.assert_array_equal(edge, beyond)
    edge, beyond = (np.asarray(read_tables(tables, np.zeros((4, 2)), x, 0.0)) for x in (2.01, 9.0))
    np.testing.assert_array_equal(edge, beyond)


def test_the_plain_model_has_this_density(top10):
    """The likelihood of the NumPyro model is the plain one, padding left out."""
    eps = np.linspace(-1, 1, 36)
    values = {
        "slope_mu": -0.2,
        "slope_sigma": 0.1,
        "archetype_sigma": 0.3,
        "slope_step": np.array([0.7]),
        "archetype_step": np.array([-1.0, 0.0, 0.5, 1.0]),
        "noise_sigma": np.array([0.1, 0.2, 0.3, 0.4]),
        "intercept": np.array([0.0, -0.3, 0.2, 0.5]),
        "race_noise": eps,
    }
    model = substitute(seed(plain_event_model, 0), {k: jnp.asarray(v) for k, v in values.items()})
    site = trace(model).get_trace(top10, ARCHETYPE, SEASON, 4, 2, top10.happened)["event"]
    slopes = -0.2 + 0.1 * 0.7 * SEASON + 0.3 * values["archetype_step"][ARCHETYPE]
    slopes += values["noise_sigma"][ARCHETYPE] * eps
    shifts = values["intercept"][ARCHETYPE]
    expected = [
        plain_log_likelihood(EventRaces(*(v[[r]] for v in top10)), slopes[r], shifts[r])[0] for r in range(36)
    ]
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), expected, rtol=1e-5)


def test_padding_is_never_read(top10):
    """Garbage in padding changes no bit of the surfaces, and more padding changes nothing."""
    garbage = np.where(top10.is_car, expit(top10.log_odds), np.nan)
    dirty = as_event_races(garbage, top10.is_car, top10.happened | ~top10.is_car)
    np.testing.assert_array_equal(tabulate(top10).coefficients, tabulate(dirty).coefficients)
    wide = EventRaces(*(np.pad(v, [(0, 0), (0, 4)] if v.ndim == 2 else [(0, 0)]) for v in top10))
    np.testing.assert_allclose(tabulate(wide).coefficients, tabulate(top10).coefficients, atol=1e-4)


def test_later_races_change_no_surface(top10):
    """Bitwise, whatever the number of races."""
    few = EventRaces(*(values[:5] for values in top10))
    np.testing.assert_array_equal(tabulate(few).coefficients, tabulate(top10).coefficients[:5])


def test_excluded_and_certain_events_count_as_one_in_a_million():
    races = as_event_races(np.array([[0.0, 1.0, 0.5]]), np.ones((1, 3), bool), np.zeros((1, 3), bool))
    np.testing.assert_allclose(races.log_odds[0, :2], logit([PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR]))
    assert np.isfinite(tabulate(races).coefficients).all()


def test_slope_and_intercept_are_orthogonal_at_the_raw_forecast():
    """To first order a slope changes no expected number of winners (Cox & Reid 1987)."""
    races, _ = planted_events(1.0, 5, "win")
    ends = [
        expit(races.centre[:, None] + np.exp(x) * (races.log_odds - races.centre[:, None])).sum(axis=1)
        for x in (-1e-3, 1e-3)
    ]
    assert np.abs(np.subtract(*ends) / 2e-3).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("market", ["win", "top 10"])
@pytest.mark.parametrize("slope", [0.7, 1.0, 1.4])
def test_planted_slopes_are_recovered(market, slope):
    """Slope, and the renormalised forecast, of 108 races in which the number of winners is fixed."""
    races, truth = planted_events(slope, 108, market, seed=7)
    tables = event_tables(races, np.tile(ARCHETYPE, 3), np.repeat([0, 1], 54), 4, 2)
    samples = run_nuts(pooled_event_model, (tables,), n_warmup=250, n_samples=750, seed=2).get_samples()
    log_slope = np.asarray(samples["log_slope"]).mean(axis=(1, 2))
    lower, upper = np.exp(np.quantile(log_slope, (0.025, 0.975)))
    assert lower < slope < upper
    assert market == "win" or (lower < 1 < upper) == (slope == 1.0)
    points = np.broadcast_to(np.quantile(log_slope, np.linspace(0.05, 0.95, 10)), (108, 10))
    recalibrated = mean_probabilities(races, points, EVENT_MARKETS[market])
    known = (np.asarray(samples["intercept"]) < 0).mean(axis=0)
    assert ((known > 0.001) & (known < 0.999)).all()  # forecasts sum to the number of winners
    raw = expit(races.log_odds)
    assert (
        np.abs(recalibrated - truth).mean()
        < (0.4 if slope != 1 else 2.0) * np.abs(raw - truth).mean() + 0.004
    )


@pytest.mark.slow
def test_too_many_expected_winners_are_an_intercept():
    """Raw probabilities that sum to 1.5 times the winners: the intercept falls, and the slope stays."""
    races, _ = planted_events(1.0, 36, "win", seed=5)
    inflated = as_event_races(1.5 * expit(races.log_odds), races.is_car, races.happened)
    samples = fit(inflated)
    lower, upper = np.quantile(samples["intercept"].mean(axis=1), (0.025, 0.975))
    assert lower < -np.log(1.5) < upper < 0
    assert 0.05 < (samples["log_slope"].mean(axis=(1, 2)) < 0).mean() < 0.95


@pytest.mark.soak
def test_plain_and_tabulated_model_have_the_same_posterior(top10):
    """The readable model, sampled by NumPyro itself, agrees with the fast one on every parameter."""
    plain = MCMC(
        NUTS(plain_event_model, target_accept_prob=0.9, init_strategy=init_to_median),
        num_warmup=500,
        num_samples=2000,
        num_chains=2,
        progress_bar=False,
    )
    plain.run(jax.random.key(1), top10, ARCHETYPE, SEASON, 4, 2, top10.happened)
    fast = run_nuts(pooled_event_model, (tables_of(top10),), n_warmup=500, n_samples=2000, seed=3)
    for name in ("slope_mu", "slope_sigma", "archetype_sigma", "noise_sigma", "intercept", "log_slope"):
        expected, found = (np.asarray(mcmc.get_samples()[name]) for mcmc in (plain, fast))
        assert np.abs(found.mean(0) - expected.mean(0)).max() < 0.15 * expected.std(0).max(), name
        assert found.std(0) == pytest.approx(expected.std(0), rel=0.15), name


@given(st.integers(2, 40), st.integers(1, 39), st.integers(0, 10**6), st.floats(0.1, 8))
@settings(max_examples=60)
def test_renormalised_probabilities_sum_to_the_number_of_winners(n_cars, n_winners, random_seed, spread):
    """Between 0 and 1, in the order of the log odds, whatever is added to all of them."""
    n_winners = min(n_winners, n_cars - 1)
    rng = np.random.default_rng(random_seed)
    log_odds = rng.normal(0, spread, (3, n_cars + 2))
    is_car = np.arange(n_cars + 2) < n_cars
    cars = np.broadcast_to(is_car, log_odds.shape)
    p = renormalise(log_odds, cars, n_winners)
    np.testing.assert_allclose(p.sum(axis=1), n_winners, atol=1e-8)
    assert (p[:, is_car] > 0).all()
    assert (p[:, is_car] <= 1).all()
    assert (p[:, ~is_car] == 0).all()
    np.testing.assert_allclose(renormalise(log_odds + 3.0, cars, n_winners), p, atol=1e-8)
    order = np.argsort(log_odds[:, is_car], axis=1)
    assert (np.diff(np.take_along_axis(p[:, is_car], order, axis=1), axis=1) >= 0).all()


@pytest.mark.parametrize("n_winners", [0, 3])
def test_no_race_without_losers_is_renormalised(n_winners):
    with pytest.raises(ValueError, match="n_winners must be at least 1 and below the number of cars"):
        renormalise(np.zeros((1, 3)), np.ones((1, 3), bool), n_winners)


def test_slope_one_leaves_coherent_probabilities_as_they_are():
    races, _ = planted_events(0.7, 5, "top 3")
    same = mean_probabilities(races, np.zeros((5, 2)), 3)
    np.testing.assert_allclose(same, expit(races.log_odds), atol=1e-9)


def test_planted_winners_have_their_probabilities():
    """The helper draws the right number, each car as often as it should."""
    rng = np.random.default_rng(0)
    truth = np.array([[0.9, 0.6, 0.3, 0.2]])
    won = draw_winners(np.repeat(truth, 4000, axis=0), rng)
    assert (won.sum(axis=1) == 2).all()
    np.testing.assert_allclose(won.mean(axis=0), truth[0], atol=0.03)
