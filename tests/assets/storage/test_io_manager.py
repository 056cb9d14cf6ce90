"""Storage: round trips, contracts on write and read, and atomic writes."""

import os
import time
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr
from upath import UPath

from assets.storage.io_manager import LEFT_OUT, StoredManager
from calibration_pipeline.io import stored_values
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import (
    contracts_version,
    encode,
    path_of,
    read_value,
    stored_partitions,
)
from calibration_pipeline.io.value_cache import ValueCache
from calibration_pipeline.schemas.contracts import ContractError, declared_columns, validate
from calibration_pipeline.schemas.frames import LapTelemetry

LAPS = pl.DataFrame(
    {
        "race_id": [1, 1],
        "season": [2021, 2021],
        "track_id": ["daytona", "daytona"],
        "driver_id": ["4153", "4153"],
        "car_number": ["07", "07"],
        "lap": [0, 1],
        "position": [3, 2],
        "lap_time_s": [None, 48.2],
        "flag": ["green", None],
    },
    schema_overrides={"lap_time_s": pl.Float64},
)


def ensemble(n_races: int = 1, n_scenarios: int = 3) -> xr.Dataset:
    """Return a valid ensemble of fields of three cars, padded to four."""
    race = np.arange(n_races)
    place = np.tile(np.array([2, 1, 3, 0], np.int16), (n_races, n_scenarios, 1))
    car = (place > 0).astype(np.int16)
    text = np.full(n_races, "x")
    per_scenario = np.full((n_races, n_scenarios), 3, np.int16)
    outcome, cars = ("race", "scenario", "driver"), ("race", "driver")
    return xr.Dataset(
        {
            "finish_position": (outcome, place),
            "running": (outcome, place > 0),
            "laps_completed": (outcome, 3 * car),
            "laps_led": (outcome, car),
            "fastest_laps": (outcome, car),
            "race_laps": (("race", "scenario"), per_scenario),
            "green_laps": (("race", "scenario"), per_scenario),
            "n_cautions": (("race", "scenario"), per_scenario),
            "utility": (cars, np.zeros((n_races, 4), np.float32)),
            "incident_logit": (cars, np.zeros((n_races, 4), np.float32)),
            "chaos_scale": ("race", np.ones(n_races, np.float32)),
        },
        {
            "race": race,
            "season": ("race", np.full(n_races, 2021, np.int32)),
            "round": ("race", (race + 1).astype(np.int32)),
            "race_order": ("race", (202101 + race).astype(np.int32)),
            "track_id": ("race", text),
            "archetype": ("race", text),
            "fold": ("race", np.full(n_races, "2021-1")),
            "field_size": ("race", np.full(n_races, 3, np.int16)),
            "network_as_of": ("race", np.full(n_races, 202036, np.int32)),
            "driver_id": (cars, np.tile(np.array(["7", "é", "9", ""]), (n_races, 1))),
            "name": (cars, np.tile(np.array(["A", "B", "C", ""]), (n_races, 1))),
            "team": (cars, np.full((n_races, 4), "")),
            "make": (cars, np.full((n_races, 4), "")),
            "start_position": (cars, np.tile(np.array([1, 2, 3, 0], np.int16), (n_races, 1))),
        },
    )


def graph(root: UPath, value: object, kind: type, name: str) -> tuple[dg.AssetsDefinition, dict]:
    """Return an asset of that name whose value is `value`, and the resources to store it."""

    @dg.asset(name=name, partitions_def=dg.StaticPartitionsDefinition(["2021", "2022"]))
    def stored() -> kind:  # type: ignore[valid-type]
        return value

    return stored, {"io_manager": StoredManager(root)}


def materialize(root: UPath, value: object, kind: type, name: str) -> dg.ExecuteInProcessResult:
    asset, resources = graph(root, value, kind, name)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [asset], instance=instance, resources=resources, partition_key="2021", raise_on_error=False
        )


