"""Scenarios in tables and arrays: accepted forms, ties, scores, removed cars, and races left out."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from upath import UPath

from calibration_pipeline.forecasters import ForecasterError, scenario_arrays
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.scenario_arrays import open_arrays
from calibration_pipeline.forecasters.scenario_tables import is_scenario_table, open_scenarios
from calibration_pipeline.forecasters.scenarios import read_scenarios
from calibration_pipeline.forecasters.tables import open_table
from calibration_pipeline.schemas.datasets import ScenarioEnsemble
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.sources.quarantine import DefectLog
from helpers.example_forecasts import (
    NAMES,
    NUMBERS,
    RACES,
    entries,
    finishes,
    in_force,
    log,
    opened,
    results,
    wide_scenarios,
)

SEED = 7


def read(
    path: Path, frame: pl.DataFrame, name: str = "sim.csv", defects: DefectLog | None = None, seed: int = SEED
) -> xr.Dataset:
    table = opened(path, frame, name)
    assert is_scenario_table(table)
    source = open_scenarios(table, in_force())
    return read_scenarios([source], in_force(), results(), defects or log(), None, seed)


def read_arrays(path: Path, defects: DefectLog | None = None) -> xr.Dataset:
    with open_arrays(str(path), in_force()) as source:
        return read_scenarios([source], in_force(), results(), defects or log(), None, SEED)


def assert_is_the_example(ensemble: xr.Dataset, races: tuple[int, ...] = RACES) -> None:
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert ensemble["race"].values.tolist() == [5000 + race for race in races]
    for r, race in enumerate(races):
        np.testing.assert_array_equal(ensemble["finish_position"].values[r], finishes(race))


def long_scenarios(value: str = "finish_position") -> pl.DataFrame:
    long = wide_scenarios().unpivot(
        on=list(NAMES), index=["season", "round", "scenario"], variable_name="driver", value_name=value
    )
    return long.sample(fraction=1.0, shuffle=True, seed=1).sort("scenario", maintain_order=True)


@pytest.mark.parametrize("name", ["sim.csv", "sim.parquet"])
@pytest.mark.parametrize("form", ["wide", "long", "no scenario", "race_id", "floats"])
def test_all_forms_give_the_same_ensemble(tmp_path: Path, name: str, form: str) -> None:
    frame = long_scenarios() if form == "long" else wide_scenarios()
    if form == "no scenario":
        frame = frame.drop("scenario")
    if form == "race_id":
        frame = frame.select(pl.col("round").add(207200).alias("race_id"), pl.exclude("season", "round"))
    if form == "floats":
        frame = frame.cast(pl.Float64)
    assert_is_the_example(read(tmp_path, frame, name))


def test_car_numbers_with_and_without_zeros(tmp_path: Path) -> None:
    """01 is written 1, and the marks of numbers do not count."""
    numbers = {name: number.lstrip("0") for name, number in zip(NAMES, NUMBERS, strict=True)}
    assert_is_the_example(read(tmp_path, wide_scenarios().rename(numbers)))
    marked = {name: f"#{number}" for name, number in zip(NAMES, NUMBERS, strict=True)}
    assert_is_the_example(read(tmp_path, wide_scenarios().rename(marked)))


def test_seven_is_not_zero_seven_where_both_race() -> None:
    field = entries().with_columns(
        car_number=pl.col("car_number").replace({"5": "7", "99": "07"}),
    )
    races = RacesInForce(field)
    match = races.match(["7", "07", *NUMBERS[2:]], 207201, "car_number")
    assert (match.drivers["7"], match.drivers["07"]) == ("id-0", "id-1")
    lost = races.match(["007", "7", *NUMBERS[2:]], 207201, "car_number")
    assert lost.missing == [NAMES[1]]


def test_ties_are_broken_at_random_with_the_seed_and_counted(tmp_path: Path) -> None:
    """In scenario 5 of race 1 two cars share the third position."""
    tied = (pl.col("round") == 1) & (pl.col("scenario") == 5)
    frame = wide_scenarios().with_columns(
        pl.when(tied & (pl.col(name) == 4)).then(3).otherwise(name).alias(name) for name in NAMES
    )
    defects = log()
    ensemble = read(tmp_path, frame, defects=defects)
    expected = finishes(RACES[0])
    same = np.arange(150) != 5
    np.testing.assert_array_equal(ensemble["finish_position"].values[0][same], expected[same])
    untied = ~np.isin(expected[5], (3, 4))
    np.testing.assert_array_equal(ensemble["finish_position"].values[0, 5][untied], expected[5][untied])
    row = Quarantine.validate(defects.frame()).row(0, named=True)
    assert (row["race_id"], row["consequence"], row["value"]) == (207201, "corrected", "1 of 150 scenarios")
    xr.testing.assert_identical(ensemble, read(tmp_path, frame))
    orders = {tuple(read(tmp_path, frame, seed=s)["finish_position"].values[0, 5].tolist()) for s in range(8)}
    assert len(orders) == 2


def test_random_ties_are_fair(tmp_path: Path) -> None:
    """All cars equal in every scenario: each position is as frequent for each car."""
    frame = wide_scenarios((202201,), 4_000).with_columns(pl.lit(1).alias(name) for name in NAMES)
    finish = read(tmp_path, frame, "sim.parquet")["finish_position"].values[0]
    share = (finish == 1).mean(axis=0)
    np.testing.assert_allclose(share, 1 / 12, atol=4 * np.sqrt(1 / 12 * 11 / 12 / 4_000))


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("stated", [True, False])
def test_scores_are_ranked_in_the_direction_that_is_stated_or_guessed(
    tmp_path: Path, higher: bool, stated: bool
) -> None:
    sign = -1 if higher else 1
    frame = wide_scenarios().with_columns(pl.col(name) * 2.5 * sign + 0.25 for name in NAMES)
    defects = log()
    if stated:
        frame = frame.with_columns(higher_is_better=pl.lit(higher))
    assert_is_the_example(read(tmp_path, frame, defects=defects))
    word = "higher" if higher else "lower"
    (note,) = defects.notes
    assert note.startswith(f"Of the values in scenarios the {word} ones are better:")
    assert ("the file states it" if stated else "guessed from the mean rank correlation") in note


def test_the_direction_may_be_in_the_metadata(tmp_path: Path) -> None:
    frame = long_scenarios("score").with_columns(-pl.col("score").cast(pl.Float64))
    frame.write_parquet(tmp_path / "meta.parquet", metadata={"higher_is_better": "True"})
    table = open_table(str(tmp_path / "meta.parquet"))
    source = open_scenarios(table, in_force())
    assert_is_the_example(read_scenarios([source], in_force(), None, log(), None, SEED))


def test_an_unknown_direction_is_an_error(tmp_path: Path) -> None:
    frame = wide_scenarios().with_columns(pl.col(name) * 2.5 for name in NAMES)
    source = open_scenarios(opened(tmp_path, frame), in_force())
    with pytest.raises(
        ForecasterError, match=r"no race has earlier finishes .* add a column higher_is_better"
    ):
        read_scenarios([source], in_force(), None, log(), None, SEED)
    mixed = frame.with_columns(higher_is_better=pl.Series(["true", "false"] * 225))
    with pytest.raises(ForecasterError, match="higher_is_better must be true or false throughout"):
        open_scenarios(opened(tmp_path, mixed), in_force())


def test_a_direction_that_few_races_do_not_show_leaves_them_out(tmp_path: Path) -> None:
    """The drivers' scores have next to nothing to do with their finishes, in one race of several seasons."""
    rng = np.random.default_rng(3)
    frame = wide_scenarios((202201,)).select("season", "round", "scenario")
    noise = rng.normal(size=(150, 12)) + 2 * rng.permutation(12) + 0.1 * np.arange(12)
    frame = frame.with_columns(pl.Series(name, noise[:, k]) for k, name in enumerate(NAMES))
    races = RacesInForce(entries(RACES), None, other_seasons=(2021, 2022))
    defects = log()
    source = open_scenarios(opened(tmp_path, frame), races)
    ensemble = read_scenarios([source], races, results(), defects, None, SEED)
    assert ensemble.sizes["race"] == 0
    (note,) = defects.notes
    assert "1 races are left out" in note
    assert "mean rank correlation with earlier finishes is" in note


