"""Names of columns, a user's mapping file, dates and cells of another type."""

import datetime
import tomllib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.tables.aliases import ALIASES, read_mapping, recognise_columns
from calibration_pipeline.sources.tables.casts import Kind, cast_column, is_day_first
from calibration_pipeline.sources.tables.columns import LAPS, RESULTS, Columns
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.tracks.compiled import normalise_name

FORMS = {
    "feed": "race_season,race_name,track_name,race_date,finishing_position,starting_position,driver_fullname,"
    "team_name,car_make,laps_completed,finishing_status",
    "loop data": "driver_name,race_date,series,track_name,start,mid,finish,laps_led,laps,rating,manufacturer",
    "reference site": "year,race_number,race_name,track,finish_pos,start_pos,driver,owner,car_make,"
    "laps_completed",
    "short": "year,race_num,track,fin,start,car_num,driver,manu,laps",
    "nascaR.data": "Season,Race,Track,Name,Finish,Start,Car,Driver,Make,Team,Laps,Led,Status,Rating",
}
DAY = datetime.date(2025, 2, 16)


def columns(folder: Path, text: str, mapping: dict[str, str] | None = None, name: str = "t.csv") -> Columns:
    (folder / name).write_text(text)
    return Columns(TableFile(str(folder / name)), RESULTS, mapping)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spell", [str, str.upper, lambda name: name.replace("_", " ").title()])
def test_widespread_forms_are_recognised(tmp_path: Path, form: str, spell) -> None:
    header = FORMS[form]
    names = columns(tmp_path, ",".join(spell(name) for name in header.split(",")) + "\n").names
    required = {name for name, column in RESULTS.items() if column.required}
    assert required <= set(names)
    unread = {"mid"}
    assert {normalise_name(name) for name in names.values()} == {
        normalise_name(name) for name in header.split(",") if name not in unread
    }


def test_every_alias_means_one_column_of_a_table() -> None:
    """Names that two columns share are resolved by their order or their values."""
    shared = {"name", "race", "pos", "position"}
    for table in (RESULTS, LAPS):
        known: dict[str, str] = {}
        for ours in table:
            for alias in (ours, *ALIASES.get(ours, ())):
                if alias not in shared:
                    assert known.setdefault(normalise_name(alias), ours) == ours, alias


def test_a_column_of_names_called_race_is_no_number(tmp_path: Path) -> None:
    header = "season,date,race,track,driver,start,finish,laps\n"
    named = columns(tmp_path, header + "2022,2/20/2022,Daytona 500,Daytona,A,1,1,200\n")
    assert (named.names["race_name"], "round" in named.names) == ("race", False)
    assert columns(tmp_path, header + "2022,2/20/2022,1,Daytona,A,1,1,200\n").names["round"] == "race"


def test_the_message_on_missing_columns_holds_a_mapping_file(tmp_path: Path) -> None:
    text = "Jahr,Lauf,track,driver,start_position,finish_posn,laps_completed\n2022,1,Daytona,A,1,1,200\n"
    with pytest.raises(
        SourceError, match="lacks the columns season or race_date, round or race_date"
    ) as error:
        columns(tmp_path, text)
    message = str(error.value)
    assert "\n" not in message
    mapping = tomllib.loads(message.split("as in: ")[1])["results"]
    assert mapping == {"season": "?", "round": "?", "finish_position": "finish_posn"}
    (tmp_path / "mapping.toml").write_text(
        message.split("as in: ")[1].replace('"?"', '"Jahr"', 1).replace('"?"', '"Lauf"')
    )
    chosen = read_mapping(str(tmp_path / "mapping.toml"))["results"]
    read = columns(tmp_path, text, chosen).read(2022)
    assert read.select("season", "round", "finish_position").rows() == [(2022, 1, 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("results = 3", "must hold the tables results and laps alone; got 'results'"),
        ("[cars]", "must hold the tables results and laps alone; got 'cars'"),
        (
            "[results]\nfinsh_position = 'a'",
            r"no column 'finsh_position' \(near it: finish_position",
        ),
        ("[results]\nround = 3", "round must name a column as text; got 3"),
        ("[results", "cannot be read as a mapping of columns"),
        ("x" * 200_000, "more than 100,000 bytes"),
    ],
)
def test_a_wrong_mapping_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_mapping(str(path))
    with pytest.raises(SourceError, match=r"none\.toml cannot be read"):
        read_mapping(str(tmp_path / "none.toml"))
    assert read_mapping(None) == {}


def test_files_without_credentials_are_named(no_credentials: str) -> None:
    with pytest.raises(SourceError, match=r"s3://bucket/a\.toml cannot be read .*: Unable to locate cred"):
        read_mapping(f"{no_credentials}/a.toml")
    with pytest.raises(SourceError, match=r"s3://bucket/a\.csv cannot be read: NoCredentialsError Unable"):
        _ = TableFile(f"{no_credentials}/a.csv").schema


