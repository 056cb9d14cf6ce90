"""Calculations of the benchmark of the leaderboard: exact probabilities, expected scores, pairs in order."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from benchmarks import leaderboard
from benchmarks.leaderboard import (
    BOOKMAKER,
    FLAT,
    OVERCONFIDENT,
    RIGHT,
    blend_forecasts,
    compare_seed,
    exact_finishes,
    expected_scores,
    judge_pairs,
    result_rows,
    simulate_history,
)
from benchmarks.result_files import read_results
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.markets import FINISH, HEAD_TO_HEAD, TOP_EVENTS
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS


@pytest.fixture(autouse=True)
def _short_seasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve races of each archetype in three seasons, the fewest that are ranked, and fewer cars."""
    monkeypatch.setattr(leaderboard, "CALENDAR", dict.fromkeys(ARCHETYPES, 4))
    monkeypatch.setattr(leaderboard, "N_CARS", 24)


def test_finish_probabilities_are_those_of_the_law() -> None:
    """The last car by the definition of the law, two cars by their odds, and all positions by simulation."""
    strength = np.random.default_rng(1).normal(0, 1.5, (3, 8))
    finish = exact_finishes(strength)
    assert_allclose(finish.sum(axis=1), 1, atol=1e-8)
    assert_allclose(finish.sum(axis=2), 1, atol=1e-8)
    assert_allclose(finish[:, :, -1], softmax(-strength, axis=1), atol=1e-8)
    assert_allclose(exact_finishes(np.array([[0.7, -0.4]]))[0, 0, 0], expit(1.1), atol=1e-8)
    score = strength[0] - np.random.default_rng(2).gumbel(size=(40_000, 8))
    position = (-score).argsort(axis=1).argsort(axis=1)
    drawn = np.stack([(position == k).mean(axis=0) for k in range(8)], axis=1)
    assert np.abs(drawn - finish[0]).max() < 4 * np.sqrt(0.25 / 40_000)


def test_expected_scores_are_means_over_results() -> None:
    """Of one race, with results drawn from its law, for every forecaster and market."""
    truth, forecasts = simulate_history(3)
    race_id = next(iter(truth))
    pairs = truth[race_id].head_to_head
    strength = np.log(pairs[:, 0] / (1 - pairs[:, 0]))
    score = strength - np.random.default_rng(5).gumbel(size=(1500, len(strength)))
    results = (-score).argsort(axis=1).argsort(axis=1) + 1
    for name in (NETWORK, BOOKMAKER):
        race = forecasts[name]["raw"][race_id]
        expected = expected_scores(name, {"raw": {race_id: race}}, truth)
        races = {
            k: leaderboard.RaceProbabilities(
                k, race.season, k, race.archetype, race.driver_id, result,
                events=race.events, finish=race.finish, head_to_head=race.head_to_head,
            )
            for k, result in enumerate(results)
        }  # fmt: skip
        drawn = (
            score_markets(name, {"raw": races}, {})
            .group_by("market")
            .agg(pl.mean("score"), error=pl.std("score") / len(races) ** 0.5)
        )
        joined = drawn.join(expected, on="market")
        assert joined.height == len(COMPARED_MARKETS) if name == NETWORK else len(TOP_EVENTS)
        z = (joined["score"] - joined["expected"]) / joined["error"]
        assert z.abs().max() < 4


def test_the_truth_has_the_best_expected_score_of_every_race() -> None:
    truth, forecasts = simulate_history(4)
    right = expected_scores(RIGHT, forecasts[RIGHT], truth)
    for name in (NETWORK, OVERCONFIDENT, FLAT, BOOKMAKER):
        other = expected_scores(name, forecasts[name], truth)
        joined = other.join(right, on=["race_id", "market"], suffix="_right")
        assert (joined["expected"] > joined["expected_right"]).all()
    assert set(other["market"]) == set(TOP_EVENTS)


def test_the_blend_begins_with_equal_weights_and_follows_the_right_forecaster() -> None:
    _, forecasts = simulate_history(4)
    blend = blend_forecasts(forecasts)["raw"]
    first, last = min(blend), max(blend)
    members = [own["raw"][first].events["win"] for own in forecasts.values()]
    assert_allclose(blend[first].events["win"], np.mean(members, axis=0), atol=1e-12)

    def distance(race_id: int, name: str) -> float:
        own = forecasts[name]["raw"][race_id]
        return float(np.abs(own.finish - blend[race_id].finish).sum())

    assert distance(last, RIGHT) < 0.5 * min(distance(last, name) for name in (NETWORK, OVERCONFIDENT, FLAT))
    assert_allclose(blend[last].head_to_head + blend[last].head_to_head.T, 1, atol=1e-12)


def ranked(seed: int, ranks: dict[str, int], scores: dict[str, float]) -> pl.DataFrame:
    rows = [
        {
            "seed": seed, "archetype": ALL_ARCHETYPES, "market": FINISH, "forecaster": name, "rank": rank,
            "ties": "a" if name != "bad" else "b", "score": scores[name], "expected": expected,
        }
        for (name, rank), expected in zip(ranks.items(), (0.10, 0.11, 0.20), strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_pairs_are_decisive_by_their_true_difference_and_its_error() -> None:
    """The error of the pair good and near is .02, that of the others .01 and more."""
    frames = [
        ranked(1, {"good": 2, "near": 1, "bad": 3}, {"good": 0.11, "near": 0.10, "bad": 0.2}),
        ranked(2, {"good": 1, "near": 2, "bad": 3}, {"good": 0.09, "near": 0.12, "bad": 0.2}),
    ]
    judged = judge_pairs(pl.concat(frames))
    pairs = {(first, second): own for (first, second), own in judged.group_by("first", "second")}
    near = pairs["good", "near"].sort("seed")
    assert_allclose(near["difference"], 0.01 / 0.02)
    assert near["in_order"].to_list() == [False, True]
    assert near["shown"].to_list() == [False, False]
    bad = pairs["bad", "good"].sort("seed")
    assert_allclose(bad["difference"], 0.1 / 0.01)
    assert bad["in_order"].to_list() == bad["shown"].to_list() == [True, True]


@pytest.mark.slow
def test_two_seeds_have_the_rows_of_the_result_file() -> None:
    parts = [compare_seed(seed) for seed in (0, 1)]
    rows = list(result_rows(*(pl.concat(frames) for frames in zip(*parts, strict=True))))
    assert len(rows) == (1 + len(ARCHETYPES)) * len(COMPARED_MARKETS)
    stored = read_results("leaderboard")
    assert rows[0].keys() == stored[0].keys()
    assert [(row["races"], row["market"]) for row in rows] == [(r["races"], r["market"]) for r in stored]
    pairs = {row["market"]: row["pairs"] for row in rows}
    assert (pairs["win"], pairs["top 3"], pairs[FINISH], pairs[HEAD_TO_HEAD]) == (10, 6, 6, 3)
    overall = next(row for row in rows if (row["races"], row["market"]) == (ALL_ARCHETYPES, FINISH))
    assert overall["decisive"] >= 4
    assert float(overall["in_order_percent"]) > 80
