"""The tables source: columns that it reads and fills, and messages for wrong tables."""

import gzip
import logging
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources import SeasonData, SourceError
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.sources.quarantine import races_left_out
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.sources.tables import reader as tables_reader
from calibration_pipeline.sources.tables.columns import RESULTS
from calibration_pipeline.sources.tables.source import COUNTS, LAP_COUNTS, TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import REAL_DATA

REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
REAL_FEED = REAL_RESULTS.with_name("nascar_feed_2020_2021.zip")
TRACKS = compile_constraints()
HEADER = b"season,round,track,driver,start_position,finish_position,laps_completed\n"
NOT_IN_TABLES = ("race_id", "race_order", "archetype", "running")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def car(round_: int, finish: int, driver: str, **other: object) -> dict[str, object]:
    """Return a row with the required columns and nothing else."""
    track = {1: "Daytona", 2: "Bristol Dirt", 3: "talladega", 4: "Phoenix Raceway"}[round_]
    row = {"season": 2022, "round": round_, "track": track, "driver": driver}
    return (
        row
        | {"start_position": 4 - finish, "finish_position": finish, "laps_completed": 201 - finish}
        | other
    )


def field(round_: int) -> list[dict[str, object]]:
    return [car(round_, i, driver) for i, driver in enumerate(("Ann Álvarez", "Bo Berg Jr.", "Cy Cole"), 1)]


MINIMAL = pl.DataFrame([row for round_ in (1, 2, 3) for row in field(round_)])


def write(folder: Path, table: pl.DataFrame, name: str = "results.csv") -> str:
    path = folder / name
    if name.endswith(".parquet"):
        table.write_parquet(path)
    else:
        text = table.write_csv(null_value="NA").encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path)


def load(
    folder: Path, table: pl.DataFrame, season: int = 2022, laps: pl.DataFrame | None = None
) -> SeasonData:
    laps_path = None if laps is None else write(folder, laps, "laps.parquet")
    data = TablesSource(write(folder, table), laps_path, TRACKS).load_season(season)
    RaceResults.validate(data.race_results, lazy=True)
    LapTelemetry.validate(data.lap_telemetry, lazy=True)
    return data


def with_value(column: str, row: int, value: object) -> pl.DataFrame:
    """Return the minimal table with one value changed; text where the value is text."""
    rows = MINIMAL.to_dicts()
    rows[row][column] = value
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


@cache
def simulated() -> SeasonData:
    data = SimulatedSource([2022], TRACKS).load_season(2022)
    results = data.race_results.filter(pl.col("round") <= 4)
    laps = data.lap_telemetry.filter(pl.col("race_id").is_in(results["race_id"].unique().to_list()))
    return SeasonData(results, laps)


def simulated_laps() -> pl.DataFrame:
    cars = simulated().race_results.select("race_id", "driver_id", "driver", "round")
    return simulated().lap_telemetry.join(cars, on=["race_id", "driver_id"])


def test_the_minimal_table_is_enough(tmp_path: Path) -> None:
    data = load(tmp_path, MINIMAL)
    results = data.race_results
    assert results.height == 6
    assert set(data.counts) == set(COUNTS)
    assert data.lap_telemetry.is_empty()
    assert (
        results["race_id"].unique().to_list() == results["race_order"].unique().to_list() == [202201, 202203]
    )
    first = results.row(0, named=True)
    assert (first["driver_id"], first["driver"]) == ("ann-alvarez", "Ann Álvarez")
    assert (first["track_id"], first["archetype"], first["scheduled_laps"]) == (
        "daytona",
        "superspeedway",
        200,
    )
    assert (first["race_laps"], first["status"], first["running"]) == (200, "running", True)
    unknown = ("race_date", "team", "make", "car_number", "laps_led", "n_cautions", "green_laps", "rating")
    assert [first[name] for name in unknown] == [None] * len(unknown)


def test_dirt_and_unknown_tracks_are_left_out_and_named(tmp_path: Path) -> None:
    strange = MINIMAL.with_columns(
        track=pl.when(pl.col("round") == 3).then(pl.lit("Talledega Speedway")).otherwise("track")
    )
    data = load(tmp_path, strange)
    dirt, unknown = races_left_out(data.quarantine)
    assert dirt == "2022 race 2 (Bristol Dirt): Bristol Motor Speedway Dirt Track fits no archetype."
    assert "2022 race 3 (Talledega Speedway)" in unknown
    assert "Talladega Superspeedway" in unknown
    assert (data.counts["races"], data.counts["races_left_out"]) == (1, 2)


