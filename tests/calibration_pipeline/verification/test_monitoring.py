"""Tests of sequential monitoring: ranks of results, alarms, and what is found on simulated and real races."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from scipy.stats import kstest

from calibration_pipeline.events.counts import Race, read_races
from calibration_pipeline.events.language import Outcomes
from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.schemas.frames import LapAggregates
from calibration_pipeline.schemas.monitoring import CalibrationMonitoring
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.stats.e_processes import log_e_process, log_mean
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints
from calibration_pipeline.verification.monitoring import (
    LOG10_ALARM,
    list_alarms,
    monitor_forecasts,
    pool_archetypes,
    race_ranks,
    race_statistics,
    rank_histograms,
)
from helpers.paths import REAL_DATA

REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
N_CARS, RACES_A_SEASON = 20, 12
UTILITY = np.linspace(1.2, -1.2, N_CARS)


def draw_finishes(rng, n, sharpness=1.0, chaos=0.8):
    """Return finishes and running status, (n, car): shared chaos makes the cars of a race dependent."""
    shock = chaos * rng.normal(size=(n, 1))
    retired = rng.random((n, N_CARS)) < 1 / (1 + np.exp(1.8 - shock + 0.6 * np.sign(UTILITY)))
    pace = sharpness * UTILITY - rng.gumbel(size=(n, N_CARS)) - 100 * retired
    return 1 + np.argsort(np.argsort(-pace, axis=1), axis=1), ~retired


def make_races(rng, n_races=24, n_scenarios=300, **forecast):
    """Return an ensemble whose law differs from the results' by `forecast`, and the results."""
    drawn = [draw_finishes(rng, n_scenarios, **forecast) for _ in range(n_races)]
    outcome, car = ("race", "scenario", "driver"), ("race", "driver")
    season = 2021 + np.arange(n_races) // RACES_A_SEASON
    order = 100 * season + 1 + np.arange(n_races) % RACES_A_SEASON
    drivers = [f"d{i}" for i in range(N_CARS)]
    ensemble = xr.Dataset(
        {
            "finish_position": (outcome, np.array([finish for finish, _ in drawn], np.int16)),
            "running": (outcome, np.array([running for _, running in drawn])),
        },
        coords={
            "race": 1000 + np.arange(n_races),
            "season": ("race", season.astype(np.int32)),
            "race_order": ("race", order.astype(np.int32)),
            "archetype": ("race", ["intermediate"] * n_races),
            "field_size": ("race", np.full(n_races, N_CARS, np.int16)),
            "driver_id": (car, np.tile(drivers, (n_races, 1))),
        },
    )
    finish, running = draw_finishes(rng, n_races)
    results = pl.DataFrame(
        {
            "race_id": np.repeat(ensemble["race"].values, N_CARS),
            "driver_id": drivers * n_races,
            "finish_position": finish.ravel(),
            "running": running.ravel(),
        }
    )
    return ensemble, results


def monitor(ensemble, results, recalibrated=None, seed=1):
    both = {"raw": ensemble, "recalibrated": ensemble if recalibrated is None else recalibrated}
    return CalibrationMonitoring.validate(monitor_forecasts(both, results, seed))


@pytest.fixture(scope="module")
def calibrated():
    return make_races(np.random.default_rng(11))


@pytest.fixture(scope="module")
def monitoring(calibrated):
    return monitor(*calibrated)


# --- statistics and ranks ---


def test_statistics_of_a_small_race_are_those_computed_by_hand():
    """Two cars, three scenarios and a result that is an upset: shares count the result."""
    scenarios = Outcomes(
        finish_position=np.array([[1, 2], [1, 2], [2, 1]]),
        favourite_rank=np.array([1, 2]),
        running=np.array([[True, False], [True, True], [True, False]]),
    )
    result = Outcomes(np.array([2, 1]), np.array([1, 2]), running=np.array([False, True]))
    statistics = race_statistics(Race(scenarios, result))
    assert list(statistics) == list(RACE_MARKETS)
    even = np.log(2.5 / 2.5)
    np.testing.assert_allclose(statistics["win"], [even] * 4, atol=1e-9)
    np.testing.assert_allclose(statistics["top 5"], [2 * np.log(4.5 / 0.5)] * 4)
    np.testing.assert_allclose(statistics["head to head"], [even] * 4, atol=1e-9)
    np.testing.assert_allclose(statistics["finish distribution"], [-0.5] * 4)
    assert statistics["how many retire"].tolist() == [1, 1, 0, 1]
    once, twice = np.log(1.5 / 3.5), np.log(2.5 / 2.5)
    np.testing.assert_allclose(statistics["who retires"], [once, twice, twice], atol=1e-9)


def test_an_upset_has_a_small_rank_and_an_expected_result_a_large_one(calibrated):
    (race, *_), _ = read_races(*calibrated, [])
    expected = Outcomes(np.arange(1, N_CARS + 1), race.result.favourite_rank, race.result.running)
    upset = Outcomes(np.arange(N_CARS, 0, -1), race.result.favourite_rank, race.result.running)
    markets = ("top 5", "top 10", "head to head", "finish distribution")
    low = race_ranks(Race(race.scenarios, upset), np.random.default_rng(0))
    high = race_ranks(Race(race.scenarios, expected), np.random.default_rng(0))
    assert max(low[market] for market in markets) < 0.02
    assert min(high[market] for market in markets) > 0.98


