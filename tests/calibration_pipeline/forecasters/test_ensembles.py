"""A user's ensemble: accepted forms, the stored form, and errors for broken files."""

import re
import runpy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from calibration_pipeline.forecasters.ensemble_files import EnsembleError, match_cars
from calibration_pipeline.forecasters.ensembles import read_ensemble
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT
from calibration_pipeline.schemas.datasets import ScenarioEnsemble
from helpers.example_ensembles import FIELDS, N_SCENARIOS, draw, entry_list, netcdf, parquet
from helpers.paths import ROOT


def stored(tmp_path: Path, value: xr.Dataset | pl.DataFrame, name: str = "scenarios") -> Path:
    if isinstance(value, pl.DataFrame):
        value.write_parquet(path := tmp_path / f"{name}.parquet")
    else:
        value.to_netcdf(path := tmp_path / f"{name}.nc", engine="h5netcdf")
    return path


def test_both_forms_give_the_same_ensemble(tmp_path: Path) -> None:
    """By driver id or by name, by race_id or by season and round, from a file or a folder of files."""
    ensemble, left_out = read_ensemble(stored(tmp_path, netcdf()), entry_list(), None)
    assert left_out == []
    ScenarioEnsemble.validate(ensemble, lazy=True)
    other, _ = read_ensemble(stored(tmp_path, parquet()), entry_list(), None)
    xr.testing.assert_identical(ensemble, other)
    folder = tmp_path / "folder"
    folder.mkdir()
    for race in reversed(FIELDS):
        stored(folder, netcdf({race: FIELDS[race]}), str(-race))
    xr.testing.assert_identical(ensemble, read_ensemble(folder, entry_list(), None).ensemble)


def test_cars_keep_their_scenarios_and_padding_is_zero(tmp_path: Path) -> None:
    """43 cars after 36; slots follow the grid, and each driver has the finishes of the file."""
    ensemble, _ = read_ensemble(stored(tmp_path, netcdf()), entry_list(), 12)
    assert dict(ensemble.sizes) == {"race": 3, "scenario": N_SCENARIOS, "driver": 43}
    assert ensemble["field_size"].values.tolist() == list(FIELDS.values())
    assert ensemble["fold"].values.tolist() == ["2021-1"] * 3
    for r, (race, n) in enumerate(FIELDS.items()):
        finish, running = draw(n, race)
        scenarios = ensemble.isel(race=r)
        assert scenarios["start_position"].values[:n].tolist() == list(range(1, n + 1))
        car = [int(driver[1:]) for driver in scenarios["driver_id"].values[:n]]
        np.testing.assert_array_equal(scenarios["finish_position"].values[:, :n], finish[:, car])
        np.testing.assert_array_equal(scenarios["running"].values[:, :n], running[:, car])
        for name in ("finish_position", "running", "utility", "incident_logit"):
            assert not scenarios[name].values[..., n:].any()
        assert np.corrcoef(scenarios["utility"].values[:n], np.linspace(1.5, -1.5, n)[car])[0, 1] > 0.97
        assert scenarios["incident_logit"].values[:n].mean() == pytest.approx(-2.2, abs=0.3)
    assert not ensemble["network_as_of"].any()


def test_without_running_no_incidents_are_inferred(tmp_path: Path) -> None:
    ensemble, _ = read_ensemble(stored(tmp_path, netcdf().drop_vars("running")), entry_list(), None)
    assert "running" not in ensemble
    assert (ensemble["incident_logit"].values[0, :36] == NO_INCIDENT_LOGIT).all()
    assert not ensemble["chaos_scale"].any()


def test_races_without_a_partner_are_left_out_and_named(tmp_path: Path) -> None:
    path = stored(tmp_path, parquet({202101: 36, 202109: 36, 202204: 36}))
    ensemble, left_out = read_ensemble(path, entry_list({202101: 36, 202102: 36}), None)
    assert ensemble["race"].values.tolist() == [202101]
    assert left_out == [
        "race_id 202102 (2021 round 2): no scenarios",
        "season 2021, round 9: scenarios, but no such race in the source",
    ]
    by_id = stored(tmp_path, netcdf({202101: 36, 202109: 36}))
    _, left_out = read_ensemble(by_id, entry_list({202101: 36}), None)
    assert left_out == ["1 races of the ensemble are of other seasons, or not in the source"]


def test_of_no_race_an_ensemble_is_empty(tmp_path: Path) -> None:
    ensemble, _ = read_ensemble(stored(tmp_path, netcdf()), entry_list({201901: 36}), None)
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert ensemble.sizes["race"] == 0
    assert read_ensemble(stored(tmp_path, netcdf()), entry_list().clear(), None).ensemble.sizes["race"] == 0


def test_one_axis_of_drivers_serves_all_races(tmp_path: Path) -> None:
    """Slots may mean the same driver in all races; who is not entered finishes nowhere."""
    wide = netcdf().drop_vars("driver_id").assign_coords(driver=[f"Driver {i}" for i in range(43)])
    ensemble, _ = read_ensemble(stored(tmp_path, wide), entry_list(), None)
    xr.testing.assert_identical(
        ensemble, read_ensemble(stored(tmp_path, netcdf(), "other"), entry_list(), None).ensemble
    )


