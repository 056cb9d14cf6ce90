"""Entry list of the next race in a table: who is entered, and whether the field is one to be forecast."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.sources.tables.calendar import PLACEHOLDERS, SMALL_SHARE
from calibration_pipeline.sources.tables.columns import ROW
from calibration_pipeline.sources.tables.statuses import is_non_starter

logger = logging.getLogger(__name__)


def clean_entries(rows: pl.DataFrame, usual_size: float) -> AnnouncedRace | NoNextRace:
    """Return the cars entered for one race that has not run, or why they are no field to be forecast.

    Of a driver's entries the one with a grid position counts, else the first. A car whose driver is not known
    yet is entered as a newcomer under its number, unless these are most of the field. Entries that name
    neither, and entries that do not start, are left out. Where only some cars have a grid position, those
    without one did not qualify if most have one; otherwise the grid is not set. All are logged and returned.

    Parameters
    ----------
    rows : polars.DataFrame
        Rows of the race, with `label`.
    usual_size : float
        Median field of the races that have run; 0 where none has.
    """
    first = rows.row(0, named=True)
    defects: list[str] = []
    cars: dict[str, dict[str, Any]] = {}
    taken: dict[str, set[object]] = {"car_number": set(), "start_position": set()}
    given = rows["start_position"].count()
    has_grid = given * 2 > rows.height
    n_unknown = 0
    placed_first = sorted(
        rows.with_columns(out=is_non_starter(pl.col("status"))).iter_rows(named=True),
        key=lambda row: (row["start_position"] is None, row[ROW]),
    )
    for row in placed_first:
        if _is_unknown(row["driver"]) and row["car_number"] is not None:
            defects.append(_sentence(row, "has no known driver: it counts as a newcomer"))
            name = f"car {row['car_number']}"
            row |= {"driver": f"To be announced, {name}", "driver_id": f"to-be-announced-{name}"}
            n_unknown += 1
        reason = _reason_against(row, cars, has_grid=has_grid)
        if reason is not None:
            defects.append(_sentence(row, f"is left out: {reason}"))
            continue
        for column, values in taken.items():
            if row[column] in values:
                defects.append(_sentence(row, f"has the {column} {row[column]} of another entry"))
                if column == "car_number":
                    row[column] = None
                else:
                    has_grid = False
            elif row[column] is not None:
                values.add(row[column])
        cars[row["driver_id"]] = row
    if not has_grid and given:
        defects.append("The grid is not complete: it counts as not set.")
    for sentence in defects:
        logger.warning("Next race %s: %s", first["label"], sentence)
    if len(cars) < 2 or len(cars) < SMALL_SHARE * usual_size or n_unknown * 2 > len(cars):
        named = f"names the drivers of {len(cars) - n_unknown} cars of about {max(usual_size, 2):.0f}"
        none = NoNextRace(f"No forecast of {first['label']}: its entry list {named}.")
        logger.warning("%s", none.why)
        return none
    kept = pl.DataFrame(sorted(cars.values(), key=lambda row: row[ROW]), schema=rows.schema, orient="row")
    start = pl.col("start_position")
    entries = kept.with_columns(start_position=start if has_grid else pl.lit(None, pl.Int64))
    return AnnouncedRace(entries, tuple(defects))


def _reason_against(row: Mapping[str, Any], cars: Mapping[str, object], *, has_grid: bool) -> str | None:
    """Return why an entry does not count, None where it does."""
    if _is_unknown(row["driver"]):
        return "its driver is not known yet"
    if row["out"]:
        return f"its status is {row['status']}"
    if row["driver_id"] in cars:
        return "its driver has another entry"
    if has_grid and row["start_position"] is None:
        return "it has no grid position, while most have one"
    return None


def _is_unknown(driver: str | None) -> bool:
    return driver is None or re.search(PLACEHOLDERS, driver) is not None


def _sentence(entry: Mapping[str, Any], consequence: str) -> str:
    car = f"car {entry['car_number']}" if entry["car_number"] else "a car without a number"
    return f"{entry['driver']}, {car}, {consequence}."
