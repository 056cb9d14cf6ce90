"""Calculations of the benchmarks: shares won back, missed goals, maps applied to later seasons only."""

import numpy as np
import polars as pl
import pytest
import xarray as xr

from benchmarks.evaluation import car_log_score
from benchmarks.forecasts import goal_rows, score_rows
from benchmarks.recalibration import map_tables
from benchmarks.repair import UNDISTORTED, distort, repair_rows
from benchmarks.result_files import read_results, shown_estimate
from benchmarks.simulators import N_CARS, SEASONS, expected_log_score, finish_table, world
from calibration_pipeline.archetypes import ARCHETYPES


@pytest.fixture(scope="module")
def small_world():
    return world("normal", 1 / 0.6, n_races=12)


def test_the_share_won_back_is_of_the_loss() -> None:
    """Two races of two cars: .2 nats lost, of which the maps win back half and all."""
    raw, right = np.array([-3.2, -3.2, -3.3, -3.1]), np.array([-3.0, -3.0, -3.0, -3.0])
    archetype = str(ARCHETYPES[0])
    scored = pl.DataFrame(
        {
            "race": [1, 1, 2, 2],
            "raw": raw,
            "latent": (raw + right) / 2,
            "marginal": right,
            "archetype": archetype,
        }
    )
    rows = [row for row in repair_rows("too sure", scored, right) if row["races"] == "all"]
    assert [row["map"] for row in rows] == ["latent", "marginal"]
    assert {row["lost"] for row in rows} == {"0.2000"}
    assert [shown_estimate(row, "won_back_percent") for row in rows] == [
        "+50 [+50, +50]",
        "+100 [+100, +100]",
    ]
    undistorted = repair_rows(UNDISTORTED, scored, raw)[0]
    assert (undistorted["lost"], undistorted["gained"], undistorted["won_back_percent"]) == ("", "0.1000", "")
    assert undistorted.keys() == read_results("repair")[0].keys()


def test_gains_are_listed_by_archetype() -> None:
    archetypes = [str(archetype) for archetype in ARCHETYPES for _ in range(2)]
    scored = pl.DataFrame({"race": np.arange(8), "archetype": archetypes, "raw": np.full(8, -3.0)})
    scored = scored.with_columns(latent=pl.col("raw") + np.repeat([0.1, 0.2, 0.3, 0.4], 2), marginal="raw")
    rows = [row for row in repair_rows("too sure", scored, np.full(8, -2.0)) if row["races"] != "all"]
    assert [row["races"] for row in rows] == 2 * [str(archetype) for archetype in ARCHETYPES]
    assert [row["gained"] for row in rows] == ["0.1000", "0.2000", "0.3000", "0.4000", *4 * ["0.0000"]]
    assert {row["lost"] for row in rows} == {""}


def test_only_log_strengths_are_distorted() -> None:
    weights = xr.Dataset({"pace_weight": ("draw", [1.0, -2.0]), "team_scale": ("draw", [0.3, 0.2])})
    network = weights.astype(np.float32)
    distorted = distort(network, 0.6)
    np.testing.assert_allclose(distorted["pace_weight"], [0.6, -1.2], rtol=1e-6)
    assert distorted["pace_weight"].dtype == np.float32
    assert distorted["team_scale"].identical(network["team_scale"])


def test_missed_goals_are_marked() -> None:
    estimates = {
        "head_to_head_skill": 0.03,
        "head_to_head_slope": 0.81,
        "coverage_50": 0.52,
        "coverage_80": 0.775,
        "coverage_95": 0.945,
    }
    scores = pl.DataFrame(
        {
            "group": "intermediate",
            "quantity": list(estimates),
            "estimate": list(estimates.values()),
            "n_races": 9,
        }
    ).with_columns(lower=pl.col("estimate") - 0.1, upper=pl.col("estimate") + 0.1)
    rows = goal_rows(scores)
    columns = ("quantity", "goal_lowest", "goal_highest", "estimate", "estimate_lower", "met")
    assert [[row[column] for column in columns] for row in rows] == [
        ["head_to_head_skill", "0.035", "", "0.030", "-0.070", "false"],
        ["head_to_head_slope", "0.88", "1.1", "0.810", "0.710", "false"],
        ["coverage_50", "0.47", "0.53", "0.520", "0.420", "true"],
        ["coverage_80", "0.78", "0.82", "0.775", "0.675", "false"],
        ["coverage_95", "0.94", "0.96", "0.945", "0.845", "true"],
    ]
    labels = {"seasons", "scenarios", "forecast"}
    assert labels | rows[0].keys() == read_results("forecast_goals")[0].keys()
    assert labels | score_rows(scores)[0].keys() == read_results("forecast_scores")[0].keys()


@pytest.mark.soak
def test_tables_are_mapped_by_earlier_seasons_alone(small_world) -> None:
    """The first season stays raw, and the results of the second season do not change it."""
    ensemble, results = small_world.ensemble, small_world.results
    table = map_tables(ensemble, results, SEASONS[1:])
    raw = finish_table(ensemble["finish_position"].values)
    np.testing.assert_array_equal(table[:6], raw[:6])
    assert expected_log_score(table, small_world.truth) > expected_log_score(raw, small_world.truth)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    late = pl.col("race_id") >= 100 * SEASONS[1]
    mirrored = pl.when(late).then(N_CARS + 1 - pl.col("finish_position")).otherwise("finish_position")
    changed = results.with_columns(finish_position=mirrored)
    np.testing.assert_array_equal(map_tables(ensemble, changed, SEASONS[1:]), table)


def test_log_scores_are_those_of_the_observed_position(small_world) -> None:
    ensemble, results = small_world.ensemble, small_world.results
    score, race = car_log_score(ensemble, results)
    assert score.shape == race.shape == (12 * N_CARS,)
    table = finish_table(ensemble["finish_position"].values)
    place = results["finish_position"][5] - 1
    assert score[5] == pytest.approx(np.log(table[0, 5, place]))
    given, _ = car_log_score(ensemble, results, np.full_like(table, 1 / N_CARS))
    np.testing.assert_allclose(given, -np.log(N_CARS))
