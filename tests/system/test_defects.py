"""One random defect in one race of a real season: all else is stored as without it.

Each kind of defect changes one race. The rows of the other races must be equal to the bit, and the defect is
in the quarantine, or what is stored of the race is right.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import REAL_DATA

RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
FEED = REAL_DATA / "nascar_feed_2020_2021.zip"
SEASON = 2022
FEED_SEASON = 2021
FEED_RACES = 8  # of which the seventh is on dirt
LESS = {"suppress_health_check": list(HealthCheck), "deadline": None, "derandomize": True}
TRACKS = compile_constraints()

pytestmark = pytest.mark.skipif(
    not (RESULTS.exists() and FEED.exists()), reason=f"optional real seasons are absent: {REAL_DATA}"
)

type Rows = pl.DataFrame
type Change = Callable[[Rows, int], Rows]


def of_car(column: str, value: str | None) -> Change:
    """Return the defect of one cell."""
    return lambda rows, k: rows.with_columns(
        pl.when(pl.int_range(pl.len()) == k % rows.height).then(pl.lit(value)).otherwise(column).alias(column)
    )


def of_race(column: str, value: str | None) -> Change:
    """Return the defect of a column in all rows of the race."""
    return lambda rows, _k: rows.with_columns(pl.lit(value).alias(column))


def as_another(column: str) -> Change:
    """Return the defect of a cell that repeats the one of another car."""
    return lambda rows, k: of_car(column, rows[column][(k + 1) % rows.height])(rows, k)


def without_row(rows: Rows, k: int) -> Rows:
    return rows.filter(pl.int_range(pl.len()) != k % rows.height)


def twice(**changes: str) -> Change:
    """Return the defect of a row that stands twice, the second time with other values."""
    return lambda rows, k: pl.concat(
        [rows, rows[[k % rows.height]].with_columns(pl.lit(v).alias(c) for c, v in changes.items())]
    )


def appended(**values: str | None) -> Change:
    """Return the defect of a row that is no result."""
    return lambda rows, _k: pl.concat(
        [rows, rows[[-1]].with_columns(pl.lit(v, pl.String).alias(c) for c, v in values.items())]
    )


TABLE_DEFECTS: dict[str, Change] = {
    "no finish": of_car("Finish", None),
    "finish taken twice": as_another("Finish"),
    "finish 0": of_car("Finish", "0"),
    "finish is no number": of_car("Finish", "DNF"),
    "row lost": without_row,
    "no start": of_car("Start", None),
    "start taken twice": as_another("Start"),
    "start beyond the field": of_car("Start", "99"),
    "car number taken twice": as_another("Car"),
    "no car number": of_car("Car", None),
    "driver twice": as_another("Driver"),
    "no driver": of_car("Driver", None),
    "row twice": twice(),
    "row twice, another team": twice(Team="Another Team"),
    "row twice, another finish": twice(Finish="40"),
    "no laps": of_car("Laps", None),
    "more laps than the race": of_car("Laps", "5000"),
    "negative laps": of_car("Laps", "-3"),
    "laps are no number": of_car("Laps", "many"),
    "no laps led": of_car("Led", None),
    "negative laps led": of_car("Led", "-1"),
    "no status": of_car("Status", None),
    "unknown status": of_car("Status", "abducted"),
    "rating out of range": of_car("Rating", "999"),
    "nobody runs": of_race("Status", "accident"),
    "half of the field": lambda rows, _k: rows.filter(pl.col("Finish").cast(pl.Int64) % 2 == 0),
    "one car": lambda rows, _k: rows.head(1),
    "unknown track": of_race("Track", "Sea of Tranquility"),
    "track of one row": of_car("Track", "Sea of Tranquility"),
    "no track in one row": of_car("Track", None),
    "did not start": appended(Finish="41", Start=None, Laps="0", Driver="Nobody Known", Car="99"),
    "placeholder": appended(Finish=None, Start=None, Laps=None, Driver=None, Car=None),
    "finishes as floats": lambda rows, _k: rows.with_columns(pl.col("Finish") + ".0"),
    "spaces": lambda rows, _k: rows.with_columns(pl.format(" {}  ", "Driver").alias("Driver")),
}


@cache
def table() -> Rows:
    rows = pl.read_parquet(RESULTS).filter(pl.col("Season") == SEASON)
    return rows.with_columns(pl.all().cast(pl.String))


@cache
def whole_table() -> SeasonData:
    return load_table(table(), Path(RESULTS).with_suffix(".csv").name)


def load_table(rows: Rows, name: str) -> SeasonData:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        rows.write_csv(path)
        return TablesSource(str(path), None, TRACKS).load_season(SEASON)


def assert_only(damaged: SeasonData, whole: SeasonData, victim: int) -> None:
    """Check that a defect changes what is stored of its race alone, and is named there."""
    for frame in ("race_results", "lap_telemetry"):
        stored, before = getattr(damaged, frame), getattr(whole, frame)
        others = pl.col("race_id") != victim
        assert stored.filter(others).equals(before.filter(others)), f"{frame} of other races"
    columns = [name for name in damaged.quarantine.columns if name != "place"]
    new = damaged.quarantine.join(whole.quarantine, on=columns, how="anti", nulls_equal=True)
    of_others = new.filter((pl.col("race_id") != victim).fill_null(value=False))
    assert of_others.is_empty(), of_others
    own = pl.col("race_id") == victim
    frames = ("race_results", "lap_telemetry")
    same = all(getattr(damaged, name).filter(own).equals(getattr(whole, name).filter(own)) for name in frames)
    assert same or not new.is_empty(), "the race is stored otherwise, and nothing names it"


def check_table(kind: str, number: int, car: int) -> None:
    rows = table().with_row_index("line")
    of_race = pl.col("Race") == str(number)
    damaged = TABLE_DEFECTS[kind](rows.filter(of_race).drop("line"), car)
    first = int(rows.filter(of_race)["line"].min())  # type: ignore[arg-type]
    rest = rows.filter(~of_race).drop("line")
    changed = pl.concat([rest.head(first), damaged, rest.tail(rest.height - first)])
    assert_only(load_table(changed, RESULTS.with_suffix(".csv").name), whole_table(), 100 * SEASON + number)


tables = given(st.sampled_from(sorted(TABLE_DEFECTS)), st.integers(1, 36), st.integers(0, 39))


@pytest.mark.slow
@pytest.mark.real
@settings(max_examples=200, **LESS)  # type: ignore[arg-type]
@tables
def test_a_defect_in_a_table_costs_its_race_at_most(kind: str, number: int, car: int) -> None:
    check_table(kind, number, car)


@pytest.mark.soak
@settings(max_examples=4000, **LESS)  # type: ignore[arg-type]
@tables
def test_many_defects_in_tables(kind: str, number: int, car: int) -> None:
    check_table(kind, number, car)


type Document = Any
WEEKEND, LAPS, LIST = "weekend-feed.json", "lap-times.json", "race_list_basic.json"


def in_result(**values: Any) -> Callable[[Document, int], None]:
    """Return the defect of one row of the results."""

    def change(document: Document, k: int) -> None:
        rows = [row for row in document["weekend_race"][0]["results"] if row["finishing_position"]]
        rows[k % len(rows)].update(values)

    return change


def as_next(field: str) -> Callable[[Document, int], None]:
    """Return the defect of a value that stands in two rows of the results."""

    def change(document: Document, k: int) -> None:
        rows = [row for row in document["weekend_race"][0]["results"] if row["finishing_position"]]
        rows[k % len(rows)][field] = rows[(k + 1) % len(rows)][field]

    return change


def in_race(**values: Any) -> Callable[[Document, int], None]:
    return lambda document, _k: document["weekend_race"][0].update(values)


def result_lost(document: Document, k: int) -> None:
    rows = document["weekend_race"][0]["results"]
    rows.pop(k % len(rows))


def result_twice(document: Document, k: int) -> None:
    rows = document["weekend_race"][0]["results"]
    rows.append(dict(rows[k % len(rows)]))


def numbers_as_text(document: Document, _k: int) -> None:
    for row in document["weekend_race"][0]["results"]:
        row.update(
            {name: str(v) for name, v in row.items() if isinstance(v, int) and not isinstance(v, bool)}
        )


def unknown_fields(document: Document, _k: int) -> None:
    for row in document["weekend_race"][0]["results"]:
        row["a_new_field"] = {"of": ["any", "form"]}


def laps_of_car(value: Any) -> Callable[[Document, int], None]:
    def change(document: Document, k: int) -> None:
        document["laps"][k % len(document["laps"])]["Laps"] = value

    return change


def in_lap(**values: Any) -> Callable[[Document, int], None]:
    def change(document: Document, k: int) -> None:
        laps = document["laps"][k % len(document["laps"])]["Laps"]
        laps[len(laps) // 2].update(values)

    return change


def lap_time_as_text(document: Document, k: int) -> None:
    laps = document["laps"][k % len(document["laps"])]["Laps"]
    laps[len(laps) // 2]["LapTime"] = str(laps[len(laps) // 2]["LapTime"])


def laps_cut(document: Document, _k: int) -> None:
    for car in document["laps"]:
        car["Laps"] = car["Laps"][: len(car["Laps"]) // 2]


FEED_DEFECTS: dict[str, tuple[str, Callable[[Document, int], None] | bytes | None]] = {
    "no document": (WEEKEND, None),
    "null": (WEEKEND, b"null"),
    "an empty list": (WEEKEND, b"[]"),
    "no race": (WEEKEND, b'{"weekend_race": null}'),
    "cut off": (WEEKEND, b'{"weekend_race": [{"race'),
    "a web page": (WEEKEND, b"<html>Forbidden</html>"),
    "of another race": (WEEKEND, in_race(race_id=4711)),
    "start taken twice": (WEEKEND, as_next("starting_position")),
    "finish taken twice": (WEEKEND, as_next("finishing_position")),
    "car number taken twice": (WEEKEND, as_next("car_number")),
    "driver twice": (WEEKEND, as_next("driver_id")),
    "finish lost": (WEEKEND, result_lost),
    "result twice": (WEEKEND, result_twice),
    "no status": (WEEKEND, in_result(finishing_status=None)),
    "no laps led": (WEEKEND, in_result(laps_led=None)),
    "negative laps": (WEEKEND, in_result(laps_completed=-1)),
    "neither id nor name": (WEEKEND, in_result(driver_id=0, driver_fullname=None)),
    "a name as number": (WEEKEND, in_result(driver_fullname=17)),
    "finish is text": (WEEKEND, in_result(finishing_position="first")),
    "no race laps": (WEEKEND, in_race(actual_laps=0)),
    "race laps null": (WEEKEND, in_race(actual_laps=None)),
    "numbers as text": (WEEKEND, numbers_as_text),
    "unknown fields": (WEEKEND, unknown_fields),
    "no laps document": (LAPS, None),
    "laps null": (LAPS, b'{"laps": null, "flags": null}'),
    "laps body null": (LAPS, b"null"),
    "laps cut off": (LAPS, b'{"laps": ['),
    "laps of a car null": (LAPS, laps_of_car(None)),
    "laps of a car empty": (LAPS, laps_of_car([])),
    "laps too short": (LAPS, laps_cut),
    "a lap without number": (LAPS, in_lap(Lap=None)),
    "a negative lap time": (LAPS, in_lap(LapTime=-4.0)),
    "a lap time as text": (LAPS, lap_time_as_text),
    "a position 0": (LAPS, in_lap(RunningPos=0)),
}


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the first points races of a real season, as if no more had run."""
    folder = tmp_path_factory.mktemp("feed")
    shutil.unpack_archive(FEED, folder)
    path = folder / str(FEED_SEASON) / LIST
    document = json.loads(path.read_text())
    points = [race for race in document["series_1"] if race["race_type_id"] == 1]
    document["series_1"] = sorted(points, key=lambda race: race["race_date"])[:FEED_RACES]
    path.write_text(json.dumps(document))
    return folder