@pytest.mark.parametrize("root", ["disk", "memory://partitions"])
def test_partitions_of_two_dimensions_are_files_in_folders(tmp_path: Path, root: str) -> None:
    base = UPath(tmp_path if root == "disk" else root)
    keys = ["road_course|network", "short_track|network"]
    paths = [path_of(base, "verdict", key) for key in keys]
    assert paths == [base / "verdict" / key.split("|")[0] / "network.parquet" for key in keys]
    for path in paths:
        write_atomically(path, b"stored")
    (paths[0].parent / ".network.parquet.0123.tmp").write_bytes(b"half")
    assert stored_partitions(base / "verdict") == dict(zip(keys, paths, strict=True))
    assert stored_partitions(base / "backtest") == {}


@pytest.mark.parametrize("root", ["disk", "memory://storage"])
def test_table_comes_back(tmp_path: Path, root: str) -> None:
    base = UPath(tmp_path if root == "disk" else root)
    assert materialize(base, LAPS, pl.DataFrame, "lap_telemetry").success
    value = read_value(base / "lap_telemetry" / "2021.parquet", "lap_telemetry", "2021")
    assert value.equals(LAPS)


@pytest.mark.parametrize("n_races", [0, 2])
@pytest.mark.parametrize("root", ["disk", "memory://storage"])
def test_ensemble_comes_back_even_without_races(tmp_path: Path, root: str, n_races: int) -> None:
    base = UPath(tmp_path if root == "disk" else root)
    assert materialize(base, ensemble(n_races), xr.Dataset, "scenario_ensemble").success
    value = read_value(base / "scenario_ensemble" / "2021.nc", "scenario_ensemble", "2021")
    xr.testing.assert_identical(value, ensemble(n_races))
    assert {name: value[name].dtype.kind for name in value} == {
        name: ensemble()[name].dtype.kind for name in ensemble()
    }


def test_stored_file_is_readable_with_xarray_alone_and_has_a_schema_version(tmp_path: Path) -> None:
    materialize(UPath(tmp_path), ensemble(), xr.Dataset, "scenario_ensemble")
    with xr.open_dataset(tmp_path / "scenario_ensemble" / "2021.nc") as file:
        assert file.attrs["schema_version"] == "4"
        assert file["finish_position"].encoding["zlib"]
        assert file["finish_position"].encoding["shuffle"]


def test_a_value_that_breaks_its_contract_is_named_and_not_stored(tmp_path: Path) -> None:
    root = UPath(tmp_path)
    assert materialize(root, LAPS, pl.DataFrame, "lap_telemetry").success
    before = (tmp_path / "lap_telemetry" / "2021.parquet").read_bytes()
    wrong = LAPS.with_columns(lap_time_s=pl.lit(-1.5), position=pl.lit(0, pl.Int64))
    result = materialize(root, wrong, pl.DataFrame, "lap_telemetry")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    message = failure.step_failure_data.error.cause.message
    for part in ("lap_telemetry [2021]", "position", "greater_than_or_equal_to(1)", "lap_time_s", "-1.5"):
        assert part in message
    assert (tmp_path / "lap_telemetry" / "2021.parquet").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "lap_telemetry").iterdir()) == ["2021.parquet"]


def test_dataset_failures_name_the_variable_and_the_values() -> None:
    wrong = ensemble()
    wrong["n_cautions"] = wrong["n_cautions"] - 7
    with pytest.raises(ContractError, match=r"scenario_ensemble \[2021\].*n_cautions.*-4"):
        validate(wrong, "scenario_ensemble", "2021")
    once = ensemble()
    once["n_cautions"][0, -1] = -1
    with pytest.raises(ContractError, match=r"n_cautions fails [^|]*, first values -1\.0\.$"):
        validate(once, "scenario_ensemble")
    twice = ensemble()
    twice["finish_position"][0, 0, 0] = 1
    with pytest.raises(ContractError, match="finish_position must be a permutation"):
        validate(twice, "scenario_ensemble")
    with pytest.raises(ContractError, match=r"missing.*utility"):
        validate(ensemble().drop_vars("utility"), "scenario_ensemble")


