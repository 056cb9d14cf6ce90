"""Coordinates of races and cars, common to every dataset over (race, driver)."""

from typing import Any

import numpy as np
import polars as pl

from calibration_pipeline.scenarios.covariates import spread
from calibration_pipeline.scenarios.folds import fold_name


def race_coordinates(slots: pl.DataFrame, width: int, fold_races: int | None) -> dict[str, Any]:
    """Coordinates of races (race) and cars (race, driver).

    Parameters
    ----------
    slots : polars.DataFrame
        Entries or features, numbered by `covariates.race_slots`.
    width : int
        Slots of the `driver` axis.
    fold_races : int or None
        Races in a fold, None for a season.

    Returns
    -------
    dict
        Name -> (dims, values), as `xarray.Dataset` takes them.
    """
    first = slots.filter(pl.col("slot") == 0).with_columns(
        fold=fold_name(pl.col("season"), pl.col("round"), fold_races)
    )
    race = {
        "race": first["race_id"].to_numpy().astype(np.int64),
        "season": first["season"].to_numpy().astype(np.int32),
        "round": first["round"].to_numpy().astype(np.int32),
        "race_order": first["race_order"].to_numpy().astype(np.int32),
        "track_id": _text(first["track_id"]),
        "archetype": _text(first["archetype"]),
        "race_date": _text(first["race_date"].cast(pl.String)),
        "fold": _text(first["fold"]),
        "field_size": first["field_size"].to_numpy().astype(np.int16),
    }
    car = {
        "driver_id": _text(slots["driver_id"]),
        "name": _text(slots["driver"]),
        "car_number": _text(slots["car_number"]),
        "team": _text(slots["team"]),
        "make": _text(slots["make"]),
        "start_position": slots["start_position"].to_numpy().astype(np.int16),
    }
    coordinates: dict[str, Any] = {name: ("race", values) for name, values in race.items()}
    for name, values in car.items():
        coordinates[name] = (
            ("race", "driver"),
            spread(slots, values, width, "" if values.dtype.kind == "U" else 0),
        )
    return coordinates


def _text(series: pl.Series) -> np.ndarray:
    return np.array(series.fill_null("").to_list(), dtype=np.str_).reshape(len(series))
