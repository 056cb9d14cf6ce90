"""Drivers of a results table and a laps table who are spelled in several ways."""

from pathlib import Path

import polars as pl
import pytest

from calibration_pipeline.sources.base import SeasonData
from calibration_pipeline.sources.names import read_nicknames
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints

TRACKS = compile_constraints()


def results(season: int, *drivers: str) -> pl.DataFrame:
    """Return the results of one race, the drivers in the order of their finish."""
    positions = list(range(1, len(drivers) + 1))
    return pl.DataFrame(
        {
            "season": season,
            "round": 1,
            "track": "Daytona International Speedway",
            "driver": list(drivers),
            "start_position": positions,
            "finish_position": positions,
            "laps_completed": 200,
            "status": "running",
        }
    )


def source(folder: Path, *seasons: pl.DataFrame, laps: pl.DataFrame | None = None, **options) -> TablesSource:
    pl.concat(seasons).write_parquet(folder / "results.parquet")
    if laps is not None:
        laps.write_parquet(folder / "laps.parquet")
    laps_path = None if laps is None else str(folder / "laps.parquet")
    return TablesSource(str(folder / "results.parquet"), laps_path, TRACKS, **options)


def driver_ids(data: SeasonData) -> list[str]:
    return data.race_results.sort("finish_position")["driver_id"].to_list()


def test_a_driver_who_changes_spelling_keeps_the_history(tmp_path: Path) -> None:
    old = results(2021, "A.J. Allmendinger", "Nicholas Sanchez", "Martin Truex Jr.", "John H. Nemechek")
    new = results(2022, "AJ Allmendinger (i)", "Nick Sánchez", "Martin Truex", "John Hunter Nemechek #")
    table = source(tmp_path, old, new)
    expected = ["aj-allmendinger", "nicholas-sanchez", "martin-truex", "john-hunter-nemechek"]
    assert driver_ids(table.load_season(2021)) == driver_ids(table.load_season(2022)) == expected


def test_father_and_son_in_one_race_are_two_drivers(tmp_path: Path) -> None:
    table = source(tmp_path, results(2021, "Dale Earnhardt Jr.", "Dale Earnhardt"))
    assert driver_ids(table.load_season(2021)) == ["dale-earnhardt-jr", "dale-earnhardt"]


def test_nicknames_of_a_file_join_a_history(tmp_path: Path) -> None:
    (tmp_path / "names.toml").write_text('[drivers]\n"Kyle Busch" = ["Rowdy Busch"]\n')
    nicknames = read_nicknames(str(tmp_path / "names.toml"))
    table = source(tmp_path, results(2021, "Rowdy Busch", "Ann Other"), nicknames=nicknames)
    assert driver_ids(table.load_season(2021)) == ["kyle-busch", "ann-other"]


@pytest.mark.parametrize("spelling", ["A J Allmendinger", "* AJ ALLMENDINGER(i)", "Allmendinger, A.J."])
def test_laps_find_their_car_however_its_driver_is_spelled(tmp_path: Path, spelling: str) -> None:
    """Rows of one car differ in the marks; laps of a driver without a result are counted."""
    laps = pl.DataFrame(
        {
            "season": 2021,
            "round": 1,
            "driver": [spelling, "A.J. Allmendinger #", "Dale Earnhardt", "Dale Earnhardt, Jr", "Nobody"],
            "lap": [1, 2, 1, 1, 1],
            "position": [1, 1, 2, 3, 4],
            "lap_time_s": [50.0] * 5,
        }
    )
    drivers = ("A.J. Allmendinger", "Dale Earnhardt Jr.", "Dale Earnhardt")
    data = source(tmp_path, results(2021, *drivers), laps=laps).load_season(2021)
    assert data.counts["laps_without_result"] == 1
    found = data.lap_telemetry.select("driver_id", "lap", "position").sort("driver_id", "lap").rows()
    assert found == [
        ("aj-allmendinger", 1, 1),
        ("aj-allmendinger", 2, 1),
        ("dale-earnhardt", 1, 2),
        ("dale-earnhardt-jr", 1, 3),
    ]
