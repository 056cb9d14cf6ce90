"""Walk-forward recalibration of position probabilities: planted slopes, time order, unchanged forecasts."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import calibration_pipeline.walk_forward.positions as walk
from calibration_pipeline import models
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.recalibration import next_race_state
from calibration_pipeline.calibration.summaries import convergence_by_fold, slope_by_season, state_by_race
from calibration_pipeline.mcmc.convergence import LATEST
from calibration_pipeline.schemas.forecasters import MapState, PositionProbabilities
from calibration_pipeline.walk_forward.positions import (
    filter_positions,
    fit_positions,
    recalibrate_positions,
)
from calibration_pipeline.walk_forward.state import DRAWN
from helpers.planted_positions import planted_positions

pytestmark = pytest.mark.slow

SEASONS = [2020, 2021]
QUICK = {"n_warmup": 200, "n_samples": 500, "n_chains": 2, "seed": 1}


def fit_all(forecasts: xr.Dataset, results: pl.DataFrame) -> tuple[xr.DataTree, xr.DataTree]:
    posterior = fit_positions(forecasts, results, SEASONS, **QUICK)
    return posterior, filter_positions(forecasts, results, posterior, seed=3)


@pytest.fixture(scope="module")
def planted() -> tuple[xr.Dataset, pl.DataFrame, np.ndarray]:
    """Two seasons of 24 races, two folds each; slope .6 in every archetype."""
    return planted_positions(0.6)


@pytest.fixture(scope="module")
def fitted(planted) -> tuple[xr.DataTree, xr.DataTree, xr.Dataset]:
    posterior, state = fit_all(*planted[:2])
    return posterior, state, recalibrate_positions(planted[0], state["races"].to_dataset())


def test_the_planted_slope_is_found_and_the_truth_recovered(planted, fitted):
    """On races that no fit had seen, recalibrated tables are nearer to the truth."""
    MapState.validate(fitted[1], lazy=True)
    states = state_by_race(fitted[1])
    last = states.filter(pl.col("race_order") > 202120)
    assert last["slope"].mean() == pytest.approx(0.6, abs=0.12)
    assert last["slope_upper"].mean() < 1
    late = planted[0]["race"].values > 202012
    raw, new = (np.abs(f["probability"].values - planted[2])[late].mean() for f in (planted[0], fitted[2]))
    assert new < 0.5 * raw


def test_recalibrated_tables_are_coherent(planted, fitted):
    forecasts, recalibrated = planted[0], PositionProbabilities.validate(fitted[2], lazy=True)
    late = forecasts["race"].values > 202012
    assert_allclose(recalibrated["probability"].values[late].sum(axis=1), 1.0, atol=1e-8)
    assert_array_equal(recalibrated["probability"].values[~late], forecasts["probability"].values[~late])
    xr.testing.assert_identical(recalibrated.drop_vars("probability"), forecasts.drop_vars("probability"))


def test_fits_have_the_summaries_of_the_other_maps(fitted, tmp_path):
    """Convergence by fold, slopes by season; they open by themselves from NetCDF."""
    fitted[0].to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    again = xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    assert [name for name in again.children if name != "slow"] == [str(a) for a in ARCHETYPES]
    slow = again["slow"].to_dataset()
    assert slow["fold"].values.tolist() == ["2020-2", "2021-1", "2021-2", LATEST]
    assert slow["as_of"].values.tolist() == [202012, 202024, 202112, 202124]
    assert slow["n_races"].values.tolist() == [[3] * 4, [6] * 4, [9] * 4, [12] * 4]
    convergence = convergence_by_fold(again["intermediate"])
    latest = convergence.filter(fold=LATEST)
    assert set(latest["divergences"]) == {int(again["intermediate"]["sample_stats/diverging"].sum())}
    assert convergence["r_hat"].max() < 1.05
    slopes = slope_by_season(again["intermediate"], "intermediate")
    assert slopes["season"].to_list() == SEASONS
    assert slopes["upper"].max() < 1.1


def test_the_public_functions_do_the_work(planted, monkeypatch):
    """Each fit is a call of `run_mcmc_calibration`, each forecast one of `predict_with_calibrated_model`."""
    calls = {"run_mcmc_calibration": 0, "predict_with_calibrated_model": 0}

    def counted(name):
        function = getattr(models, name)

        def call(*arguments, **options):
            calls[name] += 1
            return function(*arguments, **options)

        return call

    for name in calls:
        monkeypatch.setattr(walk, name, counted(name))
    forecasts, results, _ = planted
    few = results.filter(pl.col("race_id") <= 202015)
    posterior, state = fit_all(forecasts, few)
    assert calls["run_mcmc_calibration"] == 8
    recalibrate_positions(forecasts, state["races"].to_dataset())
    assert calls["predict_with_calibrated_model"] == state["races"].sizes["race"] == 3
    assert posterior["slow"]["fold"].values.tolist() == ["2020-2", LATEST]


def test_later_results_change_no_earlier_forecast(planted, fitted):
    """Other results from a race on leave states and forecasts up to that race bit for bit as they were."""
    forecasts, results, _ = planted
    later = pl.col("race_id") >= 202116
    other = planted_positions(1.4, seed=9)[1]
    _, state = fit_all(forecasts, pl.concat([results.filter(~later), other.filter(later)]))
    again = recalibrate_positions(forecasts, state["races"].to_dataset())
    early = forecasts["race"].values <= 202116
    assert_array_equal(again["probability"].values[early], fitted[2]["probability"].values[early])
    assert not np.array_equal(again["probability"].values[~early], fitted[2]["probability"].values[~early])
    states, before = state["races"].to_dataset(), fitted[1]["races"].to_dataset()
    known = states["race_order"].values <= 202116
    for name in DRAWN:
        assert_array_equal(states[name].values[known], before[name].values[known])


@pytest.mark.parametrize("n_known", [40, 36, 24])
def test_the_next_race_has_the_forecast_that_the_backtest_had(planted, fitted, n_known):
    """With the races before it alone, within a fold, at a fold's start and at a season's start."""
    forecasts, results, _ = planted
    own = forecasts.isel(race=[n_known])
    race, fold = int(own["race"].values[0]), str(own["fold"].values[0])
    _, state = fit_all(forecasts, results.filter(pl.col("race_id") < race))
    following = next_race_state(state, str(own["archetype"].values[0]), fold, race // 100)
    forecast = recalibrate_positions(own, following.expand_dims(race=[race]))
    xr.testing.assert_identical(forecast, fitted[2].isel(race=[n_known]))


@pytest.mark.soak
def test_archetypes_without_races_and_unplayed_races_stay_as_issued(planted):
    """Of an archetype with no race before the fold, and of races without results."""
    forecasts, results, _ = planted
    late = pl.col("race_id") > 202012
    few = results.filter((pl.col("archetype") != "road_course") | late, pl.col("race_id") <= 202024)
    posterior, state = fit_all(forecasts, few)
    new = recalibrate_positions(forecasts, state["races"].to_dataset())
    changed = (new["probability"] != forecasts["probability"]).any(("driver", "position")).values
    expected = set(few.filter(late, pl.col("archetype") != "road_course")["race_id"])
    assert set(forecasts["race"].values[changed].tolist()) == expected
    assert posterior["slow"]["n_races"].values[0].tolist() == [3, 3, 3, 0]
    assert np.isfinite(posterior["slow"]["intercept"].values).all()
    assert next_race_state(state, "road_course", "2021-1", 2021) is not None


def test_a_forecaster_without_results_keeps_its_forecast(planted):
    forecasts, results, _ = planted
    posterior, state = fit_all(forecasts, results.head(0))
    new = recalibrate_positions(forecasts, state["races"].to_dataset())
    xr.testing.assert_identical(new, forecasts)
    assert list(posterior.children) == ["slow"]
    assert state["races"].sizes["race"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples": 200}, "n_samples must be at least 500 for a stored fit, got 200"),
        ({"seasons": [2021]}, "seasons must hold the season of every race .* got none of 2020"),
        ({"results": 767}, "every car of the forecast; 1 are missing, the first is driver_id 'd15'"),
    ],
)
def test_refusals(planted, change, message):
    forecasts, results, _ = planted
    arguments = {"seasons": SEASONS, **QUICK, **change}
    n_rows = arguments.pop("results", results.height)
    with pytest.raises(ValueError, match=message):
        fit_positions(forecasts, results.head(n_rows), **arguments)
