"""The terminal's forecast of the next race: start positions and names."""

import polars as pl
import pytest
import xarray as xr
from rich.console import Console

from calibration_pipeline.schemas.contracts import BOUNDARIES
from calibration_pipeline.terminal.next_race import CHANCES, print_forecast

RACE = xr.Dataset(
    {name: ("race", [value]) for name, value in (("season", 2025), ("round", 3), ("track_id", "kansas"))}
)


def cars(*names: str) -> pl.DataFrame:
    """Chances of cars, whose start positions are 31, 32, …"""
    finish = {"finish_median": 3, "finish_lower": 1, "finish_upper": 9}
    ends = {f"{name}{end}": 0.5 for name in CHANCES for end in ("", "_lower", "_upper")}
    return pl.DataFrame(
        [{"driver": name, "start_position": 31 + k} | finish | ends for k, name in enumerate(names)]
    )


def printed(chances: pl.DataFrame, grid: str) -> list[list[str]]:
    """The words of the rows of cars, as printed on 80 columns."""
    console = Console(width=80)
    with console.capture() as captured:
        events = BOUNDARIES["forecast_events"].empty()
        print_forecast(console, RACE.assign_attrs(grid=grid), chances, events, [])
    return [line.split() for line in captured.get().splitlines() if "(50-50)" in line]


@pytest.mark.parametrize(("grid", "starts"), [("set", ["31", "32"]), ("drawn", ["n/a", "n/a"])])
def test_start_positions_need_a_set_grid(grid: str, starts: list[str]) -> None:
    """The start positions of a drawn grid are the order of expected form, and no grid."""
    assert [row[1] for row in printed(cars("Ann", "Ben"), grid)] == starts
