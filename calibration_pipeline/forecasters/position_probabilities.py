"""Position probabilities: long tables and matrices of P(finish = position), also cumulative or top-heavy.

Each car's probabilities sum to 1 over the field. Probability that a table gives to no position ("rest", or a
sum below 1) is spread evenly over the positions that it does not give.
"""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.car_matching import MatchedRace
from calibration_pipeline.forecasters.field_matching import TWICE, RacesInForce, named
from calibration_pipeline.forecasters.tables import ForecastTable
from calibration_pipeline.scenarios.races import race_coordinates
from calibration_pipeline.schemas.datasets import POSITION
from calibration_pipeline.schemas.forecasters import PositionProbabilities
from calibration_pipeline.sources.quarantine import DefectLog

POSITION_COLUMN = {
    "position": ("finish_position", "finishing_position", "finish", "fin", "pos", "place", "rank")
}
PROBABILITY_COLUMN = {"probability": ("prob", "p", "chance")}
CUMULATIVE_COLUMN = {"cumulative_probability": ("cumulative", "cdf")}
REST_COLUMN = {"rest": ("others", "other", "else", "remaining")}
OF_THE_REST = ("rest", *REST_COLUMN["rest"])
MATRIX_COLUMN = re.compile(r"(?:p|prob|pos|position|finish|place)?[ _.(]*(\d{1,2})\)?")
SUM_TOLERANCE = 0.05
"""Largest distance of a car's sum from 1 that is only rescaled."""
LARGEST_POSITION, REST = 99, -1
"""Largest number of a position, and the one that stands for the rest."""


class _RaceError(Exception):
    """A rule that a race's probabilities break, with the value found."""

    def __init__(self, rule: str, value: str) -> None:
        super().__init__(rule)
        self.rule, self.value = rule, value


def is_position_table(table: ForecastTable) -> bool:
    """Return whether a table has a row a position, or a column a position."""
    values = table.find(PROBABILITY_COLUMN) or table.find(CUMULATIVE_COLUMN)
    return bool(values and table.find(POSITION_COLUMN)) or bool(table.labels and _matrix_columns(table))


def read_position_probabilities(
    tables: Sequence[ForecastTable], races: RacesInForce, log: DefectLog, fold_races: int | None
) -> xr.Dataset:
    """Read the position probabilities of a forecaster.

    Parameters
    ----------
    tables : sequence of ForecastTable
        Tables for which `is_position_table` holds.
    races : RacesInForce
    log : DefectLog
        Gets races that are left out.
    fold_races : int or None
        Races in a fold, None for a season.

    Returns
    -------
    xarray.Dataset
        `PositionProbabilities`.

    Raises
    ------
    ForecasterError
        If no race is in force, a table names no cars, or a race is in two tables.
    """
    found: dict[int, NDArray[np.float64]] = {}
    for table in tables:
        column, by = races.choose_labels(table)
        rows = _position_rows(table, column)
        is_cumulative = bool(table.find(CUMULATIVE_COLUMN))
        for matched in races.matched_races(races.join_races(rows, table, log), by, log):
            race_id = matched.race["race_id"]
            if race_id in found:
                raise ForecasterError(f"{table.path}: {matched.race['label']} is in another file as well.")
            try:
                found[race_id] = _race_matrix(matched, is_cumulative)
            except _RaceError as error:
                log.add(matched.race, error.rule, value=error.value)
    slots = races.slots(found)
    width = int(slots["field_size"].max() or 1)  # type: ignore[arg-type]
    probability = np.zeros((len(found), width, width))
    for r, race_id in enumerate(slots["race_id"].unique(maintain_order=True)):
        n = len(found[race_id])
        probability[r, :n, :n] = found[race_id]
    dataset = xr.Dataset({"probability": (POSITION, probability)}, race_coordinates(slots, width, fold_races))
    return PositionProbabilities.validate(dataset, lazy=True)


