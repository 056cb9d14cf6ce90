"""The causal network, its fit, and the ensembles drawn from it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import potential_energy
from scipy.stats import chisquare

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios import SkeletonNarrative
from calibration_pipeline.scenarios.covariates import build_field, race_slots
from calibration_pipeline.scenarios.draw.ensemble import SCENARIO_BATCH, simulate_races
from calibration_pipeline.scenarios.fit.by_fold import DRAWN, fit_networks
from calibration_pipeline.scenarios.fit.history import History, build_history, fold_history, join_history
from calibration_pipeline.scenarios.fit.laplace import (
    _curvature,
    _n_parameters,
    _potential_and_gradient,
    _unravel,
    draw_posterior,
    find_mode,
    forgetting,
)
from calibration_pipeline.scenarios.fit.posterior import TERMS, prior
from calibration_pipeline.scenarios.folds import fold_name, open_fold
from calibration_pipeline.scenarios.network.model import DAMAGE_SHARE
from calibration_pipeline.scenarios.network.stints import STINTS, share_out
from calibration_pipeline.scenarios.network.structure import FRONT_CARS, FULL, Structure
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.schemas.contracts import validate
from calibration_pipeline.schemas.datasets import ScenarioEnsemble, is_coherent
from helpers.jitted import log_probability, order_log_likelihood, rank_columns, stages_narrow
from helpers.simulated_seasons import without_laps

FOLD_RACES = 12
# The chance that a goodness-of-fit test here fails although the code is right.
TEST_FAILURE_RATE = 2e-5
NONE_DAMAGED = jnp.zeros(3, bool)
NO_EFFECT, SAME = jnp.array(0.0), jnp.array(1.0)
"""Scale of the team effects, and sharpness of the front group."""


def damaged(first: xr.Dataset) -> np.ndarray:
    """Cars that ran to the end, far behind: (race, driver)."""
    behind = first["laps_completed"] < (1 - DAMAGE_SHARE) * first["laps_completed"].max("driver")
    return (first["running"] & behind).values


@pytest.fixture(scope="module")
def season() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features and results of two simulated seasons, without laps."""
    return without_laps([2022, 2023])


@pytest.fixture(scope="module")
def network(season) -> xr.Dataset:
    features, results = season
    return fit_networks(fold_history(features, results, 2023, FOLD_RACES), FOLD_RACES, seed=1)


@pytest.fixture(scope="module")
def ensemble(season, network) -> xr.Dataset:
    features = season[0].filter(season=2023)
    return simulate_races(features, network, FOLD_RACES, n_scenarios=400, seed=3)


def naive_reverse_probability(utility: list[float]) -> float:
    """Draw the last car first, one by one."""
    probability = 1.0
    for place in range(len(utility), 0, -1):
        weights = np.exp(-np.array(utility[:place]))
        probability *= weights[-1] / weights.sum()
    return probability


def test_reverse_plackett_luce_is_its_definition_and_sums_to_one():
    """Enumerating all orders of four cars gives the sequential definition, and probabilities that add up."""
    utility = np.array([1.2, 0.1, -0.5, 2.0])
    orders = list(itertools.permutations(range(4)))
    got = [float(jnp.exp(log_probability(utility[np.array(order)], np.ones(4, bool)))) for order in orders]
    assert got == pytest.approx(
        [naive_reverse_probability(utility[list(o)].tolist()) for o in orders], rel=1e-5
    )
    assert sum(got) == pytest.approx(1.0, abs=1e-5)


def test_sampled_orders_of_four_cars_agree_with_enumeration():
    """A chi-square test of 40,000 draws of strength less Gumbel luck against the exact probabilities."""
    utility = jnp.array([1.2, 0.1, -0.5, 2.0])
    luck = jax.random.gumbel(jax.random.key(0), (4, 40_000))
    ranks = np.asarray(rank_columns(utility[:, None] - luck, jnp.ones((4, 40_000), bool)))
    orders = list(itertools.permutations(range(4)))
    counts = [(np.array(order) == ranks.argsort(axis=0).T).all(axis=1).sum() for order in orders]
    exact = np.exp([float(log_probability(utility[np.array(order)], np.ones(4, bool))) for order in orders])
    assert chisquare(counts, 40_000 * exact / exact.sum()).pvalue > TEST_FAILURE_RATE


