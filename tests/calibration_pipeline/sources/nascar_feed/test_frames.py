"""Simulated seasons written in the feed's layout come back as they were."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.base import AnnouncedRace
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints
from helpers.feed_layout import write_entries, write_feed

ROUNDS = {2021: 6, 2022: 3}
TRACKS = compile_constraints()
SIMULATED = SimulatedSource(list(ROUNDS), TRACKS)


def first_rounds(season: int) -> SeasonData:
    data = SIMULATED.load_season(season)
    results = data.race_results.filter(pl.col("round") <= ROUNDS[season])
    laps = data.lap_telemetry.filter(pl.col("race_id").is_in(results["race_id"].unique().to_list()))
    return SeasonData(results, laps, {}, [])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, SeasonData]]:
    folder = tmp_path_factory.mktemp("feed")
    seasons = {season: first_rounds(season) for season in ROUNDS}
    write_feed(folder, seasons)
    write_entries(folder, SIMULATED.next_race(2022).entries)
    return folder, seasons


@pytest.mark.parametrize("season", ROUNDS)
def test_seasons_come_back(written: tuple[Path, dict[int, SeasonData]], season: int) -> None:
    folder, seasons = written
    read = NascarFeedSource(str(folder), TRACKS).load_season(season)
    wrote = seasons[season]
    # A simulated race counts fastest laps by the car's own lap, the feed's reader by the leader's.
    results, expected = (data.race_results.drop("fastest_laps") for data in (read, wrote))
    assert_frame_equal(results, expected, check_column_order=False)
    assert read.race_results["fastest_laps"].sum() == wrote.race_results["fastest_laps"].sum()
    assert_frame_equal(read.lap_telemetry, wrote.lap_telemetry, check_column_order=False)
    assert read.quarantine.is_empty()
    counted = {name: count for name, count in read.counts.items() if count}
    untimed = wrote.lap_telemetry.filter(pl.col("lap") > 0)["lap_time_s"].null_count()
    assert counted == {
        "races": ROUNDS[season],
        "cars": wrote.race_results.height,
        "laps": wrote.lap_telemetry.height,
        "laps_without_time": untimed,
    }


def test_the_next_race_comes_back(written: tuple[Path, dict[int, SeasonData]]) -> None:
    read = NascarFeedSource(str(written[0]), TRACKS).next_race(2022)
    assert isinstance(read, AnnouncedRace)
    assert read.defects == ()
    expected = SIMULATED.next_race(2022).entries
    assert_frame_equal(read.entries.sort("start_position"), expected, check_column_order=False)