def test_a_paved_track_covered_with_dirt_is_left_out(tmp_path: Path) -> None:
    data = load(tmp_path, MINIMAL.with_columns(surface=pl.when(pl.col("round") == 3).then(pl.lit("Dirt"))))
    assert races_left_out(data.quarantine)[1] == "2022 race 3 (talladega): it was run on dirt."


def test_a_race_without_a_grid_is_left_out(tmp_path: Path) -> None:
    start = pl.when(pl.col("round") != 3).then("start_position")
    data = load(tmp_path, MINIMAL.with_columns(start_position=start))
    assert races_left_out(data.quarantine)[-1] == "2022 race 3 (talladega): its grid is not known."
    assert data.counts["races"] == 1


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "T.CSV"])
@pytest.mark.parametrize("by_date", [False, True])
def test_a_simulated_season_comes_back(tmp_path: Path, name: str, by_date: bool) -> None:
    wrote = simulated()
    table = wrote.race_results.drop("round", *NOT_IN_TABLES) if by_date else wrote.race_results
    columns = ["season", "round", "driver", "lap", "position", "lap_time_s", "flag"]
    laps = write(tmp_path, simulated_laps().select(columns), f"laps{name}")
    read = TablesSource(write(tmp_path, table, name), laps, TRACKS).load_season(2022)
    assert_frame_equal(read.race_results, wrote.race_results, check_column_order=False)
    assert_frame_equal(
        read.lap_telemetry, wrote.lap_telemetry, check_column_order=False, check_row_order=False
    )
    untimed = wrote.lap_telemetry.filter(pl.col("lap") > 0)["lap_time_s"].null_count()
    assert {name: count for name, count in read.counts.items() if count} == {
        "races": 4,
        "cars": wrote.race_results.height,
        "cars_without_rating": wrote.race_results.height,
        "laps": wrote.lap_telemetry.height,
        "laps_without_time": untimed,
    }


def test_laps_fill_columns_that_the_results_lack(tmp_path: Path) -> None:
    filled = ["green_laps", "n_cautions", "fastest_laps"]
    table = simulated().race_results.drop(*NOT_IN_TABLES, *filled)
    data = load(tmp_path, table, laps=simulated_laps())
    expected = simulated().race_results
    assert_frame_equal(data.race_results.select(filled), expected.select(filled))
    assert set(LAP_COUNTS) < set(data.counts)
    no_flags = load(tmp_path, table, laps=simulated_laps().drop("flag"))
    assert no_flags.race_results.select(pl.col(filled).is_null().all()).row(0) == (True, True, True)
    assert no_flags.lap_telemetry["flag"].null_count() == no_flags.lap_telemetry.height


def test_seasons_with_and_without_laps_go_together(tmp_path: Path) -> None:
    laps = simulated_laps().filter(pl.col("round") == 1)
    data = load(tmp_path, simulated().race_results.drop(*NOT_IN_TABLES), laps=laps)
    assert data.counts["races_without_laps"] == 3
    other_season = load(tmp_path, MINIMAL, laps=laps.with_columns(season=pl.lit(2021)))
    assert other_season.counts["races_without_laps"] == 2
    none = load(tmp_path, MINIMAL, laps=laps)
    assert none.counts["races_without_laps"] == none.counts["races"] == 2
    assert none.counts["laps_without_result"] == laps.height


def test_odd_laps_are_counted(tmp_path: Path) -> None:
    rows = [
        {"season": 2022, "round": 1, "driver": "ann alvarez", "lap": lap, "position": 1, "lap_time_s": time}
        for lap, time in ((0, None), (1, 50.0), (1, 51.0), (4, 0.0))
    ]
    rows += [rows[1] | {"driver": "Nobody"}, rows[1] | {"driver": "Cy Cole", "position": None}]
    rows += [rows[1] | {"season": 2021}, rows[1] | {"driver": "Di Dahl"}]
    only_in_the_third = pl.DataFrame([*MINIMAL.to_dicts(), car(3, 4, "Di Dahl", start_position=4)])
    data = load(tmp_path, only_in_the_third, laps=pl.DataFrame(rows))
    expected = {
        "laps": 3,
        "laps_repeated": 1,
        "laps_without_time": 1,
        "laps_without_result": 2,
        "laps_without_position": 1,
        "laps_in_gaps": 2,
        "cars_with_lap_gaps": 1,
    }
    assert {name: data.counts[name] for name in expected} == expected
    assert data.lap_telemetry["lap_time_s"].to_list() == [None, 50.0, None]


