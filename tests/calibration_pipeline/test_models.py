"""The marginal map: arithmetic against plain NumPy, tables against the map, refusals, padding."""

import functools

import arviz as az
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC, NUTS, Predictive, init_to_median
from scipy.special import logsumexp

from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.models import (
    PRIOR_SD,
    compute_calibration_summary,
    predict_with_calibrated_model,
    run_mcmc_calibration,
    track_archetype_calibration_model,
)
from calibration_pipeline.stats import chebyshev
from calibration_pipeline.stats.quadrature import gauss_hermite
from calibration_pipeline.stats.race_noise import INTERCEPT_BOX
from calibration_pipeline.stats.sinkhorn import sinkhorn
from calibration_pipeline.stats.whitening import whitened_effects, whitened_walk
from helpers.programs import compiled_programs
from helpers.two_means import sample_two_means

FEW = {"n_samples": 500, "n_chains": 2}
"""Settings of fits to six races. The example of `run_mcmc_calibration` shares their compiled sampler."""


def forecasts(rng, n_races, n_cars, width=None):
    """Bell-shaped forecasts, and orders near their modes; padded to `width` cars and places."""
    width = width or n_cars
    order = rng.permuted(np.tile(np.arange(n_cars), (n_races, 1)), axis=1)
    bell = np.exp(-0.5 * ((np.arange(n_cars) - order[..., None]) / (0.2 * n_cars)) ** 2) + 0.01
    probabilities = np.zeros((n_races, width, width))
    probabilities[:, :n_cars, :n_cars] = bell / bell.sum(axis=-1, keepdims=True)
    position = np.zeros((n_races, width), dtype=int)
    shifted = order + rng.normal(0, 0.25 * n_cars, order.shape)
    position[:, :n_cars] = shifted.argsort(axis=1).argsort(axis=1) + 1
    return position, probabilities


def distorted(probabilities, slope, intercept):
    """The map in plain NumPy, one row after the other: w = sigmoid(slope logit p + intercept)."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    w = 1 / (1 + np.exp(-(slope * np.log(p / (1 - p)) + intercept)))
    return w / w.sum(axis=-1, keepdims=True)


def plain_log_likelihood(position, probabilities, n_cars, slope, intercept):
    w = distorted(probabilities[:, :n_cars, :n_cars], slope, intercept)
    chosen = np.take_along_axis(w, position[:, :n_cars, None] - 1, axis=-1)
    return np.log(chosen[..., 0]).sum(axis=1)


@pytest.fixture(scope="module")
def padded():
    return forecasts(np.random.default_rng(3), 6, 12, width=15)


@functools.cache
def tabulated_races():
    """Races, their table, and a compiled function that reads the table."""
    position, probabilities = forecasts(np.random.default_rng(3), 6, 12, width=15)
    races = marginal.as_races(position, probabilities)
    surfaces = marginal.tabulate(races)

    @jax.jit
    def read(log_slope, intercept):
        curve = chebyshev.section(surfaces.coefficients, intercept, INTERCEPT_BOX)
        return chebyshev.evaluate(curve, jnp.full(6, log_slope), *surfaces.box)

    return position, probabilities, races, surfaces, read


@given(st.floats(-1.8, 1.8), st.floats(-2, 2))
@settings(max_examples=25)
def test_table_equals_the_plain_likelihood(log_slope, intercept):
    """Relative error of a race's log-likelihood at most 1e-4, anywhere in the box, padded or not."""
    position, probabilities, races, surfaces, read = tabulated_races()
    expected = plain_log_likelihood(position, probabilities, 12, np.exp(log_slope), intercept)
    np.testing.assert_allclose(read(log_slope, intercept) + surfaces.at_zero, expected, rtol=1e-4)
    np.testing.assert_allclose(marginal.race_log_likelihood(races, log_slope, intercept), expected, rtol=1e-5)


