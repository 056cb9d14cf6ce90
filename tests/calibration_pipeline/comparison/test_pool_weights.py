"""Tests of the weights of the blend: reference values, no look-ahead, convergence, missing races."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from calibration_pipeline.comparison.pool_weights import (
    maximise_pool,
    next_race_weights,
    pool_cases,
    walk_forward_weights,
)
from calibration_pipeline.comparison.race_probabilities import read_backtests, read_events
from calibration_pipeline.markets import FINISH
from calibration_pipeline.schemas.comparison import BlendWeights
from helpers.compared_forecasters import event_frame, make_backtests, results_of

NEXT = {"race_id": 9000, "season": 2029, "race_order": 202901, "archetype": "short_track"}


def read(sharpness, **options):
    return {name: read_backtests(own) for name, own in make_backtests(sharpness, **options).items()}


def weights_of(members):
    return BlendWeights.validate(walk_forward_weights(pool_cases(members)))


def without_races(forecasts, race_ids):
    """Forecasts without some races."""
    return {
        kind: {race_id: race for race_id, race in races.items() if race_id not in race_ids}
        for kind, races in forecasts.items()
    }


@pytest.fixture(scope="module")
def members():
    return read({"network": 1.0, "mine": 2.0, "flat": 0.3}, n_races=40)


@pytest.fixture(scope="module")
def weights(members):
    return weights_of(members)


def test_the_maximum_is_that_of_a_general_optimiser():
    """Seven members' cases, a third of them missing."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.9, (60, 4))
    present = rng.random(p.shape) < 0.67
    present[~present.any(axis=1), 0] = True
    importance = rng.uniform(0.1, 1.0, 60)

    def loss(log_weights):
        w = np.exp(log_weights)
        pool = np.log((present * p) @ w) - np.log(present @ w)
        return -(importance @ pool + (log_weights - w).sum())

    best = np.exp(minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x)
    found = maximise_pool(p, np.arange(60), present, importance)
    np.testing.assert_allclose(found, best / best.sum(), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.0, 1.0))
def test_at_the_maximum_the_sum_is_flat(seed, n_members, spread):
    """Also for members that agree nearly everywhere and of which one comes late."""
    rng = np.random.default_rng(seed)
    race = np.repeat(np.arange(40), 20)
    p = rng.uniform(0.05, 0.9, (race.size, 1)) ** np.exp(spread * rng.normal(size=(race.size, n_members)))
    has_race = np.ones((40, n_members), bool)
    has_race[:20, 0] = False
    importance = rng.uniform(0.1, 1.0, 40)
    w = n_members * maximise_pool(p, race, has_race, importance)
    given, mask, each = p * has_race[race], has_race[race], importance[race]
    derivative = w * (given.T @ (each / (given @ w)) - mask.T @ (each / (mask @ w)) - 1) + 1
    assert np.abs(derivative).max() < 1e-3


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 40))
def test_weights_are_positive_and_sum_to_1_for_any_probabilities(seed, n_members, n_cases):
    rng = np.random.default_rng(seed)
    p = rng.choice([1e-6, 1e-3, 0.5, 1.0], (n_cases, n_members))
    present = rng.random(p.shape) < 0.5
    present[:, 0] |= ~present.any(axis=1)
    found = maximise_pool(p, np.arange(n_cases), present, rng.choice([0.01, 1.0, 30.0], n_cases))
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert found.sum() == pytest.approx(1)


def test_weights_before_the_first_race_are_equal(weights):
    first = weights.filter(race_order=weights["race_order"].min())
    np.testing.assert_allclose(first["weight"], 1 / 3)
    assert set(first["n_races"]) == {0}


def test_every_race_market_and_forecast_has_weights(weights):
    """16 cars: no top 20; one set for the whole field."""
    assert set(weights["market"]) == {"win", "top 3", "top 5", "top 10", FINISH}
    assert weights.height == 40 * 5 * 2 * 3
    assert weights["n_races"].max() < 40


def test_weights_of_a_race_do_not_depend_on_it_or_on_later_races(members, weights):
    last = 1020
    cut = {name: without_races(own, range(last + 1, 2000)) for name, own in members.items()}
    before = weights.filter(pl.col("race_id") <= last)
    again = weights_of(cut)
    assert again.equals(before)
    for own in cut.values():
        for races in own.values():
            race = races[last]
            races[last] = type(race)(**{**vars(race), "finish_position": race.finish_position[::-1].copy()})
    assert weights_of(cut).equals(before)