def test_non_starters_and_repeated_rows_are_counted(tmp_path: Path) -> None:
    absent = {"finish_position": None, "laps_completed": None, "start_position": None}
    withdrawn = car(1, 0, "Di Dahl", start_position=4, laps_completed=0)
    rows = [*MINIMAL.to_dicts(), withdrawn, car(3, 1, "Di Dahl", **absent)]
    data = load(tmp_path, pl.DataFrame([*rows, rows[0]], infer_schema_length=None))
    counted = {name: data.counts[name] for name in ("non_starters", "results_repeated", "cars")}
    assert counted == {"non_starters": 2, "results_repeated": 1, "cars": 6}
    assert "di-dahl" not in data.race_results["driver_id"]


def test_status_decides_which_cars_were_running(tmp_path: Path) -> None:
    """A disqualified car keeps its place and is no retirement; without a status, laps decide."""
    rows = [
        car(1, 1, "A", laps_completed=200, status="Running"),
        car(1, 2, "B", laps_completed=180, status=None),
        car(1, 3, "C", laps_completed=179, start_position=4, status=" "),
        car(1, 4, "D", laps_completed=150, start_position=1, status="Engine"),
        car(1, 5, "E", laps_completed=199, start_position=5, status="Disqualified"),
        car(1, 6, "F", laps_completed=200, start_position=9, status="running"),
    ]
    data = load(tmp_path, pl.DataFrame(rows))
    statuses = data.race_results.select("status", "running").rows()
    assert statuses == [
        ("running", True),
        ("running", True),
        ("unknown", False),
        ("engine", False),
        ("disqualified", True),
        ("running", True),
    ]
    assert data.counts["cars_without_status"] == 2
    assert data.counts["cars_ranked_behind_fewer_laps"] == 2
    assert data.counts["races_grid_with_gaps"] == 1


def test_laps_led_are_added_up_where_they_are_known(tmp_path: Path) -> None:
    led = MINIMAL.with_columns(laps_led=pl.when(pl.col("finish_position") == 1).then(199).otherwise(0))
    assert load(tmp_path, led).counts["races_laps_led_mismatch"] == 2
    assert load(tmp_path, MINIMAL).counts["races_laps_led_mismatch"] == 0


