"""Tests of the scores by market: reference values, bounds over all results, propriety."""

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration_pipeline.comparison.market_scores import market_losses, score_markets, smallest_mean
from calibration_pipeline.comparison.race_probabilities import (
    RaceProbabilities,
    climatology_of,
    read_backtests,
    read_events,
    top_probabilities,
)
from calibration_pipeline.markets import EVENT_MARKETS, FINISH, HEAD_TO_HEAD
from calibration_pipeline.schemas.comparison import COMPARED_MARKETS, MarketScores
from calibration_pipeline.verification.metric_table import score_backtest
from helpers.compared_forecasters import event_frame, make_backtests, results_of, scores_of

N = 5
ORDERS = np.array(list(permutations(range(1, N + 1))))


def race_of(finish, finish_position, events=None):
    """A race of cars that finish independently, as far as pairs are concerned."""
    behind = 1 - np.cumsum(finish, axis=1) + finish / 2
    n = len(finish)
    return RaceProbabilities(
        1, 2022, 202201, "intermediate",
        driver_id=np.array([f"d{i}" for i in range(n)]),
        finish_position=np.asarray(finish_position),
        events=top_probabilities(finish) if events is None else events,
        finish=finish,
        head_to_head=np.clip(finish @ behind.T, 0, 1),
    )  # fmt: skip


def random_table(rng, n=N, sharpness=1.0):
    """Random finish probabilities whose rows and columns sum to 1."""
    table = np.exp(sharpness * rng.normal(size=(n, n)))
    for _ in range(300):
        table /= table.sum(axis=0)
        table /= table.sum(axis=1, keepdims=True)
    return table


def scores_by_market(race, network=None):
    races = {"raw": {race.race_id: race}}
    reference = {"raw": {race.race_id: network}} if network is not None else {}
    frame = score_markets("mine", races, reference)
    return {row["market"]: row for row in MarketScores.validate(frame).iter_rows(named=True)}


def test_scores_of_a_small_race_are_those_computed_by_hand():
    finish = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]])
    scores = scores_by_market(race_of(finish, [1, 3, 2], {"win": finish[:, 0]}))
    assert list(scores) == ["win", HEAD_TO_HEAD, FINISH]
    assert scores["win"]["score"] == pytest.approx((0.4**2 + 0.3**2 + 0.1**2) / 3)
    assert scores["win"]["log_score"] == pytest.approx(np.log(0.6))
    assert scores["win"]["n_cases"] == 1
    crps = [0.4**2 + 0.1**2, 0.3**2 + 0.7**2, 0.1**2 + 0.6**2]
    assert scores[FINISH]["score"] == pytest.approx(sum(crps) / 3 / 2)
    assert scores[FINISH]["log_score"] == pytest.approx(np.log([0.6, 0.3, 0.3]).mean())
    first_beats = 0.6 * (0.7 + 0.15) + 0.3 * (0.3 + 0.2) + 0.1 * 0.15
    assert scores[HEAD_TO_HEAD]["n_cases"] == 3
    assert first_beats == pytest.approx(race_of(finish, [1, 3, 2]).head_to_head[0, 1])


def test_means_over_races_equal_the_metric_table():
    """Brier score, RPS and log score of equal fields are the same numbers as in the scores of a backtest."""
    (backtest, _) = make_backtests({"network": 1.0}, n_races=20, seed=3)["network"]
    metrics = score_backtest(backtest).filter(reference="")
    scores = score_markets("network", read_backtests([backtest]), {})
    for forecast in ("raw", "recalibrated"):
        own = scores.filter(forecast=forecast)
        for market in ("win", "top 5", "top 10", HEAD_TO_HEAD, FINISH):
            quantity, level = ("rps", "") if market == FINISH else ("brier", market)
            expected = metrics.filter(forecast=forecast, quantity=quantity, level=level)["estimate"].item()
            assert own.filter(market=market)["score"].mean() == pytest.approx(expected, abs=1e-12)
        log_score = metrics.filter(forecast=forecast, quantity="log_score")["estimate"].item()
        assert own.filter(market=FINISH)["log_score"].mean() == pytest.approx(log_score, abs=1e-12)


def test_event_probabilities_have_the_scores_of_the_backtest_that_they_come_from():
    backtests = make_backtests({"network": 1.0, "mine": 2.0}, n_races=6)
    network = read_backtests(backtests["network"])
    whole = score_markets("mine", read_backtests(backtests["mine"]), network)
    frame = event_frame(backtests["mine"])
    events = score_markets("mine", read_events(frame, results_of(backtests["mine"])), network)
    assert events.height == 2 * 6 * 4
    keys = ["forecast", "race_id", "market"]
    both = events.join(whole, on=keys, validate="1:1")
    assert both.height == events.height
    for column in ("score", "log_score", "largest_gain", "largest_loss"):
        np.testing.assert_allclose(both[column], both[f"{column}_right"], atol=1e-12)