def test_columns_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(SourceError, match=r"columns Finish Pos and FinishPos have one name: .* --columns"):
        recognise_columns(["finish_position"], ["Finish Pos", "FinishPos"], {}, "t.csv")
    with pytest.raises(
        SourceError, match="has no column 'Platz', which the mapping of finish_position names"
    ):
        recognise_columns(["finish_position"], ["a"], {"finish_position": "Platz"}, "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-16", "2025-02-16T14:30:00", "2025-02-16 14:30:00+00:00", "2/16/2025", "02/16/25",
        "2025/02/16", "2/16/2025 2:30 PM", "Sunday, February 16, 2025", "Sun Feb 16, 2025", "Feb. 16, 2025",
        "16 February 2025", "16.02.2025", "20250216",
    ],
)  # fmt: skip
def test_dates_are_read_in_the_usual_notations(text: str) -> None:
    assert cast_column(pl.Series([text, None, "soon"]), Kind.DATE).to_list() == [DAY, None, None]


@given(st.lists(st.dates(datetime.date(1949, 1, 1), datetime.date(2200, 1, 1)), min_size=1))
def test_one_column_has_one_order_of_day_and_month(dates: list[datetime.date]) -> None:
    """American dates come first; where they do not read the whole column, days may come first."""

    def read(column: pl.Series) -> list[datetime.date | None]:
        return cast_column(column, Kind.DATE, day_first=is_day_first(column)).to_list()

    american = pl.Series([f"{day.month}/{day.day}/{day.year}" for day in dates])
    assert read(american) == dates
    if any(day.day > 12 for day in dates):
        european = pl.Series([f"{day.day}/{day.month}/{day.year}" for day in dates])
        assert read(european) == dates


@pytest.mark.parametrize("has_season", [True, False])
def test_all_seasons_have_the_order_of_day_and_month_of_the_column(tmp_path: Path, has_season: bool) -> None:
    """The days of the newest season are months as well: an earlier season shows the order."""
    days = {2021: ["14/02/2021", "21/02/2021"], 2022: ["06/03/2022", "10/04/2022"]}
    lines = ["season," * has_season + "date,track,driver,start,finish,laps"]
    for season, own in days.items():
        lines += [f"{season}," * has_season + f"{day},Daytona,A,1,1,200" for day in own]
    read = columns(tmp_path, "\n".join(lines))
    assert read.seasons() == [2021, 2022]
    newest = read.read_checked(2022)
    assert newest.rows["race_date"].to_list() == [datetime.date(2022, 3, 6), datetime.date(2022, 4, 10)]
    assert newest.defects == []


def test_a_decimal_comma_is_read_where_another_character_delimits(tmp_path: Path) -> None:
    header = "season;round;track;driver;start;finish;laps;rating\n"
    read = columns(tmp_path, header + "2022;1;Daytona;A;1;1;200;98,5\n").read_checked(2022)
    assert (read.rows["rating"].to_list(), read.defects) == ([98.5], [])


def test_cells_of_another_type_are_defects_of_cell_or_column(tmp_path: Path) -> None:
    rows = [f"2022,1,Daytona,D{i},{i},{i},{200 if i else 'x'},{'high' if i < 4 else 9}" for i in range(6)]
    read = columns(tmp_path, "season,round,track,driver,start,finish,laps,rating\n" + "\n".join(rows))
    data = read.read_checked(2022)
    assert [defect[:2] for defect in data.defects] == [(0, "laps_completed"), (None, "rating")]
    assert data.defects[1].value == "'high' and 3 more"
    assert data.rows["laps_completed"].to_list() == [None, *[200] * 5]


def test_rows_without_a_season_belong_to_the_row_above(tmp_path: Path) -> None:
    header = "season,round,track,driver,start,finish,laps\n"
    lines = [f"{season},1,Daytona,{name},1,1,200\n" for season, name in ((2021, "A"), ("", "B"), (2022, "C"))]
    read = columns(tmp_path, header + "".join(lines))
    assert read.seasons() == [2021, 2022]
    data = read.read_checked(2021)
    assert data.rows["driver"].to_list() == ["A", "B"]
    assert [(defect.row, defect.column) for defect in data.defects] == [(1, "season")]
    assert read.read(2022)["driver"].to_list() == ["C"]
    with pytest.raises(SourceError, match=r"column season must hold whole numbers from 1949 .* 2 rows"):
        columns(tmp_path, header + lines[0] + lines[1] + lines[1].replace("B", "D")).read(2021)


def test_seasons_come_from_dates_where_there_is_no_other_column(tmp_path: Path) -> None:
    lines = [f"2/{day}/{year},Daytona,A,1,1,200\n" for year in (2021, 2022) for day in (13, 20)]
    read = columns(tmp_path, "race_date,track,driver,start,finish,laps\n" + "".join(lines))
    assert read.seasons() == [2021, 2022]
    assert read.read(2022)["race_date"].to_list() == [datetime.date(2022, 2, day) for day in (13, 20)]
    assert read.read(2022)["season"].to_list() == [2022, 2022]
