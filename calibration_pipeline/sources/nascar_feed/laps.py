"""Laps of the timing feed: the document as frames, and whether they are the laps of the race."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from calibration_pipeline.sources.base import DefectError

FLAG_STATES = {1: "green", 2: "yellow", 3: "red", 4: "checkered", 8: "warm_up"}
SHARED_DRIVERS, AGREEING_LAPS, AGREEING_GRID = 0.6, 0.7, 0.5
"""Least shares of a race's cars: with laps, with the laps of the results, with their grid position on lap 0.

In the 72 races of 2020 and 2021 they are at least 1, .94 and 1 with the race's own laps. With the laps of
another race, a grid share above .2 never occurs together with the other two.
"""
LAPS_APART = 2
MOST_EXTRA_LAPS = 3
LAP_SCHEMA = {"lap": pl.Int64, "position": pl.Int64, "lap_time_s": pl.Float64}
LAP_FIELDS = ("Lap", "RunningPos", "LapTime")
FLAG_SCHEMA = {"lap": pl.Int64, "state": pl.Int64}
FLAG_FIELDS = ("LapsCompleted", "FlagState")


def parse_laps(document: Any, where: str) -> tuple[pl.DataFrame, pl.DataFrame, list[tuple[str, str]]]:
    """Return `lap-times.json` as two frames, and its defects.

    Parameters
    ----------
    document : object
        The document as parsed JSON.
    where : str

    Returns
    -------
    laps : polars.DataFrame
        feed_driver_id (null if the feed has none), car_number, lap, position, lap_time_s: one row a car
        and lap, as the feed has them.
    flags : polars.DataFrame
        lap, flag (null if the state is not known), one row a lap.
    defects : list of tuple
        Car, and the rule that its laps break.

    Raises
    ------
    DefectError
        If it is no document of laps.
    """
    if not isinstance(document, dict) or not isinstance(document.get("laps") or [], list):
        raise DefectError(f"{where} must have a list of laps by car; it is {type(document).__name__}.")
    defects: list[tuple[str, str]] = []
    cars, rows_of_cars = [], []
    for car in document.get("laps") or []:
        if not isinstance(car, dict):
            defects.append(("a car", "its laps must be an object"))
            continue
        name = f"car {car.get('Number')}"
        rows = car.get("Laps")
        if not isinstance(rows, list) or not rows:
            defects.append((name, "its laps are missing"))
            continue
        cars.append(car)
        rows_of_cars.append(rows)
    headers = pl.DataFrame(
        {
            "feed_driver_id": [_number(car.get("NASCARDriverID")) or None for car in cars],
            "car_number": [str(car.get("Number") or "").strip() or None for car in cars],
        },
        schema={"feed_driver_id": pl.Int64, "car_number": pl.String},
    )
    car_of_row = np.repeat(np.arange(len(cars)), [len(rows) for rows in rows_of_cars])
    columns = _columns(list(chain.from_iterable(rows_of_cars)), LAP_FIELDS, LAP_SCHEMA)
    laps = pl.concat([headers[car_of_row], columns], how="horizontal")
    return laps.drop_nulls("lap"), _flags(document.get("flags")), defects + _odd_laps(laps)


def _odd_laps(laps: pl.DataFrame) -> list[tuple[str, str]]:
    """Return car and rule of laps that lack number or position, stand twice, or have a negative time."""
    number, position = pl.col("lap"), pl.col("position")
    rules = {
        "have no number": number.is_null(),
        "have no position": (position.fill_null(0) <= 0) & number.is_not_null(),
        "stand twice": number.is_not_null() & pl.struct("car_number", "lap").is_first_distinct().not_(),
        "have a negative time": pl.col("lap_time_s") < 0,
    }
    is_broken = laps.select(**{rule: broken.any() for rule, broken in rules.items()}).row(0, named=True)
    return [
        (f"car {car}", f"{n} of its laps {rule}")
        for rule, broken in rules.items()
        if is_broken[rule]
        for car, n in laps.filter(broken).group_by("car_number", maintain_order=True).len().iter_rows()
    ]


def laps_agree(laps: pl.DataFrame, results: pl.DataFrame, race_laps: int | None) -> str | None:
    """Return why laps cannot be those of the race, None if they can.

    Parameters
    ----------
    laps : polars.DataFrame
        As `parse_laps` returns them.
    results : polars.DataFrame
        feed_driver_id, start_position and laps_completed of the starters.
    race_laps : int or None
        Laps that were run.
    """
    last_lap = int(laps["lap"].max() or 0)  # type: ignore[arg-type]
    if race_laps and last_lap > race_laps + MOST_EXTRA_LAPS:
        return f"laps reach lap {last_lap} of a race of {race_laps}"
    drivers = results.drop_nulls("feed_driver_id")
    driven = (
        laps.drop_nulls("feed_driver_id")
        .group_by("feed_driver_id")
        .agg(last=pl.col("lap").max(), grid=pl.col("position").filter(pl.col("lap") == 0).first())
    )
    joined = drivers.join(driven, on="feed_driver_id")
    if joined.height < SHARED_DRIVERS * drivers.height:
        return f"laps of {joined.height} of the race's {drivers.height} drivers"
    expected = pl.min_horizontal("laps_completed", pl.lit(last_lap))
    agrees = joined.select(
        laps=((pl.col("last") - expected).abs() <= LAPS_APART).mean(),
        grid=(pl.col("grid") == pl.col("start_position")).mean(),
    ).row(0, named=True)
    if agrees["laps"] is not None and agrees["laps"] < AGREEING_LAPS:
        return f"laps agree with the results for {agrees['laps']:.0%} of the cars"
    if agrees["grid"] is not None and agrees["grid"] < AGREEING_GRID:
        return f"lap 0 agrees with the grid for {agrees['grid']:.0%} of the cars"
    return None


def last_lap_as_raced(flags: pl.DataFrame, race_laps: int | None) -> pl.DataFrame:
    """Return the flags with that of the lap before in place of the last lap's checkered one."""
    if not race_laps:
        return flags
    before = flags.filter(pl.col("lap") < race_laps).sort("lap")["flag"]
    raced = before[-1] if len(before) else "green"
    is_last = (pl.col("lap") == race_laps) & (pl.col("flag") == "checkered")
    return flags.with_columns(flag=pl.when(is_last).then(pl.lit(raced)).otherwise("flag"))


