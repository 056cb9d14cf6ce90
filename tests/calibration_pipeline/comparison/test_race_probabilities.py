"""Tests of the forms of forecasts: one field in one order, and clear errors for what does not fit."""

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.comparison.race_probabilities import (
    add_events,
    climatology_of,
    read_backtests,
    read_events,
)
from calibration_pipeline.schemas.datasets import Backtest
from helpers.compared_forecasters import N_CARS, event_frame, make_backtests, results_of


@pytest.fixture(scope="module")
def backtests():
    return make_backtests({"network": 1.0}, n_races=4)["network"]


@pytest.fixture(scope="module")
def results(backtests):
    return results_of(backtests)


def test_example_backtests_keep_their_contract(backtests):
    for backtest in backtests:
        Backtest.validate(backtest)


def test_cars_are_in_the_order_of_their_ids(backtests):
    """Each race of the backtests has an order of its own; probabilities and finishes follow their cars."""
    races = read_backtests(backtests)["raw"]
    assert [race.archetype for race in races.values()] == ["intermediate"] * 2 + ["short_track"] * 2
    for backtest in backtests:
        for r, race_id in enumerate(backtest["race"].values.tolist()):
            race = races[race_id]
            assert race.driver_id.tolist() == sorted(race.driver_id.tolist())
            for car, driver in enumerate(backtest["driver_id"].values[r].tolist()):
                place = race.driver_id.tolist().index(driver)
                assert race.finish_position[place] == backtest["finish_position"].values[r, car]
                np.testing.assert_array_equal(race.finish[place], backtest["raw"].values[r, car])
                beaten = backtest["raw_head_to_head"].values[r, car, 0]
                other = race.driver_id.tolist().index(backtest["driver_id"].values[r, 0])
                assert race.head_to_head[place, other] == beaten


def test_padding_is_not_read(backtests):
    wider = backtests[0].pad(driver=(0, 2), opponent=(0, 2), position=(0, 2), constant_values=0)
    races, same = read_backtests([wider])["raw"], read_backtests([backtests[0]])["raw"]
    for race_id, race in same.items():
        np.testing.assert_array_equal(races[race_id].finish, race.finish)
        assert races[race_id].driver_id.tolist() == race.driver_id.tolist()


def test_event_probabilities_equal_those_of_the_backtest_that_they_come_from(backtests, results):
    read = read_backtests(backtests)
    again = read_events(event_frame(backtests).sample(fraction=1.0, shuffle=True, seed=1), results)
    for forecast, races in read.items():
        assert set(again[forecast]) == set(races)
        for race_id, race in races.items():
            other = again[forecast][race_id]
            assert other.driver_id.tolist() == race.driver_id.tolist()
            assert set(other.events) == {"win", "top 3", "top 5", "top 10"}
            for market, probability in race.events.items():
                np.testing.assert_allclose(other.events[market], probability, atol=1e-12)
            assert other.finish is None
            assert other.head_to_head is None


def test_a_forecaster_may_have_some_races_and_markets(backtests, results):
    events = event_frame(backtests).filter(
        (pl.col("market") == "win") & (pl.col("race_id") == 1001) | (pl.col("race_id") == 1002)
    )
    races = read_events(events, results)["raw"]
    assert {race_id: sorted(race.events) for race_id, race in races.items()} == {
        1001: ["win"],
        1002: ["top 10", "top 3", "top 5", "win"],
    }


def test_events_take_the_place_of_those_of_the_whole_field(backtests, results):
    whole = read_backtests(backtests)
    events = event_frame(backtests).filter(market="win", race_id=1000).with_columns(probability=1 / N_CARS)
    joined = add_events(whole, read_events(events, results))
    race = joined["recalibrated"][1000]
    np.testing.assert_allclose(race.events["win"], 1 / N_CARS)
    np.testing.assert_array_equal(race.events["top 5"], whole["recalibrated"][1000].events["top 5"])
    assert race.finish is not None
    assert joined["raw"].keys() == whole["raw"].keys()


def test_climatology_has_the_races_of_all_forecasters(backtests, results):
    events = read_events(event_frame(backtests[1:]), results)
    races = climatology_of([read_backtests(backtests[:1]), events])["recalibrated"]
    assert sorted(races) == [1000, 1001, 1002, 1003]
    np.testing.assert_allclose(races[1001].events["top 5"], 5 / N_CARS)
    np.testing.assert_allclose(races[1001].finish.sum(axis=0), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: pl.concat([e, e.head(1)]), "must have a row once"),
        (lambda e: e.with_columns(probability=pl.lit(1.5)), r"must lie in \[0, 1\], got 1.5 in race_id"),
        (lambda e: e.with_columns(probability=pl.lit(float("nan"))), r"must lie in \[0, 1\], got nan"),
        (lambda e: e.with_columns(probability=pl.lit(None, pl.Float64)), r"must lie in \[0, 1\], got None"),
        (lambda e: e.with_columns(driver_id="x" + pl.col("driver_id")), "must have every car"),
        (lambda e: e.tail(-1), "must have all 16 cars of a race, got 15 in market"),
    ],
)
def test_events_that_do_not_fit_are_refused(backtests, results, change, message):
    with pytest.raises(ValueError, match=message):
        read_events(change(event_frame(backtests)), results)


def test_finishes_that_are_no_permutation_are_refused(backtests, results):
    with pytest.raises(ValueError, match="finish_position of results must be a permutation"):
        read_events(event_frame(backtests), results.with_columns(finish_position=pl.lit(1)))