def test_cars_that_do_not_take_part_change_nothing():
    """Garbage in the slots of retired cars and padding leaves the probability as it is."""
    utility = jnp.array([0.3, -0.2, 0.9])
    alone = log_probability(utility, jnp.ones(3, bool))
    padded = jnp.array([0.3, 1e30, -0.2, -1e30, 0.9, jnp.nan])
    taking_part = jnp.array([True, False, True, False, True, False])
    assert float(log_probability(padded, taking_part)) == pytest.approx(float(alone), rel=1e-6)
    gradient = jax.jit(jax.grad(log_probability))(padded.at[5].set(0.0), taking_part)
    assert np.isfinite(np.asarray(gradient)).all()


def cars(n: int) -> st.SearchStrategy[list[tuple[float, bool]]]:
    """Log-strengths, and whether the cars take part."""
    return st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=n, max_size=n)


@pytest.mark.slow
@given(st.sampled_from((1, 2, 5, 12)).flatmap(cars))  # each number of cars is compiled
@settings(max_examples=50)
def test_both_forms_of_the_likelihood_agree(cars):
    utility, taking_part = (jnp.array(values) for values in zip(*cars, strict=True))
    slow = log_probability(utility, taking_part)
    fast = stages_narrow(utility, taking_part, jnp.zeros(len(cars))).sum()
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_stints_of_next_to_nothing_take_no_lap_back():
    """Once in millions of scenarios a car led -1 laps: a sum ended below the one before it."""
    n_cars, n_scenarios = 40, 100_000
    rng = np.random.default_rng(0)
    lengths = rng.exponential(size=(STINTS, n_scenarios)) * (rng.random((STINTS, n_scenarios)) < 0.5)
    lengths[0] = 1.0
    laps, race_laps = np.full(n_scenarios, 30_000), np.full(n_scenarios, 30_000)
    finished, weight = np.full((n_cars, n_scenarios), 30_000), np.zeros((n_cars, n_scenarios))

    @jax.jit
    def draw(lengths: jax.Array, *arguments: jax.Array) -> jax.Array:
        with handlers.seed(rng_seed=0), handlers.substitute(data={"lead_length": lengths}):
            return share_out("lead", *arguments, 1.0)

    led = np.asarray(draw(lengths, laps, weight, finished, race_laps))
    assert led.min() >= 0
    np.testing.assert_array_equal(led.sum(axis=0), laps)


def test_rank_breaks_ties_by_slot():
    score, taking_part = jnp.array([1.0, 1.0, 5.0, 1.0]), jnp.array([True, True, True, False])
    rank = rank_columns(score[:, None], taking_part[:, None])
    assert rank[:, 0].tolist() == [2, 3, 1, 0]


def test_team_effects_of_scale_zero_leave_the_plain_likelihood():
    utility, order = jnp.array([0.5, -1.0, 0.2]), jnp.array([2, 0, 1])
    plain = log_probability(utility[jnp.array([2, 0, 1])], jnp.array([True, True, False]))
    got = order_log_likelihood(utility, jnp.zeros(3, int), order, NONE_DAMAGED, NO_EFFECT, SAME, FULL)
    assert float(got) == pytest.approx(float(plain), rel=1e-5)


def test_a_shared_effect_of_one_team_cancels():
    """If all cars share a team, its effect moves all alike and the order's probability is the plain one."""
    utility, order = jnp.array([0.5, -1.0, 0.2]), jnp.array([2, 3, 1])
    plain = log_probability(utility[jnp.array([2, 0, 1])], jnp.ones(3, bool))
    got = order_log_likelihood(utility, jnp.zeros(3, int), order, NONE_DAMAGED, jnp.array(0.7), SAME, FULL)
    assert float(got) == pytest.approx(float(plain), rel=1e-4)