def test_an_ensemble_may_be_anywhere(tmp_path: Path) -> None:
    expected, _ = read_ensemble(stored(tmp_path, parquet()), entry_list(), None)
    for path in (stored(tmp_path, parquet()), stored(tmp_path, netcdf())):
        there = UPath(f"memory://ensembles/{path.name}")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
        xr.testing.assert_identical(read_ensemble(str(there), entry_list(), None).ensemble, expected)


def test_the_documented_example_is_an_ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (ROOT / "docs" / "ensembles.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    entries = entry_list({202401: 3}).with_columns(driver=pl.Series(["Cid", "Ann", "Bob"]))
    ensemble, _ = read_ensemble("scenarios.nc", entries, None)
    assert ensemble["finish_position"].shape == (1, 1000, 3)
    assert "running" not in ensemble


def test_a_stored_ensemble_reads_as_a_users_ensemble(tmp_path: Path) -> None:
    """A stored scenario_ensemble, written by xarray, reads as a user's ensemble."""
    ensemble, _ = read_ensemble(stored(tmp_path, netcdf()), entry_list(), None)
    xr.testing.assert_identical(
        read_ensemble(stored(tmp_path, ensemble, "again"), entry_list(), None).ensemble, ensemble
    )


def break_finish(dataset: xr.Dataset) -> xr.Dataset:
    dataset["finish_position"][1, 17, 5] = dataset["finish_position"].values[1, 17, 6]
    return dataset


def rename_driver(dataset: xr.Dataset) -> xr.Dataset:
    dataset["driver_id"][0, 3] = "nobody"
    return dataset


def nameless(dataset: xr.Dataset) -> xr.Dataset:
    dataset["driver_id"][0, 3] = ""
    return dataset


def retire_all(dataset: xr.Dataset) -> xr.Dataset:
    dataset["running"][2, 99] = False
    return dataset


BROKEN_NETCDF = {
    "finish": (
        break_finish,
        r"race_id 202102 \(2021 round 2\): finish_position must be a permutation of 1\.\.43 in every scenario"
        r"; it is not in 1, the first is scenario 17, without \[\d+\], with more than one \[\d+\]",
    ),
    "driver": (
        rename_driver,
        r"race_id 202101 .*by driver_id, must be the 36 entered, each once; it is without 'd03'; with "
        "unknown 'nobody'",
    ),
    "padding": (nameless, "padding must hold 0; slot 3 of driver has finishes but no car"),
    "retired": (retire_all, "202103 .*some car must be running at the finish; in scenario 99 none is"),
    "few": (lambda d: d.isel(scenario=slice(99)), "there must be at least 100 scenarios; got 99"),
    "float": (
        lambda d: d.assign(finish_position=d["finish_position"].astype(float)),
        "finish_position must hold integers, 0 for padding and no fill value; got float64",
    ),
    "cars": (lambda d: d.drop_vars("driver_id"), "must name its cars by one of driver_id, name, driver"),
    "races": (
        lambda d: d.drop_vars("race"),
        r"must name its races by race \(race_id\), or by season and round",
    ),
    "dims": (
        lambda d: d.rename(driver="car"),
        r"must hold finish_position \(race, scenario, driver\); it holds finish_position \('race', ",
    ),
    "laps": (
        lambda d: d.assign(laps_led=d["finish_position"] - 2),
        "202101 .*laps_led must be from 0 to 32767; got -1 to 34",
    ),
    "twice": (
        lambda d: d.assign_coords(race=[202101, 202101, 202103]),
        "race_id 202101 occurs twice",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN_NETCDF.values(), ids=BROKEN_NETCDF)
def test_broken_netcdf_is_refused(tmp_path: Path, spoil, message: str) -> None:
    path = stored(tmp_path, spoil(netcdf()))
    with pytest.raises(ValueError, match=message) as caught:
        read_ensemble(path, entry_list(), None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


FIRST = (pl.col("round") == 1) & (pl.col("driver") == "Driver 0")
BROKEN_PARQUET = {
    "lost": (
        lambda f: f.filter(~(FIRST & (pl.col("scenario") == 503))),
        "every scenario must have each of the 36 cars once; scenario 503 has 35 rows and 35 cars",
    ),
    "twice": (
        lambda f: pl.concat([f, f.filter(FIRST & (pl.col("scenario") == 503))]),
        "scenario 503 has 37 rows and 36 cars",
    ),
    "null": (
        lambda f: f.with_columns(pl.when(~FIRST).then("running").alias("running")),
        "race_id 202101 .*running must be known; there are nulls",
    ),
    "columns": (
        lambda f: f.drop("round", "finish_position"),
        r"must have the columns season and round \(or race_id\), scenario and finish_position; "
        "finish_position, round are missing from season, scenario",
    ),
    "scenarios": (
        lambda f: f.filter((pl.col("round") != 2) | (pl.col("scenario") < 610)),
        "every race must have equally many scenarios; it has 110, and those before it 120",
    ),
    "text": (
        lambda f: f.with_columns(pl.col("finish_position").cast(pl.String)),
        "finish_position must hold integers.*got String",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN_PARQUET.values(), ids=BROKEN_PARQUET)
def test_broken_parquet_is_refused(tmp_path: Path, spoil, message: str) -> None:
    path = stored(tmp_path, spoil(parquet()))
    with pytest.raises(ValueError, match=message) as caught:
        read_ensemble(path, entry_list(), None)
    assert str(path) in str(caught.value)


def test_ten_million_scenarios_are_refused(tmp_path: Path) -> None:
    """Rows are counted, not read."""
    path = tmp_path / "huge.parquet"
    row = {
        "season": pl.lit(2021),
        "round": pl.lit(1),
        "driver_id": pl.lit("d00"),
        "finish_position": pl.lit(1),
    }
    pl.select(scenario=pl.int_range(10_000_000), **row).write_parquet(path)
    with pytest.raises(ValueError, match=r"race_id 202101.*at most 5,000,000; got 10,000,000"):
        read_ensemble(path, entry_list(), None)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lost\.nc, which does not exist"):
        read_ensemble(tmp_path / "lost.nc", entry_list(), None)
    with pytest.raises(ValueError, match=r"which holds \[\]"):
        read_ensemble(tmp_path, entry_list(), None)
    (tmp_path / "text.nc").write_text("no NetCDF")
    with pytest.raises(ValueError, match=r"text\.nc cannot be read as NetCDF 4"):
        read_ensemble(tmp_path / "text.nc", entry_list(), None)
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ValueError, match=r"text\.parquet cannot be read as Parquet"):
        read_ensemble(tmp_path / "text.parquet", entry_list(), None)
    with pytest.raises(ValueError, match=r"which holds \['\.nc', '\.parquet'\]"):
        read_ensemble(tmp_path, entry_list(), None)
    folder = tmp_path / "uneven"
    folder.mkdir()
    stored(folder, netcdf({202101: 36}), "a")
    stored(folder, netcdf({202102: 43}).drop_vars("running"), "b")
    expected = "must all hold the same variables; they hold driver_id and finish_position; "
    with pytest.raises(ValueError, match=expected):
        read_ensemble(folder, entry_list(), None)


@given(st.lists(st.sampled_from("abcdef"), max_size=8), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_only_exactly_the_entered_cars_pass(found: list[str], cars: set[str]) -> None:
    entered = sorted(cars)
    if sorted(found) == entered:
        assert match_cars(found, entered, "name", "Ensemble x") == {car: car for car in entered}
    else:
        with pytest.raises(ValueError, match=r"Ensemble x: the cars, by name, must be the"):
            match_cars(found, entered, "name", "Ensemble x")


SPELLINGS = {
    "Daniel Suárez": "DANIEL SUAREZ",
    "A.J. Allmendinger": "* AJ Allmendinger (i)",
    "Martin Truex Jr.": "Truex, Martin",
    "Chris Buescher": "Christopher Buescher #",
}


def respelled(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return the frame with the first drivers called by other names."""
    old = [f"Driver {i}" for i in range(len(names))]
    return frame.with_columns(pl.col("driver").replace(old, names))


def test_names_match_however_they_are_spelled(tmp_path: Path) -> None:
    """The stored ensemble is the same for every spelling, and has the names of the source."""
    entries = respelled(entry_list(), list(SPELLINGS))
    expected, _ = read_ensemble(stored(tmp_path, respelled(parquet(), list(SPELLINGS))), entries, None)
    other, _ = read_ensemble(stored(tmp_path, respelled(parquet(), list(SPELLINGS.values()))), entries, None)
    xr.testing.assert_identical(other, expected)
    assert set(SPELLINGS) <= set(expected["name"].values.ravel().tolist())
    names = [*SPELLINGS.values(), *(f"Driver {i}" for i in range(len(SPELLINGS), 43))]
    shared = netcdf().drop_vars("driver_id").assign_coords(driver=names)
    other, _ = read_ensemble(stored(tmp_path, shared), entries, None)
    xr.testing.assert_identical(other, expected)


def test_an_unknown_name_comes_with_the_nearest(tmp_path: Path) -> None:
    path = stored(tmp_path, respelled(parquet(), ["Kyle Bush"]))
    entries = respelled(entry_list(), ["Kyle Busch"])
    with pytest.raises(EnsembleError, match=r"with unknown 'Kyle Bush' \(nearest: 'Kyle Busch'\)"):
        read_ensemble(path, entries, None)


def test_car_numbers_match_exactly() -> None:
    with pytest.raises(EnsembleError, match=r"without '01'; with unknown '1'"):
        match_cars(["1", "2"], ["01", "2"], "car_number", "Ensemble x")
