"""Words for how a car ended its race."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_series_equal

from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.sources.tables.statuses import RUNNING, is_non_starter
from calibration_pipeline.tracks import compile_constraints
from helpers.example_tables import example_results

TRACKS = compile_constraints()
TABLE = example_results()
RAN = pl.col("status") == RUNNING


def load(folder: Path, status: pl.Expr) -> SeasonData:
    TABLE.with_columns(status=status).write_parquet(folder / "results.parquet")
    return TablesSource(str(folder / "results.parquet"), None, TRACKS).load_season(2022)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> pl.Series:
    return load(tmp_path_factory.mktemp("clean"), pl.col("status")).race_results["running"]


@pytest.mark.parametrize(
    "word",
    ["Running", "FINISHED", "in", "Checkered", "on track", "+1 lap", "-2 Laps", "1 lap down",
     "Running at finish", "im Ziel", "OK"],
)  # fmt: skip
def test_words_for_running_are_known_or_learned_from_the_winners(
    tmp_path: Path, running: pl.Series, word: str
) -> None:
    data = load(tmp_path, pl.when(RAN).then(pl.lit(word)).otherwise(pl.lit("Crash")))
    assert_series_equal(data.race_results["running"], running)
    assert set(data.race_results["status"]) == {RUNNING, "crash"}
    assert data.quarantine.is_empty()


def test_a_race_in_which_no_car_runs_is_decided_by_laps_and_named(tmp_path: Path, running: pl.Series) -> None:
    out = (pl.col("round") == 2) & RAN
    data = load(tmp_path, pl.when(out).then(pl.lit("accident")).otherwise("status"))
    (row,) = data.quarantine.iter_rows(named=True)
    assert (row["entity"], row["consequence"]) == ("race", "corrected")
    assert row["rule"] == "no car is running by its status, laps decide"
    race = data.race_results.filter(round=2)
    assert race["running"][0]
    assert 0.5 < race["running"].mean() < 1
    others = data.race_results.filter(pl.col("round") != 2)["running"]
    assert others.mean() == pytest.approx(running.mean(), abs=0.1)


def test_a_season_of_causes_alone_is_decided_by_laps(tmp_path: Path, running: pl.Series) -> None:
    data = load(tmp_path, pl.lit("accident"))
    assert data.quarantine.height == 6
    assert (data.race_results["running"] == running).mean() > 0.8


def test_single_statuses_that_contradict_the_result_are_corrected(tmp_path: Path, running: pl.Series) -> None:
    winner = (pl.col("round") == 1) & (pl.col("finish_position") == 1)
    empty = (pl.col("round") == 2) & (pl.col("finish_position") == 2)
    status = pl.when(winner).then(pl.lit("engine")).when(~empty).then("status")
    data = load(tmp_path, status)
    assert_series_equal(data.race_results["running"], running)
    assert sorted(data.quarantine["rule"]) == [
        "status is not given, laps decide",
        "the winner is not running by the status, laps decide",
    ]


@pytest.mark.parametrize("word", ["Did Not Start", "DNS", "withdrawn", "WD", "DNQ", "did not qualify"])
def test_words_of_non_starters_are_known(word: str) -> None:
    assert pl.select(is_non_starter(pl.lit(word))).item()
    assert not pl.select(is_non_starter(pl.lit("did not finish"))).item()
