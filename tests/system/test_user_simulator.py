"""Forecasters of a user in the asset graph: checks, forecasts, and the example from end to end."""

import runpy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from assets.cli import main
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.checks import properties
from calibration_pipeline.scenarios.summaries import finish_chances
from helpers.paths import ROOT

EXAMPLE = ROOT / "examples" / "forecasters.py"


def ensemble() -> xr.Dataset:
    """Two scenarios of a race of two cars, with nothing but the finish."""
    finish = np.array([[[1, 2], [2, 1]]], np.int16)
    car = ("race", "driver")
    return xr.Dataset(
        {"finish_position": (("race", "scenario", "driver"), finish)},
        {
            "race": [202102],
            "race_order": ("race", [202102]),
            "network_as_of": ("race", [0]),
            "field_size": ("race", [2]),
            "name": (car, [["Ann", "Bob"]]),
            "start_position": (car, [[1, 2]]),
        },
    )


def test_information_of_a_users_simulator_is_not_checked() -> None:
    finding = properties.networks_know_only_the_past(ensemble())
    assert finding.passed
    assert finding.sentence == "1 races are of another forecaster: the races it was fitted to are unknown."
    assert finding.metadata["n_not_of_network"] == 1


def test_laps_that_are_missing_need_not_add_up() -> None:
    assert properties.scenario_laps_add_up(ensemble()).passed
    led = ensemble().assign(
        laps_led=ensemble()["finish_position"], race_laps=(("race", "scenario"), np.array([[3, 4]]))
    )
    assert not properties.scenario_laps_add_up(led).passed
    assert properties.scenario_laps_add_up(led.drop_vars("race_laps")).passed


def test_chances_without_running_have_no_dnf() -> None:
    chances = finish_chances(ensemble())
    assert chances["dnf"].to_list() == [None, None]
    assert chances.schema["dnf"] == pl.Float64
    assert chances["win"].to_list() == [0.5, 0.5]


def win_shares(race: xr.Dataset) -> dict[str, float]:
    shares = (race["finish_position"] == 1).mean("scenario").values.tolist()
    drivers = race["driver_id"].values.tolist()
    return {driver: share for driver, share in zip(drivers, shares, strict=True) if driver}


@pytest.mark.soak
def test_the_example_ends_in_a_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scenarios are stored as they are, ranked again where there is a fit, and forecast the next race."""
    seasons = ["--first", "2024", "--last", "2025", "--scenarios", "200"]
    runpy.run_path(str(EXAMPLE))["main"]([str(project / "mine"), *seasons])
    path = project / "mine" / "right.nc"
    assert main(["run", "--seasons", "2024,2025", "--forecasters", str(path)]) == 0
    assert "calibration_report.html" in capsys.readouterr().out.replace("\n", "")
    store = project / "data" / "store" / "simulated" / "cup"
    own = xr.open_dataset(path, engine="h5netcdf").load()
    for season in (2024, 2025):
        stored = xr.open_dataset(
            store / "scenario_ensemble" / "right" / f"{season}.nc", engine="h5netcdf"
        ).load()
        assert stored.sizes["scenario"] == 200
        assert not stored["network_as_of"].any()
        for race in stored["race"].values:
            assert win_shares(stored.sel(race=race)) == win_shares(own.sel(race=race))
    for archetype in ARCHETYPES:
        path_of_new = store / "recalibrated_forecast" / archetype / "right.nc"
        new = xr.open_dataset(path_of_new, engine="h5netcdf").load()
        assert "laps_led" not in new
        backtest = xr.open_dataset(store / "backtest" / archetype / "right.nc", engine="h5netcdf").load()
        fitted = backtest["n_calibration_races"].values > 0
        same = (backtest["raw"] == backtest["recalibrated"]).all(("driver", "position")).values
        assert (same == ~fitted).all()
        assert fitted.any()
    forecast = xr.open_dataset(store / "race_forecast" / "right.nc", engine="h5netcdf").load()
    assert forecast["race"].values.tolist() == [202601]
    assert forecast.sizes["scenario"] == 200
    report = (store / "calibration_report.md").read_text().replace("\\", "")
    assert path.name in report
    assert str(path) not in report
    assert "| Forecaster | right |" in report


def forget_a_car(path: Path, season: str, number: str) -> None:
    """Remove the rows of one car of a race from a CSV file of forecasts."""
    lines = path.read_text().splitlines()
    of_race = [line for line in lines if line.split(",")[:2] == [season, number]]
    driver = of_race[0].split(",")[2]
    kept = [line for line in lines if line not in of_race or line.split(",")[2] != driver]
    path.write_text("\n".join(kept) + "\n")


@pytest.mark.soak
def test_forecasters_of_probabilities_have_a_report_of_their_own(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same rules for odds and for positions; a margin changes the odds alone."""
    folder = project / "mine"
    seasons = ["--first", "2024", "--last", "2025", "--scenarios", "200"]
    runpy.run_path(str(EXAMPLE))["main"]([str(folder), *seasons])
    for name in ("right.nc", "overconfident.csv"):
        (folder / name).unlink()
    forget_a_car(folder / "bookmaker.csv", "2024", "3")
    run = ["run", "--seasons", "2024,2025", "--scenarios", "100", "--forecasters", str(folder)]
    store = project / "data" / "store" / "simulated" / "cup"

    assert main([*run, "--forecaster", "bookmaker"]) == 0
    assert "Top10" in capsys.readouterr().out
    report = (store / "calibration_report.md").read_text().replace("\\", "")
    assert report.startswith("# Can the event probabilities of bookmaker be trusted?")
    assert "| Archetype | Summary | Win | Top 5 | Top 10 |" in report
    assert "Defects of bookmaker" in report
    verdicts = pl.read_parquet(store / "event_verdict" / "bookmaker.parquet")
    assert 0 < verdicts["n_races"].to_numpy().max() < 36  # an archetype's races of 2025 alone
    assert set(verdicts.filter(line=1)["archetype"]) == set(map(str, ARCHETYPES))

    files = {"odds": "event_probabilities/bookmaker.parquet", "positions": "position_probabilities/flat.nc"}
    before = {name: (store / file).stat().st_mtime_ns for name, file in files.items()}
    assert main([*run, "--forecaster", "flat", "--update"]) == 0
    out = capsys.readouterr().out
    assert "event_posterior" not in out
    assert "position_posterior" not in out
    report = (store / "calibration_report.md").read_text().replace("\\", "")
    assert report.startswith("# Can the position probabilities of flat be trusted?")
    assert "| Archetype | Summary | Win | Top 5 | Top 10 | Finish distribution |" in report
    assert before == {name: (store / file).stat().st_mtime_ns for name, file in files.items()}

    select = ["--select", "event_probabilities,position_probabilities", "--update"]
    assert main([*run, "--forecaster", "flat", "--margin", "shin", *select]) == 0
    after = {name: (store / file).stat().st_mtime_ns for name, file in files.items()}
    assert after["odds"] > before["odds"]
    assert after["positions"] == before["positions"]