def test_unequal_numbers_of_scenarios_are_repeated(tmp_path: Path) -> None:
    short = pl.concat([wide_scenarios((202201,)), wide_scenarios((202202,)).head(100)])
    defects = log()
    ensemble = read(tmp_path, short, defects=defects)
    assert ensemble["n_scenarios"].values.tolist() == [150, 100]
    second = ensemble["finish_position"].values[1]
    np.testing.assert_array_equal(second[:100], finishes(202202)[:100])
    np.testing.assert_array_equal(second[100:], finishes(202202)[:50])
    alone = read(tmp_path, wide_scenarios((202202,)).head(100))
    np.testing.assert_array_equal(ensemble["utility"].values[1], alone["utility"].values[0])
    assert defects.notes == ["Races have 100 to 150 scenarios; fewer are repeated."]


def test_too_few_scenarios_leave_out_the_race(tmp_path: Path) -> None:
    defects = log()
    short = pl.concat([wide_scenarios((202201, 202202)), wide_scenarios((202203,)).head(99)])
    assert_is_the_example(read(tmp_path, short, defects=defects), RACES[:2])
    row = defects.frame().row(0, named=True)
    assert (row["rule"], row["value"]) == ("there must be at least 100 scenarios", "99")


def test_a_withdrawn_car_is_removed_and_ranks_closed(tmp_path: Path) -> None:
    """In race 1 a car that is not entered wins every scenario, and in race 3 a driver is replaced."""
    first = pl.col("round") == 1
    frame = wide_scenarios().with_columns(
        pl.when(first).then(pl.col(name) + 1).otherwise(name).alias(name) for name in NAMES
    )
    frame = frame.with_columns(pl.when(first).then(1).alias("Withdrawn Man"))
    third = pl.col("round") == 3
    frame = frame.with_columns(
        pl.when(third).then("Kyle Busch").alias("Joey Hand"),
        pl.when(~third).then("Kyle Busch").alias("Kyle Busch"),
    )
    defects = log()
    assert_is_the_example(read(tmp_path, frame, defects=defects), RACES[:2])
    rows = defects.frame().select("entity", "subject", "race", "value").rows()
    assert rows == [
        ("race", None, "2022 race 3 (kansas)", "Kyle Busch"),
        ("entry", "Withdrawn Man", "2022 race 1 (kansas)", None),
    ]


