"""Walk-forward recalibration of event probabilities: planted slopes, time order, and what stays as issued."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from polars.testing import assert_frame_equal

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.summaries import convergence_by_fold, slope_by_season, state_by_race
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.mcmc.convergence import LATEST
from calibration_pipeline.schemas.forecasters import EventProbabilities, MapState, MarketPosterior
from calibration_pipeline.walk_forward.events import (
    filter_events,
    fit_events,
    next_race_states,
    race_states,
    recalibrate_events,
)
from calibration_pipeline.walk_forward.state import DRAWN, N_DRAWS
from helpers.planted_events import planted_frames

pytestmark = pytest.mark.slow

QUICK = {"n_warmup": 200, "n_samples": 500, "n_chains": 2, "seed": 1}
FOLD_RACES, SEASONS = 18, [2020, 2021]


def fit_all(
    forecasts: pl.DataFrame, results: pl.DataFrame, fold_races: int | None = FOLD_RACES
) -> tuple[xr.DataTree, xr.DataTree]:
    posterior = fit_events(forecasts, results, SEASONS, fold_races=fold_races, **QUICK)
    return posterior, filter_events(forecasts, results, posterior, seed=3)


@pytest.fixture(scope="module")
def planted() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Two seasons of 36 races, two folds each; slope .7 in every archetype."""
    return planted_frames(0.7)


@pytest.fixture(scope="module")
def fitted(planted) -> tuple[xr.DataTree, xr.DataTree, pl.DataFrame]:
    posterior, state = fit_all(*planted[:2])
    return posterior, state, recalibrate_events(planted[0], race_states(state))


def test_the_planted_slope_is_found(fitted):
    states = state_by_race(fitted[1]["top 10"])
    last = states.filter(pl.col("race_order") > 202132)
    assert last.height == 4
    assert last["slope_lower"].max() < 0.7 < last["slope_upper"].min()
    assert last["slope"].mean() == pytest.approx(0.7, abs=0.12)
    assert last["slope_upper"].mean() < 1.1
    assert last["shift_lower"].max() < 0 < last["shift_upper"].min()


def test_the_truth_is_recovered_better_than_it_was_issued(planted, fitted):
    """On races that no fit had seen."""
    forecasts, _, truth = planted
    keys = ["race_id", "driver_id", "market"]
    joined = truth.join(forecasts, on=keys).join(fitted[2].rename({"probability": "recalibrated"}), on=keys)
    late = joined.filter(pl.col("race_id") > 202118, market="top 10")
    raw, new = ((late[name] - late["truth"]).abs().mean() for name in ("probability", "recalibrated"))
    assert new < 0.5 * raw


def test_rows_stay_and_probabilities_sum_to_the_winners(planted, fitted):
    forecasts, recalibrated = planted[0], fitted[2]
    EventProbabilities.validate(recalibrated, lazy=True)
    keys = ["race_id", "driver_id", "market"]
    assert_frame_equal(recalibrated.select(keys), forecasts.select(keys))
    sums = recalibrated.group_by("market", "race_id").agg(pl.sum("probability"))
    expected = sums["market"].replace_strict(EVENT_MARKETS, return_dtype=pl.Float64)
    assert_allclose(sums["probability"], expected, atol=1e-7)
    early = pl.col("race_id") <= 202018
    assert_frame_equal(recalibrated.filter(early), forecasts.filter(early))
    changed = (recalibrated["probability"] != forecasts["probability"]).to_numpy()
    assert changed[(forecasts["race_id"] > 202018).to_numpy()].all()


def test_slow_parameters_are_those_of_races_before_the_fold(fitted):
    slow = fitted[0]["win"]["slow"].to_dataset()
    assert slow["fold"].values.tolist() == ["2020-2", "2021-1", "2021-2", LATEST]
    assert slow["as_of"].values.tolist() == [202018, 202036, 202118, 202136]
    assert slow["n_races"].sum("archetype").values.tolist() == [18, 36, 54, 72]
    assert slow.sizes["draw"] == N_DRAWS


def test_states_know_the_race_before_and_their_archetypes_races(fitted):
    states = race_states(fitted[1])["win"]
    order = states["race_order"].values
    assert order.tolist() == [*range(202019, 202037), *range(202101, 202137)]
    assert_array_equal(states["calibration_as_of"].values, np.where(order == 202101, 202036, order - 1))
    assert states["n_calibration_races"].values[:4].tolist() == [4, 4, 5, 5]
    assert states["archetype"].values[:3].tolist() == ["short_track", "road_course", "superspeedway"]


def test_fits_have_the_summaries_of_the_other_maps(fitted, tmp_path):
    """Convergence by fold, slopes by season; they open by themselves from NetCDF."""
    fitted[0].to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    again = xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    assert list(again.children) == ["win", "top 10"]
    for market in again.children:
        MarketPosterior.validate(again[market], lazy=True)
        MapState.validate(fitted[1][market], lazy=True)
        convergence = convergence_by_fold(again[market])
        latest = convergence.filter(fold=LATEST)
        assert set(latest["divergences"]) == {int(again[market]["sample_stats/diverging"].sum())}
        assert convergence["r_hat"].max() < 1.05
        slopes = slope_by_season(again[market], "intermediate")
        assert slopes["season"].to_list() == [2020, 2021, 2022]
        assert market == "win" or slopes["lower"].max() < 0.7 < slopes["upper"].min()