@pytest.mark.parametrize("log_slope", [-25.0, -3.0, 3.0, 4.4, 8.0])
@pytest.mark.parametrize("intercept", [-200.0, -5.0, 0.0, 5.0, 200.0])
def test_likelihoods_and_gradients_are_right_where_exponentials_overflow(padded, log_slope, intercept):
    """Of steep maps, which give a car's positions a probability of 0 or 1 in single precision."""
    races = marginal.as_races(*padded)
    x = np.exp(max(log_slope, -20.0)) * np.asarray(races.log_odds, float) + intercept
    x = np.where(np.asarray(races.is_position)[:, None, :], -np.logaddexp(0.0, -x), -np.inf)
    each = x - logsumexp(x, axis=-1, keepdims=True)
    index = np.maximum(np.asarray(races.position) - 1, 0)[..., None]
    chosen = np.take_along_axis(each, index, axis=-1)[..., 0]
    expected = np.where(np.asarray(races.is_car), chosen, 0.0).sum(axis=-1)
    np.testing.assert_allclose(
        marginal.race_log_likelihood(races, log_slope, intercept), expected, rtol=1e-5, atol=1e-4
    )

    def total(at, shift):
        return marginal.race_log_likelihood(races, at, shift).sum()

    def plain(at, shift):
        every = marginal.log_probabilities(races, at, shift)
        own = jnp.take_along_axis(every, index, axis=-1)[..., 0]
        return jnp.where(races.is_car, own, 0.0).sum()

    gradients = [jax.grad(each, argnums=(0, 1))(log_slope, intercept) for each in (total, plain)]
    assert np.isfinite(gradients[0]).all()
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("log_slope", [3.0, 8.0, 20.0])
def test_results_that_a_steep_map_is_sure_of_have_likelihood_one(log_slope):
    """Every car finishes where it was the favourite."""
    probabilities = np.full((2, 12, 12), 0.02)
    probabilities[:, np.arange(12), np.arange(12)] = 0.78
    races = marginal.as_races(np.tile(np.arange(1, 13), (2, 1)), probabilities)
    np.testing.assert_allclose(marginal.race_log_likelihood(races, log_slope, -0.3), 0.0, atol=1e-5)


def test_a_race_has_the_same_positions_before_and_after_it_has_run():
    """No car is given the last of three positions."""
    probabilities = np.array([[[0.7, 0.3, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]])
    for position in ([[1, 2, 3]], [[1, 1, 1]]):
        assert marginal.as_races(position, probabilities).is_position.tolist() == [[True] * 3]
    ahead = marginal.as_races([[1, 1, 0]], probabilities)
    assert ahead.is_position.tolist() == [[True, True, False]]


def test_race_noise_is_integrated(padded):
    """Quadrature of the map equals a fine sum over the noise."""
    position, probabilities = padded
    races = marginal.as_races(position, probabilities)
    eps = np.linspace(-7, 7, 801)
    values = [plain_log_likelihood(position, probabilities, 12, np.exp(0.2 + 0.3 * e), 0.1) for e in eps]
    weights = -0.5 * eps**2 - logsumexp(-0.5 * eps**2)
    expected = logsumexp(np.array(values) + weights[:, None], axis=0)
    integrated = jax.jit(marginal.integrated_exactly)(races, 0.2, 0.1, 0.3)
    np.testing.assert_allclose(integrated, expected, rtol=1e-4)


def test_plain_model_has_this_density(padded):
    """The NumPyro model's log density is the sum of its priors and the plain likelihood."""
    position, probabilities = padded
    values = {"slope_mu": 0.2, "slope_sigma": 0.1, "noise_sigma": 0.3, "intercept": -0.4, "slope_z": 0.5}
    eps = np.linspace(-1, 1, 6)
    model = substitute(seed(track_archetype_calibration_model, 0), {**values, "race_noise": jnp.asarray(eps)})

    @jax.jit
    def density():
        sites = trace(model).get_trace(position, probabilities, "short_track")
        site = sites["finish_position"]
        return site["fn"].log_prob(site["value"]), sites["slope"]["value"]

    log_likelihood, slope = density()
    slopes = np.exp(0.2 + 0.1 * 0.5 + 0.3 * eps)
    expected = [
        plain_log_likelihood(position[[r]], probabilities[[r]], 12, slopes[r], -0.4)[0] for r in range(6)
    ]
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-5)
    assert slope == pytest.approx(np.exp(0.25))


