"""Scenarios of a user's forecaster: accepted files, the stored form, notes, and broken files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, files_of
from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT
from calibration_pipeline.schemas.datasets import ScenarioEnsemble
from calibration_pipeline.sources.quarantine import DefectLog
from helpers.example_ensembles import FIELDS, N_SCENARIOS, draw, entry_list, netcdf, parquet


def read(
    path: Path | str,
    entries: pl.DataFrame,
    fold_races: int | None = None,
    other_seasons: tuple[int, ...] = (),
) -> tuple[xr.Dataset, list[str]]:
    return read_season_scenarios(
        forecaster(path), entries, None, fold_races=fold_races, seed=1, other_seasons=other_seasons
    )[:2]


def forecaster(path: Path | str) -> ForecasterFiles:
    """Return the file, or the files of a folder, as one forecaster."""
    return ForecasterFiles("mine", tuple(files_of(UPath(path))))


def stored(tmp_path: Path, value: xr.Dataset | pl.DataFrame, name: str = "scenarios") -> Path:
    if isinstance(value, pl.DataFrame):
        value.write_parquet(path := tmp_path / f"{name}.parquet")
    else:
        value.to_netcdf(path := tmp_path / f"{name}.nc", engine="h5netcdf")
    return path


def test_both_forms_give_the_same_ensemble(tmp_path: Path) -> None:
    """By driver id or by name, by race_id or by season and round, from a file or a folder of files."""
    ensemble, left_out = read(stored(tmp_path, netcdf()), entry_list())
    assert left_out == []
    ScenarioEnsemble.validate(ensemble, lazy=True)
    other, _ = read(stored(tmp_path, parquet()), entry_list())
    xr.testing.assert_identical(ensemble, other)
    folder = tmp_path / "folder"
    folder.mkdir()
    for race in reversed(FIELDS):
        stored(folder, netcdf({race: FIELDS[race]}), str(-race))
    xr.testing.assert_identical(ensemble, read(folder, entry_list())[0])


def test_cars_keep_their_scenarios_and_padding_is_zero(tmp_path: Path) -> None:
    """43 cars after 36; slots follow the grid, and each driver has the finishes of the file."""
    ensemble, _ = read(stored(tmp_path, netcdf()), entry_list(), 12)
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
    ensemble, _ = read(stored(tmp_path, netcdf().drop_vars("running")), entry_list())
    assert "running" not in ensemble
    assert (ensemble["incident_logit"].values[0, :36] == NO_INCIDENT_LOGIT).all()
    assert not ensemble["chaos_scale"].any()


def test_races_without_a_partner_are_left_out_and_named(tmp_path: Path) -> None:
    path = stored(tmp_path, parquet({202101: 36, 202109: 36, 202204: 36}))
    ensemble, left_out = read(path, entry_list({202101: 36, 202102: 36}))
    assert ensemble["race"].values.tolist() == [202101]
    assert left_out == [
        "2 races of the file are not in force: 2021 race 9, 2022 race 4.",
        "2021 race 2 (kansas): no scenarios",
    ]
    by_id = stored(tmp_path, netcdf({202101: 36, 202109: 36}))
    _, left_out = read(by_id, entry_list({202101: 36}))
    assert left_out == ["1 race of the file is not in force: 202109."]


def test_a_season_in_force_may_have_no_scenarios(tmp_path: Path) -> None:
    path = stored(tmp_path, parquet())
    ensemble, left_out = read(path, entry_list({202001: 36}), other_seasons=(2021, 2022))
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert ensemble.sizes["race"] == 0
    assert left_out == ["2020 race 1 (kansas): no scenarios"], "those of 2021 are in force"
    assert read(path, entry_list().clear())[0].sizes["race"] == 0


def test_scenarios_of_no_season_in_force_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, parquet())
    message = r"no race of it is in force; it holds the season 2021, and in force are the 1 races of .* 2019"
    for others in ((), (2018, 2020)):
        with pytest.raises(ForecasterError, match=message):
            read(path, entry_list({201901: 36}), other_seasons=others)


def test_files_of_a_folder_may_each_hold_one_season(tmp_path: Path) -> None:
    for race in (202101, 202201):
        parquet({race: 36}).write_csv(tmp_path / f"{race}.csv")
    for race, others in ((202101, (2022,)), (202201, ())):
        ensemble, _ = read(tmp_path, entry_list({race: 36}), other_seasons=others)
        assert ensemble["race"].values.tolist() == [race]


def test_one_axis_of_drivers_serves_all_races(tmp_path: Path) -> None:
    """Slots may mean the same driver in all races; who is not entered finishes nowhere."""
    wide = netcdf().drop_vars("driver_id").assign_coords(driver=[f"Driver {i}" for i in range(43)])
    ensemble, _ = read(stored(tmp_path, wide), entry_list())
    xr.testing.assert_identical(ensemble, read(stored(tmp_path, netcdf(), "other"), entry_list())[0])


def test_an_ensemble_may_be_anywhere(tmp_path: Path) -> None:
    expected, _ = read(stored(tmp_path, parquet()), entry_list())
    for path in (stored(tmp_path, parquet()), stored(tmp_path, netcdf())):
        there = UPath(f"memory://ensembles/{path.name}")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
        xr.testing.assert_identical(read(str(there), entry_list())[0], expected)


def test_a_stored_ensemble_reads_as_a_users_ensemble(tmp_path: Path) -> None:
    """A stored scenario_ensemble, written by xarray, reads as a user's ensemble."""
    ensemble, _ = read(stored(tmp_path, netcdf()), entry_list())
    xr.testing.assert_identical(read(stored(tmp_path, ensemble, "again"), entry_list())[0], ensemble)


