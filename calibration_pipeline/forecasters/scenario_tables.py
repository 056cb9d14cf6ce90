"""Tables of scenarios: a row a scenario and drivers in columns, or a row a scenario and car."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.scenarios import RaceScores
from calibration_pipeline.forecasters.tables import DUPLICATED, HIGHER_IS_BETTER, KEYS, ForecastTable
from calibration_pipeline.io.netcdf_probe import MAX_RACE_VALUES
from calibration_pipeline.scenarios.stacking import CAR_OUTCOMES
from calibration_pipeline.sources.quarantine import Row
from calibration_pipeline.tracks.compiled import normalise_name

SCENARIO_COLUMN = {
    "scenario": (
        "scenario_id", "sim", "sim_id", "simulation", "iteration", "iter", "draw", "sample", "replicate",
        "trial",
    )
}  # fmt: skip
POSITION_COLUMN = {
    "finish_position": ("finishing_position", "position", "finish", "finish_pos", "fin", "pos", "rank")
}
SCORE_COLUMN = {"score": ("value", "rating", "points", "performance", "speed", "time")}


class WideScenarios:
    """A table with a row a scenario and a column a car. Columns without a number are no cars.

    Parameters
    ----------
    table : ForecastTable
    races : RacesInForce

    Raises
    ------
    ForecasterError
        If no column is named like a car entered.
    """

    are_positions: bool | None = None

    def __init__(self, table: ForecastTable, races: RacesInForce) -> None:
        self.path = table.path
        self.higher_is_better = table.higher_is_better()
        others = {normalise_name(name) for name in (*KEYS, *table.keys.values(), "race", HIGHER_IS_BETTER)}
        others |= {normalise_name(name) for name in table.find(SCENARIO_COLUMN).values()}
        cars = [name for name in table.schema if normalise_name(name) not in others]
        n_known, self.by = races.best_reading(cars, "driver")
        if not n_known:
            raise ForecasterError(
                f"{table.path} is no form of forecast: it has neither a column driver nor a column for each "
                f"driver; it has {table.shown_columns}."
            )
        frame = table.collect(
            *table.key_columns(), *(table.number(name).alias(f"car {name}") for name in cars)
        )
        self.keys, self._rows = _split(frame, list(table.keys))

    def read(self, key: Row) -> RaceScores:
        """Return the scenarios of a race: its rows in the order of the file."""
        part = self._rows(key)
        part = part.select(column for column in part if column.null_count() < len(column))
        labels = [name.removeprefix("car ") for name in part.columns]
        repeated = [match[1] for label in labels if (match := DUPLICATED.fullmatch(label))]
        return RaceScores(labels, part.fill_null(float("nan")).to_numpy(), {}, repeated)


class LongScenarios:
    """A table with a row a scenario and car.

    Parameters
    ----------
    table : ForecastTable
    races : RacesInForce

    Raises
    ------
    ForecasterError
        If the table names no cars, or has no column of positions or scores.
    """

    def __init__(self, table: ForecastTable, races: RacesInForce) -> None:
        self.path = table.path
        self.higher_is_better = table.higher_is_better()
        positions, scores = table.find(POSITION_COLUMN), table.find(SCORE_COLUMN)
        if not positions and not scores:
            raise ForecasterError(
                f"{table.path} must have a column finish_position or score beside scenario and driver; it "
                f"has {table.shown_columns}."
            )
        self.are_positions: bool | None = True if positions else None
        column, self.by = races.choose_labels(table)
        value = next(iter((positions or scores).values()))
        scenario = table.find(SCENARIO_COLUMN)["scenario"]
        self._outcomes = [name for name in CAR_OUTCOMES[1:] if name in table.schema]
        frame = table.collect(
            *table.key_columns(),
            table.text(scenario).cast(pl.Categorical).alias("scenario"),
            table.text(column).cast(pl.Categorical).alias("label"),
            table.number(value).alias("value"),
            *(self._outcome(table, name) for name in self._outcomes),
        ).drop_nulls(["scenario", "label"])
        self.keys, self._rows = _split(frame, list(table.keys))

    @staticmethod
    def _outcome(table: ForecastTable, name: str) -> pl.Expr:
        words = table.text(name).str.to_lowercase().replace_strict({"true": 1.0, "false": 0.0}, default=None)
        return pl.coalesce(table.number(name), words).alias(name)

    def read(self, key: Row) -> RaceScores:
        """Return the scenarios of a race, by number or first occurrence; if too many, the shape alone."""
        part = self._rows(key)
        labels = part["label"].cast(pl.String).unique(maintain_order=True).to_list()
        row = _codes(part["scenario"], by_number=True)
        car = _codes(part["label"])
        shape = (int(row.max()) + 1, len(labels))
        if math.prod(shape) > MAX_RACE_VALUES:
            return RaceScores(labels, np.broadcast_to(np.nan, shape), {}, [])
        count = np.bincount(row * shape[1] + car, minlength=shape[0] * shape[1]).reshape(shape)
        repeated = [labels[k] for k in np.flatnonzero((count > 1).any(axis=0))]
        values = {name: np.full(shape, np.nan) for name in ("value", *self._outcomes)}
        for name, array in values.items():
            array[row, car] = part[name].to_numpy()
        return RaceScores(labels, values.pop("value"), _complete(values), repeated)


def _split(frame: pl.DataFrame, names: list[str]) -> tuple[pl.DataFrame, Callable[[Row], pl.DataFrame]]:
    """Return the race of each row, and a function of a race that returns its rows without these columns."""
    parts = frame.partition_by(names, as_dict=True, include_key=False)
    return frame.select(names), lambda key: parts[tuple(key[name] for name in names)]


def is_scenario_table(table: ForecastTable) -> bool:
    """Return whether a table has a column of scenarios, or no column that names cars."""
    return bool(table.find(SCENARIO_COLUMN)) or not table.labels


def open_scenarios(table: ForecastTable, races: RacesInForce) -> WideScenarios | LongScenarios:
    """Open a table for which `is_scenario_table` holds.

    Raises
    ------
    ForecasterError
        As the two classes do.
    """
    is_long = bool(table.find(SCENARIO_COLUMN)) and bool(table.labels)
    return LongScenarios(table, races) if is_long else WideScenarios(table, races)


def _codes(values: pl.Series, *, by_number: bool = False) -> NDArray[np.intp]:
    """Return the index of each value among the distinct values, by number or first occurrence."""
    distinct = values.unique(maintain_order=True).cast(pl.String)
    if by_number:
        distinct = distinct.gather(distinct.cast(pl.Float64, strict=False).arg_sort(nulls_last=True))
    codes = values.cast(pl.String).replace_strict(distinct, range(len(distinct)), return_dtype=pl.Int64)
    return codes.to_numpy()


def _complete(outcomes: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return the outcomes that some car of the race has."""
    return {name: values for name, values in outcomes.items() if not np.isnan(values).all()}