@pytest.mark.soak
def test_plain_and_tabulated_model_have_the_same_posterior():
    """The readable model, sampled by NumPyro itself, agrees with the fast one on every parameter."""
    position, probabilities = forecasts(np.random.default_rng(5), 8, 10)
    season = np.repeat([2024, 2025], 4)
    plain = MCMC(
        NUTS(track_archetype_calibration_model, target_accept_prob=0.9, init_strategy=init_to_median),
        num_warmup=400,
        num_samples=1500,
        num_chains=2,
        progress_bar=False,
    )
    plain.run(jax.random.key(1), position, probabilities, "intermediate", season)
    fast, _ = run_mcmc_calibration(
        position, probabilities, "intermediate", n_samples=1500, n_chains=2, season=season
    )
    for name in ("slope", "intercept", "slope_mu", "slope_sigma", "noise_sigma"):
        expected, found = np.asarray(plain.get_samples()[name]), np.asarray(fast[name])
        assert np.abs(found.mean(0) - expected.mean(0)).max() < 0.15 * expected.std(0).max(), name
        assert found.std(0) == pytest.approx(expected.std(0), rel=0.15), name


def test_predictive_draws_are_positions(padded):
    """Without observations the model draws positions 1..n, with the probabilities of the map."""
    _, probabilities = padded
    fixed = {"slope": jnp.full(2000, 0.6), "intercept": jnp.zeros(2000), "noise_sigma": jnp.zeros(2000)}
    predictive = Predictive(track_archetype_calibration_model, fixed, condition_deterministic=True)
    drawn = np.asarray(
        predictive(jax.random.key(0), None, probabilities, "road_course")["finish_position"][..., :12]
    )
    assert drawn.min() >= 1
    assert drawn.max() <= 12
    share = (drawn == 3).mean(axis=0)
    expected = distorted(probabilities[:, :12, :12], 0.6, 0.0)[:, :, 2]
    assert np.abs(share - expected).max() < 5 * np.sqrt(0.25 / 2000)


def test_padding_is_never_read(padded):
    """Garbage and NaN in the rows of padding change no draw, and padding itself none to speak of."""
    position, probabilities = padded
    garbage = probabilities.copy()
    garbage[:, 12:] = np.nan
    garbage[0, 12:] = 1e30
    samples, _ = run_mcmc_calibration(position, probabilities, "short_track", **FEW)
    with_garbage, _ = run_mcmc_calibration(position, garbage, "short_track", **FEW)
    for name in samples:
        np.testing.assert_array_equal(samples[name], with_garbage[name])
    races = marginal.as_races(position, garbage)
    alone = marginal.as_races(position[:, :12], probabilities[:, :12, :12])
    np.testing.assert_allclose(
        marginal.race_log_likelihood(races, 0.4, 0.2),
        marginal.race_log_likelihood(alone, 0.4, 0.2),
        rtol=1e-6,
    )
    gradient = jax.grad(lambda x, b: marginal.race_log_likelihood(races, x, b).sum(), argnums=(0, 1))
    assert np.isfinite(jax.jit(gradient)(0.4, 0.2)).all()


def test_a_second_fit_compiles_nothing(padded):
    """Other data of the same shape reuse the compiled sampler; other data give other draws."""
    position, probabilities = padded
    first, _ = run_mcmc_calibration(position, probabilities, "short_track", **FEW)
    position, probabilities = forecasts(np.random.default_rng(4), 6, 12, width=15)
    with compiled_programs() as compiled:
        other, _ = run_mcmc_calibration(position, probabilities, "short_track", random_seed=7, **FEW)
    assert compiled == []
    assert not np.array_equal(first["slope"], other["slope"])


