"""Tests of the blend of probabilities and scenarios: identity, contracts, proportions, errors."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.comparison.blend import blend_backtest, blend_events, mix_scenarios, round_shares
from calibration_pipeline.comparison.leaderboard import rank_forecasters
from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.comparison.pool_weights import (
    BLEND,
    next_race_weights,
    pool_cases,
    walk_forward_weights,
)
from calibration_pipeline.comparison.race_probabilities import (
    add_events,
    climatology_of,
    list_events,
    read_backtests,
    read_events,
)
from calibration_pipeline.markets import FINISH
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, Leaderboard
from calibration_pipeline.schemas.datasets import Backtest, ScenarioEnsemble
from helpers.compared_forecasters import make_backtests, results_of
from helpers.planted_races import N_CARS, planted


def equal_weights(names, races, markets=("win", FINISH), **shares):
    """Weights of some races, equal unless given."""
    return pl.DataFrame(
        [
            {
                "race_id": race, "market": market, "forecast": kind, "forecaster": name,
                "weight": shares.get(name, 1 / len(names)),
            }
            for race in races for market in markets for kind in ("raw", "recalibrated") for name in names
        ]
    )  # fmt: skip


def blended(backtests):
    """Forecasts of the blend of forecasters, as it goes on the leaderboard."""
    members = {name: read_backtests(own) for name, own in backtests.items()}
    weights = walk_forward_weights(pool_cases(members))
    parts = [
        blend_backtest({name: own[k] for name, own in backtests.items()}, weights)
        for k in range(len(backtests["network"]))
    ]
    events = blend_events({name: list_events(own) for name, own in members.items()}, weights)
    results = results_of(backtests["network"])
    return [Backtest.validate(part) for part in parts], read_events(events, results)


@pytest.fixture(scope="module")
def backtests():
    return make_backtests({"network": 1.0, "mine": 2.0}, n_races=12)


# --- probabilities ---


def test_the_blend_of_identical_forecasters_equals_them(backtests):
    parts, events = blended({"network": backtests["mine"], "twin": backtests["mine"]})
    for part, own in zip(parts, backtests["mine"], strict=True):
        for name in own.data_vars:
            np.testing.assert_allclose(part[name].values, own[name].values, atol=1e-12)
    for forecast, races in read_backtests(backtests["mine"]).items():
        for race_id, race in races.items():
            for market, probability in race.events.items():
                np.testing.assert_allclose(events[forecast][race_id].events[market], probability, atol=1e-12)


def test_the_blend_is_the_weighted_mean_of_the_cars(backtests):
    """The members have their cars in different orders."""
    network, mine = backtests["network"][0], backtests["mine"][0]
    order = np.arange(network.sizes["driver"])[::-1]
    turned = mine.isel(driver=order, opponent=order)
    weights = equal_weights(["network", "mine"], network["race"].values, network=0.25, mine=0.75)
    pooled = Backtest.validate(blend_backtest({"network": network, "mine": turned}, weights))
    for name in ("raw", "recalibrated", "raw_head_to_head", "recalibrated_head_to_head"):
        expected = 0.25 * network[name] + 0.75 * mine[name]
        np.testing.assert_allclose(pooled[name].values, expected.values, atol=1e-12)
    xr.testing.assert_identical(pooled["driver_id"], network["driver_id"])


def test_members_without_the_race_leave_their_weight_to_the_others(backtests):
    network, mine = backtests["network"][0], backtests["mine"][0]
    weights = equal_weights(["network", "mine"], network["race"].values)
    pooled = blend_backtest({"network": network, "mine": mine.isel(race=[0, 2])}, weights)
    np.testing.assert_allclose(pooled["raw"].values[1], network["raw"].values[1], atol=1e-12)
    np.testing.assert_allclose(
        pooled["raw"].values[2], (network["raw"].values[2] + mine["raw"].values[2]) / 2, atol=1e-12
    )


def test_events_are_pooled_over_the_members_that_have_the_market(backtests):
    frames = {name: list_events(read_backtests(own)) for name, own in backtests.items()}
    frames["mine"] = frames["mine"].filter(market="win")
    race = frames["network"]["race_id"][0]
    weights = equal_weights(["network", "mine"], [race], markets=("win", "top 5"), network=0.9, mine=0.1)
    pooled = blend_events(frames, weights)
    assert set(pooled["race_id"]) == {race}
    joined = pooled.join(
        frames["network"], on=["race_id", "driver_id", "market", "forecast"], suffix="_network"
    )
    top = joined.filter(market="top 5")
    np.testing.assert_allclose(top["probability"], top["probability_network"], atol=1e-12)
    keys = ["race_id", "driver_id", "market", "forecast"]
    wins = joined.filter(market="win").join(frames["mine"], on=keys, suffix="_mine")
    expected = 0.9 * wins["probability_network"] + 0.1 * wins["probability_mine"]
    np.testing.assert_allclose(wins["probability"], expected, atol=1e-12)
    totals = pooled.group_by("market", "forecast").agg(pl.col("probability").sum())
    np.testing.assert_allclose(totals.filter(market="win")["probability"], 1, atol=1e-9)


def test_win_probabilities_are_pooled_as_shares_of_the_race(backtests):
    """The weights are learned on shares, so a bookmaker's margin does not count as weight."""
    frames = {name: list_events(read_backtests(own)) for name, own in backtests.items()}
    weights = equal_weights(["network", "mine"], [frames["network"]["race_id"][0]], markets=("win", "top 5"))
    margin = frames["mine"].with_columns(
        probability=pl.col("probability") * pl.when(market="win").then(1.3).otherwise(1.0)
    )
    pooled, fair = (blend_events({**frames, "mine": own}, weights) for own in (margin, frames["mine"]))
    np.testing.assert_allclose(pooled["probability"], fair["probability"], rtol=1e-12)


