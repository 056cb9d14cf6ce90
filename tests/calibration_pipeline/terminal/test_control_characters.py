"""Names, notes and log lines with control characters: a terminal would obey the characters."""

import logging
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import xarray as xr
from rich.console import Console
from upath import UPath

from calibration_pipeline.events.text import parse_event
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import encode
from calibration_pipeline.schemas.contracts import BOUNDARIES
from calibration_pipeline.terminal.answers import print_answer
from calibration_pipeline.terminal.differences import print_differences
from calibration_pipeline.terminal.joint_events import print_judged
from calibration_pipeline.terminal.log import log_to
from calibration_pipeline.terminal.next_race import CHANCES, print_forecast, print_side_by_side

NAME = "An\x1b[2Jn"
SHOWN = "An[2Jn"


def judged(console: Console) -> None:
    rows = [
        {
            "forecast": forecast,
            "predicted": 0.5,
            "observed": 0.5,
            "lower": None,
            "z": None,
            "n_cases": 9,
            "n_races": 9,
        }
        for forecast in ("raw", "recalibrated")
    ]
    print_judged(
        console, parse_event("running"), [(NAME, pl.DataFrame(rows), ""), (NAME, pl.DataFrame(), "few")]
    )


def next_race(console: Console) -> None:
    race = xr.Dataset(
        {name: ("race", [value]) for name, value in (("season", 2025), ("round", 3), ("track_id", NAME))}
    )
    car = {"driver": NAME, "start_position": 1, "finish_median": 3, "finish_lower": 1, "finish_upper": 9}
    ends = {f"{name}{end}": 0.5 for name in CHANCES for end in ("", "_lower", "_upper")}
    print_forecast(console, race, pl.DataFrame([car | ends]), BOUNDARIES["forecast_events"].empty(), [NAME])


def side_by_side(console: Console) -> None:
    rows = [
        {"driver_id": "a", "driver": NAME, "market": "win", "probability": 0.5, "forecaster": name}
        for name in (NAME, "network")
    ]
    print_side_by_side(console, pl.DataFrame(rows))


@pytest.mark.parametrize("show", [judged, next_race, side_by_side])
def test_names_and_notes_are_shown_without_control_characters(show: Callable[[Console], None]) -> None:
    console = Console(width=80)
    with console.capture() as captured:
        show(console)
    assert SHOWN in captured.get()
    assert "\x1b" not in captured.get()


def test_answers_and_differences_are_shown_without_control_characters(tmp_path: Path) -> None:
    store = UPath(tmp_path)
    write_atomically(store / "verdict.parquet", encode(BOUNDARIES["verdict"].empty()))
    console = Console(width=80)
    with console.capture() as captured:
        print_answer(console, store, "SELECT 'An' || chr(27) || '[2Jn' AS \"An\x1b[2Jn\"", {})
        print_differences(console, store, 1, [f"{NAME} is left over"])
    assert captured.get().count(SHOWN) == 3
    assert "\x1b" not in captured.get()


def test_log_lines_have_no_control_characters(tmp_path: Path) -> None:
    with log_to(tmp_path / "log", verbose=False):
        logging.getLogger("calibration_pipeline").info("%s\nis the second", NAME)
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(SHOWN)
    assert second == "is the second"
