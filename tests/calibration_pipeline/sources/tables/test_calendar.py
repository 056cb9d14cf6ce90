"""Races of a season: rounds and dates, series, exhibitions, layouts, and races that are no whole race."""

import datetime
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from calibration_pipeline.sources import SeasonData, SourceError
from calibration_pipeline.sources.quarantine import lost_races
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.example_tables import example_results

TRACKS = compile_constraints()
TABLE = example_results()
type Change = Callable[[pl.DataFrame], pl.DataFrame]


def load(folder: Path, table: pl.DataFrame, series: str = "cup") -> SeasonData:
    table.write_parquet(folder / "results.parquet")
    return TablesSource(str(folder / "results.parquet"), None, TRACKS, series).load_season(2022)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    data = load(tmp_path_factory.mktemp("clean"), TABLE)
    assert data.quarantine.is_empty()
    return data.race_results


def rules(data: SeasonData) -> list[tuple[str, str, str]]:
    rows = data.quarantine.select("entity", "consequence", "rule").rows()
    return list(dict.fromkeys(rows))


def only(round_: int, **values: pl.Expr) -> Change:
    """Return the change of some columns in one race."""
    here = pl.col("round") == round_
    return lambda table: table.with_columns(
        **{name: pl.when(here).then(value).otherwise(name) for name, value in values.items()}
    )


def swap(table: pl.DataFrame, *rounds: int) -> pl.DataFrame:
    """Give the races other numbers: each that of the next one named."""
    return table.with_columns(
        pl.col("round").replace(dict(zip(rounds, (*rounds[1:], rounds[0]), strict=True)))
    )


@pytest.mark.parametrize("columns", [("round",), ("season",), ("season", "round"), ("race_date",)])
def test_season_and_round_follow_from_dates(
    tmp_path: Path, clean: pl.DataFrame, columns: tuple[str, ...]
) -> None:
    data = load(tmp_path, TABLE.drop(columns))
    expected = clean if "race_date" not in columns else clean.with_columns(race_date=pl.lit(None, pl.Date))
    assert_frame_equal(data.race_results, expected)
    assert data.quarantine.is_empty()


@pytest.mark.parametrize("rounds", [(2, 3), (1, 4, 2), (1, 6, 2, 5)])
def test_dates_decide_where_rounds_contradict_them(
    tmp_path: Path, clean: pl.DataFrame, rounds: tuple[int, ...]
) -> None:
    data = load(tmp_path, swap(TABLE, *rounds))
    assert_frame_equal(data.race_results, clean)
    corrected = data.quarantine.filter(entity="race", consequence="corrected")
    assert corrected["rule"].unique().to_list() == ["its number contradicts its date, the dates decide"]
    assert set(corrected["race_id"] % 100) == set(rounds)


@pytest.mark.parametrize(
    ("date", "rule"),
    [
        (datetime.date(2022, 11, 1), "its date contradicts its number and all other dates"),
        (datetime.date(2021, 2, 20), "its date is not in the season"),
    ],
)
def test_one_wrong_date_moves_no_other_race(
    tmp_path: Path, clean: pl.DataFrame, date: datetime.date, rule: str
) -> None:
    data = load(tmp_path, only(2, race_date=pl.lit(date))(TABLE))
    assert rules(data) == [("value", "nulled", rule)]
    assert_frame_equal(data.race_results.drop("race_date"), clean.drop("race_date"))
    assert data.race_results.filter(round=2)["race_date"].null_count() > 0