def test_missing_and_repeated_columns_are_named() -> None:
    with pytest.raises(ContractError, match="column 'lap' not in dataframe"):
        validate(LAPS.drop("lap"), "lap_telemetry")
    with pytest.raises(ContractError, match=r"lap_telemetry \[2020\].*'lap': 1"):
        validate(pl.concat([LAPS[1:], LAPS[1:]]), "lap_telemetry", "2020")
    with pytest.raises(ContractError, match=r"season.*Int64.*Int32"):
        validate(LAPS.with_columns(pl.col("season").cast(pl.Int32)), "lap_telemetry")


def test_contract_is_checked_on_read(tmp_path: Path) -> None:
    path = UPath(tmp_path / "2021.parquet")
    broken = LAPS.with_columns(position=pl.lit(0, pl.Int64))
    for checked_by in ("", "other contracts"):
        write_atomically(path, encode(broken, checked_by))
        with pytest.raises(ContractError, match="position"):
            read_value(path, "lap_telemetry", "2021")


@pytest.mark.parametrize("asset", ["lap_telemetry", "scenario_ensemble"])
def test_check_on_write_is_not_repeated_on_read(
    tmp_path: Path, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of(UPath(tmp_path), asset, "2021")
    value = LAPS if asset == "lap_telemetry" else ensemble()
    write_atomically(path, encode(value, contracts_version()))
    monkeypatch.setattr(stored_values, "_cache", ValueCache())
    monkeypatch.setattr(stored_values, "validate", lambda *_: pytest.fail("The value is checked again."))
    read = read_value(path, asset, "2021")
    assert read.equals(value)
    assert "checked_by" not in getattr(read, "attrs", {})


@pytest.mark.parametrize(
    ("asset", "name"), [("lap_telemetry", "2021.parquet"), ("scenario_ensemble", "2021.nc")]
)
def test_damaged_missing_and_outdated_files_have_different_errors(
    tmp_path: Path, asset: str, name: str
) -> None:
    path = UPath(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=f"{asset} \\[2021\\] has not been materialized"):
        read_value(path, asset, "2021")
    value = LAPS if asset == "lap_telemetry" else ensemble()
    data = encode(value)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ContractError, match=f"{asset} \\[2021\\] cannot be read"):
        read_value(path, asset, "2021")


def test_a_report_that_is_no_text_is_named(tmp_path: Path) -> None:
    page = UPath(tmp_path / "calibration_report.html")
    page.write_bytes(b"<html>")
    page.with_suffix(".md").write_bytes(b"\xff\xfe")
    with pytest.raises(ContractError, match=r"calibration_report cannot be read from .*calibration_report"):
        read_value(page, "calibration_report", None)


def test_file_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = UPath(tmp_path / "2021.parquet")
    LAPS.write_parquet(tmp_path / "2021.parquet", metadata={"schema_version": "0"})
    with pytest.raises(ContractError, match="schema version 0, this program reads 4"):
        read_value(path, "lap_telemetry", "2021")