@pytest.mark.slow
def test_the_blend_of_a_clearly_best_forecaster_converges_to_it():
    backtests = make_backtests({"network": 1.0, "noise": 8.0}, n_races=100, noise={"noise": 3.0})
    parts, _ = blended(backtests)
    for part, best in zip(parts, backtests["network"], strict=True):
        late = slice(-10, None)
        change = np.abs(part["raw"].values[late] - best["raw"].values[late])
        assert change.max() < 0.1
        assert change.mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_the_blend_is_not_worse_than_the_best_member(noise):
    """Raw forecasters of different sharpness, without and with errors of their own."""
    backtests = make_backtests(
        {"network": 1.0, "sharp": 2.5, "flat": 0.4},
        n_races=80,
        noise=dict.fromkeys(("network", "sharp"), noise),
    )
    forecasts = {name: read_backtests(own) for name, own in backtests.items()}
    parts, events = blended(backtests)
    forecasts[BLEND] = add_events(read_backtests(parts), events)
    forecasts["climatology"] = climatology_of(forecasts.values())
    scores = pl.concat(score_markets(name, own, forecasts["network"]) for name, own in forecasts.items())
    board = Leaderboard.validate(rank_forecasters(scores)).filter(archetype=ALL_ARCHETYPES, forecaster=BLEND)
    assert board.height == 2 * 6
    assert (board["gain_over_network_upper"] >= 0).all()
    assert (board["gain_over_climatology_lower"] > 0).all()
    if noise:
        finish = board.filter(market=FINISH, forecast="raw")
        assert finish["verdict"].item() == "better than network"


# --- scenarios ---


@pytest.fixture(scope="module")
def ensembles():
    return {name: planted(1.0, n_races=4, seed=seed)[0] for seed, name in enumerate(("network", "mine"))}


def of_member(mixed, ensemble, race):
    """Which scenarios of the mixture are scenarios of the member."""
    own = {row.tobytes() for row in ensemble["finish_position"].values[race]}
    return np.array([row.tobytes() in own for row in mixed["finish_position"].values[race]])


def test_whole_scenarios_are_drawn_in_proportion(ensembles):
    weights = equal_weights(["network", "mine"], ensembles["network"]["race"].values, network=0.3, mine=0.7)
    mixed = ScenarioEnsemble.validate(mix_scenarios(ensembles, weights, "raw", 40, seed=3))
    assert mixed.sizes["scenario"] == 40
    assert mixed["n_scenarios"].values.tolist() == [40] * 4
    for race in range(4):
        assert of_member(mixed, ensembles["network"], race).sum() == 12
        assert of_member(mixed, ensembles["mine"], race).sum() == 28
        drawn = {row.tobytes() for row in mixed["finish_position"].values[race]}
        assert len(drawn) == 40  # no scenario twice while others are left
    kept = mixed.isel(race=0)
    source = ensembles["mine"].isel(race=0)
    finish = source["finish_position"].values
    for k in np.flatnonzero(of_member(mixed, ensembles["mine"], 0)):
        same = (finish == kept["finish_position"].values[k]).all(axis=1)
        assert (source["running"].values[same] == kept["running"].values[k]).all(axis=1).any()


