"""Convergence, predictive checks, calibration curves and joint events on arrays with known answers."""

import logging
import re

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import polars.testing
import pytest
import scipy.special
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration_pipeline.diagnostics import (
    EVENTS,
    assess_mcmc_convergence,
    compute_joint_event_validation,
    generate_calibration_report,
    plot_calibration_curve,
    posterior_predictive_check,
)
from calibration_pipeline.models import run_mcmc_calibration
from helpers.images import image_size
from helpers.two_means import sample_two_means

FLAT = "R-hat not computable: samples are flat (no chain dimension)"
FAVOURITE_TOP_5 = "at_least(1, favourites(1), top(5))"
TWO_OF_THREE = "at_least(2, favourites(3), top(10))"
NAMES = {str(event) for event in EVENTS}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def good_draws(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"slope": rng.normal(size=(4, 1000)), "intercept": rng.normal(size=(4, 1000))}


def permutations(rng: np.random.Generator, n_samples: int, n_cars: int) -> np.ndarray:
    return 1 + rng.permuted(np.tile(np.arange(n_cars), (n_samples, 1)), axis=1)


FLAT_TREE = xr.DataTree.from_dict({"posterior": xr.Dataset({"slope": ("sample", [1.0])})})


# Convergence


def test_independent_draws_have_converged_with_r_hat_1_and_full_ess(rng):
    fit = assess_mcmc_convergence(good_draws(rng))
    assert fit.converged
    assert fit.reasons == []
    assert fit.divergences is None
    assert fit.table["parameter"].to_list() == ["slope", "intercept"]
    assert fit.table["r_hat"].is_between(0.99, 1.01).all()
    assert (fit.table["ess_bulk"] > 3000).all()
    assert (fit.table["ess_tail"] > 3000).all()


@pytest.mark.parametrize("n_draws", [500, 501])
def test_diagnostics_are_those_of_arviz(rng, n_draws):
    """Of slow, heavy-tailed and tied draws, all at once."""
    draws = {
        "walk": 0.1 * rng.normal(size=(4, n_draws)).cumsum(axis=1),
        "heavy": rng.standard_cauchy(size=(4, n_draws)) * np.array([1, 1, 1, 3])[:, None],
        "count": rng.poisson(2.0, size=(4, n_draws)).astype(float),
    }
    table = assess_mcmc_convergence(draws).table
    tree = az.from_dict({"posterior": draws})
    summary = az.summary(tree, round_to="none")
    tail = az.ess(tree, method="tail", prob=(0.05, 0.95))
    for row in table.rows(named=True):
        name = row["parameter"]
        assert row["r_hat"] == pytest.approx(float(summary.loc[name, "r_hat"]), rel=1e-12)
        assert row["ess_bulk"] == pytest.approx(float(summary.loc[name, "ess_bulk"]), rel=1e-9)
        assert row["ess_tail"] == pytest.approx(float(tail[name]), rel=1e-9)


def test_chains_apart_are_named(rng):
    draws = good_draws(rng)
    draws["slope"][0] += 3
    fit = assess_mcmc_convergence(draws)
    assert not fit.converged
    assert re.fullmatch(r"R-hat must be below 1.01, got slope 1\.\d{3}", fit.reasons[0])
    assert fit.table["r_hat"][0] > 1.05
    assert fit.table["r_hat"][1] < 1.01


def test_slow_mixing_is_seen_in_the_effective_sample_size(rng):
    repeated = np.repeat(rng.normal(size=(4, 50)), 20, axis=1)
    fit = assess_mcmc_convergence({"slope": repeated})
    assert not fit.converged
    assert any(reason.startswith("Bulk ESS must be above 400, got slope") for reason in fit.reasons)
    assert fit.table["ess_bulk"][0] < 400


@pytest.mark.parametrize("n_divergent", [0, 1, 12])
def test_divergences_are_counted_and_speak_against(rng, n_divergent):
    diverging = np.zeros((4, 1000), dtype=bool)
    diverging.flat[:n_divergent] = True
    fit = assess_mcmc_convergence({**good_draws(rng), "diverging": diverging})
    assert fit.divergences == n_divergent
    assert fit.converged == (n_divergent == 0)
    assert fit.table["parameter"].to_list() == ["slope", "intercept"]
    if n_divergent:
        assert fit.reasons == [f"Divergences must be 0, got {n_divergent}"]