@pytest.mark.parametrize("n_scenarios", [3, 60])
@pytest.mark.slow
def test_ranks_are_uniform_if_the_result_is_one_more_scenario(n_scenarios):
    """Dependent cars, ties and even three scenarios leave every market's ranks uniform."""
    rng = np.random.default_rng(12)
    found = []
    for _ in range(1_500):
        finish, running = draw_finishes(rng, 1 + n_scenarios, chaos=1.5)
        rank = np.arange(N_CARS)
        race = Race(Outcomes(finish[1:], rank, running[1:]), Outcomes(finish[0], rank, running[0]))
        found.append(list(race_ranks(race, rng).values()))
    p_values = [kstest(ranks, "uniform").pvalue for ranks in np.array(found).T]
    assert len(p_values) == len(RACE_MARKETS)
    assert min(p_values) > 0.05 / len(RACE_MARKETS) / 10


def test_who_retires_does_not_depend_on_how_many_retire():
    """A forecast of far too few incidents that knows who retires: only the number is wrong."""
    rng = np.random.default_rng(13)
    ensemble, results = make_races(rng, n_races=60, n_scenarios=800)
    retired = ~ensemble["running"].values
    kept = retired & (rng.random(retired.shape) < 0.6)
    fewer = ensemble.assign(running=(ensemble["running"].dims, ~kept))
    table = monitor(fewer, results).filter(forecast="raw").group_by("market").agg(pl.max("log10_e_start"))
    largest = dict(table.iter_rows())
    assert largest["how many retire"] > LOG10_ALARM
    assert largest["who retires"] < LOG10_ALARM


# --- the table ---


def test_e_values_are_those_of_the_ranks_and_their_mean(monitoring):
    raw = monitoring.filter(forecast="raw")
    ranks = np.array([raw.filter(market=market)["rank"].to_list() for market in RACE_MARKETS])
    season = raw.filter(market="win")["season"].to_numpy()
    for column, restart in (("log10_e_season", season), ("log10_e_start", np.zeros(season.size))):
        log_e = log_e_process(ranks, restart)
        stored = [raw.filter(market=market)[column].to_list() for market in (*RACE_MARKETS, ALL_MARKETS)]
        np.testing.assert_allclose(stored, np.vstack([log_e, log_mean(log_e)]) / np.log(10), atol=1e-12)
    assert raw.filter(market=ALL_MARKETS)["rank"].null_count() == season.size


def test_equal_forecasts_have_equal_ranks(monitoring):
    raw, recalibrated = (
        monitoring.filter(forecast=name).drop("forecast") for name in ("raw", "recalibrated")
    )
    assert raw.equals(recalibrated)


def test_later_races_change_no_earlier_row(calibrated, monitoring):
    ensemble, results = calibrated
    earlier = monitor(ensemble.isel(race=slice(0, 15)), results)
    kept = monitoring.filter(pl.col("race_id").is_in(earlier["race_id"].unique().to_list()))
    assert earlier.equals(kept)


def test_order_of_results_does_not_matter_and_the_seed_does(calibrated, monitoring):
    ensemble, results = calibrated
    assert monitor(ensemble, results.sample(fraction=1, shuffle=True, seed=1)).equals(monitoring)
    other = monitor(ensemble, results, seed=2)
    assert not other["rank"].equals(monitoring["rank"])


def test_scenarios_without_retirements_have_no_market_of_retirements(calibrated):
    ensemble, results = calibrated
    table = monitor(ensemble.drop_vars("running"), results)
    assert set(table["market"]) == {*RACE_MARKETS[:5], ALL_MARKETS}


def test_repeated_scenarios_are_no_further_ones(calibrated):
    """A forecaster's race with fewer scenarios than others has them repeated."""
    ensemble, results = calibrated
    few = ensemble.isel(scenario=slice(0, 5))
    repeated = few.isel(scenario=np.arange(50) % 5).assign_coords(
        scenario=np.arange(50), n_scenarios=("race", np.full(few.sizes["race"], 5, np.int32))
    )
    assert monitor(repeated, results).equals(monitor(few, results))


def test_no_races_give_an_empty_table(calibrated):
    ensemble, results = calibrated
    none = monitor(ensemble.isel(race=slice(0, 0)), results)
    assert none.is_empty()
    assert list_alarms(none).is_empty()
    assert pool_archetypes(none).is_empty()
    assert rank_histograms(none).is_empty()


def test_other_forecasts_are_refused(calibrated):
    ensemble, results = calibrated
    with pytest.raises(ValueError, match="must hold raw and recalibrated, got raw"):
        monitor_forecasts({"raw": ensemble}, results, 1)


# --- alarms ---