def test_same_seed_same_draws(padded):
    """Fits repeat exactly."""
    first, mcmc = run_mcmc_calibration(*padded, "short_track", **FEW)
    again, _ = run_mcmc_calibration(*padded, "short_track", **FEW)
    np.testing.assert_array_equal(first["slope"], again["slope"])
    assert mcmc.get_samples(group_by_chain=True)["slope_mu"].shape == (2, 500)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert {"diverging", "energy", "num_steps"} <= set(fields)
    assert fields["diverging"].shape == (2, 500)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track_archetype": "oval"}, "track_archetype must be one of superspeedway, .* got 'oval'"),
        ({"position": np.ones((2, 4), int)}, r"\(n_races, n_drivers\) = \(2, 3\) .* got shape \(2, 4\)"),
        (
            {"probabilities": np.full((6, 3), 1 / 3)},
            r"\(n_races, n_drivers, n_positions\), got shape \(6, 3\)",
        ),
        ({"position": np.full((2, 3), 4)}, r"whole numbers in 1..3 .* got 6 that are not"),
        ({"position": np.full((2, 3), -1)}, "got 6 that are not"),
        ({"position": np.full((2, 3), np.nan)}, "got 6 that are not"),
        ({"position": np.zeros((2, 3), int)}, "padding only"),
        ({"probabilities": np.full((2, 3, 3), np.nan)}, "finite, got 18 that are NaN or infinite"),
        ({"probabilities": np.full((2, 3, 3), 0.5)}, "sum to 1 .* got 6 rows .*largest error 0.5"),
        ({"probabilities": np.tile([1.5, -0.5, 0.0], (2, 3, 1))}, "not be negative, got 6"),
        (
            {"probabilities": np.ma.masked_less(np.full((2, 3, 3), 0.2), 0.5)},
            "probabilities must be an array without",
        ),
        (
            {"probabilities": np.full((2, 3, 3), 1 / 3 + 0j)},
            "probabilities must be real numbers, got complex",
        ),
        (
            {"position": np.ma.masked_equal([[1, 2, 3], [3, 1, 2]], 3)},
            "positions must be an array without a mask",
        ),
        ({"position": np.ones((2, 3), complex)}, "positions must be real numbers, got complex"),
    ],
)
def test_refusals(change, message):
    """Bad input is refused with its rule and its count, by the fit and by the model alike."""
    good = {
        "position": np.array([[1, 2, 3], [3, 1, 2]]),
        "probabilities": np.full((2, 3, 3), 1 / 3),
        "track_archetype": "road_course",
    }
    arguments = tuple({**good, **change}.values())
    with pytest.raises(ValueError, match=message):
        run_mcmc_calibration(*arguments)
    with pytest.raises(ValueError, match=message):
        seed(track_archetype_calibration_model, 0)(*arguments)


def test_season_labels_are_checked():
    with pytest.raises(ValueError, match=r"season must be \(1,\), one label a race, got shape \(2,\)"):
        run_mcmc_calibration([[1, 2]], np.full((1, 2, 2), 0.5), "road_course", season=[2024, 2025])


def test_odd_input_is_logged(padded, caplog):
    """Positions that are no permutation are taken, with a warning."""
    position, probabilities = padded
    twice = position.copy()
    twice[0, 0] = twice[0, 1]
    run_mcmc_calibration(twice, probabilities, "road_course", **FEW)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 of 6 races are not a permutation" in caplog.text


@pytest.mark.soak
def test_a_posterior_outside_the_table_gets_a_wider_one(caplog):
    """Weak forecasts that always come true: the slope diverges. Short chains are taken, with a warning."""
    caplog.set_level("INFO")
    n = 10
    position = np.tile(np.arange(1, n + 1), (40, 1))
    hint = 1.0 + 0.4 * np.eye(n)
    probabilities = np.tile(hint / hint.sum(axis=1, keepdims=True), (40, 1, 1))
    samples, _ = run_mcmc_calibration(
        position, probabilities, "short_track", n_warmup=150, n_samples=150, n_chains=2
    )
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "150 draws a chain are few: use 500 or more for results to keep."
    ]
    assert "Likelihood table on log slope (-2.2, 2.2) is off" in caplog.text
    assert "widest" not in caplog.text
    assert np.log(samples["slope"]).mean() > 2.0


def test_slope_one_changes_nothing():
    """The identity on coherent tables, up to the clip of tiny probabilities."""
    table = sinkhorn(forecasts(np.random.default_rng(0), 3, 8)[1], [8, 8, 8])
    nothing = {"slope": np.ones(9), "intercept": np.zeros(9), "noise_sigma": np.zeros(9)}
    np.testing.assert_allclose(predict_with_calibrated_model(nothing, table, "short_track"), table, atol=1e-5)