def test_a_date_that_nobody_needs_refuses_nothing(tmp_path: Path, clean: pl.DataFrame) -> None:
    data = load(tmp_path, TABLE.with_columns(race_date=pl.lit("a Sunday")))
    assert_frame_equal(data.race_results.drop("race_date"), clean.drop("race_date"))
    assert rules(data) == [("value", "nulled", "race_date must hold dates")]
    one_cell = TABLE.with_row_index().with_columns(
        pl.when(pl.col("index") != 3).then(pl.col("race_date").cast(pl.String)).otherwise(pl.lit("soon"))
    )
    assert_frame_equal(load(tmp_path, one_cell).race_results, clean)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (only(3, round=pl.lit(-1)), "its number is not positive: it is an exhibition or a qualifying race"),
        (only(3, round=pl.lit(0)), "its number is not positive: it is an exhibition or a qualifying race"),
        (only(3, laps_completed=pl.lit(0)), "no other car has completed a lap"),
        (only(3, finish_position=pl.lit(None)), "it has no finish positions"),
        (only(3, start_position=pl.lit(None)), "its grid is not known"),
        (lambda t: t.filter((pl.col("round") != 3) | (pl.col("finish_position") == 1)), "it has one car"),
        (
            lambda t: t.filter((pl.col("round") != 3) | (pl.col("finish_position") < 18)),
            "its field is a part of the usual one: rows are lost, or it is an exhibition",
        ),
        (only(3, track_id=pl.lit(None)), "it has no track"),
        (only(3, track_id=pl.lit("Nürburgring")), "Track with name 'Nürburgring', feed id None is unknown"),
    ],
)
def test_races_that_do_not_count_are_left_out_alone(
    tmp_path: Path, clean: pl.DataFrame, change: Change, rule: str
) -> None:
    data = load(tmp_path, change(TABLE))
    (left,) = data.quarantine.filter(entity="race", consequence="left out").iter_rows(named=True)
    assert left["rule"].startswith(rule)
    assert lost_races(data.quarantine).is_empty() == ("its number is not positive" in rule)
    assert_frame_equal(data.race_results, clean.filter(pl.col("round") != 3))


@pytest.mark.parametrize(
    "name",
    ["Busch Light Clash at The Coliseum", "Bluegreen Vacations Duel 1 at DAYTONA", "NASCAR All-Star Race",
     "Sprint Unlimited", "Budweiser Shootout", "Daytona Qualifying Race 2", "NASCAR All-Star Open"],
)  # fmt: skip
@pytest.mark.parametrize("dated", [False, True])
def test_exhibitions_do_not_count_as_rounds(
    tmp_path: Path, clean: pl.DataFrame, name: str, dated: bool
) -> None:
    """The table numbers the exhibition as its first race, or has dates alone."""
    day = datetime.date(2022, 2, 6)
    exhibition = TABLE.filter(round=1).with_columns(round=pl.lit(0, pl.Int64), race_date=day)
    table = pl.concat([exhibition, TABLE]).with_columns(
        pl.col("round") + 1, race_name=pl.when(pl.col("round") == 0).then(pl.lit(name))
    )
    data = load(tmp_path, table.drop("round") if dated else table)
    assert_frame_equal(data.race_results, clean)
    assert rules(data) == [("race", "left out", "it is an exhibition or a qualifying race by its name")]
    assert data.counts["exhibitions"] == 1


def test_exhibitions_are_no_lost_races(tmp_path: Path, clean: pl.DataFrame) -> None:
    """A table of February numbers three exhibitions before the only points race."""
    first = TABLE.filter(round=1).with_columns(race_name=pl.lit("Daytona 500"))
    table = pl.concat(
        [
            first.with_columns(
                race_name=pl.lit(name), round=pl.lit(number), race_date=datetime.date(2022, 2, number)
            )
            for number, name in enumerate(("Clash", "Duel 1", "Duel 2"), 1)
        ]
        + [first.with_columns(round=pl.lit(4))],
        how="vertical_relaxed",
    )
    data = load(tmp_path, table)
    assert_frame_equal(data.race_results, clean.filter(round=1))
    assert (data.counts["exhibitions"], data.quarantine["race_id"].to_list()) == (3, [None] * 3)
    assert lost_races(data.quarantine).is_empty()


