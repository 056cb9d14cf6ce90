"""Tests of the leaderboard: letters, order, ties, verdicts, and forecasters with few races."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.comparison.leaderboard import FEWEST_SHARED, compact_letters, rank_forecasters
from calibration_pipeline.schemas.comparison import (
    ALL_ARCHETYPES,
    COMPARED_MARKETS,
    Leaderboard,
    MarketScores,
)
from helpers.compared_forecasters import make_backtests, scores_of

SHARPNESS = {"network": 1.0, "twin": 1.0, "sharp": 4.0, "flat": 0.2}


def ranked(scores):
    return Leaderboard.validate(rank_forecasters(MarketScores.validate(scores)))


def board(leaderboard, market="finish distribution", archetype=ALL_ARCHETYPES, forecast="raw"):
    own = leaderboard.filter(market=market, archetype=archetype, forecast=forecast)
    return {row["forecaster"]: row for row in own.iter_rows(named=True)}


def made_scores(gains, n_races=None, market="win", seed=0):
    """Scores of one market, noise around 0.5 less the forecaster's mean gain; bounds that hold."""
    rng = np.random.default_rng(seed)
    frames = []
    for name, gain in gains.items():
        size = (n_races or {}).get(name, 40)
        index = np.arange(40)[-size:] if size < 0 else np.arange(size)
        frames.append(
            pl.DataFrame(
                {
                    "forecaster": name, "forecast": "raw", "archetype": "intermediate", "season": 2022,
                    "race_order": 202201 + index, "race_id": index, "market": market,
                    "score": np.clip(0.5 - gain + 0.05 * rng.normal(size=index.size), 0, 1),
                    "log_score": -1.0, "n_cases": 1, "largest_gain": 1.0, "largest_loss": 1.0,
                },
                schema_overrides={"season": pl.Int64, "n_cases": pl.Int64},
            )
        )  # fmt: skip
    return pl.concat(frames)


@pytest.fixture(scope="module")
def scores():
    return scores_of(make_backtests(SHARPNESS, n_races=60))


@pytest.fixture(scope="module")
def leaderboard(scores):
    return ranked(scores)


# --- letters ---


def test_letters_of_known_examples():
    """The first is the example of the R package multcompView; in the second all differ."""
    assert compact_letters("ABC", {frozenset("BC")}) == {"A": "ab", "B": "a", "C": "b"}
    assert compact_letters("ABC", {frozenset(p) for p in ("AB", "AC", "BC")}) == {
        "A": "a",
        "B": "b",
        "C": "c",
    }
    assert compact_letters("ABC", set()) == {"A": "a", "B": "a", "C": "a"}
    chain = {frozenset(pair) for pair in ("AC", "AD", "BD")}
    assert compact_letters("ABCD", chain) == {"A": "a", "B": "ab", "C": "bc", "D": "c"}
    assert compact_letters([], set()) == {}


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(
    [frozenset(pair) for pair in combinations("ABCDEFGHI"[:n], 2)] or [frozenset("XY")]
)))))  # fmt: skip
def test_names_share_a_letter_if_and_only_if_they_do_not_differ(case):
    n, differ = case
    names = "ABCDEFGHI"[:n]
    letters = compact_letters(names, differ)
    for pair in combinations(names, 2):
        shared = set(letters[pair[0]]) & set(letters[pair[1]])
        assert bool(shared) == (frozenset(pair) not in differ)
    used = sorted(set("".join(letters.values())))
    assert used == sorted("abcdefghijklmnopqrstuvwxyz"[: len(used)])
    groups = [{name for name in names if letter in letters[name]} for letter in used]
    assert not any(one < other for one in groups for other in groups)


# --- order, ties and verdicts ---


def test_the_planted_order_is_found(leaderboard):
    assert leaderboard["market"].unique().to_list() != []
    for forecast in ("raw", "recalibrated"):
        rows = board(leaderboard, forecast=forecast)
        assert set(list(rows)[:2]) == {"network", "twin"}
        assert list(rows)[-1] == "climatology"
        assert [row["rank"] for row in rows.values()] == [1, 2, 3, 4, 5]
        assert rows["twin"]["verdict"] == "no difference shown"
        assert rows["network"]["verdict"] == "reference"
        assert {rows[name]["verdict"] for name in ("sharp", "flat", "climatology")} == {"worse than network"}
        assert set(rows["twin"]["ties"]) & set(rows["network"]["ties"])
        assert not set(rows["sharp"]["ties"]) & set(rows["network"]["ties"])
        assert rows["climatology"]["gain_over_climatology"] == 0
        assert rows["network"]["gain_over_climatology_lower"] > 0
        assert rows["flat"]["log10_e_worse_max"] > np.log10(20)
        assert rows["flat"]["log10_e_better_max"] < np.log10(20)


def test_every_archetype_and_market_has_its_own_ranking(leaderboard):
    groups = leaderboard.group_by("archetype", "market", "forecast").len()
    assert set(groups["archetype"]) == {"intermediate", "short_track", ALL_ARCHETYPES}
    assert set(groups["market"]) == set(COMPARED_MARKETS) - {"top 20"}  # fields of 16 cars
    assert groups.height == 3 * 6 * 2
    assert set(groups["len"]) == {5}
    for row in leaderboard.filter(archetype=ALL_ARCHETYPES).iter_rows(named=True):
        parts = leaderboard.filter(
            market=row["market"], forecast=row["forecast"], forecaster=row["forecaster"]
        )
        assert parts.filter(pl.col("archetype") != ALL_ARCHETYPES)["n_races"].sum() == row["n_races"] == 60


