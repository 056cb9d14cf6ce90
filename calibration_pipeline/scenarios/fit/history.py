"""Input of the network's fit from earlier races: fields, running orders, incidents, damage, cautions."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.scenarios.covariates import (
    AnyArray,
    Field,
    build_field,
    race_slots,
    spread,
)
from calibration_pipeline.scenarios.folds import first_race_order, open_fold
from calibration_pipeline.scenarios.network.model import DAMAGE_SHARE
from calibration_pipeline.schemas.results import RUNNING_ORDER, join_results

RACES_MULTIPLE = 512
"""The race axis is padded to a multiple of this, to compile few shapes. Padding costs memory, and no time."""


class History(NamedTuple):
    """Observed races with a leading race axis, padded with races of weight zero.

    Attributes
    ----------
    field : Field
    running_order : (race, driver) int, 1 for the first of the running cars, 0 for retired and padding
    incident : (race, driver) bool, retired
    damage : (race, driver) bool, running but `DAMAGE_SHARE` of the race's laps behind
    n_cautions : (race) int, with `has_cautions` (race) bool
    race_order : (race) int
    """

    field: Field
    running_order: AnyArray
    incident: AnyArray
    damage: AnyArray
    n_cautions: AnyArray
    has_cautions: AnyArray
    race_order: AnyArray


def join_history(features: pl.DataFrame, race_results: pl.DataFrame) -> pl.DataFrame:
    """Join the results to the features, cars numbered by `race_slots`.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures`.
    race_results : polars.DataFrame
        `RaceResults`, of at least these races.

    Returns
    -------
    polars.DataFrame
        With `damage`: running at the finish, with more than `DAMAGE_SHARE` of the race's laps lost.

    Raises
    ------
    ValueError
        If a car of the features has no result.
    """
    outcome = race_results.select(
        "race_id", "driver_id", "finish_position", "laps_completed", "laps_led", "running", "race_laps",
        "green_laps", "n_cautions", "fastest_laps",
    )  # fmt: skip
    joined = join_results(features, outcome, "features")
    race_laps = pl.col("laps_completed").max().over("race_id")
    damage = pl.col("running") & (pl.col("laps_completed") < (1 - DAMAGE_SHARE) * race_laps)
    return race_slots(joined.with_columns(damage=damage))


def fold_history(
    features: pl.DataFrame,
    race_results: pl.DataFrame,
    season: int,
    fold_races: int | None,
    fold: str | None = None,
) -> pl.DataFrame:
    """Races before a season's open fold.

    The networks of the season are fitted to these races alone: a race within the open fold changes no row.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of the season and of all before it.
    race_results : polars.DataFrame
        `RaceResults` of the same races.
    season : int
    fold_races : int or None
        Races in a fold, None for a season.
    fold : str, optional
        The open fold; without it that of the race that follows the season's last one.

    Returns
    -------
    polars.DataFrame
        `FoldHistory`: the columns of `join_history` and `open_fold_start`, the race_order at which the open
        fold begins.

    Raises
    ------
    ValueError
        If a car of the features has no result.
    """
    fold = fold or open_fold(features.filter(season=season)["round"], season, fold_races)
    start = first_race_order(fold, fold_races)
    before = pl.col("race_order") < start
    return join_history(features.filter(before), race_results).with_columns(
        open_fold_start=pl.lit(start, pl.Int64)
    )


def build_history(slots: pl.DataFrame, width: int) -> History:
    """Arrays of earlier races, padded to a multiple of `RACES_MULTIPLE` so that few shapes are compiled.

    Parameters
    ----------
    slots : polars.DataFrame
        As returned by `join_history`.
    width : int
        Slots of the `driver` axis.
    """
    order = slots.select(RUNNING_ORDER).to_series()
    first = slots.filter(pl.col("slot") == 0)
    history = History(
        field=build_field(slots, width),
        running_order=spread(slots, order.to_numpy().astype(np.int32), width),
        incident=spread(slots, ~slots["running"].to_numpy(), width, fill=False),
        damage=spread(slots, slots["damage"].to_numpy(), width, fill=False),
        n_cautions=first["n_cautions"].fill_null(0).to_numpy().astype(np.int32),
        has_cautions=first["n_cautions"].is_not_null().to_numpy(),
        race_order=first["race_order"].to_numpy().astype(np.int32),
    )
    n_pad = -len(first) % RACES_MULTIPLE

    def pad(values: NDArray) -> NDArray:
        return np.concatenate([values, np.zeros((n_pad, *values.shape[1:]), values.dtype)])

    padded = [pad(value) for value in history.field]
    return History(Field(*padded), *(pad(value) for value in history[1:]))