def test_climatology_has_the_known_scores():
    scores = scores_of(make_backtests({"network": 1.0}, n_races=2))
    own = scores.filter(forecaster="climatology", forecast="raw").unique("market")
    found = dict(own.select("market", "score").iter_rows())
    n = 16
    for market, top in EVENT_MARKETS.items():
        if top < n:
            assert found[market] == pytest.approx(top / n * (1 - top / n))
    assert found[HEAD_TO_HEAD] == 0.25
    assert found[FINISH] == pytest.approx((n + 1) / (6 * n))  # mean of F (1 - F) n / (n - 1), uniform F


def test_probabilities_of_the_winner_are_normalised_in_the_log_score_alone():
    finish = np.full((3, 3), 1 / 3)
    inflated = scores_by_market(race_of(finish, [1, 2, 3], {"win": np.array([0.6, 0.5, 0.4])}))["win"]
    assert inflated["log_score"] == pytest.approx(np.log(0.6 / 1.5))
    assert inflated["score"] == pytest.approx((0.4**2 + 0.5**2 + 0.4**2) / 3)


def test_probabilities_0_and_1_have_finite_log_scores():
    finish = np.eye(4)
    scores = scores_by_market(race_of(finish, [4, 3, 2, 1]))
    assert all(np.isfinite(row["log_score"]) for row in scores.values())
    nobody = scores_by_market(race_of(finish, [1, 2, 3, 4], {"win": np.zeros(4)}))["win"]
    assert nobody["log_score"] == pytest.approx(np.log(1e-6))


def test_a_race_that_the_network_lacks_has_no_bounds():
    race = race_of(np.full((3, 3), 1 / 3), [1, 2, 3])
    assert {row["largest_gain"] for row in scores_by_market(race).values()} == {None}


def test_another_field_than_the_networks_is_refused():
    mine, network = race_of(np.full((3, 3), 1 / 3), [1, 2, 3]), race_of(np.full((4, 4), 1 / 4), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="race_id 1 must have one field, got different driver_id"):
        scores_by_market(mine, network)


def test_races_of_one_car_have_no_scores():
    assert score_markets("mine", {"raw": {1: race_of(np.ones((1, 1)), [1])}}, {}).is_empty()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_bounds_are_the_extremes_over_all_results(seed):
    """They are exact but for head to head, where they hold without being reached."""
    rng = np.random.default_rng(seed)
    tables = [random_table(rng, sharpness=2.0) for _ in range(2)]
    events = [top_probabilities(table) | {"win": rng.random(N)} for table in tables]
    gains = {market: [] for market in COMPARED_MARKETS}
    for order in ORDERS:
        mine, network = (
            market_losses(race_of(table, order, own)) for table, own in zip(tables, events, strict=True)
        )
        for market in mine:
            gains[market].append(network[market].score - mine[market].score)
    mine, network = (race_of(table, ORDERS[0], own) for table, own in zip(tables, events, strict=True))
    for market, row in scores_by_market(mine, network).items():
        if market == HEAD_TO_HEAD:
            assert row["largest_gain"] >= max(gains[market]) - 1e-12
            assert row["largest_loss"] >= -min(gains[market]) - 1e-12
        else:
            assert row["largest_gain"] == pytest.approx(max(gains[market]), abs=1e-12)
            assert row["largest_loss"] == pytest.approx(-min(gains[market]), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_scores_lie_between_0_and_1_for_any_probabilities(seed, n_cars):
    rng = np.random.default_rng(seed)
    events = {
        market: rng.choice([0.0, 0.3, 1.0], n_cars) for market, top in EVENT_MARKETS.items() if top < n_cars
    }
    race = race_of(random_table(rng, n_cars, 4.0), rng.permutation(n_cars) + 1, events)
    assert set(scores_by_market(race)) == {*events, HEAD_TO_HEAD, FINISH}  # validated by the contract


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_the_true_probabilities_have_the_best_expected_scores(seed):
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.full(len(ORDERS), 0.2))
    truth = np.stack([[weight[ORDERS[:, car] == k].sum() for k in range(1, N + 1)] for car in range(N)])
    other = random_table(rng)
    before = np.einsum("o,oij->ij", weight, ORDERS[:, :, None] < ORDERS[:, None, :])
    expected = {}
    for name, table, pairs in (("truth", truth, before), ("other", other, None)):
        race = race_of(table, ORDERS[0])
        race = race if pairs is None else RaceProbabilities(**{**vars(race), "head_to_head": pairs})
        scored = [market_losses(RaceProbabilities(**{**vars(race), "finish_position": o})) for o in ORDERS]
        expected[name] = {m: weight @ [losses[m].score for losses in scored] for m in scored[0]}
    for market, score in expected["truth"].items():
        assert score <= expected["other"][market] + 1e-12


def test_smallest_mean_takes_no_more_winners_than_there_are():
    losses = np.array([[0.0, -1.0], [0.0, -2.0], [0.0, -4.0], [0.0, 1.0]])
    assert smallest_mean("win", losses) == -1.0
    assert smallest_mean("top 3", losses) == -7 / 4


def test_climatology_is_scored_where_nobody_else_is():
    backtests = make_backtests({"network": 1.0}, n_races=4)
    forecasts = climatology_of([read_backtests(backtests["network"])])
    scores = score_markets("climatology", forecasts, {})
    assert scores["race_id"].n_unique() == 4
    assert scores.filter(pl.col("largest_loss").is_not_null()).is_empty()
