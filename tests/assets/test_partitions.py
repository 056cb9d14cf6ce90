"""Partitions: seasons (the first, one without laps, the running one, a new one) and forecasters."""

import datetime
from pathlib import Path

import dagster as dg
import dagster._time
import polars as pl
import pytest
import xarray as xr

from assets.cli import main
from assets.definitions import build_defs
from assets.partitions import (
    earlier_and_own_seasons,
    season_partitions,
    upstream_partitions,
)
from assets.resources import with_seasons
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.seasons import parse_seasons
from helpers.example_tables import write_table

THIS_YEAR = datetime.date.today().year


def read(season: str, seasons: dg.PartitionsDefinition) -> list[str]:
    """Seasons that a season's features read."""
    mapped = earlier_and_own_seasons.get_upstream_mapped_partitions_result_for_partitions(
        downstream_partitions_subset=seasons.subset_with_partition_keys([season]),
        downstream_partitions_def=seasons,
        upstream_partitions_def=seasons,
    )
    assert not mapped.required_but_nonexistent_subset.get_partition_keys()
    return list(mapped.partitions_subset.get_partition_keys())


def test_first_and_running_season_read_existing_seasons() -> None:
    seasons = season_partitions(parse_seasons("2020-", THIS_YEAR))
    assert read("2020", seasons) == ["2020"]
    assert read(str(THIS_YEAR), seasons) == [str(year) for year in range(2020, THIS_YEAR + 1)]


def test_the_running_season_is_there_before_it_ends_and_the_next_comes_by_itself() -> None:
    seasons = season_partitions(parse_seasons("2020-", THIS_YEAR))
    for day in ("01-01", "12-31"):
        then = datetime.datetime.fromisoformat(f"{THIS_YEAR + 1}-{day}T12:00:00+00:00")
        assert seasons.get_partition_keys(current_time=then)[-1] == str(THIS_YEAR + 1)