def test_prediction_is_the_posterior_mean():
    """Few well-spread draws give the mean over all draws and fresh noise, and a coherent table."""
    rng = np.random.default_rng(2)
    _, probabilities = forecasts(rng, 2, 8, width=10)
    probabilities = probabilities[:, [0, 8, 1, 2, 3, 4, 9, 5, 6, 7]]  # padding anywhere
    samples = {
        "slope": np.exp(rng.normal(-0.3, 0.1, 4000)),
        "intercept": rng.normal(0, 0.5, 4000),
        "noise_sigma": np.abs(rng.normal(0, 0.3, 4000)),
    }
    predicted = predict_with_calibrated_model(samples, probabilities, "short_track")
    cars = np.array([0, 2, 3, 4, 5, 7, 8, 9])
    assert (predicted[:, [1, 6]] == 0).all()
    assert (predicted[:, :, 8:] == 0).all()
    np.testing.assert_allclose(predicted[:, cars].sum(axis=2), 1, atol=1e-9)
    np.testing.assert_allclose(predicted.sum(axis=1)[:, :8], 1, atol=1e-9)
    nodes, weights = gauss_hermite(7)
    slopes = samples["slope"][:, None] * np.exp(samples["noise_sigma"][:, None] * nodes)
    rows = probabilities[:, cars, :8]
    mean = sum(
        weight * distorted(rows, slopes[i, k], samples["intercept"][i]) / 4000
        for i in range(4000)
        for k, weight in enumerate(weights)
    )
    np.testing.assert_allclose(predicted[:, cars, :8], sinkhorn(mean, [8, 8]), atol=1.5e-3)


def test_prediction_needs_its_parameters():
    with pytest.raises(ValueError, match="got none for intercept, noise_sigma"):
        predict_with_calibrated_model({"slope": [1.0]}, np.ones((1, 1, 1)), "short_track")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"slope": [1.0, -0.5]},
            r"slope must be above 0 .* got 1 of 2 that are not, the first is -0.5: a slope is nev",
        ),
        (
            {"slope": [0.0]},
            r"slope must be above 0 and at most 1e\+06, got 1 of 1 that are not, the first is 0.0\.$",
        ),
        ({"slope_next": [-1.0]}, "slope_next must be above 0 .* take the exponential of a log slope"),
        ({"slope": [1e308]}, r"slope must be above 0 and at most 1e\+06, .* the first is 1e\+308"),
        ({"intercept": [1e308]}, r"intercept must lie in \[-1e\+06, 1e\+06\], got 1 of 1"),
        ({"noise_sigma": [1e308]}, r"noise_sigma must lie in \[-20, 20\], got 1 of 1"),
        ({"noise_sigma": [np.nan]}, "noise_sigma must lie in .* the first is nan"),
        (
            {"slope": []},
            r"samples must hold draws, got none of slope \(shape \(0,\)\): pass the samples of run_mcmc",
        ),
        ({"intercept": np.zeros((0, 2))}, r"got none of intercept \(shape \(0, 2\)\)"),
        (
            {"intercept": np.ma.masked_equal([0.0, 1.0], 1.0)},
            "Draws of intercept must be an array without a mask",
        ),
        ({"noise_sigma": [1j]}, "Draws of noise_sigma must be real numbers, got complex"),
    ],
)
def test_draws_out_of_range_are_refused(change, message):
    """By the prediction and by the summary alike."""
    nothing = np.zeros(2)
    good = {
        "slope": nothing + 1,
        **dict.fromkeys(("intercept", "noise_sigma", "slope_mu", "slope_sigma"), nothing),
    }
    with pytest.raises(ValueError, match=message):
        predict_with_calibrated_model({**good, **change}, np.full((1, 2, 2), 0.5), "short_track")
    with pytest.raises(ValueError, match=message):
        compute_calibration_summary({**good, **change}, "short_track")


def test_predictions_at_the_ends_of_the_ranges_are_finite():
    sure = [[[0.999, 0.001], [0.001, 0.999]]]
    for slope in (1e-6, 1e6):
        for intercept in (-1e6, 1e6):
            samples = {"slope": [slope] * 2, "intercept": [intercept] * 2, "noise_sigma": [0.0, 20.0]}
            predicted = predict_with_calibrated_model(samples, sure, "short_track")
            np.testing.assert_allclose(predicted.sum(axis=2), 1.0, atol=1e-6)