def rename_driver(dataset: xr.Dataset) -> xr.Dataset:
    dataset["driver_id"][0, 3] = "nobody"
    return dataset


def nameless(dataset: xr.Dataset) -> xr.Dataset:
    dataset["driver_id"][0, 3] = ""
    return dataset


def retire_all(dataset: xr.Dataset) -> xr.Dataset:
    dataset["running"][2, 99] = False
    return dataset


FIRST = (pl.col("round") == 1) & (pl.col("driver") == "Driver 0")
ONE_RACE_BAD: dict[str, tuple[Callable, int, str]] = {
    "driver": (
        lambda: rename_driver(netcdf()),
        1,
        "the forecast must have all 36 cars entered, 1 are missing, got Driver 3",
    ),
    "nameless": (lambda: nameless(netcdf()), 1, "1 are missing, got Driver 3"),
    "retired": (
        lambda: retire_all(netcdf()),
        3,
        "some car must be running at the finish, got none in 1 scenarios",
    ),
    "lost": (
        lambda: parquet().filter(~(FIRST & (pl.col("scenario") == 503))),
        1,
        "every car must have a number in every scenario, got none in 1 scenarios, first Driver 0 in number",
    ),
    "twice": (
        lambda: pl.concat([parquet(), parquet().filter(FIRST & (pl.col("scenario") == 503))]),
        1,
        "a driver occurs twice, got Driver 0",
    ),
    "null": (
        lambda: parquet().with_columns(pl.when(~FIRST).then("running").alias("running")),
        1,
        "running must hold whole numbers from 0 to 32767",
    ),
    "text": (
        lambda: parquet().with_columns(
            pl.when(FIRST).then(pl.lit("first")).otherwise("finish_position").alias("finish_position")
        ),
        1,
        "every car must have a number in every scenario",
    ),
    "few": (
        lambda: parquet().filter((pl.col("round") != 2) | (pl.col("scenario") < 599)),
        2,
        "there must be at least 100 scenarios, got 99",
    ),
}


