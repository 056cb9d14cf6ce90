"""Defects of data that look valid: the command, the asset check and the report all name them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr

from assets.cli import main
from assets.instance import open_records
from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.report import render_markdown
from calibration_pipeline.report.assembly import implausible_backtests
from helpers.example_report import example_content
from helpers.paths import REAL_DATA

RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
FEED = REAL_DATA / "nascar_feed_2020_2021.zip"
SEASON, FEED_SEASON = 2022, 2021
ROUND, ROVAL = 4, 32
FEED_RACES = 4
SCENARIOS = 100

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(
        not (RESULTS.exists() and FEED.exists()), reason=f"optional real seasons are absent: {REAL_DATA}"
    ),
]

type Rows = pl.DataFrame
OF_RACE = pl.col("Race") == ROUND


class SilentDefect(NamedTuple):
    """A change of a season's table, and the words that name it."""

    change: Callable[[Rows], Rows]
    words: tuple[str, ...]


def exchange_dates(rows: Rows) -> Rows:
    """Return the rows with dates, those of two neighbouring rounds exchanged."""
    week = pl.when(OF_RACE).then(ROUND + 1).when(pl.col("Race") == ROUND + 1).then(ROUND).otherwise("Race")
    return rows.with_columns(race_date=pl.date(SEASON, 2, 13) + pl.duration(weeks=week))


def rename_status(rows: Rows) -> Rows:
    """Return the rows with a race whose cars all have a cause of retirement."""
    return rows.with_columns(Status=pl.when(OF_RACE).then(pl.lit("accident")).otherwise("Status"))


def hide_layout(rows: Rows) -> Rows:
    """Return the rows with the race on the ROVAL under the oval's name."""
    plain = pl.lit("Charlotte Motor Speedway")
    return rows.with_columns(Track=pl.when(pl.col("Race") == ROVAL).then(plain).otherwise("Track"))


def append_non_starter(rows: Rows) -> Rows:
    """Return the rows with a car behind the field that has no start and no laps."""
    field = rows.filter(OF_RACE)
    nobody = {"Finish": field.height + 1, "Start": None, "Laps": 0, "Driver": "Nobody Known", "Car": "99"}
    return pl.concat(
        [rows, field[[-1]].with_columns(pl.lit(v).cast(rows.schema[c]).alias(c) for c, v in nobody.items())]
    )


def add_exhibition(rows: Rows) -> Rows:
    """Return the rows with an exhibition as round 0."""
    clash = {"Race": 0, "Name": "Busch Light Clash", "Laps": 150}
    field = rows.filter(OF_RACE, pl.col("Finish") <= 15)
    return pl.concat(
        [field.with_columns(pl.lit(v).cast(rows.schema[c]).alias(c) for c, v in clash.items()), rows]
    )


def mix_series(rows: Rows) -> Rows:
    """Return the rows with a race of another series."""
    return rows.with_columns(series=pl.when(OF_RACE).then(pl.lit("Xfinity")).otherwise(pl.lit("Cup")))


def keep_winner(rows: Rows) -> Rows:
    """Return the rows with a race of one car."""
    return rows.filter(~OF_RACE | (pl.col("Finish") == 1))