def test_a_column_that_is_no_driver_is_named_and_not_ranked(tmp_path: Path) -> None:
    frame = wide_scenarios().with_columns(
        Larson=pl.lit(0), **{"Kyle Larsen": pl.lit(0), "pole": pl.lit("Larson")}
    )
    defects = log()
    assert_is_the_example(read(tmp_path, frame, defects=defects))
    rows = defects.frame().select("subject", "race", "value").rows()
    assert rows == [
        ("Kyle Larsen", "2022, 3 races", "nearest: Kyle Larson"),
        ("Larson", "2022, 3 races", "nearest: Kyle Larson"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_spreadsheets_of_other_countries_are_read(tmp_path: Path, encoding: str) -> None:
    """Scores with decimal commas between semicolons, after a byte-order mark."""
    frame = wide_scenarios().with_columns(pl.col(name) / 8 for name in NAMES)
    lines = [";".join(frame.columns)]
    lines += [";".join(str(cell).replace(".", ",") for cell in row) for row in frame.iter_rows()]
    (tmp_path / "euro.csv").write_bytes("\r\n".join(lines).encode(encoding))
    source = open_scenarios(open_table(str(tmp_path / "euro.csv")), in_force())
    defects = log()
    assert_is_the_example(read_scenarios([source], in_force(), results(), defects, None, SEED))
    assert defects.frame().is_empty()


def test_races_beyond_the_results_are_named(tmp_path: Path) -> None:
    defects = log()
    assert_is_the_example(read(tmp_path, wide_scenarios((*RACES, 202209, 201901)), defects=defects))
    assert defects.frame().is_empty()
    assert defects.notes[:1] == ["2 races of the file are not in force: 2019 race 1, 2022 race 9."]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_value_leaves_out_the_race(tmp_path: Path, value: float | None) -> None:
    cell = (pl.col("round") == 2) & (pl.col("scenario") == 17)
    frame = wide_scenarios().cast({"Kyle Busch": pl.Float64})
    frame = frame.with_columns(pl.when(cell).then(pl.lit(value)).otherwise("Kyle Busch").alias("Kyle Busch"))
    for name in ("sim.csv", "sim.parquet"):
        defects = log()
        assert_is_the_example(read(tmp_path, frame, name, defects), (202201, 202203))
        row = defects.frame().row(0, named=True)
        assert row["rule"] == "every car must have a number in every scenario"
        assert row["value"] == "none in 1 scenarios, first Kyle Busch in number 18"


def test_a_driver_twice_leaves_out_the_race(tmp_path: Path) -> None:
    defects = log()
    frame = wide_scenarios().with_columns(pl.when(pl.col("round") == 2).then(1).alias("KYLE BUSCH"))
    assert_is_the_example(read(tmp_path, frame, defects=defects), (202201, 202203))
    assert defects.frame().select("rule", "value").rows() == [("a driver occurs twice", "KYLE BUSCH")]
    again = long_scenarios().filter(driver="Kyle Busch", round=1, scenario=3)
    defects = log()
    assert_is_the_example(read(tmp_path, pl.concat([long_scenarios(), again]), defects=defects), RACES[1:])
    header = ",".join([*wide_scenarios().columns, "Kyle Busch"])
    lines = [",".join(map(str, (*row, 1))) for row in wide_scenarios().iter_rows()]
    (tmp_path / "twice.csv").write_text("\n".join([header, *lines]))
    source = open_scenarios(open_table(str(tmp_path / "twice.csv")), in_force())
    defects = log()
    assert read_scenarios([source], in_force(), None, defects, None, SEED).sizes["race"] == 0
    assert set(defects.frame()["rule"]) == {"a driver occurs twice"}


def test_other_outcomes_of_a_long_table_are_kept(tmp_path: Path) -> None:
    running = (pl.col("scenario") + pl.col("finish_position")) % 4 > 0
    frame = long_scenarios().with_columns(running=running, laps_led=pl.col("finish_position") % 3)
    for name in ("sim.csv", "sim.parquet"):
        ensemble = read(tmp_path, frame, name)
        assert_is_the_example(ensemble)
        expected = (np.arange(150)[:, None] + finishes(202201)) % 4 > 0
        np.testing.assert_array_equal(ensemble["running"].values[0], expected)
        np.testing.assert_array_equal(ensemble["laps_led"].values[0], finishes(202201) % 3)
    broken = frame.with_columns(running=running & (pl.col("scenario") != 3))
    defects = log()
    assert read(tmp_path, broken, defects=defects).sizes["race"] == 0
    assert set(defects.frame()["rule"]) == {"some car must be running at the finish"}


def test_scenarios_of_other_seasons_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ForecasterError, match="it holds the seasons 2018-2019, and in force are the 3 races of"
    ):
        read(tmp_path, wide_scenarios((201801, 201901)))
    with pytest.raises(ForecasterError, match=r"it holds the race_id 1, 2, 3, and in force"):
        read(
            tmp_path, wide_scenarios().select(pl.col("round").alias("race_id"), pl.exclude("season", "round"))
        )


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    frame = wide_scenarios().select("season", "round", speed=1.0, weather=2.0)
    with pytest.raises(ForecasterError, match="is no form of forecast: it has neither a column driver nor"):
        read(tmp_path, frame)


def arrays(value: str = "finish_position") -> xr.Dataset:
    finish = np.stack([finishes(race) for race in RACES])
    return xr.Dataset(
        {value: (("race", "scenario", "driver"), finish.astype(np.int32))},
        {
            "season": ("race", [2022] * 3),
            "round": ("race", [1, 2, 3]),
            "driver": list(NAMES),
        },
    )


def with_index(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_coords(race=[0, 1, 2])


def by_id(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_vars(["season", "round"]).assign_coords(race=[207201, 207202, 207203])


def with_fill_value(dataset: xr.Dataset) -> xr.Dataset:
    dataset["finish_position"].encoding = {"_FillValue": -1, "dtype": "int32"}
    return dataset


def as_floats(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.astype(np.float32)


def padded(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.pad(driver=(0, 2), constant_values={"finish_position": 0, "driver": ""}).assign_coords(
        driver=[*NAMES, "", "Spare"]
    )


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("change", [lambda d: d, with_index, by_id, with_fill_value, as_floats, padded])
def test_arrays(tmp_path: Path, form: str, change) -> None:
    engine = "h5netcdf" if form == "NETCDF4" else "scipy"
    dataset = change(arrays())
    dataset.to_netcdf(tmp_path / "sim.nc", engine=engine, format=form)
    assert_is_the_example(read_arrays(tmp_path / "sim.nc"))


def test_scores_in_arrays(tmp_path: Path) -> None:
    dataset = arrays("score")
    dataset["score"] = -dataset["score"] * 1.5
    dataset.to_netcdf(tmp_path / "guessed.nc", engine="h5netcdf")
    defects = log()
    assert_is_the_example(read_arrays(tmp_path / "guessed.nc", defects))
    assert "guessed" in defects.notes[0]
    dataset.attrs["higher_is_better"] = "true"
    dataset.to_netcdf(tmp_path / "stated.nc", engine="h5netcdf")
    defects = log()
    assert_is_the_example(read_arrays(tmp_path / "stated.nc", defects))
    assert "the file states it" in defects.notes[0]


def test_a_bad_race_of_arrays_is_left_out(tmp_path: Path) -> None:
    dataset = arrays().astype(np.float64)
    dataset["finish_position"][1, 3, 4] = np.nan
    dataset.to_netcdf(tmp_path / "sim.nc", engine="h5netcdf")
    defects = log()
    assert_is_the_example(read_arrays(tmp_path / "sim.nc", defects), (202201, 202203))
    assert defects.frame()["rule"].to_list() == ["every car must have a number in every scenario"]


@pytest.mark.parametrize("name", ["finish_position", "score"])
def test_scenarios_that_a_race_lacks_are_padding(tmp_path: Path, name: str) -> None:
    dataset = arrays(name).astype(np.float64)
    dataset[name][1, 100:] = 0 if name == "finish_position" else np.nan
    dataset["n_cautions"] = (("race", "scenario"), np.tile(np.arange(150) % 7, (3, 1)))
    dataset.attrs["higher_is_better"] = "false"
    dataset.to_netcdf(tmp_path / "sim.nc", engine="h5netcdf")
    defects = log()
    ensemble = read_arrays(tmp_path / "sim.nc", defects)
    assert defects.frame().is_empty()
    assert ensemble["n_scenarios"].values.tolist() == [150, 100, 150]
    np.testing.assert_array_equal(ensemble["finish_position"].values[1, :100], finishes(202202)[:100])
    np.testing.assert_array_equal(ensemble["n_cautions"].values[1, :100], np.arange(100) % 7)


@pytest.mark.parametrize("value", [0, -1])
def test_a_position_below_one_leaves_out_the_race(tmp_path: Path, value: int) -> None:
    """It may stand for a car that did not finish, and would win."""
    last = (pl.col("round") == 2) & (pl.col("finish_position") == 12)
    table = long_scenarios().with_columns(
        finish_position=pl.when(last).then(value).otherwise("finish_position")
    )
    defects = log()
    assert_is_the_example(read(tmp_path, table, defects=defects), (202201, 202203))
    assert defects.frame().select("rule", "value").rows() == [
        ("a position must be 1 or more; 0 is none", str(value))
    ]


def test_arrays_are_copied_from_elsewhere_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays().to_netcdf(tmp_path / "sim.nc", engine="h5netcdf")
    content = (tmp_path / "sim.nc").read_bytes()
    UPath("memory://copied_arrays/sim.nc").write_bytes(content)
    monkeypatch.setattr(scenario_arrays, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(scenario_arrays, "MAX_COPIED_BYTES", len(content))
    with open_arrays("memory://copied_arrays/sim.nc", in_force()) as source:
        assert source.are_positions
    monkeypatch.setattr(scenario_arrays, "MAX_COPIED_BYTES", len(content) - 1)
    rule = rf"^memory://copied_arrays/sim\.nc is too large: .* at most {len(content) - 1:,} bytes unless"
    with (
        pytest.raises(ForecasterError, match=rule),
        open_arrays("memory://copied_arrays/sim.nc", in_force()),
    ):
        pass


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sim.nc").write_bytes(b"CDF\x01" + b"\x07" * 50)
    with pytest.raises(ValueError, match="cannot be read as NetCDF"):
        read_arrays(tmp_path / "sim.nc")
    (tmp_path / "sim.nc").write_bytes(b"\x89HDF" + b"\x07" * 50)
    with pytest.raises(ValueError, match="cannot be read as NetCDF 4"):
        read_arrays(tmp_path / "sim.nc")
    arrays().rename(finish_position="place").to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(
        ForecasterError, match=r"must hold finish_position or score \(race, scenario, driver\)"
    ):
        read_arrays(tmp_path / "other.nc")