@pytest.mark.slow
def test_a_forecaster_that_comes_later_does_not_change_earlier_weights(members, weights):
    late = {**members, "late": without_races(members["mine"], range(1020))}
    keys = ["race_id", "market", "forecast", "forecaster"]
    both = weights_of(late).join(weights, on=keys, suffix="_without")
    early = both.filter(pl.col("race_id") < 1020)
    assert early.height == weights.filter(pl.col("race_id") < 1020).height
    np.testing.assert_allclose(early["weight"], early["weight_without"], atol=1e-12)


def test_a_new_forecaster_starts_with_an_equal_share():
    members = read({"network": 1.0, "mine": 1.0}, n_races=30)
    members["new"] = without_races(members["mine"], range(1029))
    first = weights_of(members).filter(forecaster="new")
    np.testing.assert_allclose(first["weight"], 1 / 3, atol=1e-4)


@pytest.mark.slow
def test_the_best_forecaster_gets_nearly_all_weight():
    members = read({"network": 1.0, "noise": 8.0}, n_races=120, noise={"noise": 3.0})
    last = weights_of(members).filter(race_id=1119, forecast="raw")
    for market in ("win", "top 5", FINISH):
        found = dict(last.filter(market=market).select("forecaster", "weight").iter_rows())
        assert found["network"] > 0.9, market
        assert found["noise"] < 0.1, market


@pytest.mark.slow
def test_equal_forecasters_with_errors_of_their_own_keep_similar_weights():
    noise = dict.fromkeys(("network", "b", "c"), 0.6)
    members = read(dict.fromkeys(noise, 1.0), n_races=80, noise=noise)
    last = weights_of(members).filter(race_id=1079, market=FINISH)
    assert last["weight"].min() > 0.15


def test_identical_forecasters_have_equal_weights(members):
    twins = weights_of({"network": members["mine"], "twin": members["mine"]})
    np.testing.assert_allclose(twins["weight"], 0.5, atol=1e-6)


@pytest.mark.slow
def test_a_race_of_another_archetype_counts_less():
    """One member is right at intermediates, the other at short tracks."""
    good, bad = read({"network": 1.0, "bad": 8.0}, n_races=80, noise={"bad": 3.0}).values()
    odd, even = range(1001, 1080, 2), range(1000, 1080, 2)
    members = {
        name: {
            kind: {**without_races(first, odd)[kind], **without_races(second, even)[kind]} for kind in first
        }
        for name, first, second in (("network", good, bad), ("mine", bad, good))
    }
    found = weights_of(members).filter(forecaster="mine", market=FINISH, forecast="raw")
    last = found.sort("race_order").group_by("archetype").agg(pl.col("weight").last())
    by_archetype = dict(last.iter_rows())
    assert by_archetype["short_track"] > 0.7
    assert by_archetype["intermediate"] < 0.3


def test_members_have_the_markets_and_races_that_they_issue():
    backtests = make_backtests({"network": 1.0, "odds": 2.0}, n_races=20)
    frame = event_frame(backtests["odds"]).filter(market="win").filter(pl.col("race_id") < 1010)
    odds = read_events(frame, results_of(backtests["odds"]))
    weights = weights_of({"network": read_backtests(backtests["network"]), "odds": odds})
    assert set(weights.filter(market="top 5")["weight"]) == {1.0}
    wins = weights.filter(market="win")
    assert set(wins.filter(forecaster="odds")["race_id"]) == set(range(1000, 1010))
    assert set(wins.filter(pl.col("race_id") >= 1010)["weight"]) == {1.0}


def test_weights_of_the_next_race_are_those_of_a_race_that_is_added(members):
    """All members are named, also those that lack the newest races."""
    cut = {name: without_races(own, [1039]) for name, own in members.items()}
    race = members["network"]["raw"][1039]
    key = {name: getattr(race, name) for name in ("race_id", "season", "race_order", "archetype")}
    expected = weights_of(members).filter(race_id=1039)
    found = BlendWeights.validate(next_race_weights(pool_cases(cut), key))
    keys = ["race_id", "market", "forecast", "forecaster"]
    both = found.join(expected, on=keys, validate="1:1")
    assert both.height == expected.height == found.height
    np.testing.assert_allclose(both["weight"], both["weight_right"], atol=1e-12)
    assert BlendWeights.validate(next_race_weights(pool_cases(members), key)).equals(found)


def test_the_next_race_has_no_weights_without_earlier_races(members):
    assert next_race_weights(pool_cases(members), {**NEXT, "race_order": 202001}).is_empty()
    assert walk_forward_weights([]).is_empty()


def test_members_with_other_fields_are_refused(members):
    other = {
        kind: {
            i: type(race)(**{**vars(race), "driver_id": race.driver_id + "x"}) for i, race in races.items()
        }
        for kind, races in members["mine"].items()
    }
    with pytest.raises(ValueError, match="must have one field, got different driver_id"):
        pool_cases({"network": members["network"], "other": other})