DEFECTS = {
    "rounds against dates": SilentDefect(
        exchange_dates, ("race 4", "race 5", "its number contradicts its date")
    ),
    "status words": SilentDefect(rename_status, ("race 4", "no car is running by its status")),
    "layout": SilentDefect(hide_layout, ("race 32", "hides the layout")),
    "zero laps": SilentDefect(append_non_starter, ("Nobody Known", "did not start")),
    "exhibition": SilentDefect(add_exhibition, ("Busch Light Clash", "it is an exhibition")),
    "another series": SilentDefect(mix_series, ("series Xfinity", "1 race is of another series")),
    "one car": SilentDefect(keep_winner, ("race 4", "it has one car")),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, and return its output as one line."""
    assert main(["run", *arguments]) == 0
    captured = capsys.readouterr()
    return plain(captured.out + captured.err)


def plain(text: str) -> str:
    """Return a text without line breaks and escapes of Markdown."""
    return " ".join(text.replace("\\", "").split())


def last_evaluation(source: str, asset: str, check: str) -> dg.AssetCheckEvaluation:
    """Return the newest evaluation that does not pass, as the UI reads it."""
    key = dg.AssetCheckKey(dg.AssetKey([source, "cup", asset]), check)
    with open_records() as instance:
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    events = [record.event for record in records if record.event is not None]
    evaluations = [event.get_dagster_event().asset_check_evaluation_data for event in events]
    return next(evaluation for evaluation in evaluations if not evaluation.passed)


def assert_named(words: tuple[str, ...], output: str, source: str, quarantine: pl.DataFrame) -> None:
    """Check that output, check and report name a defect that the quarantine holds."""
    evaluation = last_evaluation(source, "quarantine", "nothing_is_quarantined")
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    report = plain(render_markdown(example_content(quarantine=quarantine)))
    for word in words:
        assert word in output
        assert word in plain(str(evaluation.description))
        assert word in report


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_of_a_table_is_named(kind: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    defect = DEFECTS[kind]
    table = project / "cup.parquet"
    defect.change(pl.read_parquet(RESULTS).filter(Season=SEASON)).write_parquet(table)
    selection = ("--source", "tables", "--results", str(table), "--select", "race_results,lap_telemetry")
    output = run(capsys, *selection)
    store = project / "data" / "store" / "tables" / "cup"
    assert_named(defect.words, output, "tables", pl.read_parquet(store / "quarantine" / f"{SEASON}.parquet"))


def test_laps_of_another_race_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed = project / "feed"
    shutil.unpack_archive(FEED, feed)
    path = feed / str(FEED_SEASON) / "race_list_basic.json"
    document = json.loads(path.read_text())
    points = [race for race in document["series_1"] if race["race_type_id"] == 1]
    races = sorted(points, key=lambda race: race["race_date"])[:FEED_RACES]
    path.write_text(json.dumps({**document, "series_1": races}))
    donor, victim = (feed / str(FEED_SEASON) / "1" / str(races[k]["race_id"]) for k in (0, 1))
    shutil.copyfile(donor / "lap-times.json", victim / "lap-times.json")
    address = ("--source", "nascar_feed", "--feed-url", str(feed), "--seasons", str(FEED_SEASON))
    output = run(capsys, *address, "--select", "race_results,lap_telemetry")
    store = project / "data" / "store" / "nascar_feed" / "cup"
    quarantine = pl.read_parquet(store / "quarantine" / f"{FEED_SEASON}.parquet")
    assert_named(("race " + victim.name, "they are of another race"), output, "nascar_feed", quarantine)
    laps = pl.read_parquet(store / "lap_telemetry" / f"{FEED_SEASON}.parquet")
    assert laps.filter(race_id=int(victim.name)).is_empty()


def upside_down(rows: Rows) -> Rows:
    """Return scenarios in which the last car of each race usually wins."""
    noise = np.random.default_rng(1).normal(scale=3.0, size=rows.height * SCENARIOS)
    return (
        rows.join(pl.DataFrame({"scenario": range(SCENARIOS)}), how="cross")
        .with_columns(score=pl.col("Finish") + pl.Series(noise))
        .select(
            "scenario",
            season="Season",
            round="Race",
            driver="Driver",
            finish_position=pl.col("score")
            .rank("ordinal", descending=True)
            .over("Season", "Race", "scenario"),
        )
    )


@pytest.mark.soak
def test_scenarios_upside_down_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The first season is not scored; its few races are too few for a calibration.
    season, number = pl.col("Season"), pl.col("Race")
    chosen = ((season == SEASON - 1) & (number <= 4)) | ((season == SEASON) & (number <= 20))
    rows = pl.read_parquet(RESULTS).filter(chosen)
    rows.write_parquet(project / "cup.parquet")
    upside_down(rows).write_parquet(project / "scenarios.parquet")
    files = ("--results", str(project / "cup.parquet"), "--forecasters", str(project / "scenarios.parquet"))
    method = ("--network", "ordinary_no_incidents", "--fold-races", "36")
    output = run(capsys, "--source", "tables", *files, *method, "--select", "+backtest")
    evaluation = last_evaluation("tables", "backtest", "right_way_up")
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    backtests = {}
    for path in (project / "data" / "store" / "tables" / "cup" / "backtest").glob("*/scenarios.nc"):
        backtests[parse_archetype(path.parent.name)] = xr.open_dataset(path, engine="h5netcdf").load()
    report = plain(render_markdown(example_content(warnings=implausible_backtests(backtests))))
    for text in (output, plain(str(evaluation.description)), report):
        assert "The forecasts may be upside down: 1 must be the winner." in text