def test_the_last_stages_have_the_sharpness_of_the_front_group():
    """Against the definition, stage by stage: 30 cars of which 25 run, 15 of them damaged."""
    rng = np.random.default_rng(2)
    utility, sharpness, n_running, n_damaged = rng.normal(size=30), 0.6, 25, 15
    running_order = np.maximum(rng.permutation(30) - 4, 0)
    damage = running_order > n_running - n_damaged  # some of them in the front group
    in_order = utility[np.argsort(np.where(running_order > 0, running_order, 99))][:n_running]
    expected = 0.0
    for left in range(n_running, 0, -1):
        first = 0 if left <= n_running - n_damaged else n_running - n_damaged
        u = (sharpness if left <= FRONT_CARS else 1.0) * in_order[first:left]
        expected += -u[-1] - np.log(np.exp(-u).sum())
    arguments = (jnp.asarray(utility), jnp.arange(30), jnp.asarray(running_order), jnp.asarray(damage))
    got = order_log_likelihood(*arguments, NO_EFFECT, jnp.array(sharpness), FULL)
    assert n_running - n_damaged < FRONT_CARS
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_ordinary_law_has_no_front_group():
    utility, order = jnp.array([0.5, -1.0, 0.2]), jnp.array([2, 3, 1])
    ordinary = Structure(ordinary=True)
    arguments = (utility, jnp.arange(3), order, NONE_DAMAGED, NO_EFFECT)
    one, other = (order_log_likelihood(*arguments, jnp.array(f), ordinary) for f in (1.0, 0.5))
    assert float(one) == float(other)


def test_folds_are_named_in_order_and_the_open_fold_is_that_of_the_next_race():
    def names(rounds: list[int], fold_races: int | None) -> list[str]:
        frame = pl.DataFrame({"season": [2021] * len(rounds), "round": rounds})
        return frame.select(fold_name(pl.col("season"), pl.col("round"), fold_races)).to_series().to_list()

    assert names([1, 12, 13, 36], 12) == ["2021-1", "2021-1", "2021-2", "2021-3"]
    assert list(dict.fromkeys(names([*range(1, 37)], 3))) == [f"2021-{i}" for i in range(1, 13)]
    assert open_fold(pl.Series(range(1, 37)), 2021, 12) == "2021-4"
    assert open_fold(pl.Series(range(1, 37)), 2021, 3) == "2021-13"
    assert open_fold(pl.Series(range(1, 15)), 2021, None) == "2021-1"
    assert open_fold(pl.Series([], dtype=pl.Int64), 2021, 12) == "2021-1"
    with pytest.raises(ValueError, match="fold_races must be at least 1"):
        fold_name(pl.col("season"), pl.col("round"), 0)


def test_forgetting_never_counts_the_race_itself_or_padding():
    weight = forgetting(np.array([202101, 202102, 202103, 202104, 0]), before=202103, half_life=2.0)
    assert weight.tolist() == pytest.approx([0.5**0.5, 1.0, 0.0, 0.0, 0.0])


def test_networks_are_fitted_before_their_folds(network):
    """Every fold's fit saw a race before the fold, and none in it."""
    as_of = dict(zip(network["fold"].values, network["network_as_of"].values, strict=True))
    assert as_of == {"2023-1": 202236, "2023-2": 202312, "2023-3": 202324, "2023-4": 202336}


def test_a_race_within_the_open_fold_changes_no_history(season):
    """Networks are fitted again only when a fold has closed."""

    def after(last_round: int) -> pl.DataFrame:
        has_run = (pl.col("season") < 2023) | (pl.col("round") <= last_round)
        return fold_history(*(frame.filter(has_run) for frame in season), 2023, FOLD_RACES)

    assert validate(after(13), "fold_history").equals(after(23))
    assert after(23)["race_order"].max() == 202312
    assert after(24)["race_order"].max() == 202324