def test_flat_samples_have_no_r_hat(rng):
    flat = {name: values.ravel() for name, values in good_draws(rng).items()}
    fit = assess_mcmc_convergence({**flat, "slopes": rng.normal(size=(4000, 2))})
    assert not fit.converged
    assert fit.reasons == [FLAT]
    assert fit.table["r_hat"].is_null().all()
    assert fit.table["r_hat"].dtype == pl.Float64
    assert (fit.table["ess_bulk"] > 3000).all()
    assert fit.table["parameter"].to_list() == ["slope", "intercept", "slopes[0]", "slopes[1]"]


def test_one_chain_has_no_r_hat(rng):
    fit = assess_mcmc_convergence({"slope": rng.normal(size=(1, 4000))})
    assert fit.table["r_hat"].to_list() == [None]
    assert fit.reasons == ["R-hat not computable: there is only one chain"]


def test_draws_all_alike_cannot_be_judged(rng):
    fit = assess_mcmc_convergence({**good_draws(rng), "stuck": np.ones((4, 1000))})
    assert not fit.converged
    assert fit.reasons == ["R-hat not computable: too few draws, or constant draws, of stuck"]
    assert fit.table.filter(parameter="stuck").row(0)[1:] == (None, None, None)


@pytest.mark.slow
def test_tree_and_mcmc_object_and_their_dict_agree():
    mcmc = sample_two_means(3)
    by_object = assess_mcmc_convergence(mcmc)
    by_tree = assess_mcmc_convergence(az.from_numpyro(mcmc))
    by_dict = assess_mcmc_convergence(mcmc.get_samples(group_by_chain=True))
    assert sorted(by_object.table["parameter"]) == ["mean[0]", "mean[1]", "scale"]
    for other in (by_tree, by_dict):
        polars.testing.assert_frame_equal(by_object.table.sort("parameter"), other.table.sort("parameter"))
    assert by_object.divergences == by_tree.divergences == int(np.sum(mcmc.get_extra_fields()["diverging"]))
    assert by_dict.divergences is None


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "at least one parameter"),
        ({"slope": np.ones((0,))}, "at least one parameter"),
        ({"slope": np.ones((4, 10)), "mu": np.ones((4, 11))}, "must agree on chains and draws"),
        ({"slope": np.full((4, 10), np.nan)}, "Draws of slope must be finite, got 40 that are not of 40"),
        ({"slope": np.full((4, 10), 1e308)}, r"Draws of slope must lie within ±1e\+100, got 40 of 40 values"),
        ({"slope": np.ma.masked_less(np.ones((4, 10)), 2)}, "Draws of slope must be an array without a mask"),
        ({"slope": np.ones((4, 10), complex)}, "Draws of slope must be real numbers, got complex"),
        (
            xr.DataTree.from_dict(
                {"posterior": xr.Dataset({"mu": (("chain", "draw"), np.ones((1, 9), complex))})}
            ),
            "Draws of mu must be real numbers, got complex",
        ),
        ({"slope": np.ones((1000, 4))}, r"\(chain, draw, ...\), got 1000 chains of 4 draws"),
        (xr.DataTree.from_dict({"prior": xr.Dataset()}), "must have a group posterior, got prior"),
        (
            xr.DataTree.from_dict({"posterior": xr.Dataset({"slope": ("sample", [1.0])})}),
            "dims chain and draw",
        ),
    ],
)
def test_samples_that_cannot_be_read_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        assess_mcmc_convergence(samples)


# Posterior predictive checks


# Twenty samples where any number will do: programs are compiled for each.
def map_samples(shape: tuple[int, ...], slope: float, intercept: float = 0.0, noise: float = 0.0) -> dict:
    values = {"slope": slope, "intercept": intercept, "noise_sigma": noise}
    return {name: np.full(shape, value) for name, value in values.items()}


