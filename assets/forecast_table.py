"""The next race on the terminal: the forecast that is stored, its chances and joint events."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from upath import UPath

from .forecast import forecast_notes
from .storage import NetCDFIOManager, ParquetIOManager

CHANCES = {"win": "Win %", "top5": "Top 5 %", "top10": "Top 10 %", "dnf": "Out %"}
SMALL = 0.095
"""Chances below it are told to a tenth of a percent."""
DRIVER_WIDTH = 16


def is_stored(store: UPath) -> bool:
    """Tell whether a forecast is stored, even of no race."""
    return all(
        manager(store).path_of(name, None).exists()
        for name, manager in (
            ("race_forecast", NetCDFIOManager),
            ("forecast_chances", ParquetIOManager),
            ("forecast_events", ParquetIOManager),
        )
    )


def print_forecast(console: Console, store: UPath) -> None:
    """Print the stored forecast of the next race, or why there is none.

    Raises
    ------
    ContractError
        If a stored file is broken.
    """
    arrays, tables = NetCDFIOManager(store), ParquetIOManager(store)
    forecast = arrays.read(arrays.path_of("race_forecast", None), "race_forecast", None)
    notes = forecast_notes(forecast)
    if forecast.sizes["race"] == 0:
        console.print(notes[0], highlight=False)
        return
    race = forecast.isel(race=0)
    title = f"Race {int(race['round'])} of {int(race['season'])}, {race['track_id'].item()}"
    console.print(f"[bold]{title}[/]", highlight=False)
    notes.append("Chances with their 90 % intervals over the calibration; finish: median, central 80 %.")
    for note in notes:
        console.print(note, highlight=False)
    chances = tables.read(tables.path_of("forecast_chances", None), "forecast_chances", None)
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("Driver", no_wrap=True, max_width=DRIVER_WIDTH)
    for heading in ("", *CHANCES.values(), "Finish"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for car in chances.iter_rows(named=True):
        ends = [(car[name], car[f"{name}_lower"], car[f"{name}_upper"]) for name in CHANCES]
        finish = f"{car['finish_median']} ({car['finish_lower']}-{car['finish_upper']})"
        grid.add_row(car["driver"], str(car["start_position"]), *(_chance(*end) for end in ends), finish)
    console.print(grid)
    events = tables.read(tables.path_of("forecast_events", None), "forecast_events", None)
    joint = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("Joint event", "Per", "%"):
        joint.add_column(heading, no_wrap=True)
    for row in events.iter_rows(named=True):
        joint.add_row(row["event"], row["about"], _chance(row["predicted"], row["lower"], row["upper"]))
    console.print(joint)
    console.print(f"Files: {store}", highlight=False)


def _chance(estimate: float | None, lower: float | None, upper: float | None) -> str:
    if estimate is None:
        return "-"
    told = f"{100 * estimate:.{1 if estimate < SMALL else 0}f}"
    return told if lower is None or upper is None else f"{told} ({100 * lower:.0f}-{100 * upper:.0f})"