def test_scheduled_laps_are_never_the_race_s_own(tmp_path: Path) -> None:
    """Two tables that differ in how long the race was, and in nothing known before it, schedule the same."""
    short = MINIMAL.with_columns(laps_completed=pl.col("laps_completed") * 2 // 3)
    scheduled = [load(tmp_path, table).race_results["scheduled_laps"].to_list() for table in (MINIMAL, short)]
    assert scheduled[0] == scheduled[1] == [200] * 3 + [188] * 3
    given_laps = MINIMAL.with_columns(scheduled_laps=pl.when(pl.col("round") == 1).then(160))
    assert load(tmp_path, given_laps).race_results["scheduled_laps"].to_list() == [160] * 3 + [188] * 3


NASCAR_DATA = pl.DataFrame(
    {
        "Season": [2022] * 2,
        "Race": [1] * 2,
        "Track": ["Daytona International Speedway"] * 2,
        "Name": ["DAYTONA 500"] * 2,
        "Surface": ["Paved"] * 2,
        "Finish": [1, 2],
        "Start": [2, 1],
        "Car": ["00", "4"],
        "Driver": ["A", "B"],
        "Laps": [200, 20],
        "Led": [200, 0],
        "Status": ["Running", "Crash"],
        "Rating": [120.5, None],
        "Pts": [40, 1],
    }
)


def test_nascar_data_is_recognised_by_its_columns(tmp_path: Path) -> None:
    read = load(tmp_path, NASCAR_DATA).race_results
    columns = ["car_number", "driver_id", "finish_position", "laps_led", "running", "status", "rating"]
    assert read.select(columns).rows() == [
        ("00", "a", 1, 200, True, "running", 120.5),
        ("4", "b", 2, 0, False, "crash", None),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            MINIMAL.rename({"finish_position": "finish_posn"}),
            r"lacks the columns finish_position \(near it: finish_posn\); it has season, round",
        ),
        (MINIMAL.drop("round"), "lacks the columns round or race_date; it has season, track"),
        (MINIMAL.drop("season"), "lacks the columns season or race_date; it has round, track"),
        (
            MINIMAL.select("season"),
            "lacks the columns round or race_date, driver, track, start_position, finish_position, laps",
        ),
        (
            with_value("season", 0, "this year").head(1),
            "column season must hold whole numbers from 1949 to 2200",
        ),
        (MINIMAL.with_columns(finish_position=pl.lit("DNF")), "0 of 2 finished races can be used"),
    ],
)
def test_a_table_that_cannot_be_used_gets_one_line_that_names_error_and_place(
    tmp_path: Path, table: pl.DataFrame, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refusal:
        load(tmp_path, table)
    assert "\n" not in str(refusal.value)
    assert "results.csv" in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "rule", "value"),
    [
        (
            with_value("finish_position", 1, "DNF"),
            "finish_position must hold whole numbers from 0 to 99",
            "DNF",
        ),
        (with_value("laps_completed", 1, "10.5"), "laps_completed must hold whole numbers", "10.5"),
        (with_value("laps_completed", 1, -4), "laps_completed must hold whole numbers from 0", "-4"),
        (with_value("round", 0, 100), "round must hold whole numbers from -99 to 99", "100"),
        (with_value("season", 0, None), "season is not given, it is that of the row above", None),
        (with_value("driver", 1, None), "driver is not given", None),
        (
            with_value("track", 0, "Phoenix"),
            "its rows name 2 values of track, Daytona in most",
            "Phoenix, Daytona",
        ),
        (
            MINIMAL.filter(round=1)
            .vstack(MINIMAL.filter(round=3))
            .with_columns(race_laps=pl.when(pl.col("round") == 1).then(199 + pl.col("finish_position"))),
            "its rows name 3 values of race_laps",
            "200, 201, 202",
        ),
        (
            MINIMAL.with_columns(race_laps=pl.lit(199)),
            "race_laps must be at least the winner's, 200",
            "199",
        ),
        (
            with_value("finish_position", 2, 2),
            "its finish_position is not its own, the other cars decide it: 3",
            "2",
        ),
        (with_value("start_position", 2, None), "start_position is not given, one is free: 1", None),
        (with_value("driver", 1, "ANN ALVAREZ"), "its driver has another result", "finish 2"),
        (MINIMAL.with_columns(car_number=pl.lit("48")), "two cars have its car_number", "48"),
        (
            MINIMAL.with_columns(rating=pl.lit(151.0)),
            "rating must hold numbers from 0 to 150",
            "'151.0' and 8 more",
        ),
        (
            MINIMAL.with_columns(rating=pl.lit("inf")),
            "rating must hold numbers from 0 to 150",
            "'inf' and 8 more",
        ),
        (
            MINIMAL.with_columns(race_date=pl.lit("February")),
            "race_date must hold dates",
            "'February' and 8 more",
        ),
    ],
)
def test_a_defect_is_quarantined_and_the_season_read(
    tmp_path: Path, table: pl.DataFrame, rule: str, value: str | None
) -> None:
    data = load(tmp_path, table)
    assert data.counts["races"] == 2
    found = data.quarantine.filter(pl.col("rule").str.starts_with(rule))
    assert found["value"].unique().to_list() == [value]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(value=True).alias("finish_position"), "must hold whole numbers; it holds Boolean"),
        (pl.concat_list("driver").alias("driver"), "driver must hold text; it holds List"),
        (pl.lit(date(2022, 1, 1)).alias("laps_completed"), "must hold whole numbers; it holds Date"),
    ],
)
def test_required_columns_of_another_type_are_refused(tmp_path: Path, change: pl.Expr, message: str) -> None:
    path = write(tmp_path, MINIMAL.with_columns(change), "results.parquet")
    with pytest.raises(SourceError, match=message):
        TablesSource(path, None, TRACKS).load_season(2022)


def test_an_optional_column_of_another_type_is_null(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.with_columns(laps_led=pl.lit(value=True)), "results.parquet")
    data = TablesSource(path, None, TRACKS).load_season(2022)
    assert data.race_results["laps_led"].null_count() == 6
    assert ("laps_led", "Boolean") in data.quarantine.select("subject", "value").rows()


@pytest.mark.parametrize(
    ("change", "subject", "consequence"),
    [
        (lambda laps: laps.with_columns(flag=pl.lit("purple")), "flag", "nulled"),
        (lambda laps: laps.with_columns(lap=pl.when(pl.col("lap") != 7).then("lap")), "lap", "left out"),
        (lambda laps: laps.with_columns(lap_time_s=pl.lit("quick")), "lap_time_s", "nulled"),
        (
            lambda laps: laps.with_columns(driver=pl.when(pl.col("lap") != 7).then("driver")),
            "driver",
            "left out",
        ),
    ],
)
def test_defects_of_laps_are_quarantined(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], subject: str, consequence: str
) -> None:
    data = load(tmp_path, simulated().race_results.drop(*NOT_IN_TABLES), laps=change(simulated_laps()))
    assert data.quarantine.select("subject", "consequence").rows() == [(subject, consequence)]
    missing = simulated_laps()["lap"].eq(7).sum() if consequence == "left out" else 0
    assert data.counts["laps"] == simulated_laps().height - missing