def test_a_new_year_is_read_by_what_reads_every_season(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code server lives for more than a year, and its definitions have a partition more then."""
    graph = build_defs(Settings(seasons="2020-", scenarios=100)).resolve_asset_graph()
    keys = {key.path[-1]: key for key in graph.toposorted_asset_keys}
    wanted = keys["race_results"], keys["market_scores"], None
    assert upstream_partitions(graph, *wanted)[-1] == str(THIS_YEAR)
    then = datetime.datetime(THIS_YEAR + 1, 2, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(dagster._time, "_mockable_get_current_datetime", lambda: then)
    monkeypatch.setattr(dagster._time, "_mockable_get_current_timestamp", then.timestamp)
    assert upstream_partitions(graph, *wanted)[-1] == str(THIS_YEAR + 1)


def test_seasons_of_files_are_read_again_when_the_location_reloads(project: Path) -> None:
    table = project / "mine.csv"
    settings = Settings(source="tables", results=str(table))
    for races in ({2021: 1, 2022: 1}, {2021: 1, 2022: 1, 2023: 1}):
        write_table(table, races)
        partitions = season_partitions(with_seasons(settings).seasons_in_force)
        assert partitions.get_partition_keys() == [str(season) for season in races]


def test_seasons_with_a_gap_are_partitions_that_read_the_earlier_ones() -> None:
    seasons = season_partitions(parse_seasons("2016,2018-2020", THIS_YEAR))
    assert seasons.get_partition_keys() == ["2016", "2018", "2019", "2020"]
    read = earlier_and_own_seasons.get_upstream_mapped_partitions_result_for_partitions(
        seasons.subset_with_partition_keys(["2018"]), seasons, seasons
    )
    assert sorted(read.partitions_subset.get_partition_keys()) == ["2016", "2018"]


def test_a_file_is_a_partition_of_its_own_that_reads_its_own_scenarios(project: Path) -> None:
    folder = project / "mine"
    folder.mkdir()
    (folder / "notes.txt").touch()
    (folder / "a sim.nc").touch()
    table = pl.DataFrame({"season": [2022], "round": [1], "driver": ["Ann"], "win": [0.5]})
    table.write_csv(folder / "odds.csv")
    (folder / "broken.parquet").write_text("no Parquet")
    settings = Settings(forecasters=str(folder), seasons="2022,2023")
    graph = build_defs(settings).resolve_asset_graph()
    keys = {key.path[-1]: key for key in graph.toposorted_asset_keys}
    of = {name: graph.get(key).partitions_def for name, key in keys.items()}
    assert of["pooled_posterior"].get_partition_keys() == ["network", "a sim"]
    assert set(of["verdict"].get_partition_keys()) == {
        f"{archetype}|{name}" for archetype in ARCHETYPES for name in ("network", "a sim")
    }
    for upstream, asset, partition, expected in (
        ("scenario_ensemble", "archetype_races", "short_track|a sim", ["a sim|2022", "a sim|2023"]),
        ("driver_features", "scenario_ensemble", "a sim|2023", ["2023"]),
        ("race_results", "race_curves", "a sim|2023", ["2023"]),
        ("race_curves", "pooled_posterior", "a sim", ["a sim|2022", "a sim|2023"]),
        ("fold_history", "scenario_ensemble", "a sim|2023", ["2023"]),
        ("calibration_state", "race_forecast", "a sim", ["a sim"]),
    ):
        assert upstream_partitions(graph, keys[upstream], keys[asset], partition) == expected


@pytest.mark.parametrize(
    ("shown", "forecasters"), [("network", ["network"]), ("mine", ["mine"]), ("odds", [])]
)
def test_pictures_are_those_of_the_scenarios_that_the_report_shows(
    project: Path, shown: str, forecasters: list[str]
) -> None:
    (project / "own").mkdir()
    (project / "own" / "mine.nc").touch()
    table = pl.DataFrame({"season": [2022], "round": [1], "driver": ["Ann"], "win": [0.5]})
    table.write_csv(project / "own" / "odds.csv")
    settings = Settings(forecasters=str(project / "own"), seasons="2022,2023", forecaster=shown)
    graph = build_defs(settings).resolve_asset_graph()
    keys = {key.path[-1]: key for key in graph.toposorted_asset_keys}
    expected = {f"{archetype}|{name}" for archetype in ARCHETYPES for name in forecasters}
    pictures = keys["report_pictures"]
    assert set(graph.get(pictures).partitions_def.get_partition_keys()) == expected
    assert set(upstream_partitions(graph, pictures, keys["calibration_report"], None)) == expected
    for partition in expected:
        assert upstream_partitions(graph, keys["backtest"], pictures, partition) == [partition]


@pytest.mark.soak
def test_a_season_without_laps_and_one_without_races_yet_have_partitions_that_are_empty(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This year's season is stored before its first race, and what reads it finds a partition."""
    table = project / "mine.csv"
    write_table(table, {THIS_YEAR - 1: 3})
    options = ["--source", "tables", "--results", str(table), "--seasons", f"{THIS_YEAR - 1}-"]
    assert main(["run", *options, "--scenarios", "100", "--select", "+scenario_ensemble"]) == 0
    assert f"scenario_ensemble, scenario_quarantine [network|{THIS_YEAR}]" in capsys.readouterr().out
    store = project / "data" / "store" / "tables" / "cup"
    heights = {
        (name, season): pl.read_parquet(store / name / f"{season}.parquet").height
        for name in ("race_results", "lap_aggregates", "driver_features")
        for season in (THIS_YEAR - 1, THIS_YEAR)
    }
    assert heights["race_results", THIS_YEAR - 1] == heights["driver_features", THIS_YEAR - 1] == 6
    assert {height for (_, season), height in heights.items() if season == THIS_YEAR} == {0}
    assert heights["lap_aggregates", THIS_YEAR - 1] == 0
    networks = xr.open_dataset(store / "causal_network" / f"{THIS_YEAR}.nc", engine="h5netcdf")
    assert networks["fold"].values.tolist() == [f"{THIS_YEAR}-1"], "the network of the first race that comes"


def test_a_past_season_that_the_source_lacks_is_an_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = project / "mine.csv"
    write_table(table, {2021: 1})
    options = ["--source", "tables", "--results", str(table), "--seasons", "2022", "--select", "race_results"]
    assert main(["run", *options]) == 1
    assert "Season 2022 is not in" in capsys.readouterr().err
