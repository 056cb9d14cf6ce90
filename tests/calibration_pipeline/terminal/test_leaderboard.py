"""The terminal's leaderboard: ranks by market, gains, and a width of 80 columns."""

import polars as pl
import pytest
from rich.console import Console

from calibration_pipeline.comparison.leaderboard import rank_forecasters
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, Leaderboard
from calibration_pipeline.terminal.leaderboard import gain_rows, print_leaderboard, rank_rows
from calibration_pipeline.verification.cases import table
from helpers.compared_forecasters import make_backtests, scores_of


@pytest.fixture(scope="module")
def leaderboard() -> pl.DataFrame:
    backtests = make_backtests({"network": 1.0, "[red]my simulator[/]": 4.0}, n_races=30)
    backtests["new"] = [part.isel(race=slice(0, 3)) for part in backtests["network"]]
    return rank_forecasters(scores_of(backtests))


def test_ranks_have_letters_and_signs(leaderboard: pl.DataFrame) -> None:
    rows = {row["Forecaster"]: row for row in rank_rows(leaderboard, ALL_ARCHETYPES, "raw")}
    assert list(rows) == ["network", "[red]my simulator[/]", "climatology", "new"]
    assert rows["network"]["Finish"] == "1 a"
    assert rows["[red]my simulator[/]"]["Finish"] == "2 b-"
    assert rows["new"]["Finish"] == "few"
    assert {row["Top20"] for row in rows.values()} == {"-"}


def test_gains_are_in_thousandths_the_best_first(leaderboard: pl.DataFrame) -> None:
    rows = gain_rows(leaderboard, ALL_ARCHETYPES, "finish distribution", "recalibrated")
    assert rows[0]["Forecaster"] == "network"
    assert rows[0]["Gain"] == "0.00"
    own = leaderboard.filter(
        archetype=ALL_ARCHETYPES,
        market="finish distribution",
        forecast="recalibrated",
        forecaster="climatology",
    ).row(0, named=True)
    last = next(row for row in rows if row["Forecaster"] == "climatology")
    assert last["Gain"] == f"{1000 * own['gain_over_network']:.2f}"
    assert last["Races"] == "30"


def test_tables_fit_80_columns_and_names_are_no_markup(leaderboard: pl.DataFrame) -> None:
    console = Console(width=80, record=True, file=None)
    with console.capture() as captured:
        print_leaderboard(console, leaderboard, ALL_ARCHETYPES)
    text = captured.get()
    assert "[red]my simulat" in text
    assert "All archetypes: ranks of the recalibrated forecasts" in text
    assert "Finish distribution, recalibrated" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_long_names_are_folded_and_not_cut(leaderboard: pl.DataFrame) -> None:
    console = Console(width=80)
    names = {"new": "n" * 50 + "-v1", "climatology": "n" * 50 + "-v2"}
    named = leaderboard.with_columns(pl.col("forecaster").replace(names))
    with console.capture() as captured:
        print_leaderboard(console, named, ALL_ARCHETYPES)
    text = captured.get()
    n_tables = text.count("Forecaster ")
    assert text.count("-v1") == text.count("-v2") == n_tables > 2
    assert max(len(line) for line in text.splitlines()) <= 80


def test_names_are_shown_without_control_characters(leaderboard: pl.DataFrame) -> None:
    console = Console(width=80)
    named = leaderboard.with_columns(pl.col("forecaster").replace({"new": "ne\x1b[2Jw"}))
    with console.capture() as captured:
        print_leaderboard(console, named, ALL_ARCHETYPES)
    assert "ne[2Jw" in captured.get()
    assert "\x1b" not in captured.get()


def test_an_archetype_without_races_is_named() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        print_leaderboard(console, table([], Leaderboard), "road_course")
    assert captured.get().strip() == "Road course: no race has been scored yet."