@pytest.mark.slow
def test_later_races_do_not_change_a_fit(season, network):
    """Other results in the last fold, or no races in it at all, leave the fits before it bit for bit."""
    features, results = season
    later = pl.col("race_order") > 202324
    laps = pl.when(later).then(pl.col("laps_completed") // 2).otherwise("laps_completed")
    flipped = pl.when(later).then(pl.len().over("race_id") + 1 - pl.col("finish_position"))
    others = results.with_columns(
        laps_completed=laps,
        running=pl.col("running") & ~later,
        finish_position=flipped.otherwise("finish_position"),
    )
    again = fit_networks(fold_history(features, others, 2023, FOLD_RACES), FOLD_RACES, seed=1)
    kept = ["2023-1", "2023-2", "2023-3"]
    xr.testing.assert_identical(again.sel(fold=kept), network.sel(fold=kept))
    assert not again.sel(fold="2023-4").equals(network.sel(fold="2023-4"))
    before = fold_history(features.filter(~later), results.filter(~later), 2023, FOLD_RACES)
    none = fit_networks(before, FOLD_RACES, seed=1)
    xr.testing.assert_identical(none, network.sel(fold=kept))


@pytest.mark.soak
def test_all_folds_of_a_season_are_fitted_by_one_compiled_function(season, caplog):
    """Folds hold 36 to 72 races; after the first, nothing is compiled for the others."""
    fresh = Structure(frozenset({("track", "n_cautions")}))
    begun = [frame.filter(pl.col("race_order") < 202302) for frame in season]
    with jax.log_compiles():
        fit_networks(fold_history(*begun, 2023, FOLD_RACES), FOLD_RACES, 1, fresh)
        assert "Compiling" in caplog.text
        caplog.clear()
        fit_networks(fold_history(*season, 2023, FOLD_RACES), FOLD_RACES, 1, fresh)
    assert "Compiling" not in caplog.text


@pytest.mark.slow
def test_the_likelihood_in_blocks_is_that_of_the_model(season):
    """The potential that is minimised, and its curvature, are those of the NumPyro model."""
    history = build_history(join_history(*season), 40)
    weight = forgetting(np.asarray(history.race_order), 202313)
    n_parameters = _n_parameters()
    flat = jnp.asarray(np.random.default_rng(0).normal(0, 0.1, n_parameters), jnp.float32)

    def model() -> None:
        parameters = FULL.apply(prior())
        by_race = sum(term(history, parameters, FULL) for term in TERMS)
        numpyro.factor("races", jnp.sum(weight * by_race))

    def potential(at: jax.Array) -> jax.Array:
        return potential_energy(model, (), {}, _unravel(at))

    direction = jnp.ones(n_parameters)
    expected, (_, along) = jax.jit(
        lambda at: jax.jvp(jax.value_and_grad(potential), (at,), (direction,))  # compiled together
    )(flat)
    blocks = _potential_and_gradient(flat, history, weight, 48, FULL)
    for found, plain in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(found, plain, rtol=2e-5, atol=2e-3)
    curvature = _curvature(flat, history, weight, 48, FULL)
    np.testing.assert_allclose(curvature @ direction, along, rtol=2e-4, atol=2e-2)


def test_the_gradient_is_finite_far_from_the_mode(season):
    """A search step to absurd rates of cautions or log-strengths does not end the search."""
    history = build_history(join_history(*season), 40)
    history = history._replace(has_cautions=np.asarray(history.race_order) > 0)
    far = {name: np.zeros_like(value) for name, value in _unravel(jnp.zeros(_n_parameters())).items()}
    far["caution_chaos_weight"] += 4.0
    far["pace_weight_common"] += 4.0
    far["log_sharpness"] += 4.0
    weight = forgetting(np.asarray(history.race_order), 202313)
    value, gradient = _potential_and_gradient(ravel_pytree(far)[0], history, weight, 48, FULL)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_the_first_season_has_no_network_for_its_first_fold(season):
    features, results = season
    first = fold_history(features.filter(season=2022), results.filter(season=2022), 2022, FOLD_RACES)
    assert "2022-1" not in fit_networks(first, FOLD_RACES, seed=1)["fold"].values
    alone = features.filter((pl.col("season") == 2022) & (pl.col("round") <= 12))
    none_has_run = fold_history(alone.filter(round=99), results, 2022, FOLD_RACES)
    empty = fit_networks(none_has_run, FOLD_RACES, seed=1)
    assert empty.sizes["fold"] == 0
    nothing = simulate_races(alone, empty, FOLD_RACES, 10, seed=1)
    assert nothing.sizes["race"] == 0
    ScenarioEnsemble.validate(nothing, lazy=True)


def test_ensembles_meet_their_contract(ensemble):
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert (ensemble["network_as_of"] < ensemble["race_order"]).all()


def test_every_scenario_is_a_race(ensemble):
    """Finish follows laps completed, laps add up, nobody leads after retiring, the winner is running."""
    car = ensemble["start_position"] > 0
    order = ensemble["finish_position"].where(car, 99).argsort(axis=-1).values
    laps = np.take_along_axis(ensemble["laps_completed"].values, order, axis=-1)
    steps = np.diff(laps.astype(int), axis=-1)
    assert (steps <= 0).all()
    assert (ensemble["laps_led"].sum("driver") == ensemble["race_laps"]).all()
    assert (ensemble["fastest_laps"].sum("driver") == ensemble["green_laps"]).all()
    assert (ensemble["green_laps"] <= ensemble["race_laps"]).all()
    assert (ensemble["laps_led"] <= ensemble["laps_completed"]).all()
    winner = ensemble["finish_position"] == 1
    assert ensemble["running"].where(winner).sum("driver").equals(winner.sum("driver").astype(float))
    assert (ensemble["laps_completed"].where(winner).max("driver") == ensemble["race_laps"]).all()
    assert (ensemble["laps_led"].where(winner).max("driver") >= 1).mean() > 0.9


def test_some_retired_cars_are_classified_ahead_of_running_ones(ensemble):
    """Mostly the retired rank behind the running, but not always."""
    car = ensemble["start_position"] > 0
    last_running = ensemble["finish_position"].where(ensemble["running"]).max("driver")
    first_out = ensemble["finish_position"].where(car & ~ensemble["running"]).min("driver")
    share = float((first_out < last_running).mean())
    assert 0.1 < share < 0.95


def test_retirements_are_more_dispersed_than_independent_ones(ensemble):
    """Chaos makes some races wild: the variance of the number out exceeds the binomial's."""
    car = ensemble["start_position"] > 0
    out = (~ensemble["running"] & car).astype(float)
    chance = out.mean("scenario")
    binomial = (chance * (1 - chance)).sum("driver")
    assert float((out.sum("driver").var("scenario") / binomial).mean()) > 1.3


def test_probabilities_of_an_ensemble_are_coherent(ensemble):
    finish, size = ensemble["finish_position"].values, ensemble["field_size"].values
    probability = ensemble["start_position"].expand_dims(position=finish.shape[-1], axis=2).copy()
    assert is_coherent(probability.copy(data=finish_probabilities(finish, size)))
    ahead = head_to_head(finish, size)
    both = ahead + ahead.transpose(0, 2, 1)
    inside = np.arange(finish.shape[-1]) < size[:, None]
    pairs = inside[:, :, None] & inside[:, None, :] & ~np.eye(finish.shape[-1], dtype=bool)
    assert both[pairs] == pytest.approx(1.0)


def test_scenarios_are_the_same_however_many_are_drawn(season, network):
    features = season[0].filter(race_order=202301)
    few = simulate_races(features, network, FOLD_RACES, 20, seed=8)
    many = simulate_races(features, network, FOLD_RACES, SCENARIO_BATCH + 20, seed=8)
    xr.testing.assert_identical(many.isel(scenario=slice(20)), few)
    other = simulate_races(features, network, FOLD_RACES, 20, seed=9)
    assert not other["finish_position"].equals(few["finish_position"])


def test_a_race_does_not_depend_on_the_company_it_is_simulated_in(season, network, ensemble):
    """A narrow field drawn beside wider ones is the same race, draw by draw: padding is never read."""
    smallest = int(np.argmin(ensemble["field_size"].values))
    race_id = int(ensemble["race"][smallest])
    alone = simulate_races(season[0].filter(race_id=race_id), network, FOLD_RACES, 400, seed=3)
    n = int(alone["field_size"][0])
    assert n < ensemble.sizes["driver"]
    beside = ensemble.sel(race=[race_id]).isel(driver=slice(n))
    xr.testing.assert_allclose(alone, beside, atol=1e-5)


def test_skeleton_narrative_draws_one_race(season, network):
    features = season[0].filter(race_order=202330)
    race = SkeletonNarrative(features, network).generate_scenarios(50, seed=2)
    ScenarioEnsemble.validate(race, lazy=True)
    assert dict(race.sizes) == {"race": 1, "scenario": 50, "driver": len(features)}
    assert race["fold"].item() == "2023-4"
    with pytest.raises(ValueError, match="cars of one race, got 36 races"):
        SkeletonNarrative(season[0].filter(season=2023), network)
    with pytest.raises(ValueError, match="fold must be one of"):
        SkeletonNarrative(features, network, fold="1999-1")


@pytest.mark.parametrize("n", [0, -3, 10_000_000])
def test_scenario_counts_out_of_range_are_refused(season, network, n):
    with pytest.raises(ValueError, match="n_scenarios must be from 1 to 1,000,000"):
        simulate_races(season[0].filter(race_order=202301), network, FOLD_RACES, n, seed=1)


def test_a_driver_entered_twice_is_refused(season, network):
    features = season[0].filter(race_order=202301)
    with pytest.raises(ValueError, match=r"driver_id '.*' is there more than once in race_id 202301"):
        simulate_races(pl.concat([features, features.head(1)]), network, FOLD_RACES, 10, seed=1)


def test_no_entries_give_no_races(season, network):
    nothing = simulate_races(season[0].clear(), network, FOLD_RACES, 10, seed=1)
    assert nothing.sizes["race"] == 0
    ScenarioEnsemble.validate(nothing, lazy=True)
    with pytest.raises(ValueError, match="cars of one race, got 0 races"):
        SkeletonNarrative(season[0].clear(), network)


@pytest.mark.slow
def test_a_race_of_43_cars_after_one_of_36_with_drivers_never_seen(season, network):
    first = season[0].filter(race_order=202320).sort("start_position").head(36)
    second = season[0].filter(race_order=202321)
    missing = 43 - len(second)
    unseen = second.head(missing).with_columns(
        driver_id=pl.lit("unseen ") + pl.col("driver_id"),
        start_position=pl.col("start_position") + len(second),
    )
    both = simulate_races(pl.concat([first, second, unseen]), network, FOLD_RACES, 100, seed=1)
    ScenarioEnsemble.validate(both, lazy=True)
    assert both["field_size"].values.tolist() == [36, 43]
    assert (both["finish_position"].max(("scenario", "driver")).values == [36, 43]).all()
    assert (both["finish_position"].values[0, :, 36:] == 0).all()


def test_a_car_without_a_result_is_named(season):
    features, results = season
    with pytest.raises(ValueError, match=r"1 are missing, the first is driver_id"):
        join_history(
            features, results.filter(~((pl.col("race_order") == 202305) & (pl.col("finish_position") == 7)))
        )


def test_fields_wider_than_the_array_are_refused(season):
    with pytest.raises(ValueError, match="width must be at least the widest field"):
        build_field(race_slots(season[0]), width=10)


def replayed(history: History, ensemble: xr.Dataset) -> History:
    """Return a history in which the first scenario of every race is what happened."""
    n_races = ensemble.sizes["race"]
    first = ensemble.isel(scenario=0)
    running = first["running"].values
    position = np.where(running, first["finish_position"].values, 10_000)
    order = np.where(running, position.argsort(axis=1).argsort(axis=1) + 1, 0)

    def fill(values: np.ndarray, new: np.ndarray) -> np.ndarray:
        out = values.copy()
        out[:n_races] = new
        return out

    car = np.asarray(history.field.car)[:n_races]
    return history._replace(
        running_order=fill(history.running_order, order),
        incident=fill(history.incident, car & ~running),
        damage=fill(history.damage, damaged(first)),
        n_cautions=fill(history.n_cautions, first["n_cautions"].values),
        has_cautions=fill(history.has_cautions, np.ones(n_races, bool)),
    )


@pytest.mark.slow
def test_parameters_of_the_network_are_recovered(season, network):
    """On data drawn from the network itself, its parameters lie within their posterior's reach."""
    features, results = season
    slots = join_history(features, results)
    truth = network.isel(fold=[-1])
    point = truth.copy()
    for name in DRAWN:
        point[name] = truth[name].mean("draw").broadcast_like(truth[name]).transpose(*truth[name].dims)
    every_fold = [f"{year}-{block}" for year in (2022, 2023) for block in (1, 2, 3)]
    same = xr.concat([point.assign_coords(fold=[fold]) for fold in every_fold], dim="fold")
    planted = simulate_races(features, same, FOLD_RACES, n_scenarios=1, seed=11)
    history = replayed(build_history(slots, planted.sizes["driver"]), planted)
    weight = (np.asarray(history.race_order) > 0).astype(np.float32)
    fitted = draw_posterior(find_mode(history, weight), history, weight, seed=4)
    z = []
    recovered = ("pace_weight", "incident_intercept", "incident_weight", "damage_intercept", "damage_weight")
    for name in (*recovered, "caution_intercept", "team_scale", "front_sharpness"):
        draws = fitted[name].reshape(len(fitted[name]), -1)
        true = point[name].isel(fold=0, draw=0).values.ravel()
        z.append((draws.mean(axis=0) - true) / draws.std(axis=0))
    z = np.concatenate(z)
    assert np.abs(z).max() < 4.5
    assert np.mean(z**2) < 1.6


@pytest.mark.slow
def test_the_mode_does_not_depend_on_the_start(season):
    """From 0, and from the mode of half the races, it is the same within .02 standard deviations."""
    history = build_history(join_history(*season), 40)
    weight = (np.asarray(history.race_order) > 0).astype(np.float32)
    half = np.where(np.arange(len(weight)) < weight.sum() // 2, weight, 0).astype(np.float32)
    alone, near = find_mode(history, weight), find_mode(history, weight, near=find_mode(history, half))
    moved = (alone.vectors.T @ (near.mode - alone.mode)) * np.sqrt(alone.values)
    assert np.abs(moved).max() < 0.02
    np.testing.assert_allclose(near.values, alone.values, rtol=0.02)


def test_archetypes_differ_as_they_should(network):
    """Pace counts for less at superspeedways, and more cars fall out there."""
    sharpness = np.abs(network["pace_weight"]).sum("pace_covariate").mean(("fold", "draw"))
    out = network["incident_intercept"].mean(("fold", "draw"))
    assert sharpness.sel(archetype="superspeedway") == sharpness.min()
    assert out.sel(archetype="superspeedway") == out.max()
    assert network["archetype"].values.tolist() == [str(a) for a in ARCHETYPES]
