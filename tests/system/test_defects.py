"""Defects in real seasons: they cost their race at most, and the report names them.

Each kind of defect changes one race. The rows of the other races must be equal to the bit, and the defect is
in the quarantine, or what is stored of the race is right.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.cli import main
from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.quarantine import races_left_out
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.feed_defects import FEED_DEFECTS, LIST, damage_race
from helpers.paths import REAL_DATA

RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
FEED = REAL_DATA / "nascar_feed_2020_2021.zip"
SEASON = 2022
FEED_SEASON = 2021
TABLE_RACES, FEW_RACES = 36, 12
FEED_RACES = 8  # of which the seventh is on dirt
LESS = {"suppress_health_check": list(HealthCheck), "derandomize": True}
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
    """Remove a row; without the last finisher on the last grid position, the race would be whole."""
    n = str(rows.height)
    noticed = rows.with_row_index("row").filter((pl.col("Finish") != n) | (pl.col("Start") != n))["row"]
    return rows.filter(pl.int_range(pl.len()) != noticed[k % len(noticed)])


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
def table(n_races: int) -> Rows:
    rows = pl.read_parquet(RESULTS).filter(pl.col("Season") == SEASON, pl.col("Race") <= n_races)
    return rows.with_columns(pl.all().cast(pl.String))


@cache
def whole_table(n_races: int) -> SeasonData:
    return load_table(table(n_races), Path(RESULTS).with_suffix(".csv").name)


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


def check_table(kind: str, number: int, car: int, n_races: int) -> None:
    rows = table(n_races).with_row_index("line")
    of_race = pl.col("Race") == str(number)
    damaged = TABLE_DEFECTS[kind](rows.filter(of_race).drop("line"), car)
    first = int(rows.filter(of_race)["line"].min())  # type: ignore[arg-type]
    rest = rows.filter(~of_race).drop("line")
    changed = pl.concat([rest.head(first), damaged, rest.tail(rest.height - first)])
    assert_only(
        load_table(changed, RESULTS.with_suffix(".csv").name), whole_table(n_races), 100 * SEASON + number
    )


kinds, cars = st.sampled_from(sorted(TABLE_DEFECTS)), st.integers(0, 39)


@pytest.mark.slow
@pytest.mark.real
@settings(max_examples=100, **LESS)  # type: ignore[arg-type]
@given(kinds, st.integers(1, FEW_RACES), cars)
def test_a_defect_in_a_table_costs_its_race_at_most(kind: str, number: int, car: int) -> None:
    """Of the first races of a season alone: a test of the soak has them all."""
    check_table(kind, number, car, FEW_RACES)


@pytest.mark.soak
@settings(max_examples=4000, **LESS)  # type: ignore[arg-type]
@given(kinds, st.integers(1, TABLE_RACES), cars)
def test_many_defects_in_tables(kind: str, number: int, car: int) -> None:
    check_table(kind, number, car, TABLE_RACES)


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
    race = folder / str(FEED_SEASON) / "1" / str(victim)
    document, _ = FEED_DEFECTS[kind]
    good = (race / document).read_bytes()
    try:
        damage_race(race, kind, k)
        assert_only(NascarFeedSource(str(folder), TRACKS).load_season(FEED_SEASON), whole, victim)
    finally:
        (race / document).write_bytes(good)


feeds = given(st.sampled_from(sorted(FEED_DEFECTS)), st.integers(1, 6), st.integers(0, 35))


@pytest.mark.slow
@pytest.mark.real
@settings(max_examples=24, **LESS)  # type: ignore[arg-type]
@feeds
def test_a_defect_in_the_feed_costs_its_race_at_most(feed: Path, kind: str, number: int, k: int) -> None:
    check_feed(feed, kind, number, k)


@pytest.mark.soak
@settings(max_examples=1000, **LESS)  # type: ignore[arg-type]
@feeds
def test_many_defects_in_the_feed(feed: Path, kind: str, number: int, k: int) -> None:
    check_feed(feed, kind, number, k)


TWENTY = (
    "null",
    "cut off",
    "of another race",
    "start taken twice",
    "finish taken twice",
    "finish lost",
    "car number taken twice",
    "driver twice",
    "no status",
    "no laps led",
    "negative laps",
    "neither id nor name",
    "race laps null",
    "laps null",
    "laps of a car null",
    "laps too short",
    "a lap without number",
    "a negative lap time",
    "a position 0",
    "laps cut off",
)
"""Defects that the quarantine names, one for each of the season's first races that are not on dirt."""


@pytest.mark.soak
def test_twenty_defects_at_once_end_in_a_report_that_names_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "feed"
    shutil.unpack_archive(FEED, folder)
    path = folder / str(FEED_SEASON) / LIST
    document = json.loads(path.read_text())
    points = [
        race
        for race in document["series_1"]
        if race["race_type_id"] == 1 and "Dirt" not in str(race["track_name"])
    ]
    victims = [race["race_id"] for race in sorted(points, key=lambda race: race["race_date"])]
    for race_id, kind in zip(victims, TWENTY, strict=False):
        damage_race(folder / str(FEED_SEASON) / "1" / str(race_id), kind, 7)
    doubled = victims[len(TWENTY)]
    rows = [race for race in document["series_1"] if race["race_id"] == doubled]
    path.write_text(json.dumps({**document, "series_1": [*document["series_1"], *rows]}))

    seasons = ("--seasons", f"{FEED_SEASON - 1},{FEED_SEASON}")
    feed = ("--source", "nascar_feed", "--feed-url", str(folder))
    assert main(["run", *feed, *seasons, "--scenarios", "100"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"quarantine [{FEED_SEASON}]" in output
    store = project / "data" / "store" / "nascar_feed" / "cup"
    quarantine = pl.read_parquet(store / "quarantine" / f"{FEED_SEASON}.parquet")
    report = (store / "calibration_report.md").read_text()
    section = report.split("## What was left out, and why")[1]
    for race_id in (*victims[: len(TWENTY)], doubled):
        assert race_id in quarantine["race_id"], race_id
        assert f"{FEED_SEASON} race {race_id}" in section, race_id
    for line in races_left_out(quarantine):
        assert line.partition(" (")[0] in report