def test_a_short_race_before_the_points_race_is_an_exhibition(tmp_path: Path, clean: pl.DataFrame) -> None:
    """Without names, laps and place in the year decide; a late short race counts."""
    day = datetime.date(2022, 2, 17)
    duel = TABLE.filter(round=1).with_columns(laps_completed=60, race_date=day)
    data = load(tmp_path, pl.concat([duel, TABLE], how="vertical_relaxed").drop("round"))
    assert_frame_equal(data.race_results, clean)
    assert "precedes the points race there: it is an exhibition" in data.quarantine["rule"][0]
    assert lost_races(data.quarantine).is_empty()


@pytest.mark.parametrize("names", [("Cup", "Xfinity"), (1, 2), ("NASCAR Cup Series", "NASCAR Truck Series")])
def test_races_of_other_series_are_left_out(
    tmp_path: Path, clean: pl.DataFrame, names: tuple[object, object]
) -> None:
    table = pl.concat(
        [
            TABLE.with_columns(series=pl.lit(names[0])),
            TABLE.filter(round=2).with_columns(series=pl.lit(names[1])),
        ]
    )
    data = load(tmp_path, table)
    assert_frame_equal(data.race_results, clean)
    assert rules(data) == [("race", "left out", "1 race is of another series")]
    assert lost_races(data.quarantine).is_empty()
    missing = load(tmp_path, table.filter(pl.col("series") == names[1]), series="cup")
    assert missing.race_results.is_empty()


def test_two_races_with_one_number_are_parted_by_date_or_left_out(
    tmp_path: Path, clean: pl.DataFrame
) -> None:
    doubled = TABLE.with_columns(pl.col("round").replace(4, 3))
    data = load(tmp_path, doubled)
    assert_frame_equal(data.race_results, clean)
    assert rules(data) == [("race", "corrected", "two races have its number")]
    undated = load(tmp_path, doubled.drop("race_date")).race_results
    assert undated["round"].unique().sort().to_list() == [1, 2, 5, 6]


def test_a_row_in_another_race_returns_to_its_own(tmp_path: Path, clean: pl.DataFrame) -> None:
    here = (pl.col("round") == 2) & (pl.col("finish_position") == 7)
    for value in (5, None):
        data = load(tmp_path, TABLE.with_columns(round=pl.when(here).then(value).otherwise("round")))
        assert_frame_equal(data.race_results, clean)
        assert data.quarantine.select("entity", "consequence").unique().rows() == [("value", "corrected")]


@pytest.mark.parametrize(
    ("track", "laps", "found", "consequence"),
    [
        ("Indianapolis Motor Speedway", 86, "indianapolis_road", "corrected"),
        ("Charlotte Motor Speedway", 112, "charlotte_roval", "corrected"),
        ("Bristol Motor Speedway", 250, None, "left out"),
        ("Charlotte Motor Speedway", 150, None, "left out"),
        ("Charlotte Motor Speedway", 400, "charlotte", None),
    ],
)
def test_layouts_behind_plain_names_are_found(
    tmp_path: Path, clean: pl.DataFrame, track: str, laps: int, found: str | None, consequence: str | None
) -> None:
    table = only(4, track_id=pl.lit(track), laps_completed=pl.lit(laps), status=pl.lit("running"))(TABLE)
    data = load(tmp_path, table.with_columns(laps_led=0))
    race = data.race_results.filter(round=4)
    assert race["track_id"].unique().to_list() == ([found] if found else [])
    assert (
        consequence is None or consequence in data.quarantine.filter(entity="race")["consequence"].to_list()
    )
    others = pl.col("round") != 4
    assert_frame_equal(
        data.race_results.filter(others).drop("laps_led"), clean.filter(others).drop("laps_led")
    )


def test_a_season_that_loses_most_races_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="3 of 6 finished races can be used, at least two thirds must"):
        load(tmp_path, TABLE.with_columns(track_id=pl.when(pl.col("round") > 3).then("track_id")))
