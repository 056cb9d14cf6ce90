"""Event probabilities and odds: accepted forms, the bookmaker's margin, and what is left out."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.event_probabilities import (
    EventForecast,
    is_event_table,
    read_event_probabilities,
)
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.odds import Margin
from calibration_pipeline.forecasters.tables import open_table
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.sources.quarantine import DefectLog
from helpers.example_forecasts import (
    NAMES,
    RACES,
    entries,
    event_table,
    in_force,
    log,
    opened,
    win_probabilities,
)


def read(
    path: Path,
    frame: pl.DataFrame,
    name: str = "sim.csv",
    margin: Margin = Margin.MULTIPLICATIVE,
    defects: DefectLog | None = None,
) -> EventForecast:
    table = opened(path, frame, name)
    assert is_event_table(table)
    return read_event_probabilities([table], in_force(), defects or log(), margin)


def wins(forecast: EventForecast, race: int) -> np.ndarray:
    rows = forecast.probabilities.filter(race_id=5000 + race, market="win")
    return rows.sort(pl.col("driver_id").str.slice(3).cast(int))["probability"].to_numpy()


def american(probability: float) -> str:
    if probability >= 0.5:
        return f"{-100 * probability / (1 - probability):.9f}"
    return f"+{100 * (1 - probability) / probability:.9f}"


NOTATIONS = {
    "american": american,
    "decimal": lambda p: repr(1 / p),
    "fractional": lambda p: f"{(1 - p) / p:.12f}/1",
}


def odds_table(write, margin: float = 0.2) -> pl.DataFrame:
    win = pl.Series("win", [write(p * (1 + margin)) for p in event_table()["win"]])
    return event_table().select("season", "round", "driver", win)


@pytest.mark.parametrize("name", ["sim.csv", "sim.parquet"])
def test_probabilities_are_read_as_issued(tmp_path: Path, name: str) -> None:
    forecast = read(tmp_path, event_table(), name)
    assert forecast.probabilities.height == 3 * 12 * 2
    for race in RACES:
        np.testing.assert_allclose(wins(forecast, race), win_probabilities(race), rtol=1e-12)
    assert forecast.overrounds["source"].unique().to_list() == ["probabilities"]
    np.testing.assert_allclose(forecast.overrounds["overround"], 0, atol=1e-12)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_odds_lose_a_proportional_margin(tmp_path: Path, notation: str) -> None:
    forecast = read(tmp_path, odds_table(NOTATIONS[notation]))
    for race in RACES:
        np.testing.assert_allclose(wins(forecast, race), win_probabilities(race), rtol=1e-8)
    assert forecast.overrounds["source"].unique().to_list() == [f"{notation} odds"]
    np.testing.assert_allclose(forecast.overrounds["overround"], 0.2, rtol=1e-8)


def test_the_margin_method_is_chosen(tmp_path: Path) -> None:
    power = [repr(p**-0.9) for p in event_table()["win"]]
    table = event_table().select("season", "round", "driver", win_odds=pl.Series(power))
    forecast = read(tmp_path, table, margin=Margin.POWER)
    np.testing.assert_allclose(wins(forecast, RACES[0]), win_probabilities(RACES[0]), rtol=1e-8)


def test_percentages_rows_by_market_and_car_numbers(tmp_path: Path) -> None:
    expected = read(tmp_path, event_table()).probabilities
    percent = (
        event_table().with_columns(pl.col("win", "top5") * 100).rename({"win": "Win %", "top5": "Top 5 pct"})
    )
    other = read(tmp_path, percent).probabilities
    np.testing.assert_allclose(other["probability"], expected["probability"], rtol=1e-12)
    by_row = event_table().unpivot(
        on=["win", "top5"],
        index=["season", "round", "driver"],
        variable_name="market",
        value_name="probability",
    )
    assert read(tmp_path, by_row).probabilities.equals(expected)
    numbers = ["5", "99", "47", "19", "16", "9", "11", "12", "22", "24", "8", "1"]
    by_number = event_table().drop("driver").with_columns(car=pl.Series(numbers * 3))
    assert read(tmp_path, by_number).probabilities.equals(expected)


def test_spreadsheets_of_other_countries_are_read(tmp_path: Path) -> None:
    expected = read(tmp_path, event_table()).probabilities
    lines = ["\ufeffYear;Race;Driver;Win;Top 5"]
    for season, round_, driver, win, top5 in event_table().iter_rows():
        lines.append(f"{season};{round_};{driver};{win!r};{top5!r}".replace(".", ","))
    text = "\r\n".join(lines).replace("Jr,", "Jr.").replace("A,J,", "A.J.")
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "euro.csv").write_bytes(text.encode(encoding))
        forecast = read_event_probabilities([open_table(str(tmp_path / "euro.csv"))], in_force(), log())
        np.testing.assert_allclose(forecast.probabilities["probability"], expected["probability"], rtol=1e-12)


def test_odds_with_decimal_commas_are_read(tmp_path: Path) -> None:
    """Whatever delimits, as spreadsheets write them."""
    expected = read(tmp_path, odds_table(NOTATIONS["decimal"])).probabilities
    for mark in (";", "\t"):
        lines = [mark.join(["\ufeffSeason", "Round", "Driver", "Win"])]
        for season, round_, driver, price in odds_table(NOTATIONS["decimal"]).iter_rows():
            lines.append(mark.join([str(season), str(round_), driver, price.replace(".", ",")]))
        (tmp_path / "odds.csv").write_text("\n".join(lines), encoding="utf-8")
        forecast = read_event_probabilities([open_table(str(tmp_path / "odds.csv"))], in_force(), log())
        np.testing.assert_allclose(forecast.probabilities["probability"], expected["probability"], rtol=1e-12)
        np.testing.assert_allclose(forecast.overrounds["overround"], 0.2, rtol=1e-8)


def test_names_match_as_in_results(tmp_path: Path) -> None:
    spelled = {
        "Daniel Suárez": "Suarez, Daniel", "Ricky Stenhouse Jr.": "RICKY STENHOUSE",
        "A.J. Allmendinger": "AJ Allmendinger", "Kyle Larson": "* Kyle Larson #",
        "Martin Truex Jr.": "Martin Truex, Jr.",
    }  # fmt: skip
    defects = log()
    forecast = read(tmp_path, event_table().with_columns(pl.col("driver").replace(spelled)), defects=defects)
    assert forecast.probabilities.height == 72
    assert defects.frame().is_empty()


def change(
    frame: pl.DataFrame, column: str, value: object, driver: str = "Kyle Busch", round_: int = 2
) -> pl.DataFrame:
    here = (pl.col("driver") == driver) & (pl.col("round") == round_)
    text = pl.col(column).cast(pl.String)
    return frame.with_columns(pl.when(here).then(pl.lit(value, pl.String)).otherwise(text).alias(column))


@pytest.mark.parametrize(
    ("value", "rule", "shown"),
    [
        (None, "all 12 cars entered must have a value, 1 have none", "Kyle Busch"),
        ("NaN", "all 12 cars entered must have a value", "Kyle Busch"),
        ("1.5", "values must be probabilities", "a probability must be from 0 to 1; got '1.5'"),
        ("-0.1", "values must be probabilities", "got '-0.1'"),
        ("scratched", "values must be probabilities", "got 'scratched'"),
    ],
)
def test_a_bad_value_leaves_out_the_market_of_the_race(
    tmp_path: Path, value: str | None, rule: str, shown: str
) -> None:
    defects = log()
    forecast = read(tmp_path, change(event_table(), "win", value), defects=defects)
    found = forecast.probabilities.group_by("race_id", "market").len().sort("race_id", "market")
    assert found.rows() == [
        (207201, "top 5", 12), (207201, "win", 12), (207202, "top 5", 12), (207203, "top 5", 12),
        (207203, "win", 12),
    ]  # fmt: skip
    row = Quarantine.validate(defects.frame()).row(0, named=True)
    assert (row["season"], row["race_id"], row["entity"], row["subject"]) == (2022, 207202, "value", "win")
    assert row["consequence"] == "left out"
    assert rule in row["rule"]
    assert shown in row["value"]


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("price", ["0", "inf", "-1e400", "SP"])
def test_odds_that_are_no_price_leave_out_the_market_of_the_race(
    tmp_path: Path, notation: str, price: str
) -> None:
    defects = log()
    table = change(odds_table(NOTATIONS[notation]), "win", price)
    forecast = read(tmp_path, table, defects=defects)
    assert sorted(forecast.overrounds["race_id"]) == [207201, 207203]
    row = defects.frame().row(0, named=True)
    assert row["rule"] == f"values must be {notation} odds"
    assert f"got {price!r}" in row["value"]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_odds_that_are_no_number_are_missing(tmp_path: Path, notation: str) -> None:
    defects = log()
    forecast = read(tmp_path, change(odds_table(NOTATIONS[notation]), "win", "NaN"), defects=defects)
    assert sorted(forecast.overrounds["race_id"]) == [207201, 207203]
    row = defects.frame().row(0, named=True)
    assert (row["rule"], row["value"]) == ("all 12 cars entered must have a value, 1 have none", "Kyle Busch")


@pytest.mark.parametrize("margin", [-0.6, 1.3])
def test_a_book_far_from_the_winners_leaves_out_the_market(tmp_path: Path, margin: float) -> None:
    """Prices that sum to .4 or 2.3 are no market of one winner."""
    defects = log()
    far = odds_table(NOTATIONS["decimal"], margin).filter(pl.col("round") == 2)
    near = odds_table(NOTATIONS["decimal"]).filter(pl.col("round") != 2)
    forecast = read(tmp_path, pl.concat([near, far]), defects=defects)
    assert sorted(forecast.overrounds["race_id"]) == [207201, 207203]
    row = defects.frame().row(0, named=True)
    assert (row["subject"], row["value"]) == ("win", f"{1 + margin:.3f}")
    assert row["rule"] == "probabilities must sum to 0.5 to 2 times the 1 winners"


def test_a_column_with_the_name_of_a_driver_is_not_read(tmp_path: Path) -> None:
    """Of no driver entered, or of one."""
    defects = log()
    table = event_table().with_columns(pl.lit(0.5).alias("Kyle Larson"), pl.lit("x").alias("Kyle Larsen"))
    expected = read(tmp_path, event_table()).probabilities
    assert read(tmp_path, table, defects=defects).probabilities.equals(expected)
    assert defects.frame().is_empty()


def test_sums_far_from_the_winners_leave_out_the_market(tmp_path: Path) -> None:
    defects = log()
    table = event_table().with_columns(
        win=pl.when(pl.col("round") == 3).then(pl.col("win") * 0.4).otherwise("win")
    )
    forecast = read(tmp_path, table, defects=defects)
    assert forecast.probabilities.filter(market="win")["race_id"].unique().to_list() == [207201, 207202]
    row = defects.frame().row(0, named=True)
    assert (row["rule"], row["value"]) == ("probabilities must sum to 0.5 to 2 times the 1 winners", "0.400")


def test_zero_and_one_are_probabilities(tmp_path: Path) -> None:
    first = pl.col("driver") == NAMES[0]
    defects = log()
    table = event_table().with_columns(win=pl.when(first).then(1.0).otherwise(0.0))
    forecast = read(tmp_path, table, defects=defects)
    assert wins(forecast, RACES[0]).tolist() == [1.0, *[0.0] * 11]
    assert defects.notes == ["36 of 72 probabilities are exactly 0 or 1."]


def test_a_missing_car_leaves_out_the_race(tmp_path: Path) -> None:
    defects = log()
    wrong = event_table().with_columns(
        driver=pl.when(pl.col("round") == 1).then(pl.col("driver").replace("Kyle Busch", "Kyle Bush"))
        .otherwise("driver")
    )  # fmt: skip
    forecast = read(tmp_path, wrong, defects=defects)
    assert sorted(forecast.probabilities["race_id"].unique()) == [207202, 207203]
    row = defects.frame().row(0, named=True)
    assert (row["race"], row["entity"]) == ("2022 race 1 (kansas)", "race")
    assert row["rule"] == "the forecast must have all 12 cars entered, 1 are missing"
    assert row["value"] == "Kyle Busch; unknown: 'Kyle Bush' (nearest: 'Kyle Busch')"


def test_a_withdrawn_car_is_removed_and_the_sum_kept(tmp_path: Path) -> None:
    defects = log()
    more = pl.DataFrame(
        {"season": [2022], "round": [1], "driver": ["Joey Hand"], "win": [0.2], "top5": [0.5]}
    )
    table = pl.concat([event_table(), more], how="diagonal_relaxed")
    table = table.with_columns(
        win=pl.when((pl.col("round") == 1) & (pl.col("driver") != "Joey Hand")).then(pl.col("win") * 0.8)
        .otherwise("win")
    )  # fmt: skip
    forecast = read(tmp_path, table, defects=defects)
    np.testing.assert_allclose(wins(forecast, RACES[0]), win_probabilities(RACES[0]), rtol=1e-12)
    row = defects.frame().row(0, named=True)
    assert (row["entity"], row["subject"], row["race"]) == ("entry", "Joey Hand", "2022 race 1 (kansas)")
    assert "it was not at the start" in row["rule"]


@pytest.mark.parametrize("again", ["Kyle Busch", "KYLE BUSCH"])
def test_a_driver_twice_leaves_out_the_race(tmp_path: Path, again: str) -> None:
    defects = log()
    row = event_table().filter(driver="Kyle Busch", round=2).with_columns(driver=pl.lit(again))
    forecast = read(tmp_path, pl.concat([event_table(), row]), defects=defects)
    assert sorted(forecast.probabilities["race_id"].unique()) == [207201, 207203]
    assert defects.frame().select("rule", "value").rows() == [("a driver occurs twice", again)]


def test_races_beyond_the_results_are_named(tmp_path: Path) -> None:
    defects = log()
    forecast = read(tmp_path, event_table((*RACES, 202209, 201901)), defects=defects)
    assert forecast.probabilities["race_id"].n_unique() == 3
    assert defects.frame().is_empty()
    assert defects.notes == ["2 races of the file are not in force: 2019 race 1, 2022 race 9."]


def test_a_file_of_other_seasons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ForecasterError,
        match=r"no race of it is in force; it holds the seasons 2018-2019, and in force are the 3",
    ):
        read(tmp_path, event_table((201801, 201902)))


def test_races_by_race_id(tmp_path: Path) -> None:
    expected = read(tmp_path, event_table()).probabilities
    by_id = event_table().select(race_id=pl.col("round") + 207200, driver="driver", win="win", top5="top5")
    assert read(tmp_path, by_id).probabilities.equals(expected)


def test_a_file_reads_as_it_was_stored(tmp_path: Path) -> None:
    """Test that `EventProbabilities` is itself an accepted form."""
    stored = read(tmp_path, event_table()).probabilities
    assert read(tmp_path, stored, "again.parquet").probabilities.equals(stored)


def test_tables_without_races_or_cars_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForecasterError, match="must name its races by season and round, or by race_id"):
        read(tmp_path, event_table().drop("season", "round"))
    with pytest.raises(ForecasterError, match="must name its cars by driver, driver_id or car_number"):
        read(tmp_path, event_table().drop("driver"))
    with pytest.raises(ForecasterError, match="the values of win are no odds"):
        read(tmp_path, event_table().with_columns(win=pl.lit("soon")))


def test_a_market_of_a_race_in_two_files_is_refused(tmp_path: Path) -> None:
    tables = [opened(tmp_path, event_table(), name) for name in ("a.csv", "b.parquet")]
    with pytest.raises(ForecasterError, match=r"b.parquet: win of 2022 race 1 \(kansas\) is in another file"):
        read_event_probabilities(tables, in_force(), log(), Margin.MULTIPLICATIVE)


def test_markets_of_a_race_may_be_in_files_of_their_own(tmp_path: Path) -> None:
    names = ["season", "round", "driver"]
    markets = [name for name in event_table().columns if name not in names]
    parts = [event_table().select(*names, market) for market in markets]
    tables = [opened(tmp_path, part, f"{k}.csv") for k, part in enumerate(parts)]
    forecast = read_event_probabilities(tables, in_force(), log(), Margin.MULTIPLICATIVE)
    assert forecast.probabilities.height == read(tmp_path, event_table()).probabilities.height


def test_rows_of_markets_are_named_in_words_and_others_are_noted(tmp_path: Path) -> None:
    expected = read(tmp_path, event_table()).probabilities
    by_row = event_table().unpivot(
        on=["win", "top5"], index=["season", "round", "driver"], variable_name="bet", value_name="chance"
    )
    words = {"win": "To Win", "top5": "Top 5 Finish"}
    stage = by_row.filter(bet="win").with_columns(bet=pl.lit("Stage 1 winner"))
    defects = log()
    table = pl.concat([by_row.with_columns(pl.col("bet").replace(words)), stage])
    assert read(tmp_path, table, defects=defects).probabilities.equals(expected)
    assert defects.notes == [
        "Stage 1 winner: none of the markets win, top 3, top 5, top 10, top 20; not read."
    ]


def test_races_are_found_by_season_and_round_where_a_race_id_is_missing_or_text(tmp_path: Path) -> None:
    expected = read(tmp_path, event_table()).probabilities
    named_races = event_table().with_columns(race_id=pl.format("race-{}-{}", "season", "round"))
    assert read(tmp_path, named_races).probabilities.equals(expected)
    some = event_table().with_columns(
        race_id=pl.when(pl.col("round") > 1).then(pl.lit(5000) + 100 * pl.col("season") + pl.col("round"))
    )
    assert read(tmp_path, some).probabilities.equals(expected)


def test_a_race_id_of_the_user_s_own_does_not_replace_season_and_round(tmp_path: Path) -> None:
    """An exhibition counted as the first race: the id of race 1 is that of race 2 in force."""
    field = entries().with_columns(race_id=pl.col("race_order"))
    order = 100 * pl.col("season") + pl.col("round")
    table = opened(tmp_path, event_table().with_columns(race_id=order + 1))
    forecast = read_event_probabilities([table], RacesInForce(field), log())
    own = forecast.probabilities.filter(race_id=RACES[0], market="win").sort(
        pl.col("driver_id").str.slice(3).cast(int)
    )
    np.testing.assert_allclose(own["probability"], win_probabilities(RACES[0]), rtol=1e-12)
    assert forecast.probabilities["race_id"].unique().sort().to_list() == list(RACES)


def test_a_race_that_the_results_lack_is_a_defect_unless_it_is_after_the_last(tmp_path: Path) -> None:
    defects = log()
    ahead = event_table((202204,))
    lacking = event_table((202202,))
    table = opened(tmp_path, pl.concat([event_table(), ahead]))
    read_event_probabilities([table], in_force(), defects)
    assert defects.frame().is_empty()
    assert defects.notes == ["1 race of the file is not in force: 2022 race 4."]
    read_event_probabilities([opened(tmp_path, pl.concat([event_table((202201, 202203)), lacking]))],
                             in_force((202201, 202203)), defects)  # fmt: skip
    assert defects.frame()["rule"].to_list() == ["the results have no such race"]