@pytest.mark.parametrize("slope", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("n_certain", [1, 3])
def test_cars_that_are_certain_of_one_position_leave_a_coherent_table(n_certain, slope):
    """Nobody else has room there, or not all of them have; the others keep the rest of the positions."""
    table = np.full((1, 36, 36), 1 / 36)
    table[0, :n_certain] = np.eye(36)[0]
    samples = {"slope": [slope], "intercept": [0.0], "noise_sigma": [0.1]}
    predicted = predict_with_calibrated_model(samples, table, "short_track")[0]
    np.testing.assert_allclose(predicted.sum(axis=0), 1.0, atol=1e-8)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-8)
    np.testing.assert_allclose(predicted[:n_certain, 0], 1 / n_certain, atol=0.02)
    assert predicted[n_certain:, 0].max() < 1e-3


def test_prediction_takes_more_places_than_cars():
    """A table of some of a race's cars keeps its rows; columns cannot sum to 1."""
    _, probabilities = forecasts(np.random.default_rng(0), 1, 8)
    nothing = {"slope": [1.0], "intercept": [0.0], "noise_sigma": [0.0]}
    predicted = predict_with_calibrated_model(nothing, probabilities[:, :5], "short_track")
    np.testing.assert_allclose(predicted, probabilities[:, :5], atol=1e-5)


def test_summary_of_the_prior_shows_no_contraction():
    """Prior draws contract by nothing, so the stated prior deviations are right."""
    rng = np.random.default_rng(0)
    n = 200_000
    mu, sigma = rng.normal(0, 0.3, n), np.abs(rng.normal(0, 0.25, n))
    prior = {
        "slope": np.exp(mu + sigma * rng.normal(size=n)),
        "intercept": rng.normal(0, 0.5, n),
        "slope_mu": mu,
        "slope_sigma": sigma,
        "noise_sigma": np.abs(rng.normal(0, 0.5, n)),
    }
    summary = compute_calibration_summary(prior, "superspeedway")
    for name in PRIOR_SD:
        assert summary[f"{name}_contraction"] == pytest.approx(0, abs=0.03), name
        assert summary[f"{name}_lower"] < summary[f"{name}_mean"] < summary[f"{name}_upper"]
    assert "prior" in summary["notes"][0]
    assert all(name in summary["notes"][1] for name in PRIOR_SD)
    with pytest.raises(ValueError, match="got none for noise_sigma, slope_sigma"):
        compute_calibration_summary(
            {name: prior[name] for name in ("slope", "intercept", "slope_mu")}, "superspeedway"
        )


@given(st.integers(1, 8), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=25)
def test_sinkhorn_makes_coherent_tables(n, padding, random_seed):
    """Rows and columns sum to 1, padding is 0 and never read, scaling a row changes nothing."""
    rng = np.random.default_rng(random_seed)
    table = np.full((1, n + padding, n + padding), np.nan)
    table[0, :n, :n] = rng.uniform(0.01, 1, (n, n))
    coherent = sinkhorn(table, [n])
    np.testing.assert_allclose(coherent[0, :n].sum(axis=1), 1, atol=1e-8)
    np.testing.assert_allclose(coherent[0, :, :n].sum(axis=0), 1, atol=1e-8)
    assert coherent[0, n:].sum() == coherent[0, :, n:].sum() == 0
    table[0, 0] *= 7.0
    np.testing.assert_allclose(sinkhorn(table, [n]), coherent, atol=1e-7)
    np.testing.assert_allclose(sinkhorn(coherent, [n]), coherent, atol=1e-8)


