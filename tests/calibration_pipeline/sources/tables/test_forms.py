"""Tables in the forms that people publish give the same races as the table that they were made from."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.example_tables import example_results
from helpers.paths import REAL_DATA

REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
TRACKS = compile_constraints()
COMPARED = [
    "round", "driver", "track_id", "archetype", "start_position", "finish_position", "laps_completed",
    "laps_led", "running", "race_laps", "scheduled_laps", "car_number", "team", "make",
]  # fmt: skip
MONTH = "%B %-d, %Y"


def feed_extract(table: pl.DataFrame) -> str:
    """The feed's names, no round, times of day, and a car that did not start behind the first field."""
    first = table.filter(round=1)
    withdrawn = first.tail(1).with_columns(
        driver=pl.lit("Driver Withdrawn"), finish_position=first.height + 1, start_position=0,
        laps_completed=0, laps_led=0, car_number=pl.lit("999"), status=pl.lit("Did Not Start"),
    )  # fmt: skip
    rows = pl.concat([first, withdrawn, table.filter(pl.col("round") > 1)], how="vertical_relaxed")
    return rows.select(
        pl.col("round").add(5_000).alias("race_id"),
        pl.col("season").alias("race_season"),
        pl.col("track").alias("track_name"),
        pl.col("race_date").dt.strftime("%Y-%m-%dT14:30:00").alias("race_date"),
        pl.col("finish_position").alias("finishing_position"),
        pl.col("start_position").alias("starting_position"),
        "car_number",
        pl.col("driver").alias("driver_fullname"),
        pl.col("team").alias("team_name"),
        pl.col("make").alias("car_make"),
        "laps_completed",
        pl.col("status").str.to_titlecase().alias("finishing_status"),
        "laps_led",
        pl.lit(2.5).alias("track_length"),
    ).write_csv()


def reference_site(table: pl.DataFrame) -> str:
    """Long dates, another word for accidents, and semicolons."""
    return table.select(
        pl.col("season").alias("Year"),
        pl.col("round").alias("Race Number"),
        pl.col("race_date").dt.strftime(f"%A, {MONTH}").alias("Race Date"),
        pl.col("track").alias("Track"),
        pl.col("finish_position").alias("Finish Pos"),
        pl.col("start_position").alias("Start Pos"),
        "car_number",
        "driver",
        pl.col("team").alias("owner"),
        pl.col("make").alias("car_make"),
        "laps_completed",
        pl.col("status").replace("accident", "crash"),
        "laps_led",
    ).write_csv(separator=";", include_bom=True)


def loop_data(table: pl.DataFrame) -> str:
    """Neither season nor round, American dates, and a race of another series on the day of the third."""
    foreign = table.filter(round=3).with_columns(series=pl.lit("Xfinity"))
    return (
        pl.concat([table.with_columns(series=pl.lit("Cup")), foreign])
        .sort("round", maintain_order=True)
        .select(
            pl.col("driver").alias("driver_name"),
            pl.col("race_date").dt.strftime("%-m/%-d/%Y"),
            "series",
            pl.col("track").alias("track_name"),
            pl.col("start_position").alias("start"),
            pl.lit(1).alias("mid"),
            pl.col("finish_position").alias("finish"),
            "laps_led",
            pl.col("laps_completed").alias("laps"),
            "status",
            "car_number",
            pl.col("team").alias("team_name"),
            pl.col("make").alias("manufacturer"),
        )
        .write_csv()
    )


def fantasy(table: pl.DataFrame) -> str:
    """Short names, `Finished` for running, and a qualifying race numbered -1."""
    qualifying = table.filter(pl.col("round") == 1, pl.col("finish_position") <= 20).with_columns(
        round=pl.lit(-1, pl.Int64), laps_completed=pl.lit(60, pl.Int64)
    )
    return (
        pl.concat([qualifying, table])
        .select(
            pl.col("season").alias("year"),
            pl.col("round").alias("race_num"),
            "track",
            pl.lit("Oval").alias("track_type"),
            pl.col("finish_position").alias("fin"),
            pl.col("start_position").alias("start"),
            pl.col("car_number").alias("car_num"),
            "driver",
            pl.col("make").alias("manu"),
            pl.col("team").alias("team_name"),
            pl.col("laps_completed").alias("laps"),
            "laps_led",
            pl.col("status").replace("running", "Finished"),
        )
        .write_csv(separator="\t")
    )


FORMS: tuple[Callable[[pl.DataFrame], str], ...] = (feed_extract, reference_site, loop_data, fantasy)


def read(path: Path, season: int) -> pl.DataFrame:
    results = TablesSource(str(path), None, TRACKS).load_season(season).race_results
    return results.select(COMPARED)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_simulated_season_give_the_same_races(
    tmp_path: Path, form: Callable[[pl.DataFrame], str]
) -> None:
    table = example_results().rename({"track_id": "track"})
    table.write_parquet(tmp_path / "table.parquet")
    (tmp_path / "form.csv").write_text(form(table))
    assert_frame_equal(read(tmp_path / "form.csv", 2022), read(tmp_path / "table.parquet", 2022))


@pytest.mark.real
@pytest.mark.skipif(not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("season", [2013, 2020, 2022])
@pytest.mark.parametrize("plain", [False, True])
def test_forms_of_real_seasons_give_the_same_races(
    tmp_path: Path, form: Callable[[pl.DataFrame], str], season: int, plain: bool
) -> None:
    """Also where the tracks have their plain names, which hide road courses and dirt."""
    real = pl.read_parquet(REAL_RESULTS).filter(Season=season).sort("Race", "Finish")
    day = pl.date(season, 2, 13) + pl.duration(days=7 * pl.col("Race"))
    track = pl.col("Track").str.replace(" Road Course| Dirt Track", "") if plain else pl.col("Track")
    table = real.select(
        pl.col("Season").cast(pl.Int64).alias("season"),
        pl.col("Race").cast(pl.Int64).alias("round"),
        day.alias("race_date"),
        track.alias("track"),
        pl.col("Driver").alias("driver"),
        pl.col("Car").alias("car_number"),
        pl.col("Team").alias("team"),
        pl.col("Make").alias("make"),
        pl.col("Start").cast(pl.Int64).alias("start_position"),
        pl.col("Finish").cast(pl.Int64).alias("finish_position"),
        pl.col("Laps").cast(pl.Int64).alias("laps_completed"),
        pl.col("Led").cast(pl.Int64).alias("laps_led"),
        pl.col("Status").alias("status"),
    )
    (tmp_path / "form.csv").write_text(form(table))
    assert_frame_equal(read(tmp_path / "form.csv", season), read(REAL_RESULTS, season))


@pytest.mark.real
@pytest.mark.skipif(not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}")
@pytest.mark.parametrize("name", ["feed_extract", "reference_site", "loop_data", "fantasy"])
def test_published_forms_give_the_same_races(name: str) -> None:
    path = REAL_DATA / "table_forms" / f"{name}.csv"
    expected = read(REAL_RESULTS, 2022)
    found = read(path, 2022)
    shared = ["round", "driver", "track_id", "archetype", "laps_completed", "running", "race_laps"]
    lost = expected.join(found, on=shared, how="anti", nulls_equal=True)
    assert lost.height == (1 if name == "fantasy" else 0), "fantasy.csv lacks a row of race 7"
    assert found.height + lost.height == expected.height
