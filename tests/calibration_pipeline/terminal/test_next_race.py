"""The terminal's forecast of the next race: start positions and names."""

from collections.abc import Callable

import polars as pl
import pytest
import xarray as xr
from rich.console import Console

from calibration_pipeline.schemas.contracts import BOUNDARIES
from calibration_pipeline.terminal.next_race import CHANCES, print_forecast, print_side_by_side

RACE = xr.Dataset(
    {name: ("race", [value]) for name, value in (("season", 2025), ("round", 3), ("track_id", "kansas"))}
)
DRIVERS = ("Martin van der Truex the Second", "Martin van der Truex the Third")
FORECASTERS = ("a-simulator-of-races-v1", "a-simulator-of-races-v2", "network")


def forecast(console: Console, grid: str = "set") -> None:
    """Print the chances of two cars, whose start positions are 31 and 32."""
    finish = {"finish_median": 3, "finish_lower": 1, "finish_upper": 9}
    ends = {f"{name}{end}": 0.5 for name in CHANCES for end in ("", "_lower", "_upper")}
    rows = [{"driver": name, "start_position": 31 + k} | finish | ends for k, name in enumerate(DRIVERS)]
    events = BOUNDARIES["forecast_events"].empty()
    print_forecast(console, RACE.assign_attrs(grid=grid), pl.DataFrame(rows), events, [])


def side_by_side(console: Console) -> None:
    rows = [
        {"driver_id": driver, "driver": driver, "market": "win", "probability": 0.5, "forecaster": name}
        for driver in DRIVERS
        for name in FORECASTERS
    ]
    print_side_by_side(console, pl.DataFrame(rows))


def printed(show: Callable[[Console], None], width: int) -> list[str]:
    """Return the lines that are printed on a terminal of a width."""
    console = Console(width=width)
    with console.capture() as captured:
        show(console)
    return captured.get().splitlines()


@pytest.mark.parametrize(("grid", "starts"), [("set", ["31", "32"]), ("drawn", ["n/a", "n/a"])])
def test_start_positions_need_a_set_grid(grid: str, starts: list[str]) -> None:
    """The start positions of a drawn grid are the order of expected form, and no grid."""
    lines = printed(lambda console: forecast(console, grid), 120)
    cars = [line.removeprefix(name) for line in lines for name in DRIVERS if line.startswith(name)]
    assert [car.split()[0] for car in cars] == starts


@pytest.mark.parametrize("show", [forecast, side_by_side])
def test_names_are_whole_where_there_is_room(show: Callable[[Console], None]) -> None:
    lines = printed(show, 120)
    assert all(any(line.startswith(name) for line in lines) for name in DRIVERS)


@pytest.mark.parametrize("show", [forecast, side_by_side])
@pytest.mark.parametrize("width", [60, 80])
def test_long_names_are_folded_and_not_cut(show: Callable[[Console], None], width: int) -> None:
    lines = printed(show, width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [word for word in words if word in ("Martin", "Second", "Third")] == [
        *("Martin", "Second"),
        *("Martin", "Third"),
    ]


def test_headings_of_forecasters_are_folded_and_not_cut() -> None:
    _, above, heading, *_ = printed(side_by_side, 120)
    assert above.split() == ["a-simulator-of-r"] * 2
    assert heading.split() == ["Driver", "aces-v1", "aces-v2", "network"]