@pytest.mark.parametrize(
    ("table", "size", "message"),
    [
        ([[[1.0, 0.0], [1.0, 0.0]]], [2], "No coherent table"),
        ([[[0.5, -0.1], [0.5, 0.5]]], [2], "not negative, got 1"),
        ([[[0.5, 0.5]]], [2], r"must lie in 1..1, got 2..2"),
        ([[0.5, 0.5]], [2], r"\(race, driver, position\), got shape \(1, 2\)"),
        ([[[1.0]]], [1, 1], r"field_size must be \(1,\), got shape \(2,\)"),
    ],
)
def test_sinkhorn_refuses(table, size, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(table, size)


WEIGHTED, INFORMATION = jnp.array([20.0, -1.0, 0.0]), jnp.array([40.0, 3.0, 0.0])
WHITENED = {
    "estimated effects": lambda: whitened_effects("u", jnp.array(0.2), INFORMATION, WEIGHTED),
    "walk": lambda: whitened_walk("u", 0.3, jnp.array(0.2), WEIGHTED, INFORMATION),
    "effects": lambda: whitened_effects("u", jnp.array(0.2), INFORMATION),
}
WEIGHTS = {
    "estimated effects": lambda effects: effects / 0.2,
    "walk": lambda levels: jnp.diff(levels, prepend=0.0) / jnp.array([0.3, 0.2, 0.2]),
    "effects": lambda effects: effects / 0.2,
}


@pytest.mark.parametrize("kind", list(WHITENED))
def test_whitening_leaves_the_prior_as_it_is(kind):
    """In the sampled coordinates the density is that of standard normal weights, times the volume."""

    def weights(u):
        return WEIGHTS[kind](substitute(seed(WHITENED[kind], 0), {"u": u})())

    @jax.jit
    def log_densities(u):
        sites = trace(substitute(seed(WHITENED[kind], 0), {"u": u})).get_trace()
        volume = jnp.linalg.slogdet(jax.jacobian(weights)(u))[1]
        return (
            sum(site["fn"].log_prob(site["value"]).sum() for site in sites.values()),
            dist.Normal(0, 1).log_prob(weights(u)).sum() + volume,
        )

    for u in (np.zeros(3), np.array([1.0, -0.5, 2.0])):
        log_density, expected = log_densities(u)
        assert log_density == pytest.approx(float(expected), abs=1e-4)


def test_whitened_effects_have_the_posterior_that_their_normal_data_give_them():
    """Standard coordinates map to effects with the mean and variance of a conjugate normal."""

    def effects(u):
        return substitute(seed(WHITENED["estimated effects"], 0), {"u": u})()

    variance = 1 / (1 / 0.2**2 + INFORMATION)
    np.testing.assert_allclose(effects(jnp.zeros(3)), variance * WEIGHTED, atol=1e-6)
    np.testing.assert_allclose(effects(jnp.ones(3)) - effects(jnp.zeros(3)), np.sqrt(variance), atol=1e-6)


def test_a_whitened_walk_has_the_posterior_that_its_normal_data_give_it():
    """Standard coordinates map to levels with the mean and covariance of a conjugate normal."""
    steps = np.array([[0.3, 0.0, 0.0], [0.3, 0.2, 0.0], [0.3, 0.2, 0.2]])

    @jax.jit
    def levels(u):
        return substitute(seed(WHITENED["walk"], 0), {"u": u})()

    covariance = np.linalg.inv(np.linalg.inv(steps @ steps.T) + np.diag(INFORMATION))
    factor = np.asarray(jax.jit(jax.jacobian(levels))(jnp.zeros(3)))
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-5)
    np.testing.assert_allclose(levels(jnp.zeros(3)), covariance @ WEIGHTED, atol=1e-5)


@pytest.mark.parametrize("n_chains", [*(pytest.param(n, marks=pytest.mark.soak) for n in (1, 3)), 11])
@pytest.mark.slow
def test_run_nuts_gives_the_known_posterior(n_chains):
    """Normal prior, normal data: N(y / 2, 1 / 2), by one chain, parallel chains, and more than devices."""
    mcmc = sample_two_means(n_chains)
    draws = mcmc.get_samples(group_by_chain=True)["mean"]
    assert draws.shape == (n_chains, 1000, 2)
    flat = np.asarray(draws).reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(0), [1.0, -0.5], atol=0.12)
    np.testing.assert_allclose(flat.std(0), np.sqrt(0.5), atol=0.08)
    chain_means = np.asarray(draws).mean(axis=1)[:, 0]
    assert len(np.unique(chain_means)) == n_chains
    tree = az.from_numpyro(mcmc, log_likelihood=False)
    assert tree["posterior"]["mean"].shape == draws.shape
    assert "energy" in tree["sample_stats"]


def test_devices_are_set_before_jax_starts():
    """Afterwards another number is refused; the same one is no change."""
    n = jax.local_device_count()
    use_host_devices(max(n, 1)) if jax.config.jax_num_cpu_devices == n else None
    with pytest.raises(RuntimeError):
        use_host_devices(n + 1)