@pytest.mark.parametrize(("make", "bad", "rule"), ONE_RACE_BAD.values(), ids=ONE_RACE_BAD)
def test_one_bad_race_is_left_out_and_named(tmp_path: Path, make, bad: int, rule: str) -> None:
    ensemble, left_out = read(stored(tmp_path, make()), entry_list())
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert ensemble["race"].values.tolist() == [race for race in FIELDS if race != 202100 + bad]
    (line,) = [line for line in left_out if "race left out" in line]
    assert line.startswith(f"2021 race {bad} (kansas): ")
    assert rule in line


def test_a_tie_is_ranked_and_counted(tmp_path: Path) -> None:
    dataset = netcdf()
    dataset["finish_position"][1, 17, 5] = dataset["finish_position"].values[1, 17, 6]
    ensemble, left_out = read(stored(tmp_path, dataset), entry_list())
    ScenarioEnsemble.validate(ensemble, lazy=True)
    rule = "equal values in a scenario are ranked at random, got 1 of 120 scenarios (value corrected)"
    assert left_out == [f"2021 race 2 (kansas), scenarios: {rule}"]


def test_numbers_of_scenarios_may_differ(tmp_path: Path) -> None:
    few = parquet().filter((pl.col("round") != 2) | (pl.col("scenario") < 610))
    ensemble, left_out = read(stored(tmp_path, few), entry_list())
    assert ensemble["n_scenarios"].values.tolist() == [120, 110, 120]
    assert left_out == ["Races have 110 to 120 scenarios; fewer are repeated."]


BROKEN: dict[str, tuple[Callable, str]] = {
    "few": (
        lambda: netcdf().isel(scenario=slice(99)),
        r"no race of it can be used: .*there must be at least 100 scenarios, got 99",
    ),
    "cars": (lambda: netcdf().drop_vars("driver_id"), "must name its cars by driver_id, name, driver"),
    "races": (lambda: netcdf().drop_vars("race"), "must name its races by season and round, or by race_id"),
    "dims": (
        lambda: netcdf().rename(driver="car"),
        r"must hold finish_position or score \(race, scenario, driver\); it holds finish_position \('race', ",
    ),
    "laps": (
        lambda: netcdf().assign(laps_led=netcdf()["finish_position"] - 2),
        "laps_led must hold whole numbers from 0 to 32767, got -1.0 to 34.0",
    ),
    "twice": (
        lambda: netcdf({202101: 36}).isel(race=[0, 0]),
        "no race of it can be used: 2021 race 1 .*: a driver occurs twice",
    ),
    "columns": (
        lambda: parquet().drop("round"),
        "must name its races by season and round, or by race_id; it has season, scenario, driver, finish",
    ),
    "values": (
        lambda: parquet().drop("finish_position"),
        "must have a column finish_position or score beside scenario and driver; it has season, round",
    ),
}


