"""Defects of one race: each gets the mildest consequence, and the other races never change."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.quarantine import DID_NOT_START
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.example_tables import example_results

TRACKS = compile_constraints()
TABLE = example_results()
RACE = 3
"""The race that has the defects."""
FIELD = TABLE.filter(round=RACE)
type Row = dict[str, Any]
type Change = Callable[[list[Row]], None]


def load(folder: Path, change: Change) -> SeasonData:
    rows = TABLE.to_dicts()
    change(rows)
    table = pl.DataFrame(rows, schema=TABLE.schema, orient="row", strict=False)
    table.write_parquet(folder / "results.parquet")
    return TablesSource(str(folder / "results.parquet"), None, TRACKS).load_season(2022)


def car(finish: int, rows: list[Row], race: int = RACE) -> Row:
    return next(row for row in rows if (row["round"], row["finish_position"]) == (race, finish))


def change_car(finish: int, **values: object) -> Change:
    return lambda rows: car(finish, rows).update(values)


def change_all(**values: object) -> Change:
    return lambda rows: [row.update(values) for row in rows if row["round"] == RACE] and None


def repeat(finish: int, **values: object) -> Change:
    return lambda rows: rows.append(car(finish, rows) | values)


def drop(*finishes: int) -> Change:
    return lambda rows: [rows.remove(car(finish, rows)) for finish in finishes] and None


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return load(tmp_path_factory.mktemp("clean"), lambda _rows: None).race_results


def value_of(column: str, finish: int) -> Any:
    return FIELD.filter(finish_position=finish)[column][0]


TOP = value_of("laps_completed", 1)
NON_STARTER = {"driver": "Di Dahl", "driver_id": None, "car_number": "999", "laps_completed": 0,
    "start_position": None, "laps_led": 0, "team": "New"}  # fmt: skip
SAME_RACE: dict[str, tuple[Change, str, str]] = {
    "finish absent": (change_car(5, finish_position=None), "value", "corrected"),
    "finish of the winner absent": (change_car(1, finish_position=None), "value", "corrected"),
    "finish 0 with laps": (change_car(5, finish_position=0), "value", "corrected"),
    "finish doubled": (change_car(5, finish_position=6), "value", "corrected"),
    "finish doubled far away": (change_car(5, finish_position=30), "value", "corrected"),
    "finish too large": (change_car(5, finish_position=77), "value", "corrected"),
    "start absent": (change_car(5, start_position=None), "value", "corrected"),
    "start 0": (change_car(5, start_position=0), "value", "corrected"),
    "laps of the winner absent": (change_car(1, laps_completed=None), "value", "corrected"),
    "laps of the winner too few": (change_car(1, laps_completed=20), "value", "corrected"),
    "laps of the winner too many": (change_car(1, laps_completed=TOP * 10), "value", "corrected"),
    "row twice, another team": (repeat(5, team="Other"), "entry", "left out"),
    "row twice, another finish": (repeat(5, finish_position=40), "entry", "left out"),
    "row twice, another driver": (repeat(5, driver="Di Dahl"), "entry", "left out"),
    "placeholder": (repeat(5, driver=None, finish_position=None, laps_completed=None), "entry", "left out"),
    "non-starter behind the field": (
        repeat(5, **NON_STARTER, finish_position=FIELD.height + 1, status="did not start"),
        "entry",
        "left out",
    ),
    "non-starter without a finish": (repeat(5, **NON_STARTER, finish_position=None), "entry", "left out"),
    "winner out": (change_car(1, status="accident"), "value", "corrected"),
    "track of one row": (change_car(5, track_id="phoenix"), "value", "corrected"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_RACE)
def test_defects_that_the_other_values_resolve_change_nothing(
    tmp_path: Path, clean: pl.DataFrame, name: str
) -> None:
    change, entity, consequence = SAME_RACE[name]
    data = load(tmp_path, change)
    assert_frame_equal(data.race_results, clean)
    found = data.quarantine.select("entity", "consequence").rows()
    assert (entity, consequence) in found
    assert len(found) <= 2


SMALLER_RACE: dict[str, tuple[Change, list[int], str]] = {
    "driver absent": (change_car(5, driver=None), [5], "driver is not given"),
    "driver doubled": (
        change_car(5, driver=value_of("driver", 9), car_number=None, team=None),
        [5],
        "its driver has another result",
    ),
    "start doubled": (
        change_car(5, start_position=value_of("start_position", 9)),
        [5, 9],
        "two cars have its start_position",
    ),
    "laps of the last car absent": (
        change_car(FIELD.height, laps_completed=None), [FIELD.height], "laps_completed is not given",
    ),
    "rows lost": (drop(12, 20), [12, 20], "positions without a car are closed up"),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALLER_RACE)
def test_entries_that_cannot_be_used_are_left_out_and_ranks_close(
    tmp_path: Path, clean: pl.DataFrame, name: str
) -> None:
    change, finishes, rule = SMALLER_RACE[name]
    data = load(tmp_path, change)
    assert rule in data.quarantine["rule"].to_list()
    others = clean.filter((pl.col("round") != RACE) | ~pl.col("finish_position").is_in(finishes))
    rank = pl.col("finish_position").rank("ordinal").over("race_id").cast(pl.Int64)
    assert_frame_equal(data.race_results, others.with_columns(finish_position=rank))


NO_RACE: dict[str, tuple[Change, str]] = {
    "winner lost": (drop(1), "its winner is not known"),
    "start of the winner doubled": (
        change_car(1, start_position=value_of("start_position", 9)), "its winner is not known",
    ),
    "a fifth of the starts absent": (
        lambda rows: [car(k, rows).update(start_position=None) for k in range(5, 14)] and None,
        "too many of its cars cannot be used",
    ),
    "half of the field": (drop(*range(19, FIELD.height + 1)), "its field is a part of the usual one"),
    "one finish for all": (change_all(finish_position=1), "two cars have one finish_position"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_RACE)
def test_a_race_that_nothing_resolves_is_left_out_alone(
    tmp_path: Path, clean: pl.DataFrame, name: str
) -> None:
    change, rule = NO_RACE[name]
    data = load(tmp_path, change)
    (left,) = data.quarantine.filter(entity="race", consequence="left out").iter_rows(named=True)
    assert left["rule"].startswith(rule)
    assert left["race_id"] == 202200 + RACE
    assert_frame_equal(data.race_results, clean.filter(pl.col("round") != RACE))


@pytest.mark.parametrize("column", ["car_number", "team", "make", "laps_led"])
def test_a_missing_value_is_null_and_named(tmp_path: Path, clean: pl.DataFrame, column: str) -> None:
    data = load(tmp_path, change_car(5, **{column: None}))
    assert data.quarantine.select("consequence", "rule").rows() == [("nulled", f"{column} is not given")]
    assert_frame_equal(data.race_results.drop(column), clean.drop(column))


def test_a_grid_position_without_a_car_is_named(tmp_path: Path) -> None:
    """Without the last finisher, the finishes are complete; only the grid shows that a row is lost."""
    last = FIELD.height
    data = load(tmp_path, drop(last))
    assert data.race_results.filter(round=RACE).height == last - 1
    named = data.quarantine.select("entity", "consequence", "value").rows()
    assert named == [("race", "kept", str(value_of("start_position", last)))]


def test_doubled_car_numbers_and_impossible_laps_led_are_null(tmp_path: Path, clean: pl.DataFrame) -> None:
    def change(rows: list[Row]) -> None:
        car(5, rows)["car_number"] = car(9, rows)["car_number"]
        car(7, rows)["laps_led"] = TOP + 1

    data = load(tmp_path, change)
    race = data.race_results.filter(round=RACE)
    assert race.filter(pl.col("car_number").is_null())["finish_position"].to_list() == [5, 9]
    assert race.filter(pl.col("laps_led").is_null())["finish_position"].to_list() == [7]
    assert data.quarantine["consequence"].unique().to_list() == ["nulled"]
    assert_frame_equal(data.race_results.drop("car_number", "laps_led"), clean.drop("car_number", "laps_led"))


def test_all_defects_of_a_season_are_found_in_one_run(tmp_path: Path) -> None:
    def change(rows: list[Row]) -> None:
        car(4, rows, 1)["start_position"] = None
        car(5, rows, 2)["finish_position"] = None
        car(1, rows, 3)["laps_completed"] = None
        car(8, rows, 4)["driver"] = None
        rows.append(car(2, rows, 5) | {"team": "Other"})
        rows.append(car(2, rows, 6) | NON_STARTER | {"finish_position": None})

    data = load(tmp_path, change)
    assert data.counts["races"] == 6
    assert set(data.quarantine["race_id"] % 100) == {1, 2, 3, 4, 5, 6}
    assert data.quarantine.filter(rule=DID_NOT_START)["subject"].to_list() == ["Di Dahl"]
    assert data.counts["non_starters"] == 1


COLUMNS: Sequence[str] = (
    "driver", "car_number", "team", "make", "start_position", "finish_position", "laps_completed", "laps_led",
    "status", "round", "track_id",
)  # fmt: skip
NUMBERS = {name for name in COLUMNS if TABLE.schema[name] == pl.Int64}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.sampled_from(COLUMNS),
    finish=st.integers(1, FIELD.height),
    number=st.none() | st.integers(-5, 600),
    text=st.none() | st.sampled_from(["", "TBA", "accident", "Ann Other", "bristol", "1"]),
)
def test_any_wrong_cell_leaves_the_other_races_as_they_are(
    tmp_path: Path, clean: pl.DataFrame, column: str, finish: int, number: int | None, text: str | None
) -> None:
    value = number if column in NUMBERS else text
    data = load(tmp_path, change_car(finish, **{column: value}))
    others = pl.col("round") != RACE
    assert_frame_equal(data.race_results.filter(others), clean.filter(others))
    race, expected = data.race_results.filter(~others), clean.filter(~others)
    if column not in ("driver", "car_number", "team", "make", "track_id", "status", "laps_led"):
        assert race.equals(expected) or not data.quarantine.is_empty() or race.height == expected.height


def test_finishes_of_a_shuffled_table_follow_from_laps_or_elimination(
    tmp_path: Path, clean: pl.DataFrame
) -> None:
    def load_shuffled(finish: int, position: int | None) -> SeasonData:
        here = (pl.col("round") == RACE) & (pl.col("finish_position") == finish)
        table = TABLE.with_columns(finish_position=pl.when(here).then(position).otherwise("finish_position"))
        table.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(tmp_path / "results.parquet")
        return TablesSource(str(tmp_path / "results.parquet"), None, TRACKS).load_season(2022)

    assert_frame_equal(load_shuffled(5, None).race_results, clean)
    last = FIELD.height
    assert value_of("laps_completed", last) < value_of("laps_completed", 3)
    assert_frame_equal(load_shuffled(last, 3).race_results, clean)
    tied = load_shuffled(2, 3)
    assert value_of("laps_completed", 2) == value_of("laps_completed", 3)
    assert RACE not in tied.race_results["round"]
    assert "two cars have one finish_position" in tied.quarantine["rule"].to_list()