def test_flags_may_be_the_codes_of_the_feed_and_laps_be_found_by_date(tmp_path: Path) -> None:
    codes = {"green": "1", "yellow": "2", "red": "3", "checkered": "4", "warm_up": "8"}
    wrote = simulated()
    day = date(2022, 2, 13)
    results = wrote.race_results.drop(*NOT_IN_TABLES).with_columns(
        race_date=pl.lit(day) + pl.duration(days=7 * pl.col("round"))
    )
    laps = simulated_laps().with_columns(
        pl.col("flag").replace(codes), race_date=pl.lit(day) + pl.duration(days=7 * pl.col("round"))
    )
    data = load(tmp_path, results, laps=laps.drop("round"))
    assert_frame_equal(
        data.lap_telemetry, wrote.lap_telemetry, check_column_order=False, check_row_order=False
    )


@pytest.mark.parametrize("dated", [True, False])
def test_laps_of_two_races_with_one_number_are_parted_by_date_or_left_out(
    tmp_path: Path, dated: bool
) -> None:
    wrote, day = simulated(), pl.lit(date(2022, 2, 13)) + pl.duration(days=7 * pl.col("round"))
    same = pl.col("round").replace(3, 2)
    results = wrote.race_results.drop(*NOT_IN_TABLES).with_columns(race_date=day).with_columns(same)
    laps = simulated_laps().with_columns(race_date=day).with_columns(same)
    data = load(tmp_path, results, laps=laps if dated else laps.drop("race_date"))
    numbered = wrote.race_results.filter(dated | ~pl.col("round").is_in([2, 3]))["race_id"].unique()
    kept = wrote.lap_telemetry.filter(pl.col("race_id").is_in(numbered.implode()))
    assert_frame_equal(data.lap_telemetry, kept, check_column_order=False, check_row_order=False)
    rules = data.quarantine.filter(entity="laps")["rule"].to_list()
    assert rules == ([] if dated else ["two races have its number, and it has the date of neither"])