@pytest.mark.parametrize(("make", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused(tmp_path: Path, make, message: str) -> None:
    path = stored(tmp_path, make())
    with pytest.raises(ForecasterError, match=message) as caught:
        read(path, entry_list())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_form_is_refused(tmp_path: Path) -> None:
    events = entry_list().select("season", "round", "driver", win=0.02)
    with pytest.raises(ForecasterError, match="its files must hold scenarios; got event probabilities"):
        read(stored(tmp_path, events), entry_list())


def scores(sign: int) -> pl.DataFrame:
    frame = parquet().with_columns(score=sign * pl.col("finish_position") * 1.5)
    return frame.drop("finish_position", "running")


def test_the_direction_of_scores_is_guessed_from_earlier_results_alone(tmp_path: Path) -> None:
    """Results of the same race and of later ones do not count."""
    path = stored(tmp_path, scores(-1))
    results = entry_list({202001: 43}).with_columns(
        finish_position=pl.col("driver_id").str.slice(1).cast(pl.Int64) + 1
    )
    for later in (results.with_columns(season=2022), results.filter(pl.col("season") < 2020)):
        with pytest.raises(ForecasterError, match="because no race has earlier finishes of its drivers"):
            read_season_scenarios(forecaster(path), entry_list(), later, fold_races=None, seed=1)
    ensemble, notes, _ = read_season_scenarios(
        forecaster(path), entry_list(), results, fold_races=None, seed=1
    )
    assert [note.partition(": guessed")[0] for note in notes] == [
        "Of the values in scenarios the higher ones are better"
    ]
    finish = parquet().drop("running")
    expected, _ = read(stored(tmp_path, finish, "positions"), entry_list())
    xr.testing.assert_identical(ensemble, expected)


def test_scores_without_direction_have_no_scenarios_in_the_first_of_several_seasons(tmp_path: Path) -> None:
    path = stored(tmp_path, scores(-1))
    ensemble, notes = read(path, entry_list(), other_seasons=(2022,))
    ScenarioEnsemble.validate(ensemble, lazy=True)
    assert ensemble.sizes["race"] == 0
    assert notes[0].startswith(
        "Scenarios of 3 races are left out: it is not known whether higher or lower scores are better"
    )


def test_too_many_scenarios_are_refused(tmp_path: Path) -> None:
    """Scenarios times cars count, however few rows the file has."""
    path = tmp_path / "huge.parquet"
    row = {"season": pl.lit(2021), "round": pl.lit(1), "finish_position": pl.lit(1)}
    scenario = pl.int_range(2_400)
    pl.select(scenario=scenario, driver_id="d" + scenario.cast(pl.String), **row).write_parquet(path)
    with pytest.raises(ForecasterError, match=r"2021 race 1 .*at most 5,000,000, got 5760000"):
        read(path, entry_list())


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("no NetCDF")
    with pytest.raises(ValueError, match=r"text\.nc cannot be read as NetCDF 4"):
        read(tmp_path / "text.nc", entry_list())
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ForecasterError, match=r"text\.parquet"):
        read(tmp_path / "text.parquet", entry_list())


def test_files_of_a_folder_may_hold_other_variables(tmp_path: Path) -> None:
    """The outcomes that all races have are kept, and the others are named."""
    stored(tmp_path, netcdf({202101: 36}), "a")
    stored(tmp_path, parquet({202102: 43}).drop("running"), "b")
    ensemble, left_out = read(tmp_path, entry_list())
    assert ensemble["race"].values.tolist() == [202101, 202102]
    assert "running" not in ensemble
    assert "running: not in all races, or a car was removed; not read." in left_out


@given(st.lists(st.sampled_from("abcdef"), max_size=8), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_every_car_entered_must_have_one_label(found: list[str], cars: set[str]) -> None:
    entries = entry_list({202101: 1}).join(pl.DataFrame({"id": sorted(cars)}), how="cross")
    races = RacesInForce(entries.with_columns(driver_id="id", driver="id"))
    defects = DefectLog("x")
    race = races.races.row(0, named=True)
    refused = races.refuse_incomplete(races.match(found, 202101, "driver_id"), race, defects)
    assert refused == (not cars <= set(found) or len(set(found)) < len(found))


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
    expected, _ = read(stored(tmp_path, respelled(parquet(), list(SPELLINGS))), entries)
    other, _ = read(stored(tmp_path, respelled(parquet(), list(SPELLINGS.values()))), entries)
    xr.testing.assert_identical(other, expected)
    assert set(SPELLINGS) <= set(expected["name"].values.ravel().tolist())
    names = [*SPELLINGS.values(), *(f"Driver {i}" for i in range(len(SPELLINGS), 43))]
    shared = netcdf().drop_vars("driver_id").assign_coords(driver=names)
    other, _ = read(stored(tmp_path, shared), entries)
    xr.testing.assert_identical(other, expected)


def test_an_unknown_name_comes_with_the_nearest(tmp_path: Path) -> None:
    path = stored(tmp_path, respelled(parquet(), ["Kyle Bush"]))
    entries = respelled(entry_list(), ["Kyle Busch"])
    with pytest.raises(ForecasterError, match=r"unknown: 'Kyle Bush' \(nearest: 'Kyle Busch'\)"):
        read(path, entries)
