"""Position probabilities: accepted forms, positions not given, removed cars, and races left out."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.position_probabilities import (
    is_position_table,
    read_position_probabilities,
    remove_car,
)
from calibration_pipeline.forecasters.tables import open_table
from calibration_pipeline.sources.quarantine import DefectLog
from helpers.example_forecasts import NAMES, RACES, finish_matrix, in_force, log, opened, position_table

N = len(NAMES)
KEYS = ["season", "round", "driver"]


def read(
    path: Path, frame: pl.DataFrame, name: str = "sim.csv", defects: DefectLog | None = None
) -> xr.Dataset:
    table = opened(path, frame, name)
    assert is_position_table(table)
    return read_position_probabilities([table], in_force(), defects or log(), None)


def matrix(prefix: str) -> pl.DataFrame:
    wide = position_table().pivot("position", index=KEYS, values="probability")
    return wide.rename({str(k): f"{prefix}{k}" for k in range(1, N + 1)})


def assert_is_the_example(dataset: xr.Dataset) -> None:
    for r, race in enumerate(RACES):
        np.testing.assert_allclose(dataset["probability"].values[r], finish_matrix(race), atol=1e-12)


def test_a_long_table(tmp_path: Path) -> None:
    dataset = read(tmp_path, position_table().sample(fraction=1.0, shuffle=True, seed=1))
    assert dataset["probability"].dims == ("race", "driver", "position")
    assert dataset["race"].values.tolist() == [207201, 207202, 207203]
    assert dataset["name"].values[0].tolist() == list(NAMES)
    assert_is_the_example(dataset)


@pytest.mark.parametrize("prefix", ["", "p", "P_", "position_", "Pos ", "p("])
def test_a_matrix(tmp_path: Path, prefix: str) -> None:
    wide = matrix(prefix)
    if prefix == "p(":
        wide = wide.rename({f"p({k}": f"p({k})" for k in range(1, N + 1)})
    assert_is_the_example(read(tmp_path, wide))
    assert_is_the_example(read(tmp_path, wide, "sim.parquet"))


def test_a_cumulative_table(tmp_path: Path) -> None:
    cdf = position_table().with_columns(cdf=pl.col("probability").cum_sum().over("round", "driver"))
    assert_is_the_example(read(tmp_path, cdf.drop("probability")))


def spread(race: int, kept: int) -> np.ndarray:
    expected = finish_matrix(race).copy()
    expected[:, kept:] = expected[:, kept:].mean(axis=1, keepdims=True)
    return expected


@pytest.mark.parametrize("form", ["below 1", "rest column", "rest row", "open row", "cumulative"])
def test_what_is_not_given_is_spread_evenly(tmp_path: Path, form: str) -> None:
    top = position_table().filter(pl.col("position") <= 5)
    rest = 1 - pl.col("probability").sum()
    if form in ("rest row", "open row"):
        word = "rest" if form == "rest row" else "6+"
        last = top.group_by(KEYS, maintain_order=True).agg(position=pl.lit(word), probability=rest)
        top = pl.concat([top.cast({"position": pl.String}), last.select(top.columns)])
    elif form == "rest column":
        wide = top.pivot("position", index=KEYS, values="probability")
        top = wide.with_columns(rest=1 - pl.sum_horizontal("1", "2", "3", "4", "5"))
    elif form == "cumulative":
        top = top.with_columns(cdf=pl.col("probability").cum_sum().over("round", "driver")).drop(
            "probability"
        )
    dataset = read(tmp_path, top)
    for r, race in enumerate(RACES):
        np.testing.assert_allclose(dataset["probability"].values[r], spread(race, 5), atol=1e-12)


def test_columns_beyond_a_field_may_be_empty(tmp_path: Path) -> None:
    wide = matrix("p").with_columns(p13=pl.lit(None, pl.Float64), p14=pl.lit(0.0))
    assert_is_the_example(read(tmp_path, wide))


def test_rounding_is_rescaled_and_other_sums_leave_out_the_race(tmp_path: Path) -> None:
    defects = log()
    factor = pl.when(pl.col("round") == 2).then(1.2).when(pl.col("round") == 3).then(0.98).otherwise(1.0)
    table = position_table().with_columns(pl.col("probability") * factor)
    dataset = read(tmp_path, table, defects=defects)
    assert dataset["race"].values.tolist() == [207201, 207203]
    np.testing.assert_allclose(dataset["probability"].values[1], finish_matrix(RACES[2]), atol=1e-12)
    row = defects.frame().row(0, named=True)
    assert (row["race_id"], row["entity"]) == (207202, "race")
    assert row["rule"] == "probabilities of a car must sum to 1 over the 12 positions"
    assert row["value"] == "Kyle Larson: 1.200"


def here(column: str, value: object, *, every: bool = False) -> pl.Expr:
    """Change a column of Kyle Busch in race 2: at position 3, or at every one."""
    cell = (pl.col("round") == 2) & (pl.col("driver") == "Kyle Busch") & (every | (pl.col("position") == 3))
    return pl.when(cell).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (here("probability", -0.1), "a probability must be from 0 to 1"),
        (here("probability", 1.5), "a probability must be from 0 to 1"),
        (here("position", 4), "a driver occurs twice"),
        (here("position", 120), "a position must be from 1 to 99"),
        (here("driver", "Nobody"), "it was not at the start"),
    ],
)
def test_a_bad_value_leaves_out_the_race(tmp_path: Path, change: pl.Expr, rule: str) -> None:
    defects = log()
    dataset = read(tmp_path, position_table().with_columns(change), defects=defects)
    assert {207201, 207203} <= set(dataset["race"].values.tolist())
    assert any(rule in found for found in defects.frame()["rule"])


@pytest.mark.parametrize(
    ("change", "rule", "value"),
    [
        (here("probability", None, every=True), "every car must have probabilities", "Kyle Busch"),
        (here("driver", "KYLE LARSON", every=True), "a driver occurs twice", "KYLE LARSON"),
        (here("driver", None, every=True), "all 12 cars entered, 1 are missing", "Kyle Busch"),
    ],
)
def test_a_car_without_probabilities_or_twice_leaves_out_the_race(
    tmp_path: Path, change: pl.Expr, rule: str, value: str
) -> None:
    defects = log()
    dataset = read(tmp_path, position_table().with_columns(change), defects=defects)
    assert dataset["race"].values.tolist() == [207201, 207203]
    row = defects.frame().row(0, named=True)
    assert (row["race_id"], row["value"]) == (207202, value)
    assert rule in row["rule"]


def test_zero_and_one_are_probabilities(tmp_path: Path) -> None:
    """A forecaster that is certain of the whole order."""
    car = pl.col("driver").replace_strict({name: k + 1 for k, name in enumerate(NAMES)})
    certain = position_table().with_columns(probability=(car == pl.col("position")).cast(pl.Float64))
    for name in ("sim.csv", "sim.parquet"):
        np.testing.assert_array_equal(read(tmp_path, certain, name)["probability"].values, [np.eye(N)] * 3)


def test_races_beyond_the_results_are_named(tmp_path: Path) -> None:
    defects = log()
    dataset = read(tmp_path, position_table((*RACES, 202209, 201901)), defects=defects)
    assert_is_the_example(dataset)
    assert defects.frame().is_empty()
    assert defects.notes == ["2 races of the file are not in force: 2019 race 1, 2022 race 9."]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("form", ["long", "matrix"])
def test_spreadsheets_of_other_countries_are_read(tmp_path: Path, encoding: str, form: str) -> None:
    """Semicolons, decimal commas and a byte-order mark."""
    frame = position_table() if form == "long" else matrix("p")
    lines = [";".join(frame.columns)]
    for row in frame.iter_rows():
        cells = [repr(cell).replace(".", ",") if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(";".join(cells))
    (tmp_path / "euro.csv").write_bytes("\r\n".join(lines).encode(encoding))
    defects = log()
    dataset = read_position_probabilities([open_table(str(tmp_path / "euro.csv"))], in_force(), defects, None)
    assert_is_the_example(dataset)
    assert defects.frame().is_empty()


def test_a_column_with_the_name_of_a_driver_is_not_read(tmp_path: Path) -> None:
    more = position_table().with_columns(pl.lit(0.5).alias("Kyle Larson"), pl.lit("x").alias("Kyle Larsen"))
    assert_is_the_example(read(tmp_path, more))


def test_an_empty_cell_is_a_position_that_is_not_given(tmp_path: Path) -> None:
    """One NaN of a car gets what the others leave: the value that was there."""
    assert_is_the_example(read(tmp_path, position_table().with_columns(here("probability", float("nan")))))


def test_a_cumulative_table_that_ends_below_1_leaves_out_the_race(tmp_path: Path) -> None:
    defects = log()
    factor = pl.when(pl.col("round") == 2).then(0.8).otherwise(1.0)
    cdf = position_table().with_columns(cdf=factor * pl.col("probability").cum_sum().over("round", "driver"))
    dataset = read(tmp_path, cdf.drop("probability"), defects=defects)
    assert dataset["race"].values.tolist() == [207201, 207203]
    row = defects.frame().row(0, named=True)
    assert row["rule"] == "cumulative probabilities must reach 1 at the last of the 12 positions"
    assert row["value"] == "Kyle Larson: 0.800"


def test_a_falling_cumulative_table_leaves_out_the_race(tmp_path: Path) -> None:
    defects = log()
    cdf = position_table().with_columns(cdf=pl.col("probability").cum_sum().over("round", "driver"))
    dataset = read(tmp_path, cdf.drop("probability").with_columns(here("cdf", 0.0)), defects=defects)
    assert dataset["race"].values.tolist() == [207201, 207203]
    assert defects.frame()["rule"].to_list() == ["cumulative probabilities must not fall"]


def test_a_withdrawn_car_is_removed(tmp_path: Path) -> None:
    """Two cars more than entered; who is always last changes nothing but the number of positions."""
    defects = log()
    rows = []
    for round_ in (1, 2, 3):
        rows += [(2022, round_, "Joey Hand", 13, 1.0), (2022, round_, "Kimi Raikkonen", 14, 1.0)]
    more = pl.DataFrame(rows, schema=position_table().schema, orient="row")
    assert_is_the_example(read(tmp_path, pl.concat([position_table(), more]), defects=defects))
    found = defects.frame()
    assert found.select("subject", "race").rows() == [
        ("Joey Hand", "2022, 3 races"), ("Kimi Raikkonen", "2022, 3 races")
    ]  # fmt: skip


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_removing_a_car_keeps_probabilities(n_cars: int, seed: int) -> None:
    full = finish_matrix(seed, n_cars)
    closed = remove_car(full, seed % n_cars)
    assert closed.shape == (n_cars - 1, n_cars - 1)
    np.testing.assert_allclose(closed.sum(axis=1), 1)
    assert (closed >= 0).all()


def test_removing_a_car_is_exact_where_cars_are_exchangeable() -> None:
    np.testing.assert_allclose(remove_car(np.full((6, 6), 1 / 6), 2), np.full((5, 5), 1 / 5))


def test_a_race_in_two_files_is_refused(tmp_path: Path) -> None:
    tables = [opened(tmp_path, position_table(), name) for name in ("a.csv", "b.parquet")]
    with pytest.raises(ForecasterError, match=r"2022 race 1 \(kansas\) is in another file as well"):
        read_position_probabilities(tables, in_force(), log(), None)


def test_positions_from_zero_are_no_positions(tmp_path: Path) -> None:
    defects = log()
    from_zero = position_table().with_columns(pl.col("position") - 1)
    assert read(tmp_path, from_zero, defects=defects).sizes["race"] == 0
    assert defects.frame()["rule"].unique().to_list() == ["a position must be from 1 to 99"]
    assert defects.frame()["value"][0].startswith("Kyle Larson at 0: ")


@pytest.mark.parametrize("value", ["probability", "cumulative_probability"])
def test_a_position_zero_without_probability_is_not_read(tmp_path: Path, value: str) -> None:
    table = position_table().rename({"probability": value})
    if value == "cumulative_probability":
        table = table.with_columns(pl.col(value).cum_sum().over("round", "driver"))
    none = table.filter(position=1).with_columns(position=pl.lit(0, pl.Int64), **{value: pl.lit(0.0)})
    assert_is_the_example(read(tmp_path, pl.concat([none, table])))


@pytest.mark.parametrize("cell", [None, 0.0])
def test_a_withdrawn_car_without_probabilities_is_removed(tmp_path: Path, cell: float | None) -> None:
    wide = matrix("p")
    numbers = [name for name in wide.columns if name.startswith("p")]
    withdrawn = (
        wide.group_by("season", "round", maintain_order=True)
        .agg(driver=pl.lit("Ann Other"))
        .with_columns(pl.lit(cell, pl.Float64).alias(name) for name in numbers)
    )
    defects = log()
    assert_is_the_example(read(tmp_path, pl.concat([wide, withdrawn]), defects=defects))
    assert defects.frame()["subject"].unique().to_list() == ["Ann Other"]
