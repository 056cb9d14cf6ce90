"""What benchmarks compute themselves: shares won back, goals missed, maps applied to later seasons only."""

import numpy as np
import polars as pl
import pytest
import xarray as xr

from benchmarks.evaluation import car_log_score
from benchmarks.forecasts import goals
from benchmarks.recalibration import map_tables
from benchmarks.repair import UNDISTORTED, distort, kind_rows, repair_rows
from benchmarks.simulators import N_CARS, SEASONS, expected_log_score, finish_table, world
from calibration_pipeline.archetypes import ARCHETYPES


@pytest.fixture(scope="module")
def small_world():
    return world("normal", 1 / 0.6, n_races=12)


def test_the_share_won_back_is_of_the_loss() -> None:
    """Two races of two cars: .2 nats lost, of which the maps win back half and all."""
    raw, right = np.array([-3.2, -3.2, -3.3, -3.1]), np.array([-3.0, -3.0, -3.0, -3.0])
    judged = pl.DataFrame(
        {"race": [1, 1, 2, 2], "raw": raw, "latent": (raw + right) / 2, "marginal": right, "archetype": "x"}
    )
    latent, marginal = repair_rows("too sure", judged, right)
    assert latent.startswith("| too sure | latent | +0.2000 [")
    assert latent.endswith("| 50 [50, 50] % |")
    assert marginal.endswith("| 100 [100, 100] % |")
    nothing_lost, _ = repair_rows(UNDISTORTED, judged, raw)
    assert nothing_lost.startswith("| undistorted | latent |  | +0.1000 [")
    assert nothing_lost.endswith("|  |")


def test_gains_stand_under_their_kind_of_track() -> None:
    kinds = [str(kind) for kind in ARCHETYPES for _ in range(2)]
    judged = pl.DataFrame({"race": np.arange(8), "archetype": kinds, "raw": np.full(8, -3.0)})
    judged = judged.with_columns(latent=pl.col("raw") + np.repeat([0.1, 0.2, 0.3, 0.4], 2), marginal="raw")
    latent, marginal = kind_rows("too sure", judged)
    assert [cell.split()[0] for cell in latent.split("|")[3:7]] == [
        "+0.1000",
        "+0.2000",
        "+0.3000",
        "+0.4000",
    ]
    assert marginal.count("+0.0000 [") == 4


def test_only_log_strengths_are_distorted() -> None:
    weights = xr.Dataset({"pace_weight": ("draw", [1.0, -2.0]), "team_scale": ("draw", [0.3, 0.2])})
    network = weights.astype(np.float32)
    distorted = distort(network, 0.6)
    np.testing.assert_allclose(distorted["pace_weight"], [0.6, -1.2], rtol=1e-6)
    assert distorted["pace_weight"].dtype == np.float32
    assert distorted["team_scale"].identical(network["team_scale"])


def test_missed_goals_are_bold() -> None:
    def row(quantity: str, estimate: float) -> dict[str, object]:
        return {
            "group": "intermediate",
            "quantity": quantity,
            "estimate": estimate,
            "lower": estimate - 0.1,
            "upper": estimate + 0.1,
            "n_races": 9,
        }

    scores = [row("head_to_head_slope", 0.81), row("coverage_50", 0.52), row("coverage_80", 0.775)]
    last = goals("full", pl.DataFrame([*scores, row("coverage_95", 0.945)])).splitlines()[-1]
    cells = [cell.strip() for cell in last.split("|")[1:-1]]
    assert cells == [
        "intermediate",
        "**0.810 [0.710, 0.910]**",
        "0.88-1.1",
        "0.520 [0.420, 0.620]",
        "**0.775 [0.675, 0.875]**",
        "0.945 [0.845, 1.045]",
        "0.03/0.02/0.01",
    ]


@pytest.mark.soak
def test_tables_are_mapped_by_earlier_seasons_alone(small_world) -> None:
    """The first season stays raw, and what happens in the second changes nothing in it."""
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


def test_log_scores_are_of_the_place_that_came_true(small_world) -> None:
    ensemble, results = small_world.ensemble, small_world.results
    score, race = car_log_score(ensemble, results)
    assert score.shape == race.shape == (12 * N_CARS,)
    table = finish_table(ensemble["finish_position"].values)
    place = results["finish_position"][5] - 1
    assert score[5] == pytest.approx(np.log(table[0, 5, place]))
    given, _ = car_log_score(ensemble, results, np.full_like(table, 1 / N_CARS))
    np.testing.assert_allclose(given, -np.log(N_CARS))