def test_laps_without_a_required_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"laps.parquet lacks the columns position.* laps = \{ position = "):
        load(tmp_path, simulated().race_results.drop(*NOT_IN_TABLES), laps=simulated_laps().drop("position"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "does not exist"),
        ("t.json", None, r"ending in .parquet, .csv, .csv.gz"),
        ("empty.csv", b"", "is not a table in CSV"),
        ("ragged.csv", b"season,round\n2022,1,9\n", "lacks the columns driver, track"),
        ("bytes.csv", b"season,round\n\xff\xfe,1\n", "lacks the columns driver, track"),
        ("twice.csv", b"season,season\n2022,2022\n", "column season occurs twice"),
        ("header.csv", HEADER, "2022 is not in"),
        ("short.csv.gz", gzip.compress(b"season\n2022\n", mtime=0)[:-8], "cannot be read: EOFError"),
        ("plain.csv.gz", b"season\n2022\n", "cannot be read: BadGzipFile"),
        ("broken.parquet", b"PAR1", "is not a table in Parquet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as refusal:
        TablesSource(str(tmp_path / name), None, TRACKS).load_season(2022)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tables_are_limited_in_size_after_decompression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, MINIMAL, "results.csv.gz")
    monkeypatch.setattr(tables_reader, "MAX_BYTES", Path(path).stat().st_size + 1)
    with pytest.raises(SourceError, match="too large: a table must have at most"):
        TablesSource(path, None, TRACKS).load_season(2022)
    monkeypatch.undo()
    monkeypatch.setattr(tables_reader, "MAX_ROWS", 8)
    with pytest.raises(SourceError, match="too large: a table must have at most 8 rows"):
        TablesSource(path, None, TRACKS).load_season(2022)


def test_seasons_are_those_that_have_run_and_that_the_catalogue_knows(tmp_path: Path) -> None:
    years = [MINIMAL.with_columns(season=pl.lit(season)) for season in (1999, 2021, 2022, 2023)]
    coming = pl.col("season") == 2023
    table = pl.concat(years).with_columns(finish_position=pl.when(~coming).then("finish_position"))
    source = TablesSource(write(tmp_path, table), None, TRACKS)
    assert source.seasons == (2021, 2022)
    with pytest.raises(SourceError, match=r"Season 2020 is not in .*; it has 1999, 2021, 2022, 2023"):
        source.load_season(2020)
    with pytest.raises(SourceError, match=r"0 of 3 finished races can be used.* not known in season 1999"):
        source.load_season(1999)


def test_a_race_without_finishes_is_the_next_race(tmp_path: Path) -> None:
    source = TablesSource(write(tmp_path, MINIMAL), None, TRACKS)
    assert source.next_race(2022) is None
    coming = pl.DataFrame(field(4)).with_columns(pl.lit(None, pl.Int64).alias("finish_position"))
    table = pl.concat([MINIMAL, coming.with_columns(laps_completed=pl.lit(None, pl.Int64))])
    source = TablesSource(write(tmp_path, table), None, TRACKS)
    found = source.next_race(2022)
    assert isinstance(found, AnnouncedRace)
    assert found.defects == ()
    entries = EntryList.validate(found.entries)
    assert entries["race_order"].unique().to_list() == [202204]
    assert entries["start_position"].to_list() == [3, 2, 1]
    assert entries["scheduled_laps"].unique().to_list() == [312]
    data = source.load_season(2022)
    assert data.race_results["race_order"].max() == 202203
    assert data.counts["races_not_run"] == 1
    no_grid = table.with_columns(start_position=pl.when(pl.col("round") < 4).then("start_position"))
    unset = TablesSource(write(tmp_path, no_grid), None, TRACKS).next_race(2022)
    assert isinstance(unset, AnnouncedRace)
    assert unset.entries["start_position"].null_count() == 3


def entered_cars(n: int, **values: object) -> pl.DataFrame:
    """Return the entry list of race 4, which has not run."""
    cars = [
        car(4, k, f"Driver {chr(64 + k)}", start_position=k, laps_completed=None, car_number=str(k))
        for k in range(1, n + 1)
    ]
    table = pl.DataFrame(cars).cast({"laps_completed": pl.Int64})
    return table.with_columns(pl.lit(None, pl.Int64).alias("finish_position"), **values)


def next_race(folder: Path, *tables: pl.DataFrame) -> pl.DataFrame | None:
    """Return the entry list; None where the source has a reason why there is none."""
    table = pl.concat([MINIMAL, *tables], how="diagonal_relaxed")
    entries = TablesSource(write(folder, table), None, TRACKS).next_race(2022)
    if isinstance(entries, NoNextRace):
        assert entries.why.startswith("No forecast of 2022 race 4 (")
        return None
    assert isinstance(entries, AnnouncedRace)
    return EntryList.validate(entries.entries)


def test_doubled_entries_are_named_and_the_placed_one_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cars = entered_cars(4)
    second = cars.head(1).with_columns(car_number=pl.lit("99"), start_position=pl.lit(None, pl.Int64))
    entries = next_race(tmp_path, second, cars)
    assert entries is not None
    assert entries.select("driver", "car_number", "start_position").rows() == [
        (f"Driver {letter}", str(k), k) for k, letter in enumerate("ABCD", 1)
    ]
    assert "Driver A, car 99, is left out: its driver has another entry" in caplog.text


def test_seats_without_a_driver_are_newcomers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cars = entered_cars(5)
    open_seats = cars.with_columns(
        driver=pl.when(pl.col("start_position") < 3).then(pl.lit("TBA")).otherwise("driver")
    )
    entries = next_race(tmp_path, open_seats)
    assert entries is not None
    assert entries["driver"].to_list()[:3] == ["To be announced, car 1", "To be announced, car 2", "Driver C"]
    assert caplog.text.count("has no known driver") == 2
    assert next_race(tmp_path, cars.with_columns(driver=pl.lit("TBD"))) is None
    assert "names the drivers of 0 cars" in caplog.text


@pytest.mark.parametrize("start", [[1, 1, 2], [1, None, None]])
def test_an_incomplete_grid_counts_as_not_set(
    tmp_path: Path, start: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    entries = next_race(tmp_path, entered_cars(3, start_position=pl.Series(start)))
    assert entries is not None
    assert entries["start_position"].null_count() == 3
    assert "2022 race 4 (Phoenix Raceway): The grid is not complete: it counts as not set." in caplog.text


def test_entries_that_did_not_qualify_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = next_race(tmp_path, entered_cars(4, start_position=pl.Series([1, 2, 3, None])))
    assert entries is not None
    assert entries["driver"].to_list() == ["Driver A", "Driver B", "Driver C"]
    assert "Driver D, car 4, is left out: it has no grid position" in caplog.text
    found = TablesSource(str(tmp_path / "results.csv"), None, TRACKS).next_race(2022)
    assert isinstance(found, AnnouncedRace)
    assert found.defects == ("Driver D, car 4, is left out: it has no grid position, while most have one.",)


def test_a_field_of_one_is_no_forecast(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert next_race(tmp_path, entered_cars(1)) is None
    assert (
        "No forecast of 2022 race 4 (Phoenix Raceway): its entry list names the drivers of 1" in caplog.text
    )


def test_a_race_that_was_not_run_is_never_the_next_one(tmp_path: Path) -> None:
    cancelled = MINIMAL.with_columns(
        pl.when(pl.col("round") != 1).then(column).alias(column)
        for column in ("finish_position", "laps_completed")
    )
    source = TablesSource(write(tmp_path, cancelled), None, TRACKS)
    assert source.next_race(2022) is None
    data = source.load_season(2022)
    assert "2022 race 1 (Daytona): it has no results, and later races have run." in races_left_out(
        data.quarantine
    )
    assert data.race_results["round"].unique().to_list() == [3]


def test_an_unknown_track_of_the_next_race_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert next_race(tmp_path, entered_cars(3, track=pl.lit("Monza"))) is None
    assert "No forecast of 2022 race 4 (Monza): Track with name 'Monza'" in caplog.text


def test_a_next_race_at_an_unknown_track_is_named_with_what_to_do(tmp_path: Path) -> None:
    coming = pl.DataFrame(field(4)).with_columns(
        pl.lit(None, pl.Int64).alias("finish_position"),
        laps_completed=pl.lit(0, pl.Int64),
        track=pl.lit("Moon Oval"),
    )
    reason = TablesSource(write(tmp_path, pl.concat([MINIMAL, coming])), None, TRACKS).next_race(2022)
    assert isinstance(reason, NoNextRace)
    assert "'Moon Oval'" in reason.why
    assert "--tracks tracks.toml" in reason.why


def test_an_earlier_race_without_a_forecast_is_a_defect_of_the_next_race(tmp_path: Path) -> None:
    """Of races at unknown tracks, the earlier one is named, also of the season before, and no later one."""
    moon = entered_cars(3, track=pl.lit("Moon Oval"))
    known = entered_cars(3, round=pl.lit(5))
    later = entered_cars(3, round=pl.lit(6), track=pl.lit("Mars Oval"))
    for season in (2022, 2023):
        following = pl.concat([known, later]).with_columns(season=pl.lit(season))
        table = pl.concat([MINIMAL, moon, following], how="diagonal_relaxed")
        found = TablesSource(write(tmp_path, table), None, TRACKS).next_race(2022)
        assert isinstance(found, AnnouncedRace)
        assert found.entries["race_id"].unique().to_list() == [100 * season + 5]
        (defect,) = found.defects
        assert defect.startswith("No forecast of 2022 race 4 (Moon Oval): Track with name 'Moon Oval'")
        assert defect.endswith("--tracks tracks.toml adds tracks. It comes before the race that is forecast.")


def test_the_layout_of_the_next_race_is_named(tmp_path: Path) -> None:
    cars = entered_cars(3, track=pl.lit("Indianapolis"))
    table = pl.concat([MINIMAL, cars], how="diagonal_relaxed")
    found = TablesSource(write(tmp_path, table), None, TRACKS).next_race(2022)
    assert isinstance(found, AnnouncedRace)
    assert found.entries["archetype"].unique().to_list() == ["road_course"]
    assert found.defects == (
        "the race: track 'Indianapolis' hides the layout: the series raced "
        "Indianapolis Motor Speedway Road Course alone (race corrected).",
    )


def test_the_next_race_may_be_the_first_of_the_next_season(tmp_path: Path) -> None:
    coming = MINIMAL.filter(round=1).with_columns(
        season=pl.lit(2023, pl.Int64), finish_position=pl.lit(0, pl.Int64), laps_completed=pl.lit(0, pl.Int64)
    )
    source = TablesSource(write(tmp_path, pl.concat([MINIMAL, coming])), None, TRACKS)
    found = source.next_race(2022)
    assert isinstance(found, AnnouncedRace)
    assert found.entries["race_order"].unique().to_list() == [202301]


def test_a_mapping_file_names_columns_of_both_tables(tmp_path: Path) -> None:
    wrote = simulated()
    results = wrote.race_results.drop(*NOT_IN_TABLES).rename({"finish_position": "platz"})
    laps = simulated_laps().rename({"lap": "runde"})
    mapping = tmp_path / "mapping.toml"
    mapping.write_text("[results]\nfinish_position = 'platz'\n[laps]\nlap = 'runde'\n")
    paths = write(tmp_path, results, "t.parquet"), write(tmp_path, laps, "laps.parquet")
    data = TablesSource(*paths, TRACKS, columns=str(mapping)).load_season(2022)
    assert_frame_equal(data.race_results, wrote.race_results, check_column_order=False)
    assert data.lap_telemetry.height == wrote.lap_telemetry.height


NEVER_DROPPED = ("season", "round", "race_name", "surface", "series")
OPTIONAL = [name for name, column in RESULTS.items() if not column.required and name not in NEVER_DROPPED]
KINDS = (pl.Int16, pl.UInt32, pl.Float64, pl.String)
INTEGERS = ("season", "round", "start_position", "finish_position", "laps_completed", "laps_led", "race_laps")


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dropped=st.sets(st.sampled_from(OPTIONAL)),
    kinds=st.dictionaries(st.sampled_from(INTEGERS), st.sampled_from(KINDS)),
    name=st.sampled_from(["t.parquet", "t.csv"]),
    shuffled=st.booleans(),
)
def test_any_choice_of_columns_and_types_gives_the_same_races(
    tmp_path: Path, dropped: set[str], kinds: dict[str, type[pl.DataType]], name: str, shuffled: bool
) -> None:
    """Missing columns are null or filled as documented; present columns are read in any type."""
    whole = simulated().race_results
    table = whole.drop(*NOT_IN_TABLES, *dropped)
    table = table.cast({column: kind for column, kind in kinds.items() if column in table.columns})
    if shuffled:
        table = table.sample(fraction=1.0, shuffle=True, seed=1).select(sorted(table.columns))
    read = TablesSource(write(tmp_path, table, name), None, TRACKS).load_season(2022).race_results
    kept = [column for column in whole.columns if column in table.columns]
    assert_frame_equal(read.select(kept), whole.select(kept))
    for column in dropped - {"driver_id", "race_laps", "scheduled_laps", "status"}:
        assert read[column].null_count() == read.height
    assert_frame_equal(read.select("race_laps"), whole.select("race_laps"))
    assert (read["running"] == whole["running"]).mean() > (0.8 if "status" in dropped else 0.999)


needs_real_results = pytest.mark.skipif(
    not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}"
)


@pytest.mark.real
@needs_real_results
def test_ten_years_of_real_races_are_read_whole() -> None:
    source = TablesSource(str(REAL_RESULTS), None, TRACKS)
    assert source.seasons == tuple(range(2013, 2024))
    seasons = {season: source.load_season(season) for season in source.seasons}
    raw = pl.read_parquet(REAL_RESULTS).filter(pl.col("Surface") != "dirt")
    for season, data in seasons.items():
        has_dirt = season >= 2021
        assert data.counts["races"] == (35 if has_dirt else 36)
        assert ["Dirt" in line for line in races_left_out(data.quarantine)] == [True] * has_dirt
        assert data.counts["cars"] == data.race_results.height == raw.filter(Season=season).height
    results = pl.concat([data.race_results for data in seasons.values()])
    assert results["race_id"].n_unique() == 393
    total = {name: sum(data.counts[name] for data in seasons.values()) for name in COUNTS}
    assert total["races_laps_led_mismatch"] == 3
    assert total["cars_ranked_behind_fewer_laps"] == 8
    assert total["cars_without_rating"] == 1
    assert total["non_starters"] == total["results_repeated"] == total["cars_without_status"] == 0
    expected = raw.select(
        pl.col("Season", "Race").cast(pl.Int64), "Driver", led="Led", finish="Finish", state="Status"
    )
    keys = ["season", "round", "driver"]
    both = results.join(expected, left_on=keys, right_on=["Season", "Race", "Driver"])
    assert both.height == results.height
    assert (both["led"] == both["laps_led"]).all()
    assert (both["finish"] == both["finish_position"]).all()
    strange = both.filter((pl.col("state") == "running") != pl.col("running"))
    assert strange["status"].to_list() == ["disqualified"]


@pytest.mark.real
@needs_real_results
@pytest.mark.skipif(not REAL_FEED.exists(), reason=f"optional real seasons are absent: {REAL_FEED}")
def test_table_and_feed_agree_on_common_columns() -> None:
    from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource

    feed = NascarFeedSource(str(REAL_FEED), TRACKS)
    assert feed.seasons == (2020, 2021)
    of_feed = feed.load_season(2021).race_results
    table = TablesSource(str(REAL_RESULTS), None, TRACKS).load_season(2021).race_results
    both = of_feed.join(table, on=["race_order", "finish_position"], suffix="_of_table")
    assert both.height == of_feed.height == table.height
    for column in ("track_id", "archetype"):
        assert (both[column] == both[f"{column}_of_table"]).all()
    for column in ("start_position", "laps_completed", "laps_led", "running", "race_laps"):
        assert (both[column] == both[f"{column}_of_table"]).mean() > 0.99


def test_finished_races_are_those_that_load_season_reads(tmp_path: Path) -> None:
    source = TablesSource(write(tmp_path, simulated().race_results.drop(*NOT_IN_TABLES)), None, TRACKS)
    season = source.seasons[0]
    read = source.load_season(season).race_results
    finished = source.finished_races(season)
    assert list(finished) == read["race_id"].unique(maintain_order=True).to_list()
    assert next(iter(finished.values())).startswith(f"{season} race 1 (")
    assert source.finished_races(season - 1) == {}
