"""Column lineage: the declared edges equal the columns that change with a source column."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.flow.metadata import column_lineage
from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.telemetry import aggregate_laps, build_driver_features, entry_list
from calibration_pipeline.telemetry.column_sources import AGGREGATE_COLUMNS, LAP_COLUMNS, RESULT_COLUMNS
from calibration_pipeline.tracks import compile_constraints

KEYS = {"race_id", "season", "round", "race_order", "driver_id"}
CHANGES = {
    "track_id": pl.lit("daytona"),
    "archetype": pl.lit("superspeedway"),
    "n_cautions": pl.col("n_cautions") + pl.col("round") % 3,
    "running": pl.col("running") & (pl.col("start_position") % 3 > 0),
    "laps_completed": 2 * pl.col("laps_completed"),
}


@pytest.fixture(scope="module")
def seasons() -> tuple[SeasonData, SeasonData]:
    """Two seasons: half of the first, and some races of the second."""
    source = SimulatedSource([2022, 2023], compile_constraints())
    return until(source.load_season(2022), 18), until(source.load_season(2023), 8)


def until(season: SeasonData, last_round: int) -> SeasonData:
    results = season.race_results.filter(pl.col("round") <= last_round)
    laps = season.lap_telemetry.filter(pl.col("race_id").is_in(results["race_id"].unique().to_list()))
    return replace(season, race_results=results, lap_telemetry=laps)


def changed(frame: pl.DataFrame, other: pl.DataFrame) -> set[str]:
    return {name for name in frame.columns if not frame[name].equals(other[name])} - KEYS


def shuffled(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Give each car another one's value."""
    return frame.with_columns(pl.col(column).shuffle(seed=1).over("race_id"))


def followers(made_of: dict[str, set[str]]) -> dict[str, set[str]]:
    """Turn column → its sources into source → what follows it."""
    sources = set().union(*made_of.values())
    return {source: {name for name, of in made_of.items() if source in of} for source in sources}


def test_lap_columns_are_those_that_follow(seasons: tuple[SeasonData, SeasonData], tmp_path: Path) -> None:
    laps = seasons[0].lap_telemetry.filter(pl.col("race_id") == pl.col("race_id").min())
    laps = laps.with_columns(lap_time_s=pl.col("lap_time_s").round(0))  # ties, that the position breaks

    def aggregates(changed_laps: pl.DataFrame) -> pl.DataFrame:
        changed_laps.write_parquet(tmp_path / "laps.parquet")
        return aggregate_laps([str(tmp_path / "laps.parquet")])

    before = aggregates(laps)
    no_laps = pl.col("lap_time_s").is_not_null() & (pl.col("lap") % 7 > 0)
    changes = {
        "lap_time_s": laps.with_columns(
            lap_time_s=pl.when(no_laps).then(pl.col("lap_time_s") + pl.col("position") % 5)
        ),
        "position": laps.with_columns(position=41 - pl.col("position")),
        "flag": laps.with_columns(
            flag=pl.when(pl.col("lap") % 3 > 0).then(pl.lit("yellow")).otherwise("flag")
        ),
    }
    found = {column: changed(before, aggregates(frame)) for column, frame in changes.items()}
    assert found == followers({name: set(of) for name, of in LAP_COLUMNS.items()})


@pytest.fixture(scope="module")
def found(
    seasons: tuple[SeasonData, SeasonData], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    """The features that follow each column of results and lap aggregates, rated races or not."""
    path = tmp_path_factory.mktemp("laps") / "laps.parquet"
    seasons[0].lap_telemetry.write_parquet(path)
    laps = aggregate_laps([str(path)])
    entries = entry_list(seasons[1].race_results)
    rated = seasons[0].race_results.with_columns(rating=(pl.col("laps_led") % 150).cast(pl.Float64))
    follow: dict[str, set[str]] = {}

    def compare(results: pl.DataFrame, aggregates: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        before = build_driver_features(entries, results, aggregates)
        for column in set(results.columns) - KEYS:
            other = (
                results.with_columns(CHANGES[column].alias(column))
                if column in CHANGES
                else shuffled(results, column)
            )
            yield column, changed(before, build_driver_features(entries, other, aggregates))
        for column in set(aggregates.columns) - KEYS:
            other = shuffled(aggregates, column)
            yield f"laps: {column}", changed(before, build_driver_features(entries, results, other))

    for results, aggregates in (
        (rated, laps.clear()),
        (seasons[0].race_results, laps),
        (seasons[0].race_results, laps.clear()),
    ):
        for column, names in compare(results, aggregates):
            follow.setdefault(column, set()).update(names)
    return follow


@pytest.mark.slow
def test_features_are_those_that_follow(found: dict[str, set[str]]) -> None:
    results = followers({name: set(of) for name, of in RESULT_COLUMNS.items()})
    laps = followers({name: set(of) for name, of in AGGREGATE_COLUMNS.items()})
    declared = results | {f"laps: {name}": names for name, names in laps.items()}
    assert {name: names for name, names in found.items() if names} == declared


def test_lineage_names_every_parent_of_a_column() -> None:
    lineage = column_lineage(
        dg.AssetKey(["simulated", "cup", "features"]),
        {"laps": {"pace": ["time", "flag"]}},
        {"laps": ["race_id"], "results": ["race_id"]},
    )
    deps = lineage["dagster/column_lineage"].deps_by_column
    laps, results = (dg.AssetKey(["simulated", "cup", name]) for name in ("laps", "results"))
    assert set(deps["pace"]) == {dg.TableColumnDep(laps, "time"), dg.TableColumnDep(laps, "flag")}
    assert set(deps["race_id"]) == {
        dg.TableColumnDep(laps, "race_id"),
        dg.TableColumnDep(results, "race_id"),
    }