def remove_car(probability: NDArray[np.float64], car: int) -> NDArray[np.float64]:
    r"""Return the position probabilities without a car, the ranks closed.

    A car behind the removed car moves up by one. Given its position j, the removed car is taken to be at
    another position with its own probabilities, :math:`q_k / (1 - q_j)`: the dependence between cars is not
    known.

    Parameters
    ----------
    probability : array, shape (car, position)
        Each row sums to 1 over n cars and n positions.
    car : int

    Returns
    -------
    array, shape (n - 1, n - 1)
        Each row sums to 1.

    Examples
    --------
    The removed car is second for certain: who is third is then second.

    >>> remove_car(np.array([[0.75, 0.0, 0.25], [0.0, 1.0, 0.0], [0.25, 0.0, 0.75]]), 1).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    own = probability[car]
    others = np.delete(probability, car, axis=0)
    elsewhere = 1 - own
    ahead = np.cumsum(own) - own
    # Where the car is at j for certain, no other car can be: half of such mass moves up.
    moves_up = np.where(elsewhere > 1e-12, ahead / np.maximum(elsewhere, 1e-12), 0.5)
    moves_up[0], moves_up[-1] = 0.0, 1.0
    return (others * (1 - moves_up))[:, :-1] + (others * moves_up)[:, 1:]


def _matrix_columns(table: ForecastTable) -> dict[str, int]:
    """Return column → position of a matrix whose positions are 1..m; empty for other tables."""
    found: dict[str, int] = {}
    for name in table.schema:
        if match := MATRIX_COLUMN.fullmatch(name.strip().lower()):
            found[name] = int(match[1])
    positions = sorted(found.values())
    return found if len(positions) > 1 and positions == list(range(1, len(positions) + 1)) else {}


def _position_rows(table: ForecastTable, label: str) -> pl.DataFrame:
    """Return a row a race, car and position: keys, label, position (or `REST`) and value."""
    first = [*table.key_columns(), table.text(label).alias("label")]
    values = table.find(CUMULATIVE_COLUMN) or table.find(PROBABILITY_COLUMN)
    position = table.find(POSITION_COLUMN)
    if values and position:
        words = table.text(position["position"]).str.to_lowercase()
        whole = table.whole(position["position"])
        rows = table.collect(
            *first,
            pl.when(words.is_in(OF_THE_REST) | words.str.contains(r"^\d+ ?\+$")).then(REST)
            .when(whole != REST).then(whole).alias("position"),
            table.number(next(iter(values.values()))).alias("value"),
        )  # fmt: skip
        return rows.drop_nulls("label")
    columns = _matrix_columns(table)
    rest = table.find(REST_COLUMN).get("rest")
    cells = [table.number(name).alias(str(number)) for name, number in columns.items()]
    cells += [table.number(rest).alias(str(REST))] if rest else []
    wide = table.collect(*first, *cells).drop_nulls("label")
    long = wide.unpivot(index=[*table.keys, "label"], variable_name="position", value_name="value")
    return long.with_columns(pl.col("position").cast(pl.Int64))


def _race_matrix(matched: MatchedRace, is_cumulative: bool) -> NDArray[np.float64]:
    """Return the position probabilities of the cars entered, (car, position), by grid.

    Raises
    ------
    _RaceError
        If the race is to be left out.
    """
    no_place = (pl.col("position") == 0) & (pl.col("value") == 0)
    rows = matched.rows.filter(~no_place.fill_null(False))
    again = rows.filter(pl.struct("label", "position").is_duplicated())
    if not again.is_empty():
        raise _RaceError(TWICE, named(again["label"].unique(maintain_order=True).to_list()))
    is_position = pl.col("position").is_between(1, LARGEST_POSITION) | (pl.col("position") == REST)
    bad = rows.filter(~is_position.fill_null(False))
    if not bad.is_empty():
        raise _RaceError(f"a position must be from 1 to {LARGEST_POSITION}", named(_shown(bad)))
    outside = rows.filter(~pl.col("value").is_between(0, 1 + 1e-9))
    if not outside.is_empty():
        raise _RaceError("a probability must be from 0 to 1", named(_shown(outside)))
    somewhere = (pl.col("value").sum().over("label") > 0) | pl.col("driver_id").is_not_null()
    rows = rows.filter(somewhere)
    absent = rows.filter(pl.col("driver_id").is_null())["label"].unique(maintain_order=True).to_list()
    drivers = matched.cars["driver_id"].to_list()
    row_of = {name: k for k, name in enumerate([*drivers, *absent])}
    n_cars = len(row_of)
    given = np.full((n_cars, LARGEST_POSITION + 2), np.nan)
    car = pl.coalesce("driver_id", "label").replace_strict(row_of, return_dtype=pl.Int64)
    index = rows.select(car.alias("car"), "position", "value")
    given[index["car"].to_numpy(), index["position"].to_numpy()] = index["value"].to_numpy()
    names = [*matched.cars["driver"].to_list(), *absent]
    fill = _from_cumulative if is_cumulative else _from_given
    probability = np.array([fill(row, n_cars, name) for row, name in zip(given, names, strict=True)])
    for removed in range(n_cars - 1, len(drivers) - 1, -1):
        probability = remove_car(probability, removed)
    return probability


def _from_given(row: NDArray[np.float64], n_cars: int, name: str) -> NDArray[np.float64]:
    """Return P(position = 1..n) of a car: `row` by position and `REST`, NaN where not given."""
    given = row[1 : n_cars + 1]
    open_positions = np.isnan(given)
    if open_positions.all():
        raise _RaceError("every car must have probabilities", name)
    total = float(np.nansum(given))
    n_open = int(open_positions.sum())
    rest = max(1 - total, 0.0) if np.isnan(row[REST]) else float(row[REST])
    beyond = float(np.nansum(row[n_cars + 1 : REST]))
    if abs((total + rest if n_open else total) - 1) > SUM_TOLERANCE or beyond > SUM_TOLERANCE:
        rule = f"probabilities of a car must sum to 1 over the {n_cars} positions"
        raise _RaceError(rule, f"{name}: {total:.3f}")
    filled = np.where(open_positions, rest / max(n_open, 1), given)
    return filled / filled.sum()


def _from_cumulative(row: NDArray[np.float64], n_cars: int, name: str) -> NDArray[np.float64]:
    """Return P(position = 1..n) of a car from P(position <= k); linear between the positions given."""
    positions = np.flatnonzero(~np.isnan(row[1:REST])) + 1
    if not len(positions):
        raise _RaceError("every car must have probabilities", name)
    below = row[positions]
    if (np.diff(below) < -1e-6).any():
        raise _RaceError("cumulative probabilities must not fall", name)
    if positions[-1] < n_cars:
        positions, below = np.append(positions, n_cars), np.append(below, 1.0)
    cumulative = np.interp(np.arange(n_cars + 1), [0, *positions], [0.0, *below])
    if cumulative[-1] < 1 - SUM_TOLERANCE:
        rule = f"cumulative probabilities must reach 1 at the last of the {n_cars} positions"
        raise _RaceError(rule, f"{name}: {cumulative[-1]:.3f}")
    return np.maximum(np.diff(cumulative), 0) / cumulative[-1]


def _shown(rows: pl.DataFrame) -> list[str]:
    return [
        f"{label} at {position}: {value}"
        for label, position, value in rows.select("label", "position", "value").iter_rows()
    ]