def test_a_mixture_is_the_same_for_the_same_seed(ensembles):
    weights = equal_weights(["network", "mine"], ensembles["network"]["race"].values)
    first, again, other = (mix_scenarios(ensembles, weights, "raw", 30, seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert not np.array_equal(first["finish_position"], other["finish_position"])
    one = {name: ensemble.isel(race=[2]) for name, ensemble in ensembles.items()}
    alone = mix_scenarios(one, weights, "raw", 30, seed=1)
    np.testing.assert_array_equal(alone["finish_position"].values[0], first["finish_position"].values[2])


def test_one_member_is_drawn_again_only_after_all_of_its_scenarios(ensembles):
    race = ensembles["network"]["race"].values[:1]
    one = {"network": ensembles["network"].isel(race=[0])}
    mixed = mix_scenarios(one, equal_weights(["network", "mine"], race), "raw", 100, seed=1)
    rows, counts = np.unique(mixed["finish_position"].values[0], axis=0, return_counts=True)
    assert len(rows) == 40
    assert set(counts) == {2, 3}


def test_cars_of_members_follow_their_drivers(ensembles):
    order = np.arange(N_CARS)[::-1]
    turned = ensembles["mine"].isel(driver=order)
    weights = equal_weights(["network", "mine"], ensembles["network"]["race"].values)
    straight = mix_scenarios(ensembles, weights, "raw", 30, seed=1)
    mixed = mix_scenarios({**ensembles, "mine": turned}, weights, "raw", 30, seed=1)
    np.testing.assert_array_equal(mixed["finish_position"], straight["finish_position"])
    np.testing.assert_allclose(mixed["utility"], straight["utility"])


def test_outcomes_that_a_member_lacks_are_left_out(ensembles):
    poorer = {**ensembles, "mine": ensembles["mine"].drop_vars("running")}
    weights = equal_weights(["network", "mine"], ensembles["network"]["race"].values)
    mixed = ScenarioEnsemble.validate(mix_scenarios(poorer, weights, "recalibrated", 20, seed=1))
    assert "running" not in mixed


def test_a_member_without_scenarios_in_the_mixture_leaves_no_outcome_out(ensembles):
    """Members without a weight, or with one that rounds to no scenario, contribute nothing."""
    bare = ensembles["mine"].drop_vars("running")
    races = ensembles["network"]["race"].values
    weights = equal_weights(["network", "small"], races, network=0.99, small=0.01)
    members = {"network": ensembles["network"], "small": bare, "unweighted": bare}
    mixed = ScenarioEnsemble.validate(mix_scenarios(members, weights, "recalibrated", 20, seed=1))
    assert "running" in mixed
    assert of_member(mixed, ensembles["network"], 0).all()


def test_weights_of_the_next_race_mix_its_scenarios(ensembles):
    race = {"race_id": 202101, "season": 2024, "race_order": 202401, "archetype": "intermediate"}
    members = {
        n: read_backtests(own) for n, own in make_backtests({"network": 1, "mine": 3}, n_races=20).items()
    }
    weights = next_race_weights(pool_cases(members), race)
    one = {name: ensemble.isel(race=[0]) for name, ensemble in ensembles.items()}
    assert one["network"]["race"].item() == 202101
    mixed = mix_scenarios(one, weights, "recalibrated", 40, seed=1)
    share = weights.filter(market=FINISH, forecast="recalibrated", forecaster="mine")["weight"].item()
    assert abs(of_member(mixed, one["mine"], 0).mean() - share) <= 1 / 40


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda x: sum(x) > 0), st.integers(0, 500))
def test_rounded_shares_sum_to_the_total_and_are_within_one(shares, total):
    shares = [share / sum(shares) for share in shares]
    numbers = round_shares(shares, total)
    assert sum(numbers) == total
    assert all(abs(n - share * total) <= 1 + 1e-9 for n, share in zip(numbers, shares, strict=True))


# --- errors ---


def test_errors_name_what_does_not_fit(backtests):
    network, mine = backtests["network"][0], backtests["mine"][0]
    weights = equal_weights(["network", "mine"], network["race"].values)
    with pytest.raises(ValueError, match="must include network, got mine"):
        blend_backtest({"mine": mine}, weights)
    with pytest.raises(ValueError, match="must have a member of race_id 1000 in market finish distribution"):
        blend_backtest({"network": network}, weights.filter(forecaster="mine"))
    other = mine.assign_coords(driver_id=mine["driver_id"].str.replace("d00", "x9"))
    with pytest.raises(ValueError, match="one field in race_id 1000; mine differs in d00, x9"):
        blend_backtest({"network": network, "mine": other}, weights)
    frames = {name: list_events(read_backtests(own)) for name, own in backtests.items()}
    with pytest.raises(ValueError, match="one field a race, got driver_id"):
        blend_events({**frames, "mine": frames["mine"].filter(pl.col("driver_id") != "d03")}, weights)