def test_write_replaces_whole_files_and_clears_old_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "2021.parquet"
    write_atomically(UPath(target), b"old")
    killed = tmp_path / ".2021.parquet.0123.tmp"
    running = tmp_path / ".2021.parquet.4567.tmp"
    for leftover in (killed, running):
        leftover.write_bytes(b"half")
    os.utime(killed, (time.time() - 7200,) * 2)
    write_atomically(UPath(target), b"new")
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, target.name]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "2021.parquet"
    target.write_bytes(b"old")

    def full_disk(_file: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(UPath(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_inputs_come_as_annotated(tmp_path: Path) -> None:
    """A dict holds every partition, even if there is one; a path is handed over unread."""
    seasons = dg.StaticPartitionsDefinition(["2021"])
    seen: dict[str, object] = {}

    @dg.asset(partitions_def=seasons)
    def lap_telemetry() -> pl.DataFrame:
        return LAPS

    @dg.asset(ins={"lap_telemetry": dg.AssetIn()})
    def by_partition(lap_telemetry: dict[str, pl.DataFrame]) -> None:
        seen["dict"] = lap_telemetry

    @dg.asset(partitions_def=seasons)
    def by_path(lap_telemetry: UPath) -> None:
        seen["path"] = lap_telemetry

    @dg.asset
    def by_paths(lap_telemetry: dict[str, UPath]) -> None:
        seen["paths"] = lap_telemetry

    resources = {"io_manager": StoredManager(UPath(tmp_path))}
    path = UPath(tmp_path) / "lap_telemetry" / "2021.parquet"
    with dg.DagsterInstance.ephemeral() as instance:
        assets = [lap_telemetry, by_partition, by_path, by_paths]
        for selected, key in (
            (assets[:1], "2021"),
            (assets[1:2], None),
            (assets[2:3], "2021"),
            (assets[3:], None),
        ):
            dg.materialize(
                assets, selection=selected, partition_key=key, resources=resources, instance=instance
            )
    assert list(seen["dict"]) == ["2021"]  # type: ignore[call-overload]
    assert seen["dict"]["2021"].equals(LAPS)  # type: ignore[index]
    assert seen["path"] == path
    assert seen["paths"] == {"2021": path}


def test_an_archetype_s_input_holds_its_races_alone(tmp_path: Path) -> None:
    root = UPath(tmp_path)
    stored = ensemble(3)
    stored["archetype"] = ("race", np.array(["road_course", "short_track", "road_course"]))
    materialize(root, stored, xr.Dataset, "scenario_ensemble")
    path = root / "scenario_ensemble" / "2021.nc"
    value = read_value(path, "scenario_ensemble", "2021", "road_course")
    xr.testing.assert_identical(value, stored.isel(race=[0, 2]))
    assert read_value(path, "scenario_ensemble", "2021", "superspeedway").sizes["race"] == 0


def test_an_input_need_not_hold_omitted_variables(tmp_path: Path) -> None:
    """Omitted variables are not read; variables that the contract needs cannot be omitted."""
    seen: dict[str, xr.Dataset] = {}
    seasons = dg.StaticPartitionsDefinition(["2021"])

    @dg.asset(partitions_def=seasons)
    def scenario_ensemble() -> xr.Dataset:
        return ensemble(2)

    few = dg.AssetIn(metadata={LEFT_OUT: ["laps_led", "race_laps"]})

    @dg.asset(partitions_def=seasons, ins={"scenario_ensemble": few})
    def reader(scenario_ensemble: xr.Dataset) -> None:
        seen["value"] = scenario_ensemble

    resources = {"io_manager": StoredManager(UPath(tmp_path))}
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            [scenario_ensemble, reader], partition_key="2021", resources=resources, instance=instance
        )
    xr.testing.assert_identical(seen["value"], ensemble(2).drop_vars(["laps_led", "race_laps"]))
    path = UPath(tmp_path) / "scenario_ensemble" / "2021.nc"
    with pytest.raises(ContractError, match=r"missing.*utility"):
        read_value(path, "scenario_ensemble", "2021", left_out=("utility",))


def test_column_schema_has_types_and_descriptions() -> None:
    columns = {column.name: column for column in declared_columns("lap_telemetry")}
    assert columns["lap_time_s"].description == "Lap time, s; null if not timed"
    assert columns["lap_time_s"].nullable
    assert set(columns) == set(LapTelemetry.to_schema().columns)
    variables = {column.name: column.type for column in declared_columns("scenario_ensemble")}
    assert variables["finish_position"] == "int16 (race, scenario, driver)"
    assert "race_order" in variables
