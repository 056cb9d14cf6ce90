"""Terminal output of the forecast of the next race: probabilities of every car, and joint events."""

from collections.abc import Sequence
from contextlib import suppress

import polars as pl
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from upath import UPath

from calibration_pipeline.forecast.next_race import forecast_notes, without_drawn_grid
from calibration_pipeline.io.escaping import escape_markup, plain_text
from calibration_pipeline.io.stored_values import read_asset
from calibration_pipeline.schemas.contracts import ContractError
from calibration_pipeline.terminal.errors import CommandError, reported
from calibration_pipeline.terminal.names import fit_names

CHANCES = {"win": "Win %", "top5": "Top 5 %", "top10": "Top 10 %", "dnf": "Out %"}
SMALL = 0.095
"""Chances below it are shown to a tenth of a percent."""
HEADING_WIDTH = 16
UNKNOWN = "n/a"


def print_stored(console: Console, store: UPath, forecaster: str) -> None:
    """Print the stored forecast of the next race, and beside it those of all forecasters.

    Parameters
    ----------
    console : rich.console.Console
    store : UPath
        Folder or object-store address of a source's and series' assets.
    forecaster : str

    Raises
    ------
    CommandError
        If no forecast is stored, or one cannot be read.
    """
    try:
        with reported(ContractError):
            forecast, chances, events = (
                read_asset(store, name, forecaster)
                for name in ("race_forecast", "forecast_chances", "forecast_events")
            )
    except FileNotFoundError as error:
        raise CommandError(
            f"There is no forecast in {store} yet: calibration-pipeline run makes one."
        ) from error
    print_forecast(console, forecast, chances, events, forecast_notes(forecast))
    with suppress(FileNotFoundError), reported(ContractError):  # a part of the assets may be stored
        print_side_by_side(console, read_asset(store, "forecaster_chances"))
    console.print(f"Files: {store}", highlight=False, markup=False)


def print_forecast(
    console: Console,
    forecast: xr.Dataset,
    chances: pl.DataFrame,
    events: pl.DataFrame,
    notes: Sequence[str],
) -> None:
    """Print the forecast of the next race, or the reason why there is none.

    Parameters
    ----------
    console : rich.console.Console
    forecast : xarray.Dataset
        `ScenarioEnsemble` of one race or none.
    chances, events : polars.DataFrame
        `ForecastChances` and `ForecastEvents`.
    notes : sequence of str
        Notes on the forecast.
    """
    if forecast.sizes["race"] == 0:
        console.print(plain_text(notes[0]), highlight=False, markup=False)
        return
    race = forecast.isel(race=0)
    title = f"Race {int(race['round'])} of {int(race['season'])}, {race['track_id'].item()}"
    console.print(f"[bold]{escape_markup(title)}[/]", highlight=False)
    intervals = "Chances with 90 % intervals from the calibration; finish: median, central 80 %."
    for note in (*notes, intervals):
        console.print(plain_text(note), highlight=False, markup=False)
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("Driver")
    for heading in ("Start", *CHANCES.values(), "Finish"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for car in without_drawn_grid(forecast, chances).iter_rows(named=True):
        ends = [(car[name], car[f"{name}_lower"], car[f"{name}_upper"]) for name in CHANCES]
        finish = f"{car['finish_median']} ({car['finish_lower']}-{car['finish_upper']})"
        start = UNKNOWN if car["start_position"] is None else str(car["start_position"])
        grid.add_row(escape_markup(car["driver"]), start, *(_chance(*end) for end in ends), finish)
    console.print(fit_names(console, grid))
    joint = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("Joint event", "Per", "%"):
        joint.add_column(heading, no_wrap=True)
    for row in events.iter_rows(named=True):
        event, about = (escape_markup(row[column]) for column in ("event", "about"))
        joint.add_row(event, about, _chance(row["predicted"], row["lower"], row["upper"]))
    console.print(joint)


def print_side_by_side(console: Console, chances: pl.DataFrame) -> None:
    """Print the probabilities of every forecaster, market by market, where there are several.

    Parameters
    ----------
    console : rich.console.Console
    chances : polars.DataFrame
        `ForecasterChances`.
    """
    from calibration_pipeline.comparison.next_race import side_by_side

    for (market,), own in chances.group_by("market", maintain_order=True):
        wide = side_by_side(own)
        names = wide.columns[1:]
        if len(names) < 2:
            continue
        console.print(f"[bold]{str(market).capitalize()} %, recalibrated, by forecaster[/]", highlight=False)
        grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        grid.add_column("Driver")
        for name in names:
            grid.add_column(escape_markup(name), justify="right", overflow="fold", max_width=HEADING_WIDTH)
        for car in wide.sort(names[-1], descending=True).iter_rows(named=True):
            driver = escape_markup(car["driver"])
            grid.add_row(driver, *(_chance(car[name], None, None) for name in names))
        console.print(fit_names(console, grid))


def _chance(estimate: float | None, lower: float | None, upper: float | None) -> str:
    if estimate is None:
        return "-"
    text = f"{100 * estimate:.{1 if estimate < SMALL else 0}f}"
    return text if lower is None or upper is None else f"{text} ({100 * lower:.0f}-{100 * upper:.0f})"