def test_later_results_change_no_earlier_forecast(planted, fitted):
    """Other results from a race on leave states and forecasts up to that race bit for bit as they were."""
    forecasts, results, _ = planted
    other = planted_frames(1.4, seed=9)[1]
    later = pl.col("race_id") >= 202125
    changed = pl.concat([results.filter(~later), other.filter(later)])
    posterior, state = fit_all(forecasts, changed)
    again = recalibrate_events(forecasts, race_states(state))
    early = pl.col("race_id") <= 202125
    assert_frame_equal(again.filter(early), fitted[2].filter(early), check_exact=True)
    assert not again.equals(fitted[2])
    for market, states in race_states(fitted[1]).items():
        known = states["race_order"].values <= 202125
        for name in DRAWN:
            assert_array_equal(race_states(state)[market][name].values[known], states[name].values[known])
    assert not np.array_equal(
        posterior["win"]["posterior"]["intercept"], fitted[0]["win"]["posterior"]["intercept"]
    )


@pytest.mark.parametrize("n_known", [60, 54, 36])
def test_the_next_race_has_the_forecast_that_the_backtest_had(planted, fitted, n_known):
    """With the races before it alone, within a fold, at a fold's start and at a season's start."""
    forecasts, results, _ = planted
    race = int(np.unique(results["race_id"])[n_known])
    known = results.filter(pl.col("race_id") < race)
    _, state = fit_all(forecasts.filter(pl.col("race_id") <= race), known)
    own = results.filter(race_id=race).row(0, named=True)
    fold = f"{own['season']}-{1 + (own['round'] - 1) // FOLD_RACES}"
    states = next_race_states(state, race, own["archetype"], fold, own["season"])
    next_race = forecasts.filter(race_id=race)
    forecast = recalibrate_events(next_race, states)
    assert_frame_equal(forecast, fitted[2].filter(race_id=race), check_exact=True)
    assert not forecast.equals(next_race)


def test_a_jump_of_the_slope_is_followed():
    """From 1 to .5 at a season's start: halfway within a third of the season."""
    slope = np.repeat([1.0, 0.5], 36)
    forecasts, results, _ = planted_frames(slope, ("top 10",), seed=4)
    _, state = fit_all(forecasts, results)
    states = state_by_race(state["top 10"])
    estimate = states.filter(pl.col("season") == 2021)["slope"].to_numpy()
    assert estimate[0] > 0.8
    assert np.argmax(estimate < 0.75) <= 12
    assert estimate[-4:].max() < 0.75


def test_few_earlier_races_and_unplayed_races_leave_a_forecast_as_issued(planted):
    """Of an archetype with two races before the fold, of a market that begins late, and of the next race."""
    forecasts, results, _ = planted
    rare = pl.col("race_id").is_in([202003, 202007])
    short_track = results.filter(archetype="short_track")["race_id"].unique().to_list()
    few = results.filter(~pl.col("race_id").is_in(short_track) | rare | (pl.col("race_id") > 202018))
    few = few.filter(pl.col("race_id") <= 202036)
    late_market = (pl.col("market") == "win") | (pl.col("race_id") > 202018)
    issued = forecasts.filter(late_market)
    _, state = fit_all(issued, few)
    new = recalibrate_events(issued, race_states(state))
    assert_frame_equal(new.drop("probability"), issued.drop("probability"))
    changed = issued.filter((new["probability"] != issued["probability"]).to_numpy())
    assert changed["market"].unique().to_list() == ["win"]
    assert set(changed["race_id"]) == set(few.filter(pl.col("race_id") > 202018)["race_id"]) - set(
        short_track
    )
    assert MapState.validate(state["top 10"], lazy=True)["races"].sizes["race"] == 0
    assert next_race_states(state, 202101, "short_track", "2021-1", 2021).keys() == {"win", "top 10"}


def test_a_market_in_which_all_cars_win_stays_as_issued():
    forecasts, results, _ = planted_frames(0.7, ("win",), n_cars=10, season_races=24, n_seasons=1)
    certain = forecasts.with_columns(market=pl.lit("top 10"), probability=pl.lit(0.9))
    both = pl.concat([forecasts, certain])
    new = recalibrate_events(both, race_states(fit_all(both, results, fold_races=12)[1]))
    assert_frame_equal(new.filter(market="top 10"), certain)
    assert not new.filter(market="win").equals(forecasts)


def test_a_forecaster_without_results_keeps_its_forecast(planted):
    forecasts, results, _ = planted
    future = forecasts.with_columns(pl.col("race_id") + 1000)
    posterior, state = fit_all(future, results, fold_races=None)
    new = recalibrate_events(future, race_states(state))
    assert_frame_equal(new, future)
    assert float(posterior["win"]["posterior"]["intercept"].std()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples": 200}, "n_samples must be at least 500 for a stored fit, got 200"),
        ({"seasons": [2021]}, "seasons must hold the season of every race .* got none of 2020"),
        ({"results": 2591}, r"every car of the forecast; 2 are missing, the first is driver_id 'd35'"),
    ],
)
def test_refusals(planted, change, message):
    forecasts, results, _ = planted
    arguments = {"seasons": SEASONS, **QUICK, **change}
    n_rows = arguments.pop("results", results.height)
    with pytest.raises(ValueError, match=message):
        fit_events(forecasts, results.head(n_rows), fold_races=None, **arguments)


def test_archetypes_are_labelled(fitted):
    assert fitted[0]["win"]["slow"]["archetype"].values.tolist() == [str(a) for a in ARCHETYPES]
