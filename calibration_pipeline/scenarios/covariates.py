"""Covariate arrays of races for the causal network, from driver features: one row a race, one slot a car."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.stats.normal_scores import normal_score

type AnyArray = Any  # of NumPy or of JAX

WIDTH_MULTIPLE = 8

# Each covariate is divided by its scale, so that one prior suits all weights.
PACE_COVARIATES = {
    "start_score": 1.0,
    "finish_form": 0.5,
    "running_form": 0.5,
    "recent_form": 0.5,
    "start_form": 0.5,
    "pace_form": 0.5,
    "archetype_form": 0.2,
    "track_form": 0.2,
    "team_form": 0.5,
    "team_archetype_form": 0.2,
    "car_form": 0.5,
    "led_form": 0.05,
    "experience": 1.5,
}
INCIDENT_COVARIATES = {
    "incident_form": 0.3,
    "start_score": 1.0,
    "finish_form": 0.5,
    "experience": 1.5,
    "track_incident": 0.3,
}


class Field(NamedTuple):
    """Covariates of a race, or of many races with a leading race axis. Padding is zero.

    Attributes
    ----------
    pace : (..., driver, pace covariate), centred within the race
    incident : (..., driver, incident covariate)
    start_score : (..., driver), normal score of the grid, larger is further ahead
    car : (..., driver) bool, whether the slot holds a car
    team : (..., driver) int, cars of one team share a number
    archetype : (...) int, index into `ARCHETYPES`
    scheduled_laps : (...) int
    caution : (...), log of the track's caution rate (clipped at 0.1), 0 where the rate is unknown
    """

    pace: AnyArray
    incident: AnyArray
    start_score: AnyArray
    car: AnyArray
    team: AnyArray
    archetype: AnyArray
    scheduled_laps: AnyArray
    caution: AnyArray


def race_slots(features: pl.DataFrame) -> pl.DataFrame:
    """Sort cars by race and grid, and number races and slots.

    Parameters
    ----------
    features : polars.DataFrame
        At least race_id, race_order, start_position, driver_id.

    Returns
    -------
    polars.DataFrame
        The rows sorted, with `race_index`, `slot` (both from 0) and `field_size`.
    """
    return features.sort("race_order", "race_id", "start_position", "driver_id").with_columns(
        race_index=pl.col("race_id").rle_id().cast(pl.Int64),
        slot=pl.int_range(pl.len()).over("race_id"),
        field_size=pl.len().over("race_id").cast(pl.Int64),
    )


def spread(slots: pl.DataFrame, values: NDArray, width: int, fill: object = 0) -> NDArray:
    """Lay values of a long frame out as (race, driver, ...), padded with `fill`.

    Parameters
    ----------
    slots : polars.DataFrame
        As returned by `race_slots`.
    values : array, shape (len(slots), ...)
    width : int
        Slots of the `driver` axis.
    fill : scalar
    """
    n_races = slots["race_index"].n_unique()
    out = np.full((n_races, width, *values.shape[1:]), fill, dtype=values.dtype)
    out[slots["race_index"].to_numpy(), slots["slot"].to_numpy()] = values
    return out


def padded_width(n_cars: int) -> int:
    """Width of the `driver` axis for `n_cars` cars: a multiple of `WIDTH_MULTIPLE`, to compile few shapes.

    Examples
    --------
    >>> padded_width(36), padded_width(40)
    (40, 40)
    """
    return n_cars + -n_cars % WIDTH_MULTIPLE


def widen_field(field: Field, width: int) -> Field:
    """Give the `driver` axis `width` slots; new ones hold no car.

    Parameters
    ----------
    field : Field
        With a leading race axis.
    width : int
        At least the field's present number of slots.
    """
    missing = width - field.car.shape[1]
    per_car = {name: getattr(field, name) for name in ("pace", "incident", "start_score", "car", "team")}
    return field._replace(
        **{
            name: np.pad(values, [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))
            for name, values in per_car.items()
        }
    )


def build_field(slots: pl.DataFrame, width: int) -> Field:
    """Arrays of the races of driver features.

    A missing pace form (no laps) is replaced by the field's mean. A missing caution rate gives log rate 0.

    Parameters
    ----------
    slots : polars.DataFrame
        `DriverFeatures`, numbered by `race_slots`.
    width : int
        Slots of the `driver` axis, at least the widest field.

    Returns
    -------
    Field
        With a leading race axis.

    Raises
    ------
    ValueError
        If a field is wider than `width`, or a race has no scheduled laps.
    """
    widest = int(slots["field_size"].max() or 0)  # type: ignore[arg-type]
    if widest > width:
        raise ValueError(f"Argument width must be at least the widest field, got {width} for {widest} cars.")
    if missing := slots.filter(pl.col("scheduled_laps").is_null())["race_id"].unique().to_list():
        raise ValueError(f"scheduled_laps must be known before a race; it is null for race_id {missing[:3]}.")
    rate = pl.col("track_incident_rate").clip(0.005, 0.9)
    columns = slots.with_columns(
        pace_form=pl.col("pace_form").fill_null(pl.col("pace_form").mean().over("race_id")).fill_null(0.0),
        start_score=normal_score(
            pl.col("start_position").rank("ordinal").over("race_id"), pl.col("field_size")
        ),
        archetype_index=pl.col("archetype").replace_strict(list(ARCHETYPES), range(len(ARCHETYPES))),
        team_index=pl.col("team").fill_null(pl.col("driver_id")).rank("dense").over("race_id") - 1,
        track_incident=(rate / (1 - rate)).log(),
        caution=pl.col("track_caution_rate").clip(0.1).log().fill_null(0.0),
    )
    pace = columns.select(
        (pl.col(name) - pl.col(name).mean().over("race_id")) / scale
        for name, scale in PACE_COVARIATES.items()
    )
    incident = columns.select(pl.col(name) / scale for name, scale in INCIDENT_COVARIATES.items())
    first = columns.filter(pl.col("slot") == 0)
    return Field(
        pace=spread(slots, pace.to_numpy().astype(np.float32), width),
        incident=spread(slots, incident.to_numpy().astype(np.float32), width),
        start_score=spread(slots, columns["start_score"].to_numpy().astype(np.float32), width),
        car=spread(slots, np.ones(len(slots), bool), width, fill=False),
        team=spread(slots, columns["team_index"].to_numpy().astype(np.int32), width),
        archetype=first["archetype_index"].to_numpy().astype(np.int32),
        scheduled_laps=first["scheduled_laps"].to_numpy().astype(np.int32),
        caution=first["caution"].to_numpy().astype(np.float32),
    )