@cache
def whole_feed(folder: Path) -> SeasonData:
    return NascarFeedSource(str(folder), TRACKS).load_season(FEED_SEASON)


def check_feed(folder: Path, kind: str, number: int, k: int) -> None:
    whole = whole_feed(folder)
    victim = whole.race_results.filter(round=number)["race_id"][0]
    document, change = FEED_DEFECTS[kind]
    path = folder / str(FEED_SEASON) / "1" / str(victim) / document
    good = path.read_bytes()
    try:
        if change is None:
            path.unlink()
        elif isinstance(change, bytes):
            path.write_bytes(change)
        else:
            value = json.loads(good)
            change(value, k)
            path.write_text(json.dumps(value))
        assert_only(NascarFeedSource(str(folder), TRACKS).load_season(FEED_SEASON), whole, victim)
    finally:
        path.write_bytes(good)


feeds = given(st.sampled_from(sorted(FEED_DEFECTS)), st.integers(1, 6), st.integers(0, 35))


@pytest.mark.slow
@pytest.mark.real
@settings(max_examples=100, **LESS)  # type: ignore[arg-type]
@feeds
def test_a_defect_in_the_feed_costs_its_race_at_most(feed: Path, kind: str, number: int, k: int) -> None:
    check_feed(feed, kind, number, k)


@pytest.mark.soak
@settings(max_examples=1000, **LESS)  # type: ignore[arg-type]
@feeds
def test_many_defects_in_the_feed(feed: Path, kind: str, number: int, k: int) -> None:
    check_feed(feed, kind, number, k)