def some_races(rng: np.random.Generator, n_races: int = 3, n_cars: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return rng.dirichlet(np.ones(n_cars), size=(n_races, n_cars)), permutations(rng, n_races, n_cars)


def by_hand(probability: np.ndarray, position: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Log-likelihood of each race under the map, written out."""
    w = scipy.special.expit(slope * scipy.special.logit(probability) + intercept)
    w /= w.sum(axis=-1, keepdims=True)
    return np.log(np.take_along_axis(w, position[..., None] - 1, axis=-1)).sum(axis=(1, 2))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, 0.4), (1.5, -1.0), (12.0, 0.0)])
def test_log_likelihood_is_that_of_the_map(rng, slope, intercept):
    probability, position = some_races(rng)
    probability = np.clip(probability, 0.01, None) / np.clip(probability, 0.01, None).sum(-1, keepdims=True)
    samples = map_samples((2, 10), slope, intercept)
    tree = posterior_predictive_check(samples, probability, position, "road_course")
    likelihood = tree["log_likelihood/finish_position"]
    assert likelihood.dims == ("chain", "draw", "race")
    expected = by_hand(probability, position, slope, intercept)
    np.testing.assert_allclose(likelihood.values, np.broadcast_to(expected, (2, 10, 3)), rtol=2e-3, atol=2e-3)


def test_race_noise_is_integrated_out(rng):
    """By hand: the mean likelihood over 20,000 draws of the race's noise."""
    probability, position = some_races(rng)
    tree = posterior_predictive_check(map_samples((20,), 0.8, 0.0, 0.5), probability, position, "road_course")
    slopes = 0.8 * np.exp(0.5 * rng.normal(size=20_000))
    draws = np.array([by_hand(probability, position, slope, 0.0) for slope in slopes])
    expected = scipy.special.logsumexp(draws, axis=0) - np.log(slopes.size)
    np.testing.assert_allclose(tree["log_likelihood/finish_position"].values[0, 0], expected, atol=0.03)


def test_replicates_follow_the_map(rng):
    probability, position = some_races(rng)
    samples = map_samples((4, 5000), 1.0)
    tree = posterior_predictive_check(samples, probability, position, "road_course")
    replicated = tree["posterior_predictive/finish_position"]
    assert replicated.dims == ("chain", "draw", "race", "driver")
    share = (replicated.values[..., None] == np.arange(1, 6)).mean(axis=(0, 1))
    np.testing.assert_allclose(share, probability, atol=5 * np.sqrt(0.25 / 20_000))


@pytest.mark.slow
def test_race_noise_makes_cars_of_a_race_agree():
    """With noise a race is sharp or flat as a whole: cars hit their favourite place together."""
    n_cars = 30
    one_favourite = np.full((1, n_cars, 10), 0.5 / 9)
    one_favourite[..., 0] = 0.5
    position = 1 + np.tile(np.arange(10), 3)[None]
    spread = []
    for noise in (0.0, 0.8):
        samples = map_samples((1, 2000), 1.0, 0.0, noise)
        tree = posterior_predictive_check(samples, one_favourite, position, "road_course")
        hits = (tree["posterior_predictive/finish_position"] == 1).sum("driver")
        spread.append(float(hits.var()))
    assert spread[0] == pytest.approx(n_cars * 0.25, rel=0.2)
    assert spread[1] > 2 * spread[0]


def test_padding_is_never_read(rng):
    probability, position = some_races(rng)
    samples = map_samples((2, 10), 0.7, 0.3, 0.2)
    bare = posterior_predictive_check(samples, probability, position, "road_course")
    wider = np.full((3, 7, 7), 0.0)
    wider[:, :5, :5] = probability
    wider[:, 5:] = np.nan
    padded = posterior_predictive_check(samples, wider, np.pad(position, ((0, 0), (0, 2))), "road_course")
    np.testing.assert_allclose(
        padded["log_likelihood/finish_position"], bare["log_likelihood/finish_position"], rtol=1e-5
    )
    replicated = padded["posterior_predictive/finish_position"].values
    assert (replicated[..., 5:] == 0).all()
    assert replicated[..., :5].min() >= 1
    assert replicated.max() <= 5


def test_tree_has_every_group_and_survives_a_file(rng, tmp_path):
    probability, position = some_races(rng)
    samples = {**map_samples((2, 10), 1.0), "diverging": np.zeros((2, 10), dtype=bool)}
    tree = posterior_predictive_check(samples, probability, position, "short_track", random_seed=3)
    assert set(tree.children) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "constant_data",
        "sample_stats",
    }
    np.testing.assert_array_equal(tree["observed_data/finish_position"], position)
    np.testing.assert_array_equal(tree["constant_data/predicted_probability"], probability)
    assert tree["constant_data"]["position"].values.tolist() == [1, 2, 3, 4, 5]
    assert dict(tree.attrs) == {"track_archetype": "short_track", "random_seed": 3}
    assert assess_mcmc_convergence(tree).divergences == 0
    tree.to_netcdf(tmp_path / "check.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "check.nc", engine="h5netcdf") as stored:
        xr.testing.assert_equal(stored.load(), tree)


def test_same_seed_same_replicates(rng):
    probability, position = some_races(rng)
    checks = [
        posterior_predictive_check(
            map_samples((20,), 1.0), probability, position, "road_course", random_seed=seed
        )
        for seed in (1, 1, 2)
    ]
    first, again, other = (check["posterior_predictive/finish_position"].values for check in checks)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.soak
def test_results_of_the_fit_are_accepted(rng):
    """MCMC object, flat samples, and samples of seasons; leave-one-out reads the result."""
    probability, position = some_races(rng, n_races=8)
    season = np.repeat([2020, 2021], 4)
    samples, mcmc = run_mcmc_calibration(
        position, probability, "road_course", n_warmup=50, n_samples=200, n_chains=2, season=season
    )
    by_object = posterior_predictive_check(mcmc, probability, position, "road_course", season=season)
    flat = posterior_predictive_check(samples, probability, position, "road_course", season=season)
    assert by_object["posterior"].sizes["chain"] == 2
    assert flat["posterior"].sizes["chain"] == 1
    np.testing.assert_allclose(
        by_object["log_likelihood/finish_position"].values.ravel(),
        flat["log_likelihood/finish_position"].values.ravel(),
        rtol=1e-4,
    )
    assert np.isfinite(az.loo(by_object).elpd)
    with pytest.raises(ValueError, match="as many seasons as there are slopes, got 1 seasons and 2 slopes"):
        posterior_predictive_check(mcmc, probability, position, "road_course")


@pytest.mark.parametrize(
    ("samples", "probability", "position", "archetype", "message"),
    [
        ({}, [[[0.5, 0.5]] * 2], [[1, 2]], "road_course", "at least one parameter"),
        ({"slope": [1.0]}, [[[0.5, 0.5]] * 2], [[1, 2]], "road_course", "none for intercept, noise_sigma"),
        (map_samples((5,), 1.0), [[[0.5, 0.6]] * 2], [[1, 2]], "road_course", "must sum to 1"),
        (map_samples((5,), 1.0), [[[0.5, 0.5]] * 2], [[1, 3]], "road_course", "whole numbers in 1..2"),
        (map_samples((5,), -1.0), [[[0.5, 0.5]] * 2], [[1, 2]], "road_course", "a slope is never negative"),
        (
            map_samples((5,), 1e99),
            [[[0.5, 0.5]] * 2],
            [[1, 2]],
            "road_course",
            "slope must be above 0 and at most",
        ),
        (
            map_samples((5,), 1.0),
            np.full((1, 2, 2), 0.5 + 0j),
            [[1, 2]],
            "road_course",
            "must be real numbers",
        ),
        (
            map_samples((5,), 1.0),
            [[[0.5, 0.5]] * 2],
            np.ma.masked_equal([[1, 2]], 2),
            "road_course",
            "Observed positions must be an array without a mask",
        ),
        (
            map_samples((5,), 1.0),
            [[[0.5, 0.5]] * 2],
            [[1, 2, 3]],
            "road_course",
            "Observed positions must be",
        ),
        (map_samples((5,), 1.0), [[[0.5, 0.5]] * 2], [[1, 2]], "oval", "must be one of superspeedway"),
    ],
)
def test_predictive_check_refuses_bad_input(samples, probability, position, archetype, message):
    with pytest.raises(ValueError, match=message):
        posterior_predictive_check(samples, probability, position, archetype)


# Calibration curves


def drawn_points(figure) -> np.ndarray:
    (points,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("Forecast (")]
    return np.asarray(points.get_xydata())


def test_curve_shows_bin_means_and_the_diagonal():
    """Two probabilities, each one bin: 1 of 4 at 0.2 and 3 of 4 at 0.8."""
    figure = plot_calibration_curve([0.2] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 1, 0], "short_track")
    np.testing.assert_allclose(drawn_points(figure), [[0.2, 0.25], [0.8, 0.75]])
    ax = figure.axes[0]
    assert ax.get_title().startswith("Short track")
    diagonal = np.asarray(ax.lines[0].get_xydata())
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["Predicted = observed", "Forecast (8 cases)"]


def test_interval_is_wilsons():
    """Wilson's interval of 1 in 4 is [0.0456, 0.6994]."""
    figure = plot_calibration_curve([0.2] * 4, [1, 0, 0, 0], "short_track")
    (ends,) = figure.axes[0].collections[0].get_paths()
    np.testing.assert_allclose(ends.vertices[:, 1], [0.0456, 0.6994], atol=1e-4)


def test_bins_hold_about_equal_numbers_and_ties_stay_together(rng):
    tied = rng.integers(0, 21, size=5000) / 20
    figure = plot_calibration_curve(tied, rng.random(5000) < tied, "intermediate")
    points = drawn_points(figure)
    assert 8 <= len(points) <= 10
    assert (np.diff(points[:, 0]) > 0).all()
    np.testing.assert_allclose(points[:, 0], points[:, 1], atol=0.1)


@given(
    probability=hnp.arrays(float, st.integers(1, 60), elements=st.floats(0, 1)),
    seed=st.integers(0, 2**32 - 1),
)
def test_bins_lose_no_case(probability, seed):
    """The mean over bins, weighted by cases, is at most the extremes of the data, for any input."""
    happened = np.random.default_rng(seed).random(probability.size) < probability
    points = drawn_points(plot_calibration_curve(probability, happened, "road_course"))
    assert probability.min() - 1e-12 <= points[:, 0].min()
    assert points[:, 0].max() <= probability.max() + 1e-12
    assert ((points[:, 1] >= 0) & (points[:, 1] <= 1)).all()


def test_any_one_shape_will_do():
    flat = plot_calibration_curve([0.1, 0.9], [0, 1], "road_course")
    square = plot_calibration_curve(jnp.array([[0.1, 0.9]]), jnp.array([[False, True]]), "road_course")
    np.testing.assert_allclose(drawn_points(flat), drawn_points(square), atol=1e-6)


def test_picture_is_stored_only_on_request_and_whole(tmp_path):
    plot_calibration_curve([0.1, 0.9], [0, 1], "road_course")
    assert list(tmp_path.iterdir()) == []
    target = tmp_path / "curve.png"
    target.write_text("older")
    figure = plot_calibration_curve([0.1, 0.9], [0, 1], "road_course", target)
    assert image_size(target.read_bytes()) == figure.canvas.get_width_height()
    plot_calibration_curve([0.1, 0.9], [0, 1], "road_course", str(tmp_path / "curve.svg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "curve.svg"]


@pytest.mark.parametrize(
    ("probability", "happened", "archetype", "message"),
    [
        (
            [0.1, 1.2],
            [0, 1],
            "road_course",
            r"must lie in \[0, 1\]; 1 of 2 do not, the first is 1.2",
        ),
        ([0.1, np.nan], [0, 1], "road_course", "1 of 2 do not, the first is nan"),
        ([0.1, 0.2], [0, 2], "road_course", "observations must be 0 or 1; 1 of 2 do not, the first is 2"),
        ([0.1, 0.2], [0], "road_course", r"same shape, at least one case, got \(2,\) and \(1,\)"),
        ([], [], "road_course", "at least one case"),
        ([0.1], [0], "oval", "must be one of superspeedway"),
        (
            np.ma.masked_less([0.1, 0.9], 0.5),
            [0, 1],
            "road_course",
            "predictions must be an array without a mask",
        ),
        ([0.1, 0.9 + 0j], [0, 1], "road_course", "predictions must be real numbers"),
        ([0.1, 0.9], [0j, 1], "road_course", "observations must be real numbers"),
    ],
)
def test_curve_refuses_bad_input(probability, happened, archetype, message):
    with pytest.raises(ValueError, match=message):
        plot_calibration_curve(probability, happened, archetype)


def test_curve_refuses_bad_paths(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of .*png.*; got 'curve.parquet'"):
        plot_calibration_curve([0.1], [0], "road_course", tmp_path / "curve.parquet")
    with pytest.raises(ValueError, match="a file in an existing folder"):
        plot_calibration_curve([0.1], [0], "road_course", tmp_path / "nowhere" / "curve.png")
    assert list(tmp_path.iterdir()) == []


# Joint events


def test_real_valued_ensembles_of_a_notebook_work():
    key, other = jax.random.split(jax.random.key(42))
    predictions = {
        "superspeedway": jax.random.uniform(key, (100, 40)),
        "intermediate": jax.random.uniform(other, (100, 40)),
    }
    observations = jax.random.randint(key, (40,), 1, 41)
    errors = compute_joint_event_validation(predictions, observations, ["superspeedway", "intermediate"])
    assert {archetype for archetype, _ in errors} == {"superspeedway", "intermediate"}
    assert len(errors) >= 6
    assert all(np.isfinite(error) and 0 <= error <= 1 for error in errors.values())


def test_known_errors_of_two_scenarios():
    """Car 1 is the favourite; it is in the top 5 of one scenario in two, and in the result."""
    first, second = np.arange(1, 13), np.array([6, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12])
    behind = np.array([6, 12, 11, 10, 9, 8, 7, 5, 4, 3, 2, 1])
    predictions = {"short_track": np.stack([first, behind])}
    errors = compute_joint_event_validation(predictions, second, ["short_track"])
    assert errors["short_track", FAVOURITE_TOP_5] == 0.5
    assert errors["short_track", "top(5)"] == 0.0


def test_certain_and_right_is_error_zero_and_certain_and_wrong_is_one():
    place = np.tile(np.arange(1, 41), (50, 1))
    right = compute_joint_event_validation({"road_course": place}, place[0], ["road_course"])
    assert set(right.values()) == {0.0}
    wrong = compute_joint_event_validation({"road_course": place}, place[0][::-1], ["road_course"])
    assert wrong["road_course", FAVOURITE_TOP_5] == 1.0
    assert wrong["road_course", TWO_OF_THREE] == 1.0


@given(seed=st.integers(0, 2**32 - 1), n_cars=st.integers(1, 15), n_samples=st.integers(1, 20))
def test_scores_count_by_their_order_alone(seed, n_cars, n_samples):
    """Smaller is better: a monotone transform of scores, or their ranks, changes nothing."""
    rng = np.random.default_rng(seed)
    scores = rng.random((n_samples, n_cars))
    ranks = scores.argsort(axis=1).argsort(axis=1) + 1
    result = rng.permutation(n_cars) + 1
    held = [
        compute_joint_event_validation({"intermediate": ensemble}, result, ["intermediate"])
        for ensemble in (scores, np.log(scores), ranks)
    ]
    assert held[0] == held[1] == held[2]


def full_variables(rng: np.random.Generator, n_samples: int | None) -> dict[str, np.ndarray]:
    shape = (12,) if n_samples is None else (n_samples, 12)
    place = permutations(rng, n_samples or 1, 12).reshape(shape)
    return {
        "finish_position": place,
        "running": rng.random(shape) < 0.8,
        "laps_led": np.where(place == 1, 100, 0),
        "team": np.repeat(["a", "b", "c", "d", "e", "f"], 2),
        "make": np.repeat(["x", "y", "z"], 4),
    }


def test_all_variables_make_all_events(rng):
    errors = compute_joint_event_validation(
        {"intermediate": full_variables(rng, 50)}, full_variables(rng, None), ["intermediate"]
    )
    assert {event for _, event in errors} == NAMES


def test_events_without_their_variables_are_skipped_by_name(rng, caplog):
    with caplog.at_level(logging.INFO, logger="calibration_pipeline.diagnostics"):
        errors = compute_joint_event_validation(
            {"intermediate": permutations(rng, 50, 12)}, permutations(rng, 1, 12)[0], ["intermediate"]
        )
    skipped = {record.getMessage() for record in caplog.records if record.levelno == logging.INFO}
    assert (
        "Skipped led(1) & top(10) at intermediate: laps_led not passed for both predictions and observations."
        in (skipped)
    )
    assert any(text.startswith("Skipped both_teammates(top(10)) at intermediate: team") for text in skipped)
    assert len(skipped) + len(errors) == len(NAMES)


def test_events_without_observed_variables_are_skipped(rng):
    predictions = full_variables(rng, 50)
    observed = {name: values for name, values in full_variables(rng, None).items() if name != "running"}
    errors = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    assert NAMES - {event for _, event in errors} == {"top(5) & running", "count(dnf) >= 8"}


def test_incident_is_the_opposite_of_running(rng):
    predictions, observed = full_variables(rng, 50), full_variables(rng, None)
    by_running = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    for side in (predictions, observed):
        side["incident"] = ~side.pop("running")
    by_incident = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    assert by_running == by_incident


def test_running_and_incident_that_agree_are_one_variable(rng):
    predictions, observed = full_variables(rng, 50), full_variables(rng, None)
    by_running = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    for side in (predictions, observed):
        side["incident"] = (~side["running"]).astype(int)
    both = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    assert both == by_running


def test_events_that_are_true_by_construction_are_marked(rng):
    """Five cars of each race are in the top 5; in a field of five, so is the favourite."""
    errors = compute_joint_event_validation(
        {"intermediate": full_variables(rng, 50)}, full_variables(rng, None), ["intermediate"]
    )
    fixed = {"top(5)", "at_least(3, favourites(5), top(10))"}  # two of the twelve cars are not in the top 10
    assert errors.by_construction == {("intermediate", event) for event in fixed}
    assert errors["intermediate", "top(5)"] == pytest.approx(0.0, abs=1e-12)
    few = compute_joint_event_validation(
        {"road_course": permutations(rng, 20, 5)}, permutations(rng, 1, 5)[0], ["road_course"]
    )
    assert few.by_construction == set(few)
    tied = compute_joint_event_validation(
        {"road_course": np.tile([1, 1, 2, 3, 4, 5, 6, 7], (9, 1))}, np.arange(1, 9), ["road_course"]
    )
    assert ("road_course", "top(5)") not in tied.by_construction


def test_teams_of_one_car_have_no_teammates(rng):
    predictions, observed = full_variables(rng, 50), full_variables(rng, None)
    predictions["team"] = observed["team"] = np.array([f"team {car}" for car in range(12)])
    errors = compute_joint_event_validation({"intermediate": predictions}, observed, ["intermediate"])
    assert NAMES - {event for _, event in errors} == {"both_teammates(top(10))"}


def test_large_errors_are_warned_of_and_small_ones_not(caplog):
    place = np.tile(np.arange(1, 41), (50, 1))
    with caplog.at_level(logging.WARNING):
        compute_joint_event_validation({"road_course": place}, place[0], ["road_course"])
        assert not caplog.records
        compute_joint_event_validation({"road_course": place}, place[0][::-1], ["road_course"])
    expected = (
        f"{FAVOURITE_TOP_5} at road_course was predicted 1.000 and happened 0.000: off by more than 0.1."
    )
    assert expected in [record.getMessage() for record in caplog.records]


def test_positions_that_are_no_permutation_are_taken_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        errors = compute_joint_event_validation(
            {"road_course": [[1, 1, 2], [1, 2, 3]]}, [1, 1, 1], ["road_course"]
        )
    texts = [record.getMessage() for record in caplog.records]
    assert "The predictions of road_course are no permutation of 1..3 in 1 of 2; taken as they are." in texts
    assert "The observations of road_course are no permutation of 1..3 in 1 of 1; taken as they are." in texts
    assert errors


def test_observations_may_be_by_archetype():
    place = np.tile(np.arange(1, 41), (50, 1))
    errors = compute_joint_event_validation(
        {"road_course": place, "short_track": place},
        {"road_course": place[0], "short_track": {"finish_position": place[0][::-1]}},
        ["road_course", "short_track"],
    )
    assert errors["road_course", FAVOURITE_TOP_5] == 0.0
    assert errors["short_track", FAVOURITE_TOP_5] == 1.0


GOOD = {"road_course": [[1, 2, 3], [2, 1, 3]]}


@pytest.mark.parametrize(
    ("predictions", "observations", "archetypes", "message"),
    [
        (GOOD, [1, 2, 3], [], "at least one archetype"),
        (GOOD, [1, 2, 3], "road_course", "in a list; got 'road_course'"),
        (GOOD, [1, 2, 3], ["oval"], "must be one of superspeedway"),
        (GOOD, [1, 2, 3], ["short_track"], "predictions lacks short_track; it has road_course"),
        (
            GOOD,
            {"short_track": [1, 2, 3]},
            ["road_course"],
            "observations lacks road_course",
        ),
        (GOOD, [1, 2], ["road_course"], r"Observations of road_course must have shape \(n_cars,\) = \(3,\)"),
        (GOOD, [0, 1, 2], ["road_course"], r"whole finish positions in 1\.\.3, got values from 0 to 2"),
        (GOOD, [1.5, 2, 3], ["road_course"], "whole finish positions"),
        (GOOD, [1, np.nan, 3], ["road_course"], "Observations of road_course must be finite, got 1 NaN"),
        ({"road_course": [1, 2, 3]}, [1, 2, 3], ["road_course"], r"shape \(n_samples, n_cars\), got \(3,\)"),
        (
            {"road_course": [[1, np.inf]]},
            [1, 2],
            ["road_course"],
            "Predictions of road_course must be",
        ),
        (
            {"road_course": {"place": [[1, 2]]}},
            [1, 2],
            ["road_course"],
            "must include finish_position",
        ),
        (
            {"road_course": {"finish_position": [[1, 2]], "running": [True, True]}},
            [1, 2],
            ["road_course"],
            r"Variable running of road_course must have shape \(1, 2\), got \(2,\)",
        ),
        (
            {
                "road_course": {
                    "finish_position": [[1, 2]],
                    "running": [[True, True]],
                    "incident": [[False, True]],
                }
            },
            [1, 2],
            ["road_course"],
            "incident of predictions of road_course must be the opposite of running, got 1 of 2 values",
        ),
        (
            GOOD,
            {"finish_position": [1, 2, 3], "running": [1, 1, 0], "incident": [1, 1, 0]},
            ["road_course"],
            "incident of observations of road_course must be the opposite of running, got 3 of 3 .*pass one",
        ),
        *(
            (
                GOOD,
                {"finish_position": [1, 2, 3], name: [1, 0, np.nan]},
                ["road_course"],
                f"Variable {name} of observations of road_course must be finite, got 1 NaN or infinite of 3",
            )
            for name in ("running", "incident", "laps_led")
        ),
        (
            GOOD,
            {"finish_position": [1, 2, 3], "running": [1, 1, 0], "incident": [False]},
            ["road_course"],
            r"running and incident of observations of road_course must have one shape, got \(3,\) and \(1,\)",
        ),
        (
            {"road_course": np.ma.masked_equal([[1, 2, 3]], 3)},
            [1, 2, 3],
            ["road_course"],
            "Variable finish_position of predictions of road_course must be an array without a mask",
        ),
        (
            GOOD,
            [1, 2, 3j],
            ["road_course"],
            "finish_position of observations of road_course must be real numbers",
        ),
    ],
)
def test_joint_events_refuse_bad_input(predictions, observations, archetypes, message):
    with pytest.raises(ValueError, match=message):
        compute_joint_event_validation(predictions, observations, archetypes)


# Report


def two_archetypes(rng: np.random.Generator) -> tuple[dict, dict]:
    predictions = {"superspeedway": permutations(rng, 100, 40), "short_track": rng.random((100, 12))}
    observations = {name: permutations(rng, 1, values.shape[1])[0] for name, values in predictions.items()}
    return predictions, observations


def test_report_has_every_part_and_links_pictures_that_exist(rng, tmp_path):
    predictions, observations = two_archetypes(rng)
    path = tmp_path / "report.md"
    text = generate_calibration_report(
        good_draws(rng), predictions, observations, ["superspeedway", "short_track"], path
    )
    assert path.read_text() == text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Calibration report",
        "## Scores",
        "## Superspeedway",
        "## Short track",
        "## Did the fits converge?",
    ]
    links = re.findall(r"!\[[^]]+\]\(\./([^)]+)\)", text)
    assert sorted(links) == [
        "report-short_track-head-to-head.png",
        "report-short_track-top-10.png",
        "report-superspeedway-head-to-head.png",
        "report-superspeedway-top-10.png",
    ]
    images = [(tmp_path / link).read_bytes() for link in links]
    assert len({image_size(image) for image in images}) == 1
    assert len(set(images)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*links, "report.md"])
    assert "All archetypes: converged, divergences not recorded." in text
    assert re.search(r"\| All archetypes \| slope \| 1\.00\d \| [\d,]+ \| [\d,]+ \|", text)
    assert "Skipped led(1) & top(10)" in text.replace("\\", "")
    fixed = [line.split(" | ")[0] for line in text.splitlines() if "0 by construction" in line]
    assert fixed == ["| top(5)", "| top(5)", "| at_least(3, favourites(5), top(10))"]


def test_report_shows_the_scores_of_metrics(tmp_path):
    """Every scenario is the result: CRPS 0, every joint event as predicted."""
    place = np.tile(np.arange(1, 13), (20, 1))
    text = generate_calibration_report(
        {"slope": np.linspace(0, 1, 1000)},
        {"road_course": place},
        place[0],
        ["road_course"],
        tmp_path / "report.md",
    )
    assert re.search(r"\| Road course \| 0\.00 \| 11\.23 \|", text)
    assert "| top(5) | 41.7 % | 41.7 % | 0 by construction |" in text
    assert FLAT in text
    assert "| not computable |" in text


def test_report_takes_fits_by_archetype(rng, tmp_path):
    predictions, observations = two_archetypes(rng)
    draws = good_draws(rng)
    draws["slope"][0] += 3
    text = generate_calibration_report(
        {"superspeedway": good_draws(rng), "short_track": az.from_dict({"posterior": draws})},
        predictions,
        observations,
        ["superspeedway", "short_track"],
        tmp_path / "report.md",
    )
    assert "- Superspeedway: converged, divergences not recorded." in text
    assert (
        "- Short track: not shown to have converged, divergences not recorded. R-hat must be below 1.01"
        in text
    )


def test_a_report_that_fails_leaves_the_older_report(rng, tmp_path):
    predictions, observations = two_archetypes(rng)
    path = tmp_path / "report.md"
    path.write_text("older")
    with pytest.raises(ValueError, match="mcmc_samples lacks short_track; it has superspeedway"):
        generate_calibration_report(
            {"superspeedway": good_draws(rng)},
            predictions,
            observations,
            ["superspeedway", "short_track"],
            path,
        )
    with pytest.raises(ValueError, match="a file in an existing folder"):
        generate_calibration_report(
            good_draws(rng), predictions, observations, ["short_track"], tmp_path / "nowhere" / "report.md"
        )
    assert path.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