def _columns(
    rows: list[Any], fields: tuple[str, ...], schema: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    """Return fields of rows as the columns of a schema, in this order; what is no number is null."""
    try:
        values = [[row[field] for row in rows] for field in fields]
        return pl.DataFrame(dict(zip(schema, values, strict=True)), schema=schema, strict=True)
    except (LookupError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        # Some are missing, texts or floats: one by one.
        known = [row if isinstance(row, dict) else {} for row in rows]
        columns = {
            name: [(_float if dtype == pl.Float64 else _number)(row.get(field)) for row in known]
            for field, (name, dtype) in zip(fields, schema.items(), strict=True)
        }
        return pl.DataFrame(columns, schema=schema, strict=True)


def _flags(states: Any) -> pl.DataFrame:
    rows = [row for row in states or [] if isinstance(row, dict)] if isinstance(states, list) else []
    frame = _columns(rows, FLAG_FIELDS, FLAG_SCHEMA).drop_nulls("lap")
    known = pl.col("state").replace_strict(FLAG_STATES, default=None, return_dtype=pl.String)
    return frame.select("lap", known.alias("flag")).unique("lap", keep="last", maintain_order=True)


def _float(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> int | None:
    """Return a whole number of 32 bits that is written as a number or a text, else None."""
    number = _float(value)
    if number is None or number != number // 1 or abs(number) >= 2**31:
        return None
    return int(number)