def test_a_forecast_that_is_too_sure_raises_an_alarm_and_its_repair_does_not():
    rng = np.random.default_rng(14)
    sure, results = make_races(rng, n_races=36, sharpness=1.8)
    right, _ = make_races(rng, n_races=36)
    table = monitor(sure, results, recalibrated=right)
    alarms = list_alarms(table)
    assert set(alarms["forecast"]) == {"raw"}
    of_markets = set(alarms.filter(span="start")["market"])
    assert {"head to head", "finish distribution", ALL_MARKETS} <= of_markets
    head_to_head = table.filter(market="head to head")
    assert head_to_head.filter(forecast="raw")["rank"].mean() < 0.35
    assert abs(head_to_head.filter(forecast="recalibrated")["rank"].mean() - 0.5) < 0.15


def test_alarms_name_the_first_race_of_each_season_and_of_all(monitoring):
    """E-values are planted: 30 at the second race of 2021, and at the third race of 2022 since the start."""
    order = monitoring["race_order"]
    chosen = monitoring["market"].eq("win") & monitoring["forecast"].eq("raw")
    planted = monitoring.with_columns(
        log10_e_season=pl.when(chosen & order.is_in([202102, 202104])).then(1.5).otherwise(0.0),
        log10_e_start=pl.when(chosen & order.eq(202203)).then(2.5).otherwise(0.0),
    )
    assert list_alarms(planted).sort("span").to_dicts() == [
        {"archetype": "intermediate", "forecast": "raw", "market": "win", "span": "season",
         "season": 2021, "race_id": 1001, "race": 2, "log10_e": 1.5},
        {"archetype": "intermediate", "forecast": "raw", "market": "win", "span": "start",
         "season": 2022, "race_id": 1014, "race": 3, "log10_e": 2.5},
    ]  # fmt: skip


def test_archetypes_are_pooled_in_the_order_of_races(monitoring):
    """Two archetypes of four: e-values of 8 and 0.5 stand beside two archetypes at 1."""
    races = monitoring.filter(market=ALL_MARKETS, forecast="raw").head(2)
    other = races.with_columns(archetype=pl.lit("road_course"), race_order=pl.col("race_order") + 50)
    table = pl.concat(
        [
            races.with_columns(log10_e_season=np.log10(8.0), log10_e_start=np.log10(8.0)),
            other.with_columns(log10_e_season=np.log10(0.5), log10_e_start=np.log10(0.5)),
        ]
    )
    pooled = pool_archetypes(table)
    assert pooled["race_order"].to_list() == [202101, 202102, 202151, 202152]
    expected = [(8 + 3) / 4, (8 + 3) / 4, (8 + 0.5 + 2) / 4, (8 + 0.5 + 2) / 4]
    np.testing.assert_allclose(10 ** pooled["log10_e_season"].to_numpy(), expected)
    next_season = other.with_columns(
        season=pl.lit(2022, pl.Int64),
        race_order=pl.lit(202201, pl.Int64),
        log10_e_season=0.0,
        log10_e_start=0.0,
    )
    restarted = pool_archetypes(pl.concat([table, next_season.head(1)])).row(-1, named=True)
    np.testing.assert_allclose(restarted["log10_e_season"], 0.0, atol=1e-12)
    np.testing.assert_allclose(10 ** restarted["log10_e_start"], (8 + 1 + 2) / 4)


def test_pooled_e_values_of_hopeless_forecasts_stay_finite(monitoring):
    huge = monitoring.with_columns(log10_e_season=2000.0, log10_e_start=2000.0)
    pooled = pool_archetypes(huge)
    np.testing.assert_allclose(pooled["log10_e_start"], 2000 - np.log10(4))


def test_rank_histograms_count_every_race_once(monitoring):
    histograms = rank_histograms(monitoring)
    assert set(histograms["market"]) == set(RACE_MARKETS)
    total = histograms.group_by("forecast", "market").agg(pl.sum("share"), pl.len())
    np.testing.assert_allclose(total["share"], 1.0)
    assert total["len"].unique().to_list() == [8]
    inside = histograms.select(pl.col("share").is_between("lower", "upper").mean()).item()
    assert inside > 0.9


# --- real races ---


@pytest.mark.real
@pytest.mark.skipif(not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}")
def test_raw_forecasts_of_intermediates_raise_an_alarm_in_2022():
    """The network, fitted to 2013 to 2021, meets a new car: the evidence is clear within half a season."""
    source = TablesSource(str(REAL_RESULTS), None, compile_constraints())
    results = pl.concat([source.load_season(year).race_results for year in range(2013, 2023)])
    features = build_driver_features(entry_list(results), results, LapAggregates.empty())
    network = fit_networks(fold_history(features, results, 2022, None), None, 42)
    drawn = simulate_races(features.filter(season=2022), network, None, 2_000, 42)
    table = monitor(*(join_seasons([drawn], "intermediate"), results))
    alarms = list_alarms(table).filter(forecast="raw", span="season")
    first = dict(alarms.select("market", "race").iter_rows())
    assert first[ALL_MARKETS] <= 8
    assert first["head to head"] <= 8
    assert first["finish distribution"] <= 8
