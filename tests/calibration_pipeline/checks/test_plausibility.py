"""Plausibility of results: real seasons pass, and each rule finds what it is for."""

import datetime

import polars as pl
import pytest

from calibration_pipeline.checks.plausibility import implausible_results
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import REAL_DATA


@pytest.fixture(scope="module")
def season() -> pl.DataFrame:
    return SimulatedSource([2021], compile_constraints()).load_season(2021).race_results


def in_round(number: int, column: str, value: pl.Expr | object) -> pl.Expr:
    return pl.when(pl.col("round") == number).then(value).otherwise(pl.col(column)).alias(column)


def test_a_simulated_season_is_plausible(season: pl.DataFrame) -> None:
    assert implausible_results(season) == []


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("race_laps", 20, "round 5 (cota): 20 laps were run"),
        ("running", False, "0% of the cars ran at the end"),
        ("laps_completed", pl.col("finish_position"), "more laps than the winner"),
        ("race_date", datetime.date(2020, 1, 1), "its date 2020-01-01 is before that of an earlier round"),
    ],
)
def test_a_race_that_cannot_be_is_named(
    season: pl.DataFrame, column: str, value: pl.Expr | object, named: str
) -> None:
    dated = season.with_columns(race_date=pl.date(2021, 1, 1) + pl.duration(days=pl.col("round")))
    found = implausible_results(dated.with_columns(in_round(5, column, value)))
    assert any(named in sentence for sentence in found), found
    assert all("round 5" in sentence for sentence in found)


def test_a_field_cut_in_half_is_named(season: pl.DataFrame) -> None:
    half = season.filter((pl.col("round") != 5) | (pl.col("finish_position") <= 15))
    assert any("round 5 (cota): 15 cars started" in sentence for sentence in implausible_results(half))


def test_reversed_grids_are_named(season: pl.DataFrame) -> None:
    last = pl.col("start_position").max().over("race_id") + 1
    (found,) = implausible_results(season.with_columns(start_position=last - pl.col("start_position")))
    assert "rank correlation" in found


REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"


@pytest.mark.real
@pytest.mark.skipif(not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}")
def test_real_seasons_of_the_cup_are_plausible() -> None:
    """All 393 races of 2013 to 2023 keep within the limits."""
    source = TablesSource(str(REAL_DATA / "cup_results_2013_2023.parquet"), None, compile_constraints())
    found = {
        season: implausible_results(source.load_season(season).race_results) for season in source.seasons
    }
    assert found == {season: [] for season in range(2013, 2024)}