def test_a_better_forecaster_than_the_network_is_named_as_such():
    swapped = scores_of(make_backtests({"network": 4.0, "mine": 1.0}, n_races=60))
    row = board(ranked(swapped))["mine"]
    assert row["rank"] == 1
    assert row["verdict"] == "better than network"
    assert row["gain_over_network_lower"] > 0
    assert row["log10_e_better_max"] > np.log10(20)


def test_the_order_of_the_rows_does_not_matter(scores, leaderboard):
    shuffled = scores.sample(fraction=1.0, shuffle=True, seed=4)
    assert ranked(shuffled).equals(leaderboard)


def test_intervals_of_identical_forecasts_are_0_and_they_share_their_letters():
    backtests = make_backtests({"network": 1.0}, n_races=30)
    rows = board(ranked(scores_of({**backtests, "copy": backtests["network"]})))
    copy = rows["copy"]
    assert [copy[f"gain_over_network{end}"] for end in ("", "_lower", "_upper")] == [0, 0, 0]
    assert copy["ties"] == rows["network"]["ties"]
    assert copy["log10_e_better"] == copy["log10_e_worse_max"] == 0
    assert copy["verdict"] == "no difference shown"


def test_coverage_of_other_races_does_not_order_forecasters():
    """The scores of a forecaster of hard races alone are worse than all, and its gains are the best."""
    scores = made_scores({"network": 0.0, "easy": 0.04, "hard": 0.1}, {"hard": -20})
    harder = pl.when(pl.col("race_id") >= 20).then(pl.col("score") + 0.3).otherwise("score")
    rows = board(ranked(scores.with_columns(score=harder)), "win")
    assert list(rows) == ["hard", "easy", "network"]
    assert rows["hard"]["score"] > rows["network"]["score"]
    assert rows["hard"]["n_shared"] == 20


# --- few races ---


def test_forecasters_with_fewer_than_12_shared_races_are_shown_without_a_rank():
    few = FEWEST_SHARED - 1
    scores = made_scores({"network": 0.0, "few": 0.3, "enough": 0.0}, {"few": few, "enough": FEWEST_SHARED})
    rows = board(ranked(scores), "win")
    assert list(rows)[-1] == "few"
    assert rows["few"]["rank"] is None
    assert rows["few"]["ties"] is None
    assert rows["few"]["verdict"] == "too few races"
    assert rows["few"]["n_shared"] == few
    assert rows["few"]["gain_over_network_lower"] > 0
    assert set(rows["few"]["not_compared"].split(", ")) == {"network", "enough"}
    assert rows["enough"]["rank"] is not None
    assert rows["enough"]["not_compared"] == ""


def test_ranked_forecasters_that_share_few_races_are_tied_and_named():
    scores = made_scores({"network": 0.0, "early": 0.2, "late": -0.2}, {"early": 20, "late": -20})
    rows = board(ranked(scores), "win")
    assert set(rows["early"]["ties"]) & set(rows["late"]["ties"])
    assert rows["early"]["not_compared"] == "late"
    assert rows["early"]["verdict"] == "better than network"
    assert rows["late"]["verdict"] == "worse than network"


def test_without_the_network_nobody_is_ranked():
    scores = made_scores({"mine": 0.0, "climatology": -0.1}).with_columns(
        largest_gain=pl.lit(None, pl.Float64), largest_loss=pl.lit(None, pl.Float64)
    )
    rows = board(ranked(scores), "win")
    assert {row["verdict"] for row in rows.values()} == {"too few races"}
    assert {row["log10_e_better"] for row in rows.values()} == {None}
    assert rows["mine"]["gain_over_climatology"] > 0
    assert rows["mine"]["gain_over_network"] is None


def test_one_race_has_scores_without_intervals():
    rows = board(ranked(made_scores({"network": 0.0, "mine": 0.1}, {"network": 1, "mine": 1})), "win")
    assert rows["mine"]["score_lower"] is None
    assert rows["mine"]["gain_over_network_lower"] is None


def test_no_scores_are_no_rows():
    assert ranked(made_scores({"network": 0.0}).clear()).is_empty()


def test_races_of_both_without_bounds_are_refused():
    scores = made_scores({"network": 0.0, "mine": 0.1}).with_columns(
        largest_loss=pl.when(forecaster="network").then("largest_loss")
    )
    with pytest.raises(ValueError, match="mine lacks them: score it with the network's forecasts"):
        rank_forecasters(scores)


# --- error rate ---


@pytest.mark.soak
def test_equal_forecasters_differ_in_at_most_5_percent_of_the_markets():
    """Five equal forecasters, ten pairs: Holm's method keeps the rate of any difference."""
    n, wrong = 400, 0
    for seed in range(n):
        scores = made_scores(dict.fromkeys(("network", "a", "b", "c", "d"), 0.0), seed=seed)
        own = rank_forecasters(scores).filter(archetype=ALL_ARCHETYPES)
        wrong += own["ties"].n_unique() > 1
    assert wrong / n <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
